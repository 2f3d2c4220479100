"""Image artifacts: a source decoded once, so that every worker reads the same pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from regimes.errors import BadSource
from regimes.images.pixels import Images
from regimes.images.sources import ImageSource, load_images, load_labels
from regimes.images.split import Half, Split
from regimes.storage.artifacts import Recipe, Store
from regimes.storage.tables import Ids, Values, read_rows, write_shard

IMAGES_PER_SHARD = 1024
BYTES_PER_SHARD = 32 * 2**20  # a shard must stay one block on its way through Ray Data


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesRecipe(Recipe):
    """What determines a decoded source."""

    kind: ClassVar[str] = "images"
    code_version: ClassVar[int] = 2

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
    """The first ``size`` images of one half of an image or sample artifact."""

    images: Recipe
    """Real images, or the samples of a teacher."""
    split: Split
    half: Half
    size: int

    @property
    def label(self) -> str:
        """Short name, such as n16-A."""
        return f"n{self.size}-{self.half}"


@dataclass(frozen=True, slots=True)
class Decoded:
    """A source in memory."""

    ids: list[str]
    images: Images
    """(N, H, W, C) uint8."""
    labels: npt.NDArray[np.int64] | None
    """(N,) classes, if the source has some that can be used."""
    left_out: list[str]
    """Messages of the images that could not be decoded."""
    label_problem: str | None = None
    """Why labels cannot be used; most work needs none."""


def decode_source(source: ImageSource, recipe: ImagesRecipe) -> Decoded:
    """Decode a whole source as a recipe says; raises as ``load_images``."""
    ids, images, left_out = load_images(
        source,
        image_size=recipe.image_size,
        channels=recipe.channels,
        skip_bad=recipe.skip_bad,
    )
    try:
        return Decoded(ids, images, load_labels(source, ids), left_out)
    except BadSource as error:
        return Decoded(ids, images, None, left_out, str(error))


def ingest(store: Store, recipe: ImagesRecipe, decoded: Decoded) -> None:
    """Write a decoded source into its artifact."""
    artifact, images = store.artifact(recipe), decoded.images
    per_shard = max(1, min(IMAGES_PER_SHARD, BYTES_PER_SHARD // images[0].nbytes))
    entries = []
    for unit, start in enumerate(range(0, len(images), per_shard)):
        rows = slice(start, start + per_shard)
        columns: dict[str, Values] = {"image": images[rows]}
        if decoded.labels is not None:
            columns["label"] = decoded.labels[rows]
        entries.append(write_shard(artifact, unit, np.array(decoded.ids[rows]), columns))
    artifact.finish(entries)


def read_images(store: Store, recipe: Recipe) -> tuple[Ids, Images]:
    """Ids (N,) and images (N, H, W, C) uint8 of an images or samples artifact."""
    return read_rows(store.artifact(recipe), "image")


def read_subset(store: Store, subset: Subset) -> tuple[Ids, Images]:
    """Ids (n,) and images (n, H, W, C) uint8 of a subset, in its own order."""
    ids, images = read_images(store, subset.images)
    index = subset.split.subset(subset.half, subset.size)
    return ids[index], images[index]


def read_labels(store: Store, subset: Subset) -> npt.NDArray[np.int64]:
    """Classes (n,) int64 of a subset, in its own order.

    Raises:
        BrokenArtifact: if the images were written without classes.
    """
    _, labels = read_rows(store.artifact(subset.images), "label")
    return labels[subset.split.subset(subset.half, subset.size)]
