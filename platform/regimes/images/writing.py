"""Writing images: PNG files, EDM's dataset archives, and .npz files larger than memory.

Equal images give equal bytes: times are fixed, and nothing depends on the machine (compressed PNG
bytes depend on the version of zlib alone).
"""

from __future__ import annotations

import io
import json
import math
import os
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from regimes.errors import BadSource, StorageFailure
from regimes.images.pixels import Images

Member = tuple[tuple[int, ...], npt.DTypeLike, Iterable[npt.NDArray[Any]]]
"""Shape and dtype of an array, and its blocks along the first axis."""

_ZIP64_FROM = 2**31 - 2**20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold


def encode_png(image: Images, *, compress_level: int = 6) -> bytes:
    """A PNG file, gray or RGB.

    Args:
        image: (H, W, C) uint8, C = 1 or 3.
        compress_level: zlib's, 0 (stored) to 9.

    Raises:
        BadSource: if the array is no such image.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise BadSource(
            f"image to encode: expected uint8 (H, W, 1) or (H, W, 3), got {image.dtype} "
            f"{image.shape}"
        )
    sink = io.BytesIO()
    plain = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    plain.save(sink, "PNG", compress_level=compress_level)
    return sink.getvalue()


def write_edm_zip(
    path: str | Path, images: Images | Iterable[Images], labels: Sequence[int] | None
) -> None:
    """Write an image dataset as EDM's training reads it; the file appears whole or not at all.

    Entries are ``00000/img00000000.png`` and so on, a thousand per folder, and ``dataset.json`` with
    the class of each.

    Args:
        path: the .zip to write; an existing one is replaced.
        images: (N, H, W, C) uint8, or any iterable of (H, W, C) uint8; one is held at a time.
        labels: (N,) classes, integers of at least 0, or None.

    Raises:
        BadSource: if an image is not square with a power of two as side, has other than 1 or 3
            channels or differs from the first in shape, if labels do not fit, or if there is none.
        StorageFailure: if the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            _write_dataset(archive, str(path), images, labels)
        os.replace(temporary, path)
    except OSError as error:
        raise StorageFailure(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_dataset(
    archive: zipfile.ZipFile, path: str, images: Iterable[Images], labels: Sequence[int] | None
) -> None:
    names: list[str] = []
    first: tuple[int, ...] | None = None
    for index, image in enumerate(images):
        names.append(f"{index // 1000:05d}/img{index:08d}.png")
        _check_for_edm(f"{path}: image {index}", image, first)
        first = image.shape
        archive.writestr(_entry(names[-1]), encode_png(image, compress_level=0))
    if not names:
        raise BadSource(f"{path}: there are no images to write; a dataset needs at least one")
    content = {"labels": _label_pairs(path, names, labels)}
    archive.writestr(_entry("dataset.json"), json.dumps(content))


def _check_for_edm(name: str, image: Images, first: tuple[int, ...] | None) -> None:
    """What EDM's training demands of every image."""
    shape = image.shape
    if image.dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3):
        raise BadSource(f"{name}: expected uint8 (H, W, 1) or (H, W, 3), got {image.dtype} {shape}")
    side = shape[0]
    if shape[1] != side or side < 1 or side & (side - 1):
        raise BadSource(
            f"{name}: EDM expects a square with a power of two as side, got {shape[1]}x{side}; "
            "crop and resize first (--image-size)"
        )
    if first is not None and shape != first:
        raise BadSource(f"{name}: expected {first} as the first image, got {shape}")


def _label_pairs(
    path: str, names: Sequence[str], labels: Sequence[int] | None
) -> list[tuple[str, int]] | None:
    if labels is None:
        return None
    classes = np.asarray(labels)
    if classes.shape != (len(names),) or not np.issubdtype(classes.dtype, np.integer):
        raise BadSource(
            f"{path}: expected one integer label for each of {len(names)} images, got "
            f"{classes.dtype} {classes.shape}"
        )
    if classes.min() < 0:
        raise BadSource(f"{path}: expected labels of at least 0, got {classes.min()}")
    return list(zip(names, classes.tolist(), strict=True))


def stream_npz(file: BinaryIO, members: Mapping[str, Member]) -> None:
    """Write an .npz file block by block; ``numpy.load(allow_pickle=False)`` reads it.

    Args:
        file: where it goes, from the current position on.
        members: shape (N, ...), dtype, and blocks (n, ...) whose n sum to N, by name. One member is
            written after the other, so the blocks of each are asked for once, in that order.

    Raises:
        ValueError: if the blocks do not have the announced dtype and shape, or dtype is object.

    Cost: memory for one block.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, (shape, dtype, blocks) in members.items():
            kind = np.dtype(dtype)
            size = math.prod(shape) * kind.itemsize
            # Only the size announced here makes zipfile leave room for sizes beyond 4 GiB.
            with archive.open(_entry(f"{name}.npy"), "w", force_zip64=size >= _ZIP64_FROM) as entry:
                entry.write(_npy_header(name, shape, kind))
                for block in _checked_blocks(name, shape, kind, blocks):
                    entry.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)


def _npy_header(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    if dtype.hasobject or not shape:
        raise ValueError(
            f"{name}: expected a plain dtype and at least one axis, got {dtype} {shape}"
        )
    sink = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": tuple(map(int, shape))}
    np.lib.format.write_array_header_1_0(sink, header)
    return sink.getvalue()


def _checked_blocks(
    name: str, shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Iterable[npt.NDArray[Any]]
) -> Iterator[npt.NDArray[Any]]:
    rows = 0
    for block in blocks:
        if block.dtype != dtype or block.shape[1:] != shape[1:] or block.ndim != len(shape):
            raise ValueError(
                f"{name}: expected blocks {dtype} (n, {', '.join(map(str, shape[1:]))}), got "
                f"{block.dtype} {block.shape}"
            )
        rows += len(block)
        if block.size:
            yield block
    if rows != shape[0]:
        raise ValueError(f"{name}: expected {shape[0]} rows, the blocks held {rows}")


def _entry(name: str) -> zipfile.ZipInfo:
    """An entry whose bytes depend on its name alone."""
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system, entry.external_attr = 3, 0o644 << 16  # as on Unix, wherever it is written
    return entry
