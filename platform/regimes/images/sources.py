"""Image sources: a folder, a zip, arrays, Parquet files, or built-in data, all read the same way.

A source lists its images by **id** (the path relative to the source, or the row number) in a fixed
order, decodes one image at a time, and has a fingerprint that changes when any of its bytes do.
``open_source`` finds out what a path is.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pad
from PIL import Image

from regimes.errors import BadImage, BadSource
from regimes.images.decode import SUFFIXES, centre_square, decode
from regimes.images.pixels import Images, with_channels


class ImageSource(Protocol):
    """What every kind of source offers."""

    @property
    def name(self) -> str:
        """What to call the source in messages."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """One distinct id per image, in the order of the source."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the content."""
        ...

    def read(self, index: int, *, image_size: int | None = None) -> Images:
        """Image ``index`` as (H, W, C) uint8; raises ``BadImage`` by name."""
        ...


def open_source(spec: str) -> ImageSource:
    """Open an image source.

    Args:
        spec: "digits" (scikit-learn's 1797 handwritten digits, 8x8 gray, no download), or the path
            of a folder of images, a .zip of images, a .npy or .npz array, or a .parquet file or
            folder.

    Raises:
        BadSource: if the path does not exist, is of no known kind, or holds no image.
    """
    if spec == "digits":
        return _digits()
    path = Path(spec)
    if not path.exists():
        raise BadSource(f"{spec}: no such file or folder; expected images, or the word 'digits'")
    kinds: dict[str, Callable[[Path], ImageSource]] = {
        ".zip": ZipSource,
        ".npy": _open_npy,
        ".npz": _open_npz,
        ".parquet": ParquetSource,
    }
    if path.is_dir():
        source: ImageSource = FolderSource(path)
        if len(source.ids) == 0 and any(path.glob("*.parquet")):
            source = ParquetSource(path)
    elif path.suffix.lower() in kinds:
        source = kinds[path.suffix.lower()](path)
    else:
        raise BadSource(
            f"{spec}: expected a folder, or a file ending in {', '.join(kinds)}, "
            f"got {path.suffix or 'no suffix'}"
        )
    if len(source.ids) == 0:
        raise BadSource(f"{spec}: holds no images ({', '.join(sorted(SUFFIXES))} are looked for)")
    return source


def _is_image_name(name: str) -> bool:
    """An image by its suffix, and not one of the shadows that macOS leaves in archives."""
    path = PurePosixPath(name)
    shadow = path.name.startswith("._") or "__MACOSX" in path.parts
    return path.suffix.lower() in SUFFIXES and not shadow


def _hash(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


class FolderSource:
    """All image files below a folder, sorted by relative path; the path is the id."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        files = (p for p in path.rglob("*") if _is_image_name(p.name) and p.is_file())
        self.ids = sorted(p.relative_to(path).as_posix() for p in files)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all paths and contents."""
        return _hash(part for i in self.ids for part in (i.encode(), self._bytes(i)))

    def _bytes(self, image_id: str) -> bytes:
        try:
            return (self.path / image_id).read_bytes()
        except OSError as error:
            raise BadImage(
                f"{self.path / image_id}: cannot be read ({error.strerror}); fix its permissions, "
                "or move it away"
            ) from error

    def read(self, index: int, *, image_size: int | None = None) -> Images:
        """See ``ImageSource``."""
        image_id = self.ids[index]
        return decode(self._bytes(image_id), str(self.path / image_id), image_size=image_size)


class ZipSource:
    """All image files in a zip archive, sorted by name; the name is the id."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise BadSource(f"{path}: not a readable zip archive; create it again") from error
        self.ids = sorted(n for n in self._zip.namelist() if _is_image_name(n))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the whole file."""
        return _hash([self.path.read_bytes()])

    def read(self, index: int, *, image_size: int | None = None) -> Images:
        """See ``ImageSource``."""
        member = self.ids[index]
        name = f"{self.path}/{member}"
        try:
            data = self._zip.read(member)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise BadImage(f"{name}: damaged inside the archive; create it again") from error
        except RuntimeError as error:  # zipfile's word for an encrypted member
            raise BadImage(f"{name}: {error}; create the archive without a password") from error
        return decode(data, name, image_size=image_size)


class ArraySource:
    """Images held as one array."""

    def __init__(self, name: str, images: Images, ids: Sequence[str] | None = None) -> None:
        self.name, self._images = name, _checked(name, images)
        self.ids = list(ids) if ids is not None else [f"{i:06d}" for i in range(len(images))]
        if len(self.ids) != len(images):
            raise BadSource(
                f"{name}: expected one id per image, got {len(self.ids)} ids for {len(images)} images"
            )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of ids, shape and pixels."""
        head = repr((self.ids, self._images.shape)).encode()
        return _hash([head, self._images.tobytes()])

    def read(self, index: int, *, image_size: int | None = None) -> Images:
        """See ``ImageSource``."""
        if image_size is None:
            return self._images[index]
        pixels = self._images[index]
        plain = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        resized = np.asarray(centre_square(plain, image_size))
        return resized if resized.ndim == 3 else resized[:, :, None]


def _checked(name: str, images: Images) -> Images:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise BadSource(
            f"{name}: expected uint8 images (N, H, W) or (N, H, W, C), "
            f"got {images.dtype} {images.shape}; convert with (x * 255).round().astype('uint8')"
        )
    images = images[..., None] if images.ndim == 3 else images
    if images.shape[3] not in (1, 3):
        raise BadSource(f"{name}: expected 1 or 3 channels last, got shape {images.shape}")
    return images


def _open_npy(path: Path) -> ArraySource:
    try:
        return ArraySource(str(path), np.load(path, allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise BadSource(f"{path}: not a readable .npy file ({error})") from error


def _open_npz(path: Path) -> ArraySource:
    """Key ``images``, ``samples`` or ``arr_0``; ids from ``seeds`` or ``ids``, if present."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            key = next((k for k in ("images", "samples", "arr_0") if k in archive), None)
            if key is None:
                raise BadSource(f"{path}: expected a key 'images', found {sorted(archive)}")
            ids = next((archive[k] for k in ("seeds", "ids") if k in archive), None)
            return ArraySource(str(path), archive[key], None if ids is None else [*map(str, ids)])
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise BadSource(f"{path}: not a readable .npz file ({error})") from error


class ParquetSource:
    """Rows of Parquet files, one image each.

    Column ``image`` holds encoded bytes, a Hugging Face image, or a uint8 tensor; the id comes from
    a column ``id``, ``seed`` or ``path``, else it is the row number.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        self._files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        try:
            self._table = pad.dataset([str(f) for f in self._files], format="parquet").to_table()
        except (pa.ArrowInvalid, OSError) as error:
            raise BadSource(f"{path}: not readable as Parquet ({error})") from error
        if "image" not in self._table.column_names:
            raise BadSource(
                f"{path}: expected a column 'image', found {', '.join(self._table.column_names)}"
            )
        self._table = self._table.combine_chunks()
        named = next((c for c in ("id", "seed", "path") if c in self._table.column_names), None)
        rows = range(len(self._table))
        values = self._table[named].to_pylist() if named else [f"{i:06d}" for i in rows]
        self.ids = [str(v) for v in values]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the files."""
        return _hash(f.read_bytes() for f in self._files)

    def read(self, index: int, *, image_size: int | None = None) -> Images:
        """See ``ImageSource``."""
        name = f"{self.path} row {index}"
        value = self._table["image"].chunk(0)[index]
        if isinstance(value.type, pa.FixedShapeTensorType):
            images = _checked(name, value.to_numpy()[None])
            return ArraySource(name, images).read(0, image_size=image_size)
        plain = value.as_py()
        data = plain.get("bytes") if isinstance(plain, dict) else plain
        if not isinstance(data, bytes):
            raise BadSource(f"{name}: expected encoded bytes or a uint8 tensor, got {value.type}")
        return decode(data, name, image_size=image_size)


def _digits() -> ArraySource:
    """scikit-learn's test set of the UCI handwritten digits, 17 gray levels spread over 0..255."""
    from sklearn.datasets import load_digits

    levels = load_digits().images / 16
    images = np.floor(levels * 255 + 0.5).astype(np.uint8)
    return ArraySource("digits", images, [f"digit-{i:04d}" for i in range(len(images))])


def load_images(
    source: ImageSource,
    *,
    image_size: int | None = None,
    channels: Literal[1, 3] | None = None,
    skip_bad: bool = False,
) -> tuple[list[str], Images, list[str]]:
    """Decode a whole source into memory.

    Args:
        source: where the images are.
        image_size: side of the square to crop and resize to, or None to keep the size.
        channels: 1 turns all images gray, 3 gives gray ones three equal channels; None keeps them.
        skip_bad: leave out images that cannot be decoded instead of stopping at the first.

    Returns:
        ids (N), images (N, H, W, C) uint8, and the messages of those left out.

    Raises:
        BadImage: at the first image that cannot be decoded, unless ``skip_bad``.
        BadSource: if ids repeat, sizes or channels differ, or nothing is left.
    """
    ids: list[str] = []
    images: list[Images] = []
    skipped: list[str] = []
    if len(set(source.ids)) != len(source.ids):
        raise BadSource(f"{source.name}: ids repeat; every image needs its own")
    for index, image_id in enumerate(source.ids):
        try:
            image = with_channels(source.read(index, image_size=image_size), channels)
        except BadSource as error:
            if not skip_bad:
                raise
            skipped.append(str(error))
            continue
        if images and image.shape != images[0].shape:
            remedy = (
                "--image-size to crop and resize"
                if image.shape[:2] != images[0].shape[:2]
                else "--channels 1 or 3 to convert"
            )
            raise BadSource(
                f"{source.name}: images differ in size: {ids[0]} is {_size(images[0])}, "
                f"{image_id} is {_size(image)}; make them equal, or pass {remedy}"
            )
        ids.append(image_id)
        images.append(image)
    if not images:
        first = skipped[0] if skipped else "the source is empty"
        raise BadSource(f"{source.name}: no image could be read; first error: {first}")
    return ids, np.stack(images), skipped


def _size(image: Images) -> str:
    height, width, channels = image.shape
    return f"{width}x{height} {'gray' if channels == 1 else 'RGB'}"
