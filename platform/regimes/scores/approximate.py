"""Approximate nearest neighbours, by request, with the recall that was measured.

An inverted file (FAISS's IVF): references are sorted into lists by their nearest of some centres,
and a query looks into the lists of its nearest centres only. What it finds is measured again in
float64, so distances are exact; only neighbours can be missed, and a sample of the queries is
searched exactly to say how many are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from regimes.errors import ConfigError
from regimes.noise import keyed_generator
from regimes.scores.neighbours import Floats, Index, Rows, nearest, squared_distances
from regimes.scores.products import blocks
from regimes.scores.result import wilson_interval

_ROWS = 1024
_PER_LIST = 39  # k-means wants at least so many points per centre


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproximateNeighbours:
    """What was found, and how much of what there was."""

    positions: Index
    """(M, k), nearest first."""
    squared: Floats
    """(M, k) exact squared distances of what was found."""
    recall: float
    """Fraction of the true neighbours of the sampled queries that were found."""
    low: float
    """Lower end of its 95% interval."""
    high: float
    """Upper end."""
    num_sampled: int
    """Queries on which it was measured."""
    num_lists: int
    num_probes: int


def nearest_approximate(
    queries: Rows,
    references: Rows,
    k: int = 1,
    *,
    num_lists: int | None = None,
    num_probes: int | None = None,
    num_sampled: int = 1000,
    seed: int = 0,
) -> ApproximateNeighbours:
    """Some k near references of every query, by Euclidean distance: nearly always the nearest.

    Args:
        queries: (M, D) float32, M >= 1.
        references: (N, D) float32.
        k: neighbours per query.
        num_lists: lists of the inverted file; 4 sqrt(N) unless given, at most N / 39.
        num_probes: lists searched per query; a sixteenth of them unless given. All makes it exact.
        num_sampled: queries that are searched exactly too; all, if there are fewer.
        seed: of the centres and the sample.

    Raises:
        ConfigError: if FAISS is not installed.
        ValueError: if there is no query, or fewer than k references.

    Cost: O((M num_probes / num_lists + num_sampled) N D) time after k-means.
    """
    if not (1 <= k <= len(references)) or len(queries) == 0:
        raise ValueError(
            f"expected a query and at least {k} references, got {len(queries)}, {len(references)}"
        )
    most = max(1, len(references) // _PER_LIST)
    num_lists = min(num_lists or math.ceil(4 * math.sqrt(len(references))), most)
    num_probes = min(num_probes or math.ceil(num_lists / 16), num_lists)
    index = _inverted_file(references, num_lists, num_probes, seed)
    positions, squared = _search(index, queries, references, k)
    chosen = keyed_generator("recall", seed, len(queries)).permutation(len(queries))[:num_sampled]
    _, true = nearest(queries[chosen], references, k)
    # By distance, so that of equally distant references any will do.
    hits = int((squared[chosen] <= true[:, -1:]).sum())
    low, high = wilson_interval(hits, true.size)
    return ApproximateNeighbours(
        positions=positions,
        squared=squared,
        recall=hits / true.size,
        low=low,
        high=high,
        num_sampled=len(chosen),
        num_lists=num_lists,
        num_probes=num_probes,
    )


class ApproximateSearch:
    """``nearest_approximate`` in the place of ``nearest``; remembers the recall of every call."""

    def __init__(self) -> None:
        self.calls: list[ApproximateNeighbours] = []

    def __call__(self, queries: Rows, references: Rows, k: int) -> tuple[Index, Floats]:
        """Positions (M, k) and exact squared distances (M, k) of what was found, nearest first."""
        found = nearest_approximate(queries, references, k)
        self.calls.append(found)
        return found.positions, found.squared

    @property
    def words(self) -> str:
        """The recall of the worst call, in a sentence."""
        worst = min(self.calls, key=lambda found: found.recall)
        return (
            f"Neighbours were searched approximately, in {worst.num_probes} of {worst.num_lists} lists: "
            f"of the true neighbours of {worst.num_sampled:,} images {100 * worst.recall:.2f}% "
            f"[{100 * worst.low:.2f}%, {100 * worst.high:.2f}%] were found. A copy may be missed."
        )


def _inverted_file(references: Rows, num_lists: int, num_probes: int, seed: int) -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            "approximate neighbours need FAISS, which is not installed: pip install faiss-cpu, "
            "or search exactly"
        ) from error
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatL2(references.shape[1]), references.shape[1], num_lists
    )
    index.cp.seed = seed + 1
    rows = np.ascontiguousarray(references)
    index.train(rows)
    index.add(rows)
    index.nprobe = num_probes
    return index


def _search(index: Any, queries: Rows, references: Rows, k: int) -> tuple[Index, Floats]:
    """Candidates from the lists, measured in float64; where lists held too few, search exactly."""
    positions, squared = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
    wanted = min(k + 8, len(references))
    for rows in blocks(len(queries), _ROWS):
        part = np.ascontiguousarray(queries[rows])
        _, found = index.search(part, wanted)
        exact = squared_distances(part, references, found.clip(min=0))
        exact[found < 0] = np.inf
        order = np.lexsort((found, exact), axis=1)[:, :k]
        positions[rows] = np.take_along_axis(found, order, 1)
        squared[rows] = np.take_along_axis(exact, order, 1)
    few = np.flatnonzero(~np.isfinite(squared).all(1))
    if len(few):
        positions[few], squared[few] = nearest(queries[few], references, k)
    return positions, squared
