"""Generator replicas: actors that hold one model each and turn blocks of seeds into shards."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from regimes.actors.runtime import RayRuntime
from regimes.pipelines.schedulers import SchedulerConfig
from regimes.storage.artifacts import FileEntry, Store
from regimes.storage.samples import SamplesRecipe, load_model, make_samples, split_work

IN_FLIGHT = 2  # units per replica: one running, one waiting, so that no replica idles
MAX_RESTARTS = 3

T = TypeVar("T")


class ModelHolder:
    """Holds one model on one device; a plain class, made remote by ``start_actors``.

    Args:
        root: location of the store.
        device: where the model computes, "cpu" or "cuda".
    """

    def __init__(self, root: str, device: str) -> None:
        import torch

        torch.set_num_threads(1)  # one thread: bytes must not depend on the machine's cores
        self.device = device
        self._store = Store(root)
        self._held: tuple[Hashable, Any] | None = None

    def ready(self) -> None:
        """Answers once the actor has its resources and its libraries."""

    def hold(self, key: Hashable, load: Callable[[], T]) -> T:
        """What was loaded for this key, loaded now if something else is held."""
        if self._held is None or self._held[0] != key:
            self._held = None  # two models at once may be more than the device holds
            self._held = key, load()
        found: T = self._held[1]
        return found


class Replica(ModelHolder):
    """Samples."""

    def make(self, recipe: SamplesRecipe, unit: int) -> FileEntry:
        """Sample one unit."""
        key = recipe.denoiser, recipe.compute, isinstance(recipe.sampler, SchedulerConfig)
        model = self.hold(key, lambda: load_model(self._store, recipe, device=self.device))
        return make_samples(self._store, recipe, unit, model, device=self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaOptions:
    """How many replicas, and where."""

    count: int | None = None
    """Actors; None takes one per CPU, or as many as the GPUs that are there hold."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """auto takes the GPUs that are there; gpu asks for some, so that a cluster starts them."""
    gpus_each: float = 1.0
    """Share of a GPU per replica."""


def generate(
    runtime: RayRuntime,
    store: Store,
    recipes: Sequence[SamplesRecipe],
    *,
    options: ReplicaOptions,
    on_unit: Callable[[], None],
) -> None:
    """Complete the samples of all recipes; units that exist are kept.

    Args:
        runtime: where to run.
        store: where models are, and where samples go.
        recipes: what to sample, grouped by model so that replicas seldom change theirs.
        options: how many replicas, and where.
        on_unit: called after every unit.
    """
    entries: dict[int, list[FileEntry]] = {}
    work: list[tuple[int, int]] = []
    for i, recipe in enumerate(recipes):
        entries[i], missing = split_work(store, recipe)
        work += [(i, unit) for unit in missing]
    if work:
        actors = start_actors(runtime, Replica, store.root.uri, len(work), options)

        def ask(actor: Any, i: int, unit: int) -> Any:
            return actor.make.remote(recipes[i], unit)

        for i, entry in hand_out(actors, ask, work):
            entries[i].append(entry)
            on_unit()
    for i, recipe in enumerate(recipes):
        store.artifact(recipe).finish(entries[i])


def start_actors(
    runtime: RayRuntime, kind: type, root: str, num_units: int, options: ReplicaOptions
) -> list[Any]:
    """Actors of a class that takes (root, device) and has ``ready``: as many as there is work for."""
    ray = runtime.start()
    on_gpu = options.device == "gpu" or (options.device == "auto" and runtime.gpus > 0)
    room = max(1, int(runtime.gpus / options.gpus_each)) if on_gpu else runtime.cpus
    remote = ray.remote(kind).options(
        num_cpus=0 if on_gpu else 1,
        num_gpus=options.gpus_each if on_gpu else 0,
        max_restarts=MAX_RESTARTS,
        max_task_retries=MAX_RESTARTS,
    )
    device = "cuda" if on_gpu else "cpu"
    return [remote.remote(root, device) for _ in range(min(options.count or room, num_units))]


def hand_out(
    actors: Sequence[Any], ask: Callable[[Any, int, int], Any], work: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, FileEntry]]:
    """Hand out units, at most ``IN_FLIGHT`` per actor; yields (recipe, entry) as they are done.

    Args:
        actors: as ``start_actors`` gives them.
        ask: (actor, recipe, unit) -> a reference to the unit's entry.
        work: (recipe, unit) of every unit.

    Only actors that have answered get work: one for which there is no room stays pending (which is
    what an autoscaling cluster grows by) and must not hold units meanwhile.
    """
    import ray

    queue = iter(work)
    pending = {actor.ready.remote(): actor for actor in actors}
    running: dict[Any, tuple[int, Any]] = {}

    def submit(actor: Any) -> None:
        for i, unit in queue:
            running[ask(actor, i, unit)] = (i, actor)
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
