"""Feature artifacts: what a descriptor says of every image of a set, a shard per work unit.

The set is an artifact of images or samples, whose shards are the units, or a source read where it is
(``SourceRecipe``), whose units are blocks of its ids. A unit is described as a whole, so its bytes do
not depend on who does it or when. Images that cannot be decoded stop the work by name, or are left
out and listed in a file beside the shards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from regimes.descriptors.network import NetworkDescriptor, NotFinite
from regimes.descriptors.pixels import Descriptor
from regimes.errors import BadDescriptor, BadSource, BrokenArtifact, ConfigError
from regimes.images.pixels import Images, with_channels
from regimes.images.sources import ImageSource
from regimes.scores.features import Features
from regimes.storage.artifacts import Artifact, FileEntry, Recipe, Store
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

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecipe(Recipe):
    """Images that are described where they are, without an artifact of their pixels."""

    kind: ClassVar[str] = "source"
    code_version: ClassVar[int] = 1

    fingerprint: str
    """SHA-256 of the source's content."""
    image_size: int | None = None
    """Side of the square that images are cropped and resized to when decoded; None keeps them."""
    channels: Literal[1, 3] | None = None
    """Channels that images are converted to."""
    skip_bad: bool = False
    """Whether unreadable images are left out."""
    images_per_unit: int = 256
    """Images per shard of features."""


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


@dataclass(frozen=True, slots=True)
class Block:
    """The images of one unit, grouped by shape."""

    ids: Ids
    """(N,) in the order of the set."""
    groups: list[tuple[Positions, Images]]
    """Positions among the ids (n,), and their images (n, H, W, C)."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Messages of images that could not be decoded, by id."""


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
        return _read_source(_required(source), recipe.images, unit, mirrored=recipe.mirrored)
    ids, images = read_unit(store, recipe, name)
    return Block(ids, [(np.arange(len(ids)), images)])


def read_unit(store: Store, recipe: FeaturesRecipe, name: str) -> tuple[Ids, Images]:
    """Ids and images to describe of one shard, checked against its manifest."""
    artifact = store.artifact(recipe.images)
    ids, images = decode_rows(artifact.read(name), f"{artifact.location.uri}/{name}", "image")
    return ids, np.ascontiguousarray(images[:, :, ::-1]) if recipe.mirrored else images


def _required(source: ImageSource | None) -> ImageSource:
    if source is None:
        raise ValueError("features of a SourceRecipe need its source")
    return source


def _read_source(source: ImageSource, recipe: SourceRecipe, unit: int, *, mirrored: bool) -> Block:
    ids: list[str] = []
    by_shape: dict[tuple[int, ...], list[tuple[int, Images]]] = {}
    left_out: dict[str, str] = {}
    start = unit * recipe.images_per_unit
    for index, image_id in enumerate(_block_ids(source, recipe, unit), start):
        try:
            image = source.read(index, image_size=recipe.image_size)
            image = with_channels(image, recipe.channels)
        except BadSource as error:
            if not recipe.skip_bad:
                raise
            left_out[image_id] = str(error)
            continue
        image = image[:, ::-1] if mirrored else image
        by_shape.setdefault(image.shape, []).append((len(ids), image))
        ids.append(image_id)
    groups = [
        (np.array([position for position, _ in rows]), np.stack([image for _, image in rows]))
        for rows in by_shape.values()
    ]
    return Block(np.array(ids, np.str_), groups, left_out)


def _block_ids(source: ImageSource, recipe: SourceRecipe, unit: int) -> list[str]:
    start = unit * recipe.images_per_unit
    return list(source.ids[start : start + recipe.images_per_unit])


def describe_block(
    descriptor: Descriptor, block: Block, *, raw: bool = False
) -> npt.NDArray[np.float32]:
    """Features (N, D) of a block, in the order of its ids; ``raw`` as in ``FeaturesRecipe``.

    Raises:
        BadDescriptor: if features are not finite; the images are named.
        BadSource: if images of different sizes have features of different length.
    """
    parts = []
    describe = descriptor.raw if raw and isinstance(descriptor, NetworkDescriptor) else descriptor
    for positions, images in block.groups:
        try:
            parts.append(describe(images))
        except NotFinite as error:
            bad = [str(i) for i in block.ids[positions[list(error.rows)]][:5]]
            raise BadDescriptor(f"{error}; images {', '.join(bad)}") from error
    if len({part.shape[1] for part in parts}) > 1:
        shapes = sorted({images.shape[1:] for _, images in block.groups})
        raise BadSource(
            f"images differ in size, {shapes[0]} and {shapes[1]}, and {descriptor.name} describes "
            "equal ones alone; pass --image-size"
        )
    values = np.concatenate(parts)
    ordered = np.empty_like(values)
    ordered[np.concatenate([positions for positions, _ in block.groups])] = values
    return ordered


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
    """All features of a complete artifact."""
    ids, values = read_rows(store.artifact(recipe))
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
        count = -(-len(_required(source).ids) // recipe.images.images_per_unit)
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
        ids = _block_ids(_required(source), recipe.images, unit)
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
        raise BrokenArtifact(f"{artifact.location.uri}/{name}: not JSON; delete it") from error
