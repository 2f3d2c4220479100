"""Images in arrays: in memory, .npy, .npz, folders of .npz, and scikit-learn's digits."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from regimes.errors import BadSource
from regimes.images.decode import centre_square
from regimes.images.fingerprints import hash_parts
from regimes.images.labels import checked_labels
from regimes.images.pixels import Images

IMAGE_KEYS = ("images", "samples", "arr_0")
"""Keys of an .npz under which images are looked for, in this order."""
_ID_KEYS = ("seeds", "ids")
_READ_ERRORS = (ValueError, EOFError, OSError, MemoryError, zipfile.BadZipFile)


class ArraySource:
    """Images held as one array.

    Args:
        name: what to call it in messages.
        images: (N, H, W) or (N, H, W, C) uint8, C = 1 or 3.
        ids: (N,) distinct ids; row numbers of six digits if not given.
        labels: (N,) classes, integers of at least 0, or None.
    """

    def __init__(
        self,
        name: str,
        images: Images,
        ids: Sequence[str] | None = None,
        labels: Sequence[int] | npt.NDArray | None = None,
    ) -> None:
        self.name, self._images, self._labels = name, checked_images(name, images), labels
        self.ids = list(ids) if ids is not None else row_ids(len(images))
        if len(self.ids) != len(images):
            raise BadSource(
                f"{name}: expected one id per image, got {len(self.ids)} ids for {len(images)} images"
            )

    @cached_property
    def labels(self) -> list[int] | None:
        """See ``ImageSource``."""
        if self._labels is None:
            return None
        return checked_labels(self.name, self._labels, len(self.ids))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of ids, shape and pixels, and of labels, if there are any."""
        head = repr((self.ids, self._images.shape)).encode()
        parts = [head, self._images.tobytes()]
        if self._labels is not None:
            parts.append(repr(np.asarray(self._labels).tolist()).encode())
        return hash_parts(parts)

    def read(self, index: int, *, image_size: int | None = None) -> Images:
        """See ``ImageSource``."""
        if image_size is None:
            return self._images[index]
        pixels = self._images[index]
        plain = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        resized = np.asarray(centre_square(plain, image_size))
        return resized if resized.ndim == 3 else resized[:, :, None]


def row_ids(num_rows: int) -> list[str]:
    """Row numbers as ids, for images without any."""
    return [f"{row:06d}" for row in range(num_rows)]


def checked_images(name: str, images: Images) -> Images:
    """Images (N, H, W, C) uint8 with C = 1 or 3; a missing axis of channels is added.

    Raises:
        BadSource: if dtype or shape differ.
    """
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise BadSource(
            f"{name}: expected uint8 images (N, H, W) or (N, H, W, C), "
            f"got {images.dtype} {images.shape}; convert with (x * 255).round().astype('uint8')"
        )
    images = images[..., None] if images.ndim == 3 else images
    if images.shape[3] not in (1, 3):
        raise BadSource(f"{name}: expected 1 or 3 channels last, got shape {images.shape}")
    return images


def open_npy(path: Path) -> ArraySource:
    """An array of images (N, H, W, C) uint8; the row number is the id."""
    try:
        return ArraySource(str(path), np.load(path, allow_pickle=False))
    except _READ_ERRORS as error:
        raise BadSource(f"{path}: not a readable .npy file ({error})") from error


def open_npz(path: Path) -> ArraySource:
    """Images under one of ``IMAGE_KEYS``; ids are ``seeds`` or ``ids``, labels ``labels``, if there."""
    images, ids, labels = _read_npz(path)
    return ArraySource(str(path), images, ids, labels)


def open_npz_folder(path: Path) -> ArraySource:
    """All .npz files of a folder, one after the other in the order of their names.

    Ids are rows of all files together, as in the published dumps of samples, unless every file has
    its own; labels are there if every file has them.
    """
    files = sorted(path.glob("*.npz"))
    read = [_read_npz(file) for file in files]
    shapes = {images.shape[1:] for images, _, _ in read}
    if len(shapes) > 1:
        raise BadSource(f"{path}: images differ in shape between the .npz files: {sorted(shapes)}")
    own = [image_id for _, ids, _ in read for image_id in ids or ()]
    all_own = all(ids is not None for _, ids, _ in read)
    ids = own if all_own else row_ids(sum(len(images) for images, _, _ in read))
    given_labels = [np.asarray(labels) for _, _, labels in read if labels is not None]
    labels = np.concatenate(given_labels) if len(given_labels) == len(read) else None
    return ArraySource(str(path), np.concatenate([images for images, _, _ in read]), ids, labels)


def _read_npz(path: Path) -> tuple[Images, list[str] | None, npt.NDArray | None]:
    """Images (N, H, W, C), ids and labels of one file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            key = next((k for k in IMAGE_KEYS if k in archive), None)
            if key is None:
                raise BadSource(f"{path}: expected a key 'images', found {sorted(archive)}")
            ids = next((archive[k] for k in _ID_KEYS if k in archive), None)
            labels = archive.get("labels")
            images = checked_images(str(path), archive[key])
            return images, None if ids is None else [*map(str, ids)], labels
    except _READ_ERRORS as error:
        raise BadSource(f"{path}: not a readable .npz file ({error})") from error


def open_digits() -> ArraySource:
    """scikit-learn's test set of the UCI handwritten digits, 17 gray levels spread over 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.floor(digits.images / 16 * 255 + 0.5).astype(np.uint8)
    ids = [f"digit-{i:04d}" for i in range(len(images))]
    return ArraySource("digits", images, ids, digits.target)
