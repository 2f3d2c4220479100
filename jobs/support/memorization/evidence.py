"""Reading the artifacts of a memorization grid into the evidence that the study compares."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from regimes.images.pixels import pixel_vectors
from regimes.jobs.support.memorization.grid import MemorizationGrid
from regimes.scores.features import Features
from regimes.storage.artifacts import Recipe, Store
from regimes.storage.denoisers import DenoiserRecipe
from regimes.storage.features import read_features
from regimes.storage.images import read_images
from regimes.studies.memorization import Evidence, ImageSet

KEPT_BYTES = 2 * 2**30

K = TypeVar("K", bound=Hashable)


class Lazy(Mapping[K, ImageSet]):
    """Image sets that are read when asked for; the last ones read are kept, up to ``KEPT_BYTES``.

    Args:
        recipes: what to read, by key.
        read: how.
    """

    def __init__(
        self, recipes: Mapping[K, DenoiserRecipe], read: Callable[[DenoiserRecipe], ImageSet]
    ) -> None:
        self._recipes, self._read = dict(recipes), read
        self._kept: OrderedDict[K, ImageSet] = OrderedDict()

    def __getitem__(self, key: K) -> ImageSet:
        if key not in self._kept:
            self._kept[key] = self._read(self._recipes[key])
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(map(_num_bytes, self._kept.values())) > KEPT_BYTES:
            self._kept.popitem(last=False)
        return self._kept[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._recipes)

    def __len__(self) -> int:
        return len(self._recipes)


def _num_bytes(images: ImageSet) -> int:
    return images.features.values.nbytes + images.pixels.values.nbytes


def read_set(
    store: Store, grid: MemorizationGrid, recipe: Recipe, *, mirrored: bool = False
) -> ImageSet:
    """The images of an artifact, or their flips, as features and as pixels."""
    ids, images = read_images(store, recipe)
    pixels = pixel_vectors(images[:, :, ::-1] if mirrored else images)
    features = read_features(store, grid.features(recipe, mirrored=mirrored))
    return ImageSet(features=features, pixels=Features(ids, pixels, "raw-pixels"))


def read_evidence(store: Store, grid: MemorizationGrid) -> Evidence:
    """All sets of a complete grid; those of models are read when they are compared."""
    largest, split = grid.sizes[-1], grid.split
    real = read_set(store, grid, grid.images)

    def samples(denoiser: DenoiserRecipe) -> ImageSet:
        return read_set(store, grid, grid.samples(denoiser))

    mirrored = None
    if grid.experiment.flips_are_copies:
        flips = read_set(store, grid, grid.images, mirrored=True)
        mirrored = {h: _take(flips, split.subset(h, largest)) for h in grid.halves}
    return Evidence(
        sizes=grid.sizes,
        widths=grid.experiment.widths,
        train={half: _take(real, split.subset(half, largest)) for half in grid.halves},
        heldout={half: _take(real, split.heldout(half, largest)) for half in grid.halves},
        models=Lazy(grid.models, samples),
        empirical=Lazy(grid.closed_form("empirical"), samples),
        wiener=Lazy(grid.closed_form("wiener"), samples),
        mirrored=mirrored,
    )


def _take(images: ImageSet, index: npt.NDArray[np.int64]) -> ImageSet:
    return ImageSet(features=images.features.take(index), pixels=images.pixels.take(index))
