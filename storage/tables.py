"""Shards: Parquet files with fixed tensor types, readable by plain pyarrow.

A shard has a column ``id`` (int64 seeds, or strings) and value columns, each one array per row: an
image shard ``image``, a uint8 tensor (H, W, C), and sometimes ``label``, int64; a sample shard also
``prompt``, int64, its number in a list of prompts, and
``sample``, a float64 tensor (C, H, W), on request; a feature shard ``feature``, a float32 tensor
(D). The same rows always give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def encode_rows(ids: Ids, columns: Mapping[str, Values]) -> bytes:
    """A Parquet file of N rows: ids (N,), and values (N,) or (N, ...) by column name."""
    arrays = {name: _encode_column(values) for name, values in columns.items()}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": pa.array(ids.tolist()), **arrays}), sink, compression="zstd")
    return bytes(sink.getvalue())


def _encode_column(values: Values) -> pa.Array:
    # A fresh copy: an axis of length 1 may have any stride, and pyarrow would store a permutation.
    values = np.array(values, order="C", copy=True)
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedShapeTensorArray.from_numpy_ndarray(values)


def decode_rows(data: bytes, name: str, column: str | None = None) -> tuple[Ids, Values]:
    """The ids (N,) and one column of a Parquet file made by ``encode_rows``.

    Args:
        data: content of the file.
        name: what to call it in an error.
        column: which values; None takes the first column after the ids.

    Raises:
        BrokenArtifact: if the content is not readable, or lacks the column.
    """
    try:
        table = pq.read_table(pa.BufferReader(data)).combine_chunks()
    except (pa.ArrowInvalid, OSError) as error:
        raise BrokenArtifact(f"{name}: not readable as Parquet ({error}); delete it") from error
    ids = np.array(table["id"].to_pylist())
    column = column or table.column_names[1]
    if column not in table.column_names:
        raise BrokenArtifact(
            f"{name}: expected a column {column!r}, found {', '.join(table.column_names)}"
        )
    if len(table) == 0:
        return ids, np.empty((0, 0))
    chunk = table[column].chunk(0)
    is_tensor = isinstance(chunk.type, pa.FixedShapeTensorType)
    return ids, chunk.to_numpy_ndarray() if is_tensor else chunk.to_numpy()


def write_shard(
    artifact: Artifact, unit: int, ids: Ids, columns: Mapping[str, Values]
) -> FileEntry:
    """Write one work unit of an artifact."""
    return artifact.write(shard_name(unit), encode_rows(ids, columns), num_rows=len(ids))


def left_over(artifact: Artifact, name: str, ids: Ids) -> FileEntry | None:
    """The manifest entry of a shard that an earlier run left, or None if there is none.

    Raises:
        BrokenArtifact: if the file cannot be read, or does not hold exactly these ids.
    """
    where = artifact.location.child(name).uri
    try:
        data = artifact.location.read(name)
    except FileNotFoundError:
        return None
    found, _ = decode_rows(data, where)
    if found.tolist() != ids.tolist():
        raise BrokenArtifact(f"{where}: holds other rows than expected; delete it and run again")
    return FileEntry.of(name, data, len(ids))


def iter_shards(artifact: Artifact, column: str | None = None) -> Iterator[tuple[Ids, Values]]:
    """Ids and one column of each shard of a complete artifact, in order, each checked."""
    for entry in artifact.files:
        if entry.name.endswith(".parquet"):
            where = artifact.location.child(entry.name).uri
            yield decode_rows(artifact.read(entry.name), where, column)


def read_rows(artifact: Artifact, column: str | None = None) -> tuple[Ids, Values]:
    """All rows of a complete artifact in the order of its shards, checked against the manifest."""
    parts = list(iter_shards(artifact, column))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
