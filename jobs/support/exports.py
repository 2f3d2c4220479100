"""Samples in the formats that other programs read: PNG files, one .npz, one Parquet file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regimes.images.names import sample_name
from regimes.images.writing import Member, encode_png, stream_npz
from regimes.storage.artifacts import Artifact, FileEntry
from regimes.storage.filesystem import Location
from regimes.storage.tables import iter_shards

Format = Literal["png", "npz", "parquet"]
WRITERS = 8  # files in flight: encoding releases the interpreter, object stores answer slowly
_CHUNK_BYTES = 2**22


def export(samples: Artifact, target: Artifact, format: Format, *, subdirs: bool) -> None:
    """Write complete samples into a folder and finish it; memory is that of one shard.

    Args:
        samples: a complete samples artifact.
        target: the folder; its manifest is written last.
        format: ``png`` writes ``000123.png`` per seed, ``npz`` and ``parquet`` one file ``samples``.
        subdirs: put PNG files into folders of a thousand seeds.
    """
    if format == "png":
        entries = list(_pngs(samples, target, subdirs))
    elif format == "npz":
        entries = [_stream(target, "samples.npz", lambda file: _npz(samples, file), samples)]
    else:
        entries = [
            _stream(target, "samples.parquet", lambda file: _parquet(samples, file), samples)
        ]
    target.finish(entries)


def _pngs(samples: Artifact, target: Artifact, subdirs: bool) -> Iterator[FileEntry]:
    def write(seed: int, image: np.ndarray) -> FileEntry:
        return target.write(sample_name(seed, subdirs=subdirs), encode_png(image), num_rows=1)

    with ThreadPoolExecutor(WRITERS) as pool:
        for ids, images in iter_shards(samples, "image"):
            yield from pool.map(write, ids.tolist(), images)


def _stream(
    target: Artifact, name: str, write: Callable[[BinaryIO], None], samples: Artifact
) -> FileEntry:
    """Write one large file, then read it back for the manifest."""
    with target.location.create(name) as file:
        write(file)
    num_bytes, digest = _measure(target.location, name)
    return FileEntry(name, num_bytes, digest, sum(e.num_rows for e in samples.files))


def _measure(location: Location, name: str) -> tuple[int, str]:
    digest, num_bytes = hashlib.sha256(), 0
    with location.filesystem.open_input_stream(f"{location.path}/{name}") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            num_bytes += len(chunk)
    return num_bytes, digest.hexdigest()


def _npz(samples: Artifact, file: BinaryIO) -> None:
    """Arrays seeds and images, and labels and float64 samples (N, C, H, W) if the artifact has them."""
    total = sum(entry.num_rows for entry in samples.files)

    def member(column: str) -> Member:
        _, first = next(iter_shards(samples, column))
        blocks = (values for _, values in iter_shards(samples, column))
        return (total, *first.shape[1:]), first.dtype, blocks

    names = {"image": "images", "label": "labels", "sample": "samples"}
    ids = (ids for ids, _ in iter_shards(samples))
    members: dict[str, Member] = {"seeds": ((total,), np.int64, ids)}
    members |= {names[column]: member(column) for column in _columns(samples)}
    stream_npz(file, members)


def _parquet(samples: Artifact, file: BinaryIO) -> None:
    """The shards as row groups of one file."""
    writer = None
    for entry in samples.files:
        table = pq.read_table(pa.BufferReader(samples.read(entry.name)))
        writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _columns(samples: Artifact) -> list[str]:
    data = samples.read(samples.files[0].name)
    return [c for c in pq.read_schema(pa.BufferReader(data)).names if c != "id"]
