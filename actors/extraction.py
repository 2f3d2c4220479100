"""Feature extraction: Ray Data streams images through actors that hold a descriptor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from regimes.actors.runtime import RayRuntime, hushed
from regimes.storage.artifacts import FileEntry, Store
from regimes.storage.features import (
    FeaturesRecipe,
    load_descriptor,
    read_unit,
    split_work,
    write_unit,
)

Batch = dict[str, np.ndarray]


def read_shard(batch: Batch, root: str, recipes: Sequence[FeaturesRecipe]) -> Batch:
    """Read and decode the images of one unit.

    {recipe (1), unit (1), name (1)} -> {recipe, unit, total, id (N); image (N, H, W, C)}.
    """
    recipe, unit, name = int(batch["recipe"][0]), int(batch["unit"][0]), str(batch["name"][0])
    ids, images = read_unit(Store(root), recipes[recipe], name)
    same = np.ones(len(ids), np.int64)
    columns = {"recipe": same * recipe, "unit": same * unit, "total": same * len(ids)}
    return columns | {"id": ids.astype(str), "image": images}


class DescribeShard:
    """Holds a descriptor; writes the features of every unit it is given."""

    def __init__(self, root: str, recipes: Sequence[FeaturesRecipe]) -> None:
        import torch

        torch.set_num_threads(1)
        self.store, self.recipes = Store(root), recipes
        self._descriptors: dict[str, Any] = {}

    def __call__(self, batch: Batch) -> Batch:
        """Images of whole units -> one row per unit: its recipe, and the manifest entry."""
        keys = np.stack([batch["recipe"], batch["unit"]], axis=1)
        rows = [self._describe(batch, (keys == key).all(1)) for key in np.unique(keys, axis=0)]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def _describe(self, batch: Batch, rows: np.ndarray) -> dict[str, Any]:
        index, unit, total = (int(batch[c][rows][0]) for c in ("recipe", "unit", "total"))
        if int(rows.sum()) != total:
            raise RuntimeError(
                f"unit {unit}: {total} images expected, {rows.sum()} arrived together"
            )
        recipe = self.recipes[index]
        descriptor = self._descriptor(recipe)
        features = descriptor(batch["image"][rows])
        entry = write_unit(self.store, recipe, unit, batch["id"][rows], features)
        return {
            "recipe": index,
            "name": entry.name,
            "num_bytes": entry.num_bytes,
            "sha256": entry.sha256,
            "num_rows": entry.num_rows,
        }

    def _descriptor(self, recipe: FeaturesRecipe) -> Any:
        address = recipe.descriptor.address
        if address not in self._descriptors:
            self._descriptors[address] = load_descriptor(self.store, recipe.descriptor)
        return self._descriptors[address]


def extract(
    runtime: RayRuntime,
    store: Store,
    recipes: Sequence[FeaturesRecipe],
    *,
    workers: int | None,
    on_unit: Callable[[], None],
) -> None:
    """Complete the features of all recipes; shards that exist are kept.

    Args:
        runtime: where to run.
        store: where images are, and where features go.
        recipes: what to describe.
        workers: number of descriptor actors, at most one per CPU; None takes one per CPU.
        on_unit: called after every unit.
    """
    entries: list[list[FileEntry]] = [[] for _ in recipes]
    work: list[dict[str, Any]] = []
    for i, recipe in enumerate(recipes):
        entries[i], missing = split_work(store, recipe)
        work += [{"recipe": i, "unit": unit, "name": name} for unit, name in missing]
    if work:
        for i, entry in _stream(runtime, store, recipes, work, workers):
            entries[i].append(entry)
            on_unit()
    for i, recipe in enumerate(recipes):
        store.artifact(recipe).finish(entries[i])


def _stream(
    runtime: RayRuntime,
    store: Store,
    recipes: Sequence[FeaturesRecipe],
    work: list[dict[str, Any]],
    workers: int | None,
) -> Iterator[tuple[int, FileEntry]]:
    """Run the Ray Data pipeline; yields (recipe, entry) as units are done."""
    runtime.start()
    import ray.data

    size = min(workers or runtime.cpus, runtime.cpus, len(work))

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    root = store.root.uri
    # Half a CPU per actor leaves room for the readers; whole CPUs for all actors would deadlock.
    described = (
        ray.data.from_items(work, override_num_blocks=len(work))
        .map_batches(
            partial(read_shard, root=root, recipes=list(recipes)),
            batch_size=1,
            num_cpus=0.5,
        )
        .map_batches(
            DescribeShard,
            fn_constructor_args=(root, list(recipes)),
            batch_size=None,
            num_cpus=0.5,
            compute=ray.data.ActorPoolStrategy(size=size),
        )
    )
    with hushed():
        for row in described.iter_rows():
            index = row.pop("recipe")
            yield index, FileEntry(**row)
