"""Units of images, read and decoded, and how they and their errors travel between processes."""

from __future__ import annotations

import functools
import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from regimes import errors
from regimes.errors import RegimesError
from regimes.images.sources import ImageSource, open_source
from regimes.storage.artifacts import Store
from regimes.storage.features import Block, FeaturesRecipe, SourceRecipe, read_block


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads units of images, in whatever process it is sent to.

    Args:
        root: location of the store.
        recipes: what is described.
        specs: what to open, by the address of a source.
    """

    root: str
    recipes: Sequence[FeaturesRecipe]
    specs: Mapping[str, str]

    def read(self, row: Mapping[str, Any]) -> Block:
        """Fetch and decode the unit of a row {recipe, unit, name}."""
        recipe = self.recipes[row["recipe"]]
        source = source_of(recipe, self.specs)
        return read_block(Store(self.root), recipe, row["unit"], row["name"], source)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows {recipe, unit, name} -> one row per unit, as ``pack`` makes it, or with its error."""
        rows = []
        for row in table.to_pylist():
            head = {"recipe": row["recipe"], "unit": row["unit"]}
            try:
                rows.append(head | pack(self.read(row)))
            except Exception as error:
                rows.append(head | {"error": as_text(error)})
        return pa.Table.from_pylist(rows, schema=_ROW)


def as_text(error: Exception) -> str:
    """An error as a row carries it, so that others go on: its class and message, or its traceback."""
    if not isinstance(error, RegimesError):
        return json.dumps([None, "".join(traceback.format_exception(error))])
    public = next(c for c in type(error).__mro__ if c.__module__ == RegimesError.__module__)
    return json.dumps([public.__name__, str(error)])


def from_text(text: str) -> Exception:
    """The error of ``as_text``; one that is not ours becomes a RuntimeError with its traceback."""
    name, message = json.loads(text)
    error: Exception = (RuntimeError if name is None else getattr(errors, name))(message)
    return error


def source_of(recipe: FeaturesRecipe, specs: Mapping[str, str]) -> ImageSource | None:
    """Where a recipe's images are read, if they are not in the store."""
    images = recipe.images
    if not isinstance(images, SourceRecipe):
        return None
    return _open(specs[images.address], images.fingerprint)


@functools.lru_cache(maxsize=4)
def _open(spec: str, fingerprint: str) -> ImageSource:
    """A source, opened once per process and content: listing a folder of a million files takes a while."""
    return open_source(spec)


_ROW = pa.schema({
    "recipe": pa.int64(), "unit": pa.int64(), "error": pa.string(),
    "ids": pa.list_(pa.string()), "seeds": pa.list_(pa.int64()), "left_out": pa.string(),
    "shapes": pa.list_(pa.int64()), "positions": pa.list_(pa.int64()), "pixels": pa.large_binary(),
})  # fmt: skip


def pack(block: Block) -> dict[str, Any]:
    """A block as plain values: ids or seeds, (n, H, W, C) of its groups, all pixels in a row."""
    numbered = np.issubdtype(block.ids.dtype, np.integer)
    pixels = b"".join(np.ascontiguousarray(images).data for _, images in block.groups)
    return {
        "ids": None if numbered else block.ids.tolist(),
        "seeds": block.ids.tolist() if numbered else None,
        "left_out": json.dumps(block.left_out),
        "shapes": [size for _, images in block.groups for size in images.shape],
        "positions": [int(i) for positions, _ in block.groups for i in positions],
        "pixels": pixels,
    }


def unpack(table: pa.Table, row: int) -> Block:
    """A block from its row; the images share the row's memory and are read-only."""
    value = {name: table[name][row] for name in table.column_names}
    ids = value["ids"].as_py()
    pixels = np.frombuffer(value["pixels"].as_buffer(), np.uint8)
    positions = np.array(value["positions"].as_py(), np.int64)
    groups, done, used = [], 0, 0
    for shape in np.array(value["shapes"].as_py(), np.int64).reshape(-1, 4):
        size = int(shape.prod())
        images = pixels[used : used + size].reshape(shape)
        groups.append((positions[done : done + shape[0]], images))
        done, used = done + int(shape[0]), used + size
    found = np.array(value["seeds"].as_py(), np.int64) if ids is None else np.array(ids, np.str_)
    return Block(found, groups, json.loads(value["left_out"].as_py()))
