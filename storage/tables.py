"""Shards: Parquet files with a fixed tensor type, readable by plain pyarrow.

An image shard has the columns ``id`` (int64 seeds, or strings) and ``image``, a uint8 tensor
(H, W, C). A feature shard has ``id`` and ``feature``, a float32 tensor (D).
The same rows always give the same bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from regimes.errors import BrokenArtifact
from regimes.storage.artifacts import Artifact, FileEntry

Ids = npt.NDArray[np.int64] | npt.NDArray[np.str_]
Values = npt.NDArray[Any]


def shard_name(unit: int) -> str:
    """File name of a work unit: names sort in the order of units."""
    return f"shard-{unit:06d}.parquet"


def encode_rows(ids: Ids, values: Values, column: str) -> bytes:
    """A Parquet file of N rows: ids (N,) and values (N, ...)."""
    # A fresh copy: an axis of length 1 may have any stride, and pyarrow would store a permutation.
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(values, order="C", copy=True))
    table = pa.table({"id": pa.array(ids.tolist()), column: tensor})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def decode_rows(data: bytes, name: str) -> tuple[Ids, Values]:
    """The ids (N,) and values (N, ...) of a Parquet file made by ``encode_rows``."""
    try:
        table = pq.read_table(pa.BufferReader(data)).combine_chunks()
    except (pa.ArrowInvalid, OSError) as error:
        raise BrokenArtifact(f"{name}: not readable as Parquet ({error}); delete it") from error
    ids = np.array(table["id"].to_pylist())
    values = table.column(1).chunk(0).to_numpy_ndarray() if len(table) else np.empty((0, 0))
    return ids, values


def write_shard(artifact: Artifact, unit: int, ids: Ids, values: Values, column: str) -> FileEntry:
    """Write one work unit of an artifact."""
    data = encode_rows(ids, values, column)
    return artifact.write(shard_name(unit), data, num_rows=len(ids))


def left_over(artifact: Artifact, name: str, ids: Ids) -> FileEntry | None:
    """The manifest entry of a shard that an earlier run left, or None if there is none.

    Raises:
        BrokenArtifact: if the file cannot be read, or does not hold exactly these ids.
    """
    where = f"{artifact.location.uri}/{name}"
    try:
        data = artifact.location.read(name)
    except FileNotFoundError:
        return None
    found, _ = decode_rows(data, where)
    if found.tolist() != ids.tolist():
        raise BrokenArtifact(f"{where}: holds other rows than expected; delete it and run again")
    return FileEntry.of(name, data, len(ids))


def read_rows(artifact: Artifact) -> tuple[Ids, Values]:
    """All rows of a complete artifact in the order of its shards, checked against the manifest."""
    parts = [
        decode_rows(artifact.read(e.name), f"{artifact.location.uri}/{e.name}")
        for e in artifact.files
        if e.name.endswith(".parquet")
    ]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
