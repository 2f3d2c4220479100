"""Linearisation replicas: actors that hold one model each and turn blocks of points into shards.

The images at which models are linearised are put into Ray's object store once; replicas map them
from there without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from regimes.actors.replicas import IN_FLIGHT, MAX_RESTARTS, ReplicaOptions
from regimes.actors.runtime import RayRuntime
from regimes.denoisers.compute import Compute
from regimes.storage.artifacts import FileEntry, Store
from regimes.storage.denoisers import DenoiserRecipe, Loaded, load_denoiser
from regimes.storage.jacobian import ChosenImages, JacobianRecipe, measure_unit, split_work


class Lineariser:
    """Holds one model and the images; a plain class, made remote by ``linearise``.

    Args:
        root: location of the store.
        device: where the model computes, "cpu" or "cuda".
    """

    def __init__(self, root: str, device: str) -> None:
        import torch

        torch.set_num_threads(1)  # one thread: bytes must not depend on the machine's cores
        self.device = device
        self._store = Store(root)
        self._loaded: tuple[DenoiserRecipe, Compute, Loaded] | None = None

    def ready(self) -> None:
        """Answers once the actor has its resources and its libraries."""

    def measure(self, recipe: JacobianRecipe, unit: int, chosen: ChosenImages | None) -> FileEntry:
        """Measure one unit, loading its model if another one is held; the images stay Ray's."""
        wanted = recipe.denoiser, recipe.compute
        if self._loaded is None or self._loaded[:2] != wanted:
            loaded = load_denoiser(
                self._store, recipe.denoiser, device=self.device, compute=recipe.compute
            )
            self._loaded = (*wanted, loaded)
        return measure_unit(self._store, recipe, unit, self._loaded[2], chosen, device=self.device)


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
        options: how many replicas, and where.
        on_unit: called after every unit.
    """
    entries: dict[int, list[FileEntry]] = {}
    work: list[tuple[int, int]] = []
    for i, recipe in enumerate(recipes):
        entries[i], missing = split_work(store, recipe)
        work += [(i, unit) for unit in missing]
    if work:
        actors = _start(runtime, store.root.uri, len(work), options)
        for i, entry in _run(actors, recipes, work, runtime.start().put(chosen)):
            entries[i].append(entry)
            on_unit()
    for i, recipe in enumerate(recipes):
        store.artifact(recipe).finish(entries[i])


def _start(
    runtime: RayRuntime,
    root: str,
    num_units: int,
    options: ReplicaOptions,
) -> list[Any]:
    ray = runtime.start()
    on_gpu = options.device == "gpu" or (options.device == "auto" and runtime.gpus > 0)
    room = max(1, int(runtime.gpus / options.gpus_each)) if on_gpu else runtime.cpus
    remote = ray.remote(Lineariser).options(
        num_cpus=0 if on_gpu else 1,
        num_gpus=options.gpus_each if on_gpu else 0,
        max_restarts=MAX_RESTARTS,
        max_task_retries=MAX_RESTARTS,
    )
    device = "cuda" if on_gpu else "cpu"
    return [remote.remote(root, device) for _ in range(min(options.count or room, num_units))]


def _run(
    actors: Sequence[Any],
    recipes: Sequence[JacobianRecipe],
    work: Sequence[tuple[int, int]],
    shared: Any,
) -> Iterator[tuple[int, FileEntry]]:
    """Hand out units, at most ``IN_FLIGHT`` per actor that has answered; yields (recipe, entry)."""
    import ray

    queue = iter(work)
    pending = {actor.ready.remote(): actor for actor in actors}
    running: dict[Any, tuple[int, Any]] = {}

    def submit(actor: Any) -> None:
        for i, unit in queue:
            running[actor.measure.remote(recipes[i], unit, shared)] = (i, actor)
            return

    left = len(work)
    while left:
        (done,), _ = ray.wait([*running, *pending], num_returns=1)
        if done in pending:
            ray.get(done)
            actor = pending.pop(done)
            for _ in range(IN_FLIGHT):
                submit(actor)
            continue
        i, actor = running.pop(done)
        submit(actor)
        left -= 1
        yield i, ray.get(done)
