"""Feature extraction: Ray Data streams work units through actors that hold descriptors.

    units -> read (tasks: fetch, decode) -> describe (actors: resize, network, write) -> entries

Reading and describing run in processes of their own (Ray would merge them into one if they asked for
the same resources), so that images are decoded while a network computes. A unit travels as one row,
which Ray cannot split, and what waits between the stages is bounded: memory does not grow with the
number of images. Any unit may be done twice: it writes the same bytes under the same name.

A unit that fails, or under which workers die, is left out and tried once more by other workers when the
rest is done; then it is named.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import traceback
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from regimes import errors
from regimes.actors.failures import describe, report
from regimes.actors.runtime import RayRuntime, hushed
from regimes.errors import ConfigError, RegimesError
from regimes.images.sources import ImageSource, open_source
from regimes.memory import keep_freed_memory
from regimes.storage.artifacts import FileEntry, Store
from regimes.storage.features import (
    Block,
    FeaturesRecipe,
    SourceRecipe,
    describe_block,
    finish,
    load_descriptor,
    read_block,
    split_work,
    write_block,
)

WAITING_BYTES = 48 * 2**20  # of decoded images between the stages, per actor
MAX_RESTARTS = 100  # of an actor; Ray Data's own default has no end
ATTEMPTS = 5  # of a unit under which actors die
MOST_FAILED = 3  # units of a round; with more it is not the units
IN_FLIGHT = (
    2,  # units per actor: one running, one waiting, so that no actor idles
    1,  # in the second round, of units that failed in the first: who waits does not die with another
)


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


def read_rows(
    table: pa.Table, root: str, recipes: Sequence[FeaturesRecipe], specs: Mapping[str, str]
) -> pa.Table:
    """Read and decode units: {recipe, unit, name} -> one row per unit, as ``pack`` makes it."""
    rows = []
    for row in table.to_pylist():
        recipe = recipes[row["recipe"]]
        head = {"recipe": row["recipe"], "unit": row["unit"]}
        try:
            source = _open(specs[recipe.images.address]) if _is_source(recipe) else None
            block = read_block(Store(root), recipe, row["unit"], row["name"], source)
            rows.append(head | pack(block))
        except Exception as error:
            rows.append(head | {"error": _as_text(error)})
    return pa.Table.from_pylist(rows, schema=_ROW)


def _as_text(error: Exception) -> str:
    """An error as a row carries it, so that others go on: its class and message, or its traceback."""
    if not isinstance(error, RegimesError):
        return json.dumps([None, "".join(traceback.format_exception(error))])
    public = next(c for c in type(error).__mro__ if c.__module__ == RegimesError.__module__)
    return json.dumps([public.__name__, str(error)])


def _from_text(text: str) -> Exception:
    name, message = json.loads(text)
    error: Exception = (RuntimeError if name is None else getattr(errors, name))(message)
    return error


def _is_source(recipe: FeaturesRecipe) -> bool:
    return isinstance(recipe.images, SourceRecipe)


@functools.lru_cache(maxsize=4)
def _open(spec: str) -> ImageSource:
    """A source, opened once per process: listing a folder of a million files takes a while."""
    return open_source(spec)


_ROW = pa.schema({
    "recipe": pa.int64(), "unit": pa.int64(), "error": pa.string(),
    "ids": pa.list_(pa.string()), "seeds": pa.list_(pa.int64()), "left_out": pa.string(),
    "shapes": pa.list_(pa.int64()), "positions": pa.list_(pa.int64()), "pixels": pa.large_binary(),
})  # fmt: skip

_OUTCOME = pa.schema({
    "recipe": pa.int64(), "unit": pa.int64(), "entries": pa.string(), "error": pa.string(),
})  # fmt: skip


def pack(block: Block) -> dict[str, Any]:
    """A block as plain values: ids or seeds, (n, H, W, C) of its groups, all pixels in a row."""
    numbered = np.issubdtype(block.ids.dtype, np.integer)
    pixels = b"".join(np.ascontiguousarray(images).data for _, images in block.groups)
    return {
        "ids": None if numbered else block.ids.tolist(),
        "seeds": block.ids.tolist() if numbered else None,
        "left_out": json.dumps(block.left_out),
        "shapes": [size for _, images in block.groups for size in images.shape],
        "positions": [int(i) for positions, _ in block.groups for i in positions],
        "pixels": pixels,
    }


def unpack(table: pa.Table, row: int) -> Block:
    """A block from its row; the images share the row's memory and are read-only."""
    value = {name: table[name][row] for name in table.column_names}
    ids = value["ids"].as_py()
    pixels = np.frombuffer(value["pixels"].as_buffer(), np.uint8)
    positions = np.array(value["positions"].as_py(), np.int64)
    groups, done, used = [], 0, 0
    for shape in np.array(value["shapes"].as_py(), np.int64).reshape(-1, 4):
        size = int(shape.prod())
        images = pixels[used : used + size].reshape(shape)
        groups.append((positions[done : done + shape[0]], images))
        done, used = done + int(shape[0]), used + size
    found = np.array(value["seeds"].as_py(), np.int64) if ids is None else np.array(ids, np.str_)
    return Block(found, groups, json.loads(value["left_out"].as_py()))


class DescribeUnits:
    """Holds descriptors; writes the features of every unit it is given.

    A plain class, made remote by ``extract``.

    Args:
        root: location of the store.
        recipes: what is described.
        device: where networks compute, "cpu" or "cuda".
        threads: CPU threads.
    """

    def __init__(
        self, root: str, recipes: Sequence[FeaturesRecipe], device: str = "cpu", threads: int = 1
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        keep_freed_memory()
        self.store, self.recipes, self.device = Store(root), recipes, device
        self._descriptors: dict[str, Any] = {}

    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows of ``read_rows`` -> one row per unit: its recipe, and its entries or its error."""
        units = [self._outcome(table, row) for row in range(table.num_rows)]
        return pa.Table.from_pylist(units, schema=_OUTCOME)

    def _outcome(self, table: pa.Table, row: int) -> dict[str, Any]:
        head = {name: table[name][row].as_py() for name in ("recipe", "unit", "error")}
        if head["error"] is not None:
            return head
        try:
            return head | {"entries": json.dumps(self._describe(table, row))}
        except Exception as error:
            return head | {"error": _as_text(error)}

    def _describe(self, table: pa.Table, row: int) -> list[dict[str, Any]]:
        recipe, block = self.recipes[table["recipe"][row].as_py()], unpack(table, row)
        features = None
        if len(block.ids):
            features = describe_block(self._descriptor(recipe), block, raw=recipe.raw)
        unit = table["unit"][row].as_py()
        entries = write_block(self.store, recipe, unit, block, features)
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
        WorkFailed: if units failed, or workers died under them, in both rounds; the others are done.
        RuntimeError: if more than ``MOST_FAILED`` did in one.
    """
    specs = dict(sources or {})
    entries: list[list[FileEntry]] = [[] for _ in recipes]
    work: list[dict[str, Any]] = []
    for i, recipe in enumerate(recipes):
        source = _open(specs[recipe.images.address]) if _is_source(recipe) else None
        entries[i], missing = split_work(store, recipe, source)
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
    """How many actors and readers, and what each asks Ray for."""

    actors: int
    readers: int
    device: str
    threads: int
    actor_cpus: float
    actor_gpus: float
    reader_cpus: float

    @classmethod
    def of(
        cls,
        runtime: RayRuntime,
        recipes: Sequence[FeaturesRecipe],
        num_units: int,
        workers: int | None,
        hardware: Hardware,
    ) -> _Plan:
        """Half of the CPUs are asked for by actors at most: readers that got none would deadlock."""
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
        share = 0.5 if on_gpu else min(0.5 * hardware.threads, 0.5 * runtime.cpus / actors)
        return cls(
            actors=actors,
            readers=min(num_units, max(1, runtime.cpus if on_gpu else actors * hardware.threads)),
            device="cuda" if on_gpu else "cpu",
            threads=hardware.threads,
            actor_cpus=share,
            actor_gpus=hardware.gpus_each if on_gpu else 0.0,
            reader_cpus=0.49,  # other than the actors' share: equal ones would be merged
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
    for in_flight in IN_FLIGHT:
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
    error = _from_text(text)
    if isinstance(error, RegimesError):
        raise error
    if len(others) >= MOST_FAILED:
        raise RuntimeError(
            f"{len(others) + 1} units could not be described: {describe(error)}"
        ) from error
    return error


def _name(recipes: Sequence[FeaturesRecipe], unit: Mapping[str, Any]) -> str:
    recipe = recipes[unit["recipe"]]
    return f"{recipe.descriptor.label} of {recipe.images.address}, {unit['name']}"


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

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = MOST_FAILED
    limits = context.execution_options.resource_limits
    context.execution_options.resource_limits = limits.copy(
        object_store_memory=plan.actors * WAITING_BYTES
    )
    root, held = store.root.uri, list(recipes)
    with (
        warnings.catch_warnings()
    ):  # restarts have no named parameter in Ray 2.60, which warns of that
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        described = (
            ray.data.from_items(work, override_num_blocks=len(work))
            .map_batches(
                functools.partial(read_rows, root=root, recipes=held, specs=specs),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=plan.reader_cpus,
                compute=ray.data.TaskPoolStrategy(size=plan.readers),
            )
            .map_batches(
                DescribeUnits,
                fn_constructor_args=(root, held, plan.device, plan.threads),
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
        )
    with hushed():
        yield from described.iter_rows()
