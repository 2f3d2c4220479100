"""Image artifacts: a source decoded once, so that every worker reads the same pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from regimes.images.pixels import Images
from regimes.images.sources import ImageSource, load_images
from regimes.images.split import Half, Split
from regimes.storage.artifacts import Recipe, Store
from regimes.storage.tables import Ids, read_rows, write_shard

IMAGES_PER_SHARD = 1024
BYTES_PER_SHARD = 32 * 2**20  # a shard must stay one block on its way through Ray Data


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesRecipe(Recipe):
    """What determines a decoded source."""

    kind: ClassVar[str] = "images"
    code_version: ClassVar[int] = 1

    fingerprint: str
    """SHA-256 of the source's content."""
    image_size: int | None
    """Side of the square that images were cropped and resized to."""
    channels: Literal[1, 3] | None
    """Channels that images were converted to."""
    skip_bad: bool
    """Whether unreadable images were left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """The first ``size`` images of one half of a source."""

    images: ImagesRecipe
    split: Split
    half: Half
    size: int

    @property
    def label(self) -> str:
        """Short name, such as n16-A."""
        return f"n{self.size}-{self.half}"


def decode_source(source: ImageSource, recipe: ImagesRecipe) -> tuple[list[str], Images, list[str]]:
    """Ids, images, and the messages of those left out; see ``load_images``."""
    return load_images(
        source,
        image_size=recipe.image_size,
        channels=recipe.channels,
        skip_bad=recipe.skip_bad,
    )


def ingest(store: Store, recipe: ImagesRecipe, ids: list[str], images: Images) -> None:
    """Write decoded images into their artifact."""
    artifact = store.artifact(recipe)
    per_shard = max(1, min(IMAGES_PER_SHARD, BYTES_PER_SHARD // images[0].nbytes))
    entries = []
    for unit, start in enumerate(range(0, len(ids), per_shard)):
        rows = slice(start, start + per_shard)
        entries.append(write_shard(artifact, unit, np.array(ids[rows]), images[rows], "image"))
    artifact.finish(entries)


def read_images(store: Store, recipe: Recipe) -> tuple[Ids, Images]:
    """Ids (N,) and images (N, H, W, C) uint8 of an images or samples artifact."""
    return read_rows(store.artifact(recipe))


def read_subset(store: Store, subset: Subset) -> tuple[Ids, Images]:
    """Ids (n,) and images (n, H, W, C) uint8 of a subset, in its own order."""
    ids, images = read_images(store, subset.images)
    index = subset.split.subset(subset.half, subset.size)
    return ids[index], images[index]
