"""Generator replicas: actors that hold one model each and turn blocks of seeds into shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from regimes.actors.runtime import RayRuntime
from regimes.storage.artifacts import FileEntry, Store
from regimes.storage.models import DenoiserRecipe, load_denoiser
from regimes.storage.samples import SamplesRecipe, make_samples
from regimes.storage.tables import entry_of, shard_name

IN_FLIGHT = 2  # units per replica: one running, one waiting, so that no replica idles
MAX_RESTARTS = 3


class Replica:
    """Holds one model on one device; a plain class, made remote by ``generate``.

    Args:
        root: location of the store.
    """

    def __init__(self, root: str) -> None:
        import torch

        torch.set_num_threads(1)  # one thread: bytes must not depend on the machine's cores
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._store = Store(root)
        self._loaded: tuple[DenoiserRecipe, Any] | None = None

    def make(self, recipe: SamplesRecipe, unit: int) -> FileEntry:
        """Sample one unit, loading its model if another one is held."""
        if self._loaded is None or self._loaded[0] != recipe.denoiser:
            self._loaded = (
                recipe.denoiser,
                load_denoiser(self._store, recipe.denoiser, device=self.device),
            )
        denoiser, shape = self._loaded[1]
        return make_samples(self._store, recipe, unit, denoiser, shape, device=self.device)


def generate(
    runtime: RayRuntime,
    store: Store,
    recipes: Sequence[SamplesRecipe],
    *,
    replicas: int | None,
    gpus_per_replica: float,
    on_unit: Callable[[], None],
) -> None:
    """Complete the samples of all recipes; units that exist are kept.

    Args:
        runtime: where to run.
        store: where models are, and where samples go.
        recipes: what to sample, grouped by model so that replicas seldom change theirs.
        replicas: number of actors; None takes one per CPU, or as many as the GPUs hold.
        gpus_per_replica: share of a GPU per actor; used only where there are GPUs.
        on_unit: called after every unit.
    """
    entries: dict[int, list[FileEntry]] = {}
    work: list[tuple[int, int]] = []
    for i, recipe in enumerate(recipes):
        entries[i], missing = _present(store, recipe)
        work += [(i, unit) for unit in missing]
    if work:
        actors = _start(runtime, store.root.uri, len(work), replicas, gpus_per_replica)
        for i, entry in _run(actors, recipes, work):
            entries[i].append(entry)
            on_unit()
    for i, recipe in enumerate(recipes):
        store.artifact(recipe).finish(entries[i])


def _present(store: Store, recipe: SamplesRecipe) -> tuple[list[FileEntry], list[int]]:
    """Entries of shards that an earlier run left, and the units that are missing."""
    artifact = store.artifact(recipe)
    names = {shard_name(unit): unit for unit in range(recipe.num_units)}
    present = artifact.present() & names.keys()
    entries = [entry_of(artifact, name) for name in sorted(present)]
    return entries, [unit for name, unit in names.items() if name not in present]


def _start(
    runtime: RayRuntime, root: str, num_units: int, replicas: int | None, gpus_per_replica: float
) -> list[Any]:
    ray = runtime.start()
    on_gpu = runtime.gpus > 0
    room = int(runtime.gpus / gpus_per_replica) if on_gpu else runtime.cpus
    remote = ray.remote(Replica).options(
        num_cpus=0 if on_gpu else 1,
        num_gpus=gpus_per_replica if on_gpu else 0,
        max_restarts=MAX_RESTARTS,
        max_task_retries=MAX_RESTARTS,
    )
    return [remote.remote(root) for _ in range(min(replicas or room, num_units))]


def _run(
    actors: Sequence[Any], recipes: Sequence[SamplesRecipe], work: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, FileEntry]]:
    """Hand out units, at most ``IN_FLIGHT`` per actor; yields (recipe, entry) as they are done."""
    import ray

    queue = iter(work)
    running: dict[Any, tuple[int, Any]] = {}

    def submit(actor: Any) -> None:
        for i, unit in queue:
            running[actor.make.remote(recipes[i], unit)] = (i, actor)
            return

    for _ in range(IN_FLIGHT):
        for actor in actors:
            submit(actor)
    while running:
        (done,), _ = ray.wait(list(running), num_returns=1)
        i, actor = running.pop(done)
        submit(actor)
        yield i, ray.get(done)
