"""Exact neighbour search over actors: each holds a shard of the references, and the k best of all merge.

The result has the same bits as a search in one process, whatever the number of shards.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from regimes.actors.runtime import RayRuntime
from regimes.scores.neighbours import Floats, Index, Rows, merge_top_k, nearest
from regimes.scores.products import blocks

QUERIES_AT_ONCE = 8192
MAX_RESTARTS = 3


class Shard:
    """Holds some references; a plain class, made remote by ``ShardedSearch``.

    Args:
        rows: (n, D) float32.
        start: position of the first among all references.
        device: where products run, "cpu" or "cuda".
    """

    def __init__(self, rows: Rows, start: int, device: str) -> None:
        self._rows, self._start, self._device = rows, start, device

    def search(self, queries: Rows, k: int) -> tuple[Index, Floats]:
        """Its min(k, n) nearest references of every query, by position among all."""
        positions, squared = nearest(
            queries, self._rows, min(k, len(self._rows)), device=self._device
        )
        return positions + self._start, squared


def share(count: int, units: int) -> float:
    """CPUs or GPUs that each of ``count`` actors asks for, so that ``units`` of them have room for all.

    A divisor of one: 2/3 of a GPU would leave a third of each that nobody can use, and the last actor waiting
    for ever. With no units yet, actors ask for whole ones.
    """
    return 1.0 / -(-count // units) if units else 1.0


class ShardedSearch:
    """``nearest`` on several actors; the references of the last call stay with them.

    Args:
        runtime: where to run.
        shards: actors, each with an equal part of the references.
        device: auto takes GPUs where there are any; gpu asks for one per actor.

    An actor that dies is started again, and its part searched again.
    """

    def __init__(
        self, runtime: RayRuntime, shards: int, device: Literal["auto", "cpu", "gpu"] = "auto"
    ) -> None:
        self._runtime, self._shards, self._device = runtime, shards, device
        self._held: Rows | None = None
        self._actors: list[Any] = []
        self._rows: list[Any] = []

    def __call__(self, queries: Rows, references: Rows, k: int) -> tuple[Index, Floats]:
        """As ``nearest``: positions (M, k) and squared distances (M, k), nearest first."""
        ray = self._runtime.start()
        if self._held is not references:
            self.close()
            self._actors, self._held = self._start(references), references
        found = []
        for part in blocks(len(queries), QUERIES_AT_ONCE):
            asked = ray.put(np.ascontiguousarray(queries[part]))
            answers = ray.get([actor.search.remote(asked, k) for actor in self._actors])
            found.append(merge_top_k(answers, k))
        positions, squared = zip(*found, strict=True)
        return np.concatenate(positions), np.concatenate(squared)

    def close(self) -> None:
        """Let go of the actors: what they ask for would keep others waiting."""
        for actor in self._actors:
            self._runtime.start().kill(actor)
        self._actors, self._rows, self._held = [], [], None

    def _start(self, references: Rows) -> list[Any]:
        ray = self._runtime.start()
        on_gpu = self._device == "gpu" or (self._device == "auto" and self._runtime.gpus > 0)
        count = min(self._shards, len(references))
        remote = ray.remote(Shard).options(
            num_cpus=0 if on_gpu else share(count, self._runtime.cpus),
            num_gpus=share(count, int(self._runtime.gpus)) if on_gpu else 0,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_RESTARTS,
        )
        parts = list(blocks(len(references), -(-len(references) // count)))
        # Held here: Ray drops what an actor was made from, and could not make it again.
        self._rows = [ray.put(np.ascontiguousarray(references[part])) for part in parts]
        device = "cuda" if on_gpu else "cpu"
        return [
            remote.remote(rows, part.start, device)
            for rows, part in zip(self._rows, parts, strict=True)
        ]
