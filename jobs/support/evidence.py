"""Reading the artifacts of a memorization grid into the evidence that the study compares."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from regimes.images.pixels import pixel_vectors
from regimes.images.split import HALVES, other
from regimes.jobs.support.grid import MemorizationGrid
from regimes.scores.features import Features
from regimes.storage.artifacts import Recipe, Store
from regimes.storage.features import read_features
from regimes.storage.images import read_images
from regimes.storage.models import DenoiserRecipe
from regimes.studies.memorization import Evidence, ImageSet


def read_set(store: Store, grid: MemorizationGrid, recipe: Recipe) -> ImageSet:
    """The images of an artifact as features and as pixels."""
    ids, images = read_images(store, recipe)
    pixels = Features(ids, pixel_vectors(images), "raw-pixels")
    return ImageSet(features=read_features(store, grid.features(recipe)), pixels=pixels)


def read_evidence(store: Store, grid: MemorizationGrid) -> Evidence:
    """All sets of a complete grid."""
    real = read_set(store, grid, grid.images)

    def samples(denoiser: DenoiserRecipe) -> ImageSet:
        return read_set(store, grid, grid.samples(denoiser))

    def take(index: npt.NDArray[np.int64]) -> ImageSet:
        return ImageSet(features=real.features.take(index), pixels=real.pixels.take(index))

    largest = grid.sizes[-1]
    return Evidence(
        sizes=grid.sizes,
        widths=grid.experiment.widths,
        train={half: take(grid.split.subset(half, largest)) for half in HALVES},
        heldout={half: take(grid.split.indices(other(half))) for half in HALVES},
        models={cell: samples(r) for cell, r in grid.models.items()},
        empirical={cell: samples(r) for cell, r in grid.closed_form("empirical").items()},
        wiener={cell: samples(r) for cell, r in grid.closed_form("wiener").items()},
    )
