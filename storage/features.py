"""Feature artifacts: what a descriptor says of every image of a set, a shard per work unit.

The set is an artifact of images or samples, whose shards are the units, or a source read where it is
(``SourceRecipe``), whose units are blocks of its ids. A unit is described as a whole, so its bytes do
not depend on who does it or when. Images that cannot be decoded stop the work by name, or are left
out and listed in a file beside the shards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from regimes.errors import BadSource, BrokenArtifact, ConfigError
from regimes.images.pixels import Images
from regimes.images.sources import ImageSource
from regimes.scores.features import Features
from regimes.storage.artifacts import Artifact, FileEntry, Recipe, Store
from regimes.storage.blocks import Block, SourceRecipe, block_ids, describe_block, read_source
from regimes.storage.descriptors import (
    DescriptorRecipe,
    WeightsRecipe,
    fit_descriptor,
    import_weights,
    load_descriptor,
    require_same,
)
from regimes.storage.tables import Ids, decode_rows, left_over, read_rows, shard_name, write_shard

__all__ = [
    "Block",
    "DescriptorRecipe",
    "FeaturesRecipe",
    "SourceRecipe",
    "WeightsRecipe",
    "describe_block",
    "finish",
    "fit_descriptor",
    "import_weights",
    "load_descriptor",
    "read_block",
    "read_features",
    "read_left_out",
    "read_unit",
    "require_same",
    "split_work",
    "write_block",
    "write_unit",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturesRecipe(Recipe):
    """Which descriptor, of which images; a shard of features per unit."""

    kind: ClassVar[str] = "features"
    code_version: ClassVar[int] = 2

    images: Recipe
    descriptor: DescriptorRecipe
    mirrored: bool = False
    """Whether the left-right flips of the images are described instead."""
    raw: bool = False
    """Whether features are as the network gives them, neither centred nor divided by their length."""

    def __post_init__(self) -> None:
        """Only networks give features that are not rows of length 1."""
        if self.raw and self.descriptor.network is None:
            raise ConfigError(f"{self.descriptor.name}: raw features are those of networks")


def read_block(
    store: Store, recipe: FeaturesRecipe, unit: int, name: str, source: ImageSource | None = None
) -> Block:
    """The images to describe of one unit.

    Args:
        store: where artifacts are.
        recipe: what is described.
        unit: which unit.
        name: of its shard.
        source: the images, if the recipe's are a ``SourceRecipe``.

    Raises:
        BrokenArtifact: if a shard is not as its manifest says.
        BadImage: at the first image that cannot be decoded, unless they are left out.
    """
    if isinstance(recipe.images, SourceRecipe):
        return read_source(_required(source), recipe.images, unit, mirrored=recipe.mirrored)
    ids, images = read_unit(store, recipe, name)
    return Block(ids, [(np.arange(len(ids)), images)])


def read_unit(store: Store, recipe: FeaturesRecipe, name: str) -> tuple[Ids, Images]:
    """Ids and images to describe of one shard, checked against its manifest."""
    artifact = store.artifact(recipe.images)
    ids, images = decode_rows(artifact.read(name), artifact.location.child(name).uri, "image")
    return ids, np.ascontiguousarray(images[:, :, ::-1]) if recipe.mirrored else images


def _required(source: ImageSource | None) -> ImageSource:
    if source is None:
        raise ValueError("features of a SourceRecipe need its source")
    return source


def write_block(
    store: Store, recipe: FeaturesRecipe, unit: int, block: Block, features: np.ndarray | None
) -> list[FileEntry]:
    """Write the features of one unit, if any, and before them what was left out, if anything."""
    artifact, entries = store.artifact(recipe), []
    if block.left_out:
        data = json.dumps(block.left_out, indent=1, sort_keys=True).encode()
        entries.append(artifact.write(_left_out_name(unit), data))
    if features is not None:
        entries.append(write_unit(store, recipe, unit, block.ids, features))
    return entries


def write_unit(
    store: Store, recipe: FeaturesRecipe, unit: int, ids: Ids, features: np.ndarray
) -> FileEntry:
    """Write the features of one shard."""
    return write_shard(store.artifact(recipe), unit, ids, {"feature": features})


def finish(store: Store, recipe: FeaturesRecipe, entries: Iterable[FileEntry]) -> None:
    """Declare features complete; raises ``BadSource`` if every image was left out."""
    entries = list(entries)
    if not any(entry.num_rows for entry in entries):
        raise BadSource(f"{store.artifact(recipe).location.uri}: no image could be described")
    store.artifact(recipe).finish(entries)


def read_features(store: Store, recipe: FeaturesRecipe) -> Features:
    """All features of a complete artifact; raises ``BadSource`` if they differ in length."""
    try:
        ids, values = read_rows(store.artifact(recipe))
    except ValueError as error:  # blocks of features of different length cannot be joined
        raise BadSource(
            f"images differ in size, and {recipe.descriptor.name} describes equal ones alone; pass "
            "--image-size"
        ) from error
    label = recipe.descriptor.label
    return Features(ids, values, f"{label} raw" if recipe.raw else label)


def read_left_out(store: Store, recipe: FeaturesRecipe) -> dict[str, str]:
    """Messages of the images that complete features leave out, by id."""
    artifact = store.artifact(recipe)
    found: dict[str, str] = {}
    for entry in artifact.files:
        if entry.name.endswith(".json"):
            found |= json.loads(artifact.read(entry.name))
    return found


def split_work(
    store: Store, recipe: FeaturesRecipe, source: ImageSource | None = None
) -> tuple[list[FileEntry], list[tuple[int, str]]]:
    """Entries of the shards that an earlier run left, and (unit, name) of those that are missing.

    Args:
        store: where artifacts are.
        recipe: what is described.
        source: the images, if the recipe's are a ``SourceRecipe``.
    """
    artifact = store.artifact(recipe)
    present = artifact.present()
    entries: list[FileEntry] = []
    missing: list[tuple[int, str]] = []
    for unit, name in enumerate(_unit_names(store, recipe, source)):
        found = _found(store, recipe, unit, name, present, source)
        entries += found or []
        missing += [] if found else [(unit, name)]
    return entries, missing


def _unit_names(store: Store, recipe: FeaturesRecipe, source: ImageSource | None) -> list[str]:
    if isinstance(recipe.images, SourceRecipe):
        count = recipe.images.num_units(_required(source))
        return [shard_name(unit) for unit in range(count)]
    return [shard.name for shard in store.artifact(recipe.images).files]


def _found(
    store: Store,
    recipe: FeaturesRecipe,
    unit: int,
    name: str,
    present: set[str],
    source: ImageSource | None,
) -> list[FileEntry] | None:
    """The files of one unit, or None if they are not all there."""
    artifact, entries = store.artifact(recipe), []
    if isinstance(recipe.images, SourceRecipe):
        ids = block_ids(_required(source), recipe.images, unit)
        if _left_out_name(unit) in present:
            entry, left_out = _read_left_out(artifact, unit)
            entries.append(entry)
            ids = [i for i in ids if i not in left_out]
            if not ids:
                return entries
        shard = left_over(artifact, name, np.array(ids)) if name in present else None
    else:
        ids_of = read_unit(store, recipe, name)[0] if name in present else None
        shard = None if ids_of is None else left_over(artifact, name, ids_of)
    return [*entries, shard] if shard else None


def _left_out_name(unit: int) -> str:
    return f"left-out-{unit:06d}.json"


def _read_left_out(artifact: Artifact, unit: int) -> tuple[FileEntry, dict[str, str]]:
    name = _left_out_name(unit)
    data = artifact.location.read(name)
    try:
        return FileEntry.of(name, data), dict(json.loads(data))
    except ValueError as error:
        raise BrokenArtifact(f"{artifact.location.child(name).uri}: not JSON; delete it") from error
