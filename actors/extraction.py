"""Feature extraction: Ray Data streams work units through actors that hold descriptors.

    on GPUs   units -> read (tasks: fetch, decode) -> describe (actors: resize, network, write) -> entries
    on CPUs   units -> describe (actors: fetch, decode, resize, network, write) -> entries

For GPUs reading runs in processes of its own (Ray would merge both stages if they asked for the same
resources), so that images are decoded while a network computes. A unit travels as one row, which Ray
cannot split, and what waits between the stages is bounded: memory does not grow with the number of
images. Where both would share the same CPUs, sending pixels from one process to another only costs,
unless the images are far away: then an actor waits for its unit. Any unit may be done twice: it writes
the same bytes under the same name.

A unit that fails, or under which workers die, is left out and tried once more by other workers when the
rest is done; then it is named. Where many do, the descriptor is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import logging
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from regimes.actors.failures import describe, report
from regimes.actors.reading import Reader, as_text, from_text, source_of, unpack
from regimes.actors.runtime import RayRuntime, hushed
from regimes.errors import ConfigError, RegimesError, WorkFailed
from regimes.storage.artifacts import FileEntry, Store
from regimes.storage.features import (
    Block,
    FeaturesRecipe,
    describe_block,
    finish,
    load_descriptor,
    split_work,
    write_block,
)
from regimes.words import counted

WAITING_BYTES = 48 * 2**20  # of decoded images between the stages, per actor
MAX_RESTARTS = 100  # of an actor; Ray Data's own default has no end
ATTEMPTS = 5  # of a unit under which actors die
MOST_FAILED = 3  # units of a round; with more it is not the units
ALL_DIE = (
    "{}: workers died under more than {} units; a descriptor that ends its process, or asks for more memory "
    "than there is, does that, and so do nodes that vanish; what was described is kept, and the same command "
    "goes on from there"
)
IN_FLIGHT = 2  # units per actor: one running, one waiting
MOST_IN_FLIGHT = 6  # where actors read them and there are many: it takes Ray Data 40 ms to send one


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What a descriptor actor computes on."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """auto takes GPUs for networks where there are any; gpu asks for some, so that a cluster starts them."""
    gpus_each: float = 1.0
    """Share of a GPU per actor, 1 at most."""
    threads: int = 1
    """CPU threads per actor."""

    def __post_init__(self) -> None:
        """Refuse what no actor could have."""
        if self.threads < 1 or not 0 < self.gpus_each <= 1:
            raise ConfigError(
                f"threads and gpus_each: expected at least 1 and a share in (0, 1], got {self.threads} "
                f"and {self.gpus_each:g}"
            )


_LONGEST_END_S = 30.0
_OUTCOME = pa.schema({
    "recipe": pa.int64(), "unit": pa.int64(), "entries": pa.string(), "error": pa.string(),
})  # fmt: skip


class DescribeUnits:
    """Holds descriptors; writes the features of every unit it is given.

    A plain class, made remote by ``extract``.

    Args:
        reader: of units that come without their images.
        device: where networks compute, "cpu" or "cuda".
        threads: CPU threads.
    """

    def __init__(self, reader: Reader, device: str = "cpu", threads: int = 1) -> None:
        import torch

        torch.set_num_threads(threads)
        self.reader, self.device = reader, device
        self.store, self.recipes = Store(reader.root), reader.recipes
        self._descriptors: dict[str, Any] = {}

    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows of units, read or not -> one row per unit: its recipe, and its entries or its error."""
        is_read = "pixels" in table.column_names
        units = [self._outcome(table, row, is_read) for row in range(table.num_rows)]
        return pa.Table.from_pylist(units, schema=_OUTCOME)

    def _outcome(self, table: pa.Table, row: int, is_read: bool) -> dict[str, Any]:
        names = ("recipe", "unit", "error" if is_read else "name")
        given = {name: table[name][row].as_py() for name in names}
        head = {name: given[name] for name in ("recipe", "unit")}
        if given.get("error") is not None:
            return given
        try:
            block = unpack(table, row) if is_read else self.reader.read(given)
            return head | {"entries": json.dumps(self._describe(block, **head))}
        except Exception as error:
            return head | {"error": as_text(error)}

    def _describe(self, block: Block, *, recipe: int, unit: int) -> list[dict[str, Any]]:
        wanted, features = self.recipes[recipe], None
        if len(block.ids):
            features = describe_block(self._descriptor(wanted), block, raw=wanted.raw)
        entries = write_block(self.store, wanted, unit, block, features)
        return [dataclasses.asdict(entry) for entry in entries]

    def _descriptor(self, recipe: FeaturesRecipe) -> Any:
        address = recipe.descriptor.address
        if address not in self._descriptors:
            self._descriptors[address] = load_descriptor(
                self.store, recipe.descriptor, device=self.device
            )
        return self._descriptors[address]


def extract(
    runtime: RayRuntime,
    store: Store,
    recipes: Sequence[FeaturesRecipe],
    *,
    workers: int | None = None,
    on_unit: Callable[[], None],
    hardware: Hardware | None = None,
    sources: Mapping[str, str] | None = None,
) -> None:
    """Complete the features of all recipes; shards that exist are kept.

    Args:
        runtime: where to run.
        store: where images and descriptors are (fitted, weights imported), and where features go.
        recipes: what to describe.
        workers: descriptor actors; None takes one per GPU share, or per ``threads`` CPUs.
        on_unit: called after every unit.
        hardware: what an actor computes on.
        sources: for images that are not in the store: what to open (see ``open_source``) by the
            address of their ``SourceRecipe``. Every worker opens it under this name, and it must not
            change meanwhile.

    Raises:
        BadImage: if an image cannot be decoded and the recipe does not leave such out.
        BadDescriptor: if a network makes no proper features.
        WorkFailed: if units failed, or workers died under them, in both rounds; the others are done. Or
            if workers died under more than ``MOST_FAILED`` units of one.
        RuntimeError: if more than ``MOST_FAILED`` failed in one.
    """
    specs = dict(sources or {})
    entries: list[list[FileEntry]] = [[] for _ in recipes]
    work: list[dict[str, Any]] = []
    for i, recipe in enumerate(recipes):
        entries[i], missing = split_work(store, recipe, source_of(recipe, specs))
        work += [{"recipe": i, "unit": unit, "name": name} for unit, name in missing]
    if work:
        plan = _Plan.of(runtime, recipes, len(work), workers, hardware or Hardware())
        with contextlib.closing(_complete(store, recipes, work, specs, plan)) as done:
            for i, found in done:
                entries[i] += found
                on_unit()
    for i, recipe in enumerate(recipes):
        finish(store, recipe, entries[i])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """How many actors and readers (none: actors read), and what each asks Ray for."""

    actors: int
    readers: int
    device: str
    threads: int
    actor_cpus: float
    actor_gpus: float
    reader_cpus: float
    in_flight: int
    """Units per actor. Actors that start later get none of those given away: few, if there are few."""

    @classmethod
    def of(
        cls,
        runtime: RayRuntime,
        recipes: Sequence[FeaturesRecipe],
        num_units: int,
        workers: int | None,
        hardware: Hardware,
    ) -> _Plan:
        """Actors on GPUs ask for half of a CPU at most: readers that got none would deadlock."""
        runtime.start()
        network = any(recipe.descriptor.network is not None for recipe in recipes)
        wanted = hardware.device == "gpu" or (hardware.device == "auto" and runtime.gpus > 0)
        on_gpu = network and wanted  # pixels have no use for one
        room = runtime.cpus // hardware.threads
        if on_gpu:
            room = int(runtime.gpus / hardware.gpus_each)
        actors = min(
            max(1, workers or room) if on_gpu else max(1, min(workers or room, room)), num_units
        )
        return cls(
            actors=actors,
            readers=min(num_units, max(1, runtime.cpus)) if on_gpu else 0,
            device="cuda" if on_gpu else "cpu",
            threads=hardware.threads,
            actor_cpus=min(0.5, 0.5 * runtime.cpus / actors)
            if on_gpu
            else min(hardware.threads, runtime.cpus),
            actor_gpus=hardware.gpus_each if on_gpu else 0.0,
            reader_cpus=0.49,  # other than the actors' share: equal ones would be merged
            in_flight=IN_FLIGHT
            if on_gpu
            else max(IN_FLIGHT, min(MOST_IN_FLIGHT, num_units // (8 * actors))),
        )


def _complete(
    store: Store,
    recipes: Sequence[FeaturesRecipe],
    work: list[dict[str, Any]],
    specs: dict[str, str],
    plan: _Plan,
) -> Generator[tuple[int, list[FileEntry]], None, None]:
    """Do all units, those that failed in one more round; yields (recipe, entries) as they are done."""
    left = {(unit["recipe"], unit["unit"]): unit for unit in work}
    # Alone in the second round, of units that failed in the first: who waits does not die with another.
    for in_flight in (plan.in_flight, 1):
        failed: dict[tuple[int, int], Exception] = {}
        with contextlib.closing(
            _stream(store, recipes, list(left.values()), specs, plan, in_flight)
        ) as outcomes:
            for row in outcomes:
                key = row["recipe"], row["unit"]
                if row["error"] is not None:
                    failed[key] = _unit_error(row["error"], failed)
                elif left.pop(key, None) is not None:
                    entries = [FileEntry(**entry) for entry in json.loads(row["entries"])]
                    yield row["recipe"], entries
        if not left:
            return
    died = RuntimeError("workers died under it")
    raise report([(_name(recipes, unit), failed.get(key, died)) for key, unit in left.items()])


def _unit_error(text: str, others: Mapping[Any, Exception]) -> Exception:
    """The error of a unit that is to be tried again; raises what has no use in that."""
    error = from_text(text)
    if isinstance(error, RegimesError):
        raise error
    if len(others) >= MOST_FAILED:
        raise RuntimeError(
            f"{counted(len(others) + 1, 'unit')} could not be described: {describe(error)}"
        ) from error
    return error


@contextlib.contextmanager
def _naming(recipes: Sequence[FeaturesRecipe], work: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Say whose workers died, where Ray gave up on them; an error of theirs stays what it is."""
    from ray.exceptions import OutOfMemoryError, RayActorError, WorkerCrashedError

    try:
        yield
    except (OutOfMemoryError, RayActorError, WorkerCrashedError) as error:
        if isinstance(error, RayActorError) and error.actor_init_failed:
            raise
        labels = {recipes[unit["recipe"]].descriptor.label for unit in work}
        raise WorkFailed(ALL_DIE.format(", ".join(sorted(labels)), MOST_FAILED)) from error


def _name(recipes: Sequence[FeaturesRecipe], unit: Mapping[str, Any]) -> str:
    recipe = recipes[unit["recipe"]]
    return f"{recipe.descriptor.label} of {recipe.images.address}, {unit['name']}"


def _let_go() -> None:
    """Let what has run end, and free its actors, whose CPUs the next run waits for: it refers to itself."""
    for thread in threading.enumerate():
        if thread.name.startswith("StreamingExecutor"):  # Ray waits two seconds for it
            thread.join(_LONGEST_END_S)
    gc.collect()


def _stream(
    store: Store,
    recipes: Sequence[FeaturesRecipe],
    work: list[dict[str, Any]],
    specs: dict[str, str],
    plan: _Plan,
    in_flight: int,
) -> Generator[dict[str, Any], None, None]:
    """Run the Ray Data pipeline; yields outcomes as they come, none of a unit under which workers die."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # who dies is named in the end
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = MOST_FAILED
    limits = context.execution_options.resource_limits
    context.execution_options.resource_limits = limits.copy(
        object_store_memory=plan.actors * WAITING_BYTES
    )
    reader = Reader(store.root.uri, list(recipes), specs)
    with warnings.catch_warnings():
        # Restarts have no named parameter in Ray 2.60, which warns of that.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        units: ray.data.Dataset = ray.data.from_items(work, override_num_blocks=len(work))
        if plan.readers:
            units = units.map_batches(
                reader,
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=plan.reader_cpus,
                compute=ray.data.TaskPoolStrategy(size=plan.readers),
            )
        described = units.map_batches(
            DescribeUnits,
            fn_constructor_args=(reader, plan.device, plan.threads),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=plan.actor_cpus,
            num_gpus=plan.actor_gpus,
            max_restarts=MAX_RESTARTS,
            max_task_retries=ATTEMPTS - 1,
            compute=ray.data.ActorPoolStrategy(
                size=plan.actors, max_tasks_in_flight_per_actor=in_flight
            ),
        )
    with hushed(), _naming(recipes, work):
        # `iter_rows` reads ahead in threads that outlive it, and one that lets go of a block after the end of
        # Ray ends this process (a fifth of short runs).
        try:
            for bundle in described.iter_internal_ref_bundles():
                for outcomes in ray.get(bundle.block_refs):
                    yield from outcomes.to_pylist()
        finally:
            _let_go()
