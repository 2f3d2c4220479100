"""Feature artifacts: what a descriptor says of every image of an images or samples artifact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import safetensors.numpy

from regimes.descriptors.pixels import Descriptor, Pixels, WhitenedPixels
from regimes.images.pixels import Images
from regimes.scores.features import Features
from regimes.storage.artifacts import FileEntry, Recipe, Store
from regimes.storage.images import Subset, read_subset
from regimes.storage.tables import Ids, decode_rows, left_over, read_rows, write_shard

_PARAMETERS = "parameters.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorRecipe(Recipe):
    """Which descriptor, and the real images it is fitted to."""

    kind: ClassVar[str] = "descriptor"
    code_version: ClassVar[int] = 1

    name: Literal["whitened-pixels", "pixels"]
    fit: Subset | None
    ridge: float | None

    @property
    def label(self) -> str:
        """Name and fit: features of equal labels can be compared."""
        return self.name if self.fit is None else f"{self.name}@{self.address[-8:]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturesRecipe(Recipe):
    """Which descriptor, of which images; a shard of features per shard of images."""

    kind: ClassVar[str] = "features"
    code_version: ClassVar[int] = 1

    images: Recipe
    descriptor: DescriptorRecipe
    mirrored: bool = False
    """Whether the left-right flips of the images are described instead."""


def fit_descriptor(store: Store, recipe: DescriptorRecipe) -> None:
    """Fit a descriptor and write its artifact (descriptors without parameters write an empty one)."""
    artifact = store.artifact(recipe)
    entries = []
    if recipe.fit is not None and recipe.ridge is not None:
        _, images = read_subset(store, recipe.fit)
        fitted = WhitenedPixels.fit(images, ridge=recipe.ridge)
        data = safetensors.numpy.save({"mean": fitted.mean, "transform": fitted.transform})
        entries.append(artifact.write(_PARAMETERS, data))
    artifact.finish(entries)


def load_descriptor(store: Store, recipe: DescriptorRecipe) -> Descriptor:
    """The descriptor of a complete artifact."""
    if recipe.fit is None:
        return Pixels()
    parameters = safetensors.numpy.load(store.artifact(recipe).read(_PARAMETERS))
    return WhitenedPixels(parameters["mean"], parameters["transform"])


def read_unit(store: Store, recipe: FeaturesRecipe, name: str) -> tuple[Ids, Images]:
    """Ids and images to describe of one shard, checked against its manifest."""
    artifact = store.artifact(recipe.images)
    ids, images = decode_rows(artifact.read(name), f"{artifact.location.uri}/{name}", "image")
    return ids, np.ascontiguousarray(images[:, :, ::-1]) if recipe.mirrored else images


def write_unit(
    store: Store, recipe: FeaturesRecipe, unit: int, ids: Ids, features: np.ndarray
) -> FileEntry:
    """Write the features of one shard."""
    return write_shard(store.artifact(recipe), unit, ids, {"feature": features})


def read_features(store: Store, recipe: FeaturesRecipe) -> Features:
    """All features of a complete artifact."""
    ids, values = read_rows(store.artifact(recipe))
    return Features(ids, values, recipe.descriptor.label)


def split_work(
    store: Store, recipe: FeaturesRecipe
) -> tuple[list[FileEntry], list[tuple[int, str]]]:
    """Entries of the shards that an earlier run left, and (unit, name) of those that are missing."""
    artifact = store.artifact(recipe)
    present = artifact.present()
    entries, missing = [], []
    for unit, shard in enumerate(store.artifact(recipe.images).files):
        entry = None
        if shard.name in present:
            entry = left_over(artifact, shard.name, read_unit(store, recipe, shard.name)[0])
        entries += [entry] if entry else []
        missing += [] if entry else [(unit, shard.name)]
    return entries, missing
