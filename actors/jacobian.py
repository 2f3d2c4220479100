"""Linearisation replicas: actors that hold one model each and turn blocks of points into shards.

The images at which models are linearised are put into Ray's object store once; replicas map them
from there without a copy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from regimes.actors.replicas import ModelHolder, ReplicaOptions, start_pool
from regimes.actors.runtime import RayRuntime
from regimes.errors import ConfigError
from regimes.storage.artifacts import FileEntry, Store
from regimes.storage.denoisers import Loaded, load_denoiser
from regimes.storage.jacobian import ChosenImages, JacobianRecipe, measure_unit, split_work


class Lineariser(ModelHolder):
    """Measures Jacobians."""

    def measure(self, recipe: JacobianRecipe, unit: int, chosen: ChosenImages | None) -> FileEntry:
        """Measure one unit; the images stay Ray's."""
        wanted = recipe.denoiser, recipe.compute

        def load() -> Loaded:
            denoiser, compute = wanted
            return load_denoiser(self._store, denoiser, device=self.device, compute=compute)

        model = self.hold(wanted, load)
        return measure_unit(self._store, recipe, unit, model, chosen, device=self.device)


def linearise(
    runtime: RayRuntime,
    store: Store,
    recipes: Sequence[JacobianRecipe],
    chosen: ChosenImages | None,
    *,
    options: ReplicaOptions,
    on_unit: Callable[[], None],
) -> None:
    """Complete the spectra of all recipes; units that exist are kept.

    Args:
        runtime: where to run.
        store: where models are, and where spectra go.
        recipes: what to measure, grouped by model so that replicas seldom change theirs.
        chosen: the images of ``ImagePoints``, shared by all recipes.
        options: how many replicas, and where; one GPU each at most.
        on_unit: called after every unit.

    Raises:
        ConfigError: if replicas are to have several GPUs.
    """
    if options.others:
        raise ConfigError(
            f"gpus_each: Jacobians are taken on one GPU, expected 1 at most, got {options.gpus_each:g}"
        )
    entries: dict[int, list[FileEntry]] = {}
    work: list[tuple[int, int]] = []
    for i, recipe in enumerate(recipes):
        entries[i], missing = split_work(store, recipe)
        work += [(i, unit) for unit in missing]
    if work:
        shared = runtime.start().put(chosen)

        def ask(actor: Any, i: int, unit: int) -> Any:
            return actor.measure.remote(recipes[i], unit, shared)

        def name(i: int, unit: int) -> str:
            return f"Jacobians of {recipes[i].denoiser.label}, unit {unit}"

        pool = start_pool(runtime, Lineariser, store.root.uri, len(work), options, name)
        with contextlib.closing(pool.run(ask, work)) as done:
            for i, entry in done:
                entries[i].append(entry)
                on_unit()
    for i, recipe in enumerate(recipes):
        store.artifact(recipe).finish(entries[i])
