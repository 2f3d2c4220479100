"""t-SNE maps as artifacts: a map of a hundred thousand images takes hours, and is made once."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from regimes.jobs.support.diverse.experiment import HELDOUT, REAL, DiverseFeatures, shown
from regimes.scores.neighbours import Rows
from regimes.scores.planes import Library, tsne
from regimes.storage.artifacts import Recipe
from regimes.storage.features import FeaturesRecipe
from regimes.studies.diverse import CONTROL

_POINTS = "points.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRecipe(Recipe):
    """A joint t-SNE map of real images and one set."""

    kind: ClassVar[str] = "maps"
    code_version: ClassVar[int] = 2  # 2: other seeds than 0 start at random

    real: FeaturesRecipe
    others: FeaturesRecipe
    library: Library
    version: str
    """Of the library: the map depends on it."""
    seed: int


@dataclass(frozen=True, slots=True)
class Maps:
    """The maps of a study, kept in its store.

    Args:
        plan: the features; its descriptor must be fitted.
    """

    plan: DiverseFeatures

    def make(self, name: str, seed: int, rows: Rows) -> npt.NDArray:
        """The map (N + M, 2) of real images and a set of samples, or ``CONTROL``; see ``tsne``.

        Raises:
            ConfigError, ValueError: see ``tsne``.
            BrokenArtifact: if a stored map is not as it was written.
        """
        keys = {shown(key): key for key in self.plan.sets.generated_keys} | {CONTROL: HELDOUT}
        recipe = self._recipe(keys[name], seed)
        artifact = self.plan.store.artifact(recipe)
        if not artifact.is_complete():
            file = io.BytesIO()
            np.save(file, tsne(rows, seed, recipe.library), allow_pickle=False)
            artifact.finish([artifact.write(_POINTS, file.getvalue(), num_rows=len(rows))])
        points: npt.NDArray = np.load(io.BytesIO(artifact.read(_POINTS)), allow_pickle=False)
        return points

    def remove(self) -> None:
        """Delete them (--no-resume); while the descriptor is not fitted there is none."""
        if "tsne-hull" in self.plan.experiment.rule and self.plan.is_determined:
            for recipe in self._all():
                self.plan.store.artifact(recipe).remove()

    def _all(self) -> Iterator[MapRecipe]:
        for key in self.plan.sets.generated_keys:
            for seed in range(self.plan.experiment.stability_seeds):
                yield self._recipe(key, seed)
        if HELDOUT in self.plan.sets.sources:
            yield self._recipe(HELDOUT, 0)

    def _recipe(self, key: str, seed: int) -> MapRecipe:
        library = self.plan.experiment.tsne
        return MapRecipe(
            real=self.plan.recipes[REAL],
            others=self.plan.recipes[key],
            library=library,
            version=version(library),
            seed=seed,
        )
