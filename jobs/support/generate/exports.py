"""Samples in the formats that other programs read: PNG files, one .npz, one Parquet file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regimes.errors import ConfigError
from regimes.images.names import parse_seed, sample_name
from regimes.images.writing import Member, encode_png, stream_npz
from regimes.jobs.support.asked import apart
from regimes.storage.artifacts import (
    MANIFEST,
    RECIPE,
    Artifact,
    FileEntry,
    Recipe,
    to_json,
)
from regimes.storage.filesystem import Location
from regimes.storage.samples import SamplesRecipe
from regimes.storage.tables import iter_shards
from regimes.words import counted

Format = Literal["png", "npz", "parquet"]
_FILES = {"npz": "samples.npz", "parquet": "samples.parquet"}
WRITERS = 8  # files in flight: encoding releases the interpreter, object stores answer slowly
_CHUNK_BYTES = 2**22


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRecipe(Recipe):
    """What determines the files of an output folder."""

    kind: ClassVar[str] = "export"
    code_version: ClassVar[int] = 1

    samples: SamplesRecipe
    format: Format
    subdirs: bool


def is_exported(target: Artifact) -> bool:
    """Whether a folder holds exactly this export, as it was written."""
    if not target.is_complete() or target.stored_recipe() != to_json(target.recipe):
        return False
    target.verify()
    return True


def check_target(target: Artifact, *, replace: bool) -> None:
    """Refuse to mix images of two configurations, or ours with those of others, in one folder.

    Args:
        target: the folder, with the ``ExportRecipe`` of what is to be written.
        replace: whether an earlier export may be replaced.

    Raises:
        ConfigError: if the folder holds what must not be mixed with this export.
    """
    uri, found = target.location.uri, target.stored_recipe()
    if found is None:
        foreign = _images(target.location)
        if foreign:
            raise ConfigError(
                f"{uri}: holds {counted(len(foreign), 'image')} that this job did not write ({foreign[0]}); "
                "choose another --output"
            )
        return
    before, asked = _parts(found), _parts(to_json(target.recipe))
    if before["samples"] != asked["samples"] and not replace:
        raise ConfigError(
            f"{uri}: holds samples of another configuration ({apart(before['samples'], asked['samples'])}); "
            "choose another --output, or pass --no-resume to replace them"
        )


def claim(target: Artifact, *, replace: bool) -> None:
    """Take away what does not belong beside this export, and mark the folder as its own.

    From here on an interrupted export can be told from a complete one: there is no manifest.
    """
    location, found = target.location, target.stored_recipe()
    location.delete(MANIFEST)
    if found is not None:
        before, asked = _parts(found), _parts(to_json(target.recipe))
        same = before["samples"] == asked["samples"] and not replace
        pngs_stay = same and (asked["format"] != "png" or before["subdirs"] == asked["subdirs"])
        for name in _images(location):
            if not same or (name.endswith(".png") and not pngs_stay):
                location.delete(name)
    location.write(RECIPE, to_json(target.recipe).encode())


def _parts(recipe: str) -> dict[str, Any]:
    """An export's recipe; empty parts if a folder holds another kind of recipe."""
    try:
        found = json.loads(recipe)
    except ValueError:
        found = {}
    return {key: found.get(key) for key in ("samples", "format", "subdirs")}


def _images(location: Location) -> list[str]:
    """Files in a folder that are named as an export names them."""
    return [
        name
        for name in location.names()
        if name in _FILES.values() or (name.endswith(".png") and parse_seed(name) is not None)
    ]


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
        entries = [_stream(target, _FILES[format], lambda file: _npz(samples, file), samples)]
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
    for chunk in location.chunks(name, _CHUNK_BYTES):
        digest.update(chunk)
        num_bytes += len(chunk)
    return num_bytes, digest.hexdigest()


def _npz(samples: Artifact, file: BinaryIO) -> None:
    """Arrays seeds and images; labels, numbers of prompts, float64 samples (N, C, H, W) if there are any."""
    total = sum(entry.num_rows for entry in samples.files)

    def member(column: str) -> Member:
        _, first = next(iter_shards(samples, column))
        blocks = (values for _, values in iter_shards(samples, column))
        return (total, *first.shape[1:]), first.dtype, blocks

    names = {"image": "images", "label": "labels", "prompt": "prompts", "sample": "samples"}
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
