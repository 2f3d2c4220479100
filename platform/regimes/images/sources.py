"""Image sources: a folder, a zip, arrays, Parquet files, CIFAR-10 or built-in data, all read alike.

A source lists its images by **id** (the path relative to the source, or the row number) in a fixed
order, decodes one image at a time, may know the class of each, and has a fingerprint that changes
when any of its bytes do. ``open_source`` finds out what a path is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from regimes.errors import BadSource, IdMismatch
from regimes.images.arrays import ArraySource, open_digits, open_npy, open_npz, open_npz_folder
from regimes.images.cifar import PARTS, Part, is_cifar10, open_cifar10
from regimes.images.clips import PREFIX, open_clips
from regimes.images.decode import SUFFIXES
from regimes.images.folders import FolderSource, ZipSource
from regimes.images.huggingface import HuggingFaceSource, is_huggingface
from regimes.images.idx import is_idx, open_idx
from regimes.images.parquet import ParquetSource
from regimes.images.pixels import Images, with_channels

__all__ = [
    "ArraySource",
    "FolderSource",
    "ImageSource",
    "ParquetSource",
    "ZipSource",
    "load_images",
    "load_labels",
    "open_source",
]


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
    def labels(self) -> Sequence[int] | None:
        """The class of each image in the order of ``ids``, or None if the source has none.

        Integers of at least 0; raises ``BadSource`` if those of the source are unusable.
        """
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
        spec: "digits" (scikit-learn's 1797 handwritten digits, 8x8 gray, no download), or a path:

            * a folder, or a .zip, of images; EDM's datasets and generate.py's output are such
            * a .npy, or a .npz with key ``images``, ``samples`` or ``arr_0``; a folder of .npz
            * a .parquet file, or a folder of them
            * a Hugging Face dataset on disk, one split
            * CIFAR-10's cifar-10-python.tar.gz, or its extracted folder: the training images;
              the test images with ``#test`` behind the path
            * MNIST's folder of idx files, or one file of images; ``#test`` likewise

            or clips of moving digits that are made here, see ``images.clips``: "clips:circle"

    Raises:
        BadSource: if the path does not exist, is of no known kind, or holds no image.
    """
    if spec == "digits":
        return open_digits()
    if spec.startswith(PREFIX) and not Path(spec).exists():
        return open_clips(spec)
    path, part = _split(spec)
    if not path.exists():
        raise BadSource(f"{spec}: no such file or folder; expected images, or the word 'digits'")
    source: ImageSource
    if is_cifar10(path):
        source = open_cifar10(path, part or "train")
    elif is_idx(path):
        source = open_idx(path, part)
    elif part is not None:
        raise BadSource(
            f"{spec}: expected CIFAR-10 or MNIST before '#{part}'; other sources have no parts"
        )
    else:
        source = _open_folder(path) if path.is_dir() else _open_file(path)
    if len(source.ids) == 0:
        raise BadSource(f"{spec}: holds no images ({', '.join(sorted(SUFFIXES))} are looked for)")
    return source


def _split(spec: str) -> tuple[Path, Part | None]:
    """Path and part; a path that exists has no part, whatever its name."""
    before, _, after = spec.rpartition("#")
    for part in PARTS:
        if before and after == part and not Path(spec).exists():
            return Path(before), part
    return Path(spec), None


def _open_file(path: Path) -> ImageSource:
    kinds: dict[str, Callable[[Path], ImageSource]] = {
        ".zip": ZipSource,
        ".npy": open_npy,
        ".npz": open_npz,
        ".parquet": ParquetSource,
    }
    if path.suffix.lower() not in kinds:
        raise BadSource(
            f"{path}: expected a folder, or a file ending in {', '.join(kinds)}, .tar.gz "
            f"(CIFAR-10), got {path.suffix or 'no suffix'}"
        )
    return kinds[path.suffix.lower()](path)


def _open_folder(path: Path) -> ImageSource:
    """A dataset on disk, a folder of image files, or without any, of Parquet or of .npz files."""
    if is_huggingface(path):
        return HuggingFaceSource(path)
    source = FolderSource(path)
    if len(source.ids) == 0 and any(path.glob("*.parquet")):
        return ParquetSource(path)
    if len(source.ids) == 0 and any(path.glob("*.npz")):
        return open_npz_folder(path)
    return source


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


def load_labels(source: ImageSource, ids: Sequence[str]) -> npt.NDArray[np.int64] | None:
    """Labels of the images that ``load_images`` kept.

    Args:
        source: where the images are.
        ids: (n,) ids of the source, in any order.

    Returns:
        (n,) int64, or None if the source has no labels.

    Raises:
        BadSource: if the source has labels that cannot be used.
        IdMismatch: if the source lacks an id.
    """
    if source.labels is None:
        return None
    label_by_id = dict(zip(source.ids, source.labels, strict=True))
    missing = [image_id for image_id in ids if image_id not in label_by_id]
    if missing:
        raise IdMismatch(
            f"{source.name}: expected ids of the source, {len(missing)} are not, as {missing[0]}"
        )
    return np.array([label_by_id[image_id] for image_id in ids], np.int64)
