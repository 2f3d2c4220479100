"""Generator replicas: actors that hold one model each and turn blocks of seeds into shards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from regimes.actors.pool import Pool
from regimes.actors.runtime import RayRuntime
from regimes.errors import ConfigError
from regimes.pipelines.schedulers import SchedulerConfig
from regimes.storage.artifacts import FileEntry, Store
from regimes.storage.samples import (
    SamplesRecipe,
    check_spread,
    load_model,
    make_samples,
    split_work,
)

T = TypeVar("T")


class ModelHolder:
    """Holds one model on one device; a plain class, made remote by ``start_pool``.

    Args:
        root: location of the store.
        device: where the model computes, "cpu" or "cuda".
        others: more devices that it is spread over.
    """

    def __init__(self, root: str, device: str, others: Sequence[str] = ()) -> None:
        import torch

        torch.set_num_threads(1)  # one thread: bytes must not depend on the machine's cores
        self.device, self.others = device, others
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
        model = self.hold(
            key, lambda: load_model(self._store, recipe, device=self.device, others=self.others)
        )
        return make_samples(self._store, recipe, unit, model, device=self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaOptions:
    """How many replicas, and where."""

    count: int | None = None
    """Actors; None takes one per CPU, or as many as the GPUs that are there hold."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """auto takes the GPUs that are there; gpu asks for some, so that a cluster starts them."""
    gpus_each: float = 1.0
    """Share of a GPU per replica; or a whole number of GPUs, over which its model is spread."""

    def __post_init__(self) -> None:
        """Refuse shares that no replica could use."""
        share = float(self.gpus_each)
        several = share.is_integer() and self.device != "cpu"
        if not (0 < share <= 1 or (share > 1 and several)):
            raise ConfigError(
                f"gpus_each: expected a share in (0, 1], or a whole number of GPUs, got {share:g} on "
                f"device {self.device}"
            )

    @property
    def others(self) -> tuple[str, ...]:
        """The devices of a replica beside its first."""
        return tuple(f"cuda:{number}" for number in range(1, int(self.gpus_each)))


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

    Raises:
        ConfigError: if several GPUs per replica are asked for a model that cannot be spread.
    """
    if options.others:
        for recipe in recipes:
            check_spread(recipe)
    entries: dict[int, list[FileEntry]] = {}
    work: list[tuple[int, int]] = []
    for i, recipe in enumerate(recipes):
        entries[i], missing = split_work(store, recipe)
        work += [(i, unit) for unit in missing]
    if work:

        def ask(actor: Any, i: int, unit: int) -> Any:
            return actor.make.remote(recipes[i], unit)

        def name(i: int, unit: int) -> str:
            return f"samples of {recipes[i].denoiser.label}, {_seeds(recipes[i].unit_seeds(unit))}"

        pool = start_pool(runtime, Replica, store.root.uri, len(work), options, name)
        with contextlib.closing(pool.run(ask, work)) as done:
            for i, entry in done:
                entries[i].append(entry)
                on_unit()
    for i, recipe in enumerate(recipes):
        store.artifact(recipe).finish(entries[i])


def _seeds(seeds: Sequence[int]) -> str:
    return f"seeds {seeds[0]} to {seeds[-1]}"


def start_pool(
    runtime: RayRuntime,
    kind: type,
    root: str,
    num_units: int,
    options: ReplicaOptions,
    name: Callable[[int, int], str],
) -> Pool:
    """A pool of actors of a kind of ``ModelHolder``: as many as there is work for.

    Args:
        runtime: where to run.
        kind: the class.
        root: location of the store.
        num_units: what there is to do.
        options: how many replicas, and where.
        name: (recipe, unit) -> what a unit is called in an error.

    Raises:
        ConfigError: if more GPUs are asked for than this machine has, and it is no cluster.
    """
    ray = runtime.start()
    on_gpu = options.device == "gpu" or bool(options.others)
    on_gpu = on_gpu or (options.device == "auto" and runtime.gpus > 0)
    if on_gpu:
        runtime.require_gpus(options.gpus_each)
    room = max(1, int(runtime.gpus / options.gpus_each)) if on_gpu else runtime.cpus
    remote = ray.remote(kind).options(
        num_cpus=0 if on_gpu else 1,
        num_gpus=options.gpus_each if on_gpu else 0,
        max_restarts=0,  # the pool replaces actors, and tries their units elsewhere
        max_task_retries=0,
    )
    device = "cuda" if on_gpu else "cpu"
    size = min(options.count or room, num_units)
    return Pool(ray, lambda: remote.remote(root, device, options.others), size, name)
