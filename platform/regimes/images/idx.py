"""MNIST's files as their authors distribute them: idx, plain or gzipped.

A file begins with two zero bytes, the type (8: unsigned bytes) and the number of dimensions; the
dimensions follow as big-endian 32-bit integers, then the values. Labels are in a file of their own.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from regimes.errors import BadSource
from regimes.images.arrays import ArraySource
from regimes.images.cifar import Part

_STEMS: dict[Part, str] = {"train": "train", "test": "t10k"}
_IMAGES, _LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
_UNSIGNED_BYTES = 8
_MAX_BYTES = 2**30  # unpacked; MNIST's largest has 47 million
_ERRORS = (OSError, EOFError, zlib.error, struct.error)


def is_idx(path: Path) -> bool:
    """Whether a path is a file of images in idx format, or a folder with MNIST's."""
    if path.is_dir():
        return any(_find(path, f"{stem}-{_IMAGES}") is not None for stem in _STEMS.values())
    return _IMAGES in path.name.replace(".idx3", "-idx3")


def open_idx(path: Path, part: Part | None = None) -> ArraySource:
    """Gray images with their labels.

    Args:
        path: a file of images, or the folder that holds MNIST's.
        part: of a folder: train (the default) or test.

    Raises:
        BadSource: if a file is missing, damaged, or holds anything but bytes.
    """
    name, file = str(path), path
    if path.is_dir():
        stem = _STEMS[part or "train"]
        found = _find(path, f"{stem}-{_IMAGES}")
        if found is None:
            raise BadSource(f"{path}: expected a file {stem}-{_IMAGES}, plain or .gz, found none")
        file = found
    elif part is not None:
        raise BadSource(f"{path}#{part}: a file has no parts; pass the folder, or the other file")
    images = _read(file, 3)
    labels_file = _labels_of(file)
    labels = None if labels_file is None else _read(labels_file, 1)
    return ArraySource(name, images, labels=labels)


def _find(folder: Path, name: str) -> Path | None:
    names = [name, name.replace("-idx", ".idx")]
    candidates = [folder / f"{n}{suffix}" for n in names for suffix in ("", ".gz")]
    return next((c for c in candidates if c.is_file()), None)


def _labels_of(file: Path) -> Path | None:
    stem = file.name.removesuffix(".gz").replace(".idx", "-idx")
    return _find(file.parent, stem.replace(_IMAGES, _LABELS))


def _read(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Values of a file with so many dimensions."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            zero, kind, found = struct.unpack(">HBB", file.read(4))
            if (zero, kind, found) != (0, _UNSIGNED_BYTES, dimensions):
                raise BadSource(
                    f"{path}: expected idx with {dimensions} dimensions of unsigned bytes, found a "
                    f"header {zero:04x} {kind:02x} {found:02x}"
                )
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            size = math.prod(shape)
            if size > _MAX_BYTES:
                raise BadSource(
                    f"{path}: expected at most {_MAX_BYTES} bytes, its header says {size}"
                )
            data = file.read(size + 1)
    except _ERRORS as error:
        raise BadSource(f"{path}: not a readable idx file ({error})") from error
    if len(data) != size:
        word = "more" if len(data) > size else f"{len(data)}"
        raise BadSource(f"{path}: expected {size} bytes behind the header, found {word}")
    return np.frombuffer(data, np.uint8).reshape(shape).copy()
