"""CIFAR-10 as its authors distribute it: ``cifar-10-python.tar.gz``, or the folder inside it.

Six files are pickles that Python 2 wrote: five training batches and a test batch, each with uint8
``data`` (n, 3072), channel by channel, and ``labels``. They are read as data; nothing in them is
executed.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from regimes.errors import BadCheckpoint, BadSource
from regimes.images.arrays import ArraySource
from regimes.images.pixels import Images
from regimes.pickles.arrays import PickledArray, read_arrays

Part = Literal["train", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
CLASSES = 10
BATCHES: dict[Part, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
_SIDE = 32
_MAX_BATCH_BYTES = 64 * 2**20  # twice a batch of 10,000 images
_MAX_ARCHIVE_BYTES = 512 * 2**20  # unpacked; the published one has 187 million
_MEMBER = re.compile(r"(?:[^/]+/)?(data_batch_[1-5]|test_batch)")
_TAR_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError)


def is_cifar10(path: Path) -> bool:
    """Whether a path is of the form of CIFAR-10: a .tar.gz, or a folder with its batches."""
    if path.is_dir():
        return any((path / name).is_file() for names in BATCHES.values() for name in names)
    return path.name.lower().endswith((".tar.gz", ".tgz"))


def open_cifar10(path: Path, part: Part = "train") -> ArraySource:
    """One part of CIFAR-10, in the order of its files.

    Args:
        path: the .tar.gz, or the extracted folder.
        part: train (50,000 images in the published archive) or test (10,000).

    Returns:
        A source of (32, 32, 3) images with labels 0 to 9. The ids are ``train/00000`` and so on,
        the position among the images of the part, in the order of the files.

    Raises:
        BadSource: if a batch is missing, damaged, truncated, or holds anything that is not data.

    Cost: the archive is unpacked into memory (187 MB).
    """
    files = _read_folder(path) if path.is_dir() else _read_archive(path)
    missing = [name for name in BATCHES[part] if name not in files]
    if missing:
        raise BadSource(
            f"{path}: expected CIFAR-10's batches, lacks {', '.join(missing)}; download "
            "cifar-10-python.tar.gz again"
        )
    batches = [_read_batch(f"{path}/{name}", files[name]) for name in BATCHES[part]]
    images = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    name = str(path) if part == "train" else f"{path}#{part}"
    return ArraySource(name, images, [f"{part}/{i:05d}" for i in range(len(images))], labels)


def _read_folder(path: Path) -> dict[str, bytes]:
    """Content of each batch by name."""
    names = [name for names in BATCHES.values() for name in names if (path / name).is_file()]
    try:
        for name in names:
            _check_size(f"{path}/{name}", (path / name).stat().st_size)
        return {name: (path / name).read_bytes() for name in names}
    except OSError as error:
        raise BadSource(f"{error.filename}: cannot be read ({error.strerror})") from error


def _read_archive(path: Path) -> dict[str, bytes]:
    """Content of each batch by name, from a .tar.gz."""
    try:
        with gzip.open(path) as file:
            unpacked = file.read(_MAX_ARCHIVE_BYTES + 1)
        if len(unpacked) > _MAX_ARCHIVE_BYTES:
            raise BadSource(
                f"{path}: unpacks to more than {_MAX_ARCHIVE_BYTES} bytes, which CIFAR-10 does not"
            )
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as archive:
            return _read_members(path, archive)
    except _TAR_ERRORS as error:
        raise BadSource(
            f"{path}: not a readable .tar.gz archive ({error}); download it again"
        ) from error


def _read_members(path: Path, archive: tarfile.TarFile) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for member in archive:
        match = _MEMBER.fullmatch(member.name)
        if match is None:
            continue
        name = f"{path}/{match[1]}"
        _check_size(name, member.size)
        content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
        if content is None or match[1] in files:
            raise BadSource(f"{name}: expected one plain file of that name in the archive")
        files[match[1]] = content.read()
    return files


def _check_size(name: str, num_bytes: int) -> None:
    if num_bytes > _MAX_BATCH_BYTES:
        raise BadSource(f"{name}: {num_bytes} bytes; a batch has at most {_MAX_BATCH_BYTES}")


def _read_batch(name: str, content: bytes) -> tuple[Images, np.ndarray]:
    """Images (n, 32, 32, 3) uint8 and labels (n,) of one batch."""
    try:
        batch = read_arrays(content)
    except BadCheckpoint as error:
        raise BadSource(f"{name}: {error}") from error
    if type(batch) is not dict:
        raise BadSource(f"{name}: expected a dict with 'data' and 'labels', found something else")
    data, labels = batch.get("data"), batch.get("labels")
    pixels = data.values if isinstance(data, PickledArray) else None
    if pixels is None or pixels.dtype != np.uint8 or pixels.shape[1:] != (3 * _SIDE**2,):
        found = "no array" if pixels is None else f"{pixels.dtype} {pixels.shape}"
        raise BadSource(f"{name}: expected 'data' uint8 (n, {3 * _SIDE**2}), found {found}")
    images = pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return images, _read_labels(name, labels, len(images))


def _read_labels(name: str, labels: object, num_images: int) -> np.ndarray:
    """Labels (n,) int64: a list of integers, or an array."""
    if isinstance(labels, PickledArray) and labels.values is not None:
        labels = labels.values.tolist()
    known = isinstance(labels, list) and all(
        type(label) is int and 0 <= label < CLASSES for label in labels
    )
    if not known or len(labels) != num_images:  # type: ignore[arg-type]
        raise BadSource(
            f"{name}: expected 'labels', {num_images} integers from 0 to {CLASSES - 1}, found "
            "something else"
        )
    return np.array(labels, np.int64)
