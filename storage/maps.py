"""Maps as artifacts: real images placed in the plane once, so that all sweeps share the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import safetensors.numpy

from regimes.guidance.embedding import Floats, fit_map
from regimes.images.pixels import Images, to_float
from regimes.storage.artifacts import Recipe, Store
from regimes.storage.images import read_images
from regimes.storage.tables import read_rows

_FILE = "map.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRecipe(Recipe):
    """A map of real images."""

    kind: ClassVar[str] = "map"
    code_version: ClassVar[int] = 1

    images: Recipe
    """Images, or windows of frames, of which the last ``channels`` channels are taken."""
    channels: int
    size: int
    """The most images to fit; more are thinned out evenly."""
    seed: int


@dataclass(frozen=True, slots=True)
class FittedMap:
    """A map and what it was fitted to."""

    vectors: Floats
    """(N, D) pixels in [-1, 1]."""
    places: Floats
    """(N, 2)."""
    labels: np.ndarray
    """(N,) int64 classes."""
    images: Images
    """(N, H, W, C) uint8, of windows all frames."""


def obtain_map(store: Store, recipe: MapRecipe) -> FittedMap:
    """The map of a recipe, fitted unless it is there; its images have labels."""
    artifact = store.artifact(recipe)
    images, labels = _real(store, recipe)
    vectors = to_float(images[..., -recipe.channels :]).flatten(1).double().numpy()
    if not artifact.is_complete():
        places = fit_map(vectors, seed=recipe.seed)
        artifact.finish([artifact.write(_FILE, safetensors.numpy.save({"places": places}))])
    places = safetensors.numpy.load(artifact.read(_FILE))["places"]
    return FittedMap(vectors, places, labels, images)


def _real(store: Store, recipe: MapRecipe) -> tuple[Images, np.ndarray]:
    images = read_images(store, recipe.images)[1]
    labels = read_rows(store.artifact(recipe.images), "label")[1]
    step = max(1, -(-len(images) // recipe.size))
    return images[::step], labels[::step]
