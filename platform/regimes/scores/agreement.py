"""Agreement of many models: every pair of k sample sets, in one pass over the seeds.

For each pair of sets: the similarity, the mean absolute pixel difference and the squared feature
distance of the two samples of every seed, and the first two of unpaired couples as well. All scores
of ``reproducibility`` are functions of these, so a threshold may be chosen after the pass.

Seeds go through in chunks of whole blocks (see ``unpaired``); features of one chunk are all that is
ever held, and images are described once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regimes.errors import DescriptorMismatch
from regimes.images.pixels import Images
from regimes.scores.neighbours import similarities
from regimes.scores.reproducibility import absolute_errors
from regimes.scores.unpaired import (
    MOST_COUPLES,
    Blocks,
    blocks_of,
    unpaired_errors,
    unpaired_products,
)

Floats = npt.NDArray[np.float64]
Describe = Callable[[Images], npt.NDArray[np.float32]]

CHUNK_BYTES = 2**28
"""Pixels of all sets that are described together, as float64."""
MOST_VALUES = 1_000_000_000
"""Pixel differences taken per pair for its chance level: about a second."""
MOST_HELD = 20_000_000
"""Unpaired couples held for all pairs together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Two sample sets, seed by seed.

    Args:
        similarity: (N,) <f(a_i), f(b_i)> in [-1, 1].
        absolute_error: (N,) mean |a_i - b_i| on the 0-255 scale.
        squared_distance: (N,) ||f(a_i) - f(b_i)||^2 in [0, 4].
        unpaired_similarity: (M,) <f(a_i), f(b_j)> of couples i != j.
        unpaired_error: (M,) mean |a_i - b_j| of the same couples.
        unpaired_distance: mean of ||f(a_i) - f(b_j)||^2 over them.
    """

    similarity: Floats
    absolute_error: Floats
    squared_distance: Floats
    unpaired_similarity: Floats
    unpaired_error: Floats
    unpaired_distance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All pairs of k sample sets of N seeds."""

    num_seeds: int
    blocks: Blocks
    """Which unpaired couples were taken."""
    pairs: dict[tuple[int, int], Agreement]
    """By positions of the sets, (i, j) with i < j."""
    self_similarity: tuple[Floats, ...]
    """<f(x), f(x)> of every sample, k times (N,): 1, or 0 for an image that has no direction."""


def plan_blocks(num_seeds: int, num_sets: int, values_per_image: int) -> Blocks:
    """Blocks of unpaired couples that keep time and memory of a comparison of k sets bounded."""
    num_pairs = max(1, num_sets * (num_sets - 1) // 2)
    couples = min(MOST_COUPLES, MOST_VALUES // values_per_image, MOST_HELD // num_pairs)
    return blocks_of(num_seeds, couples)


def compare(
    sets: Sequence[Images],
    describe: Describe,
    *,
    blocks: Blocks | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    on_seeds: Callable[[int], None] | None = None,
) -> Comparison:
    """Compare every two of k sample sets.

    Args:
        sets: k arrays (N, H, W, C) uint8; row i of each is the sample of the same seed.
        describe: uint8 images -> (N, D) float32 unit rows.
        blocks: which unpaired couples to take; ``plan_blocks`` by default.
        chunk_bytes: memory for the pixels that are described together; changes no result beyond
            rounding.
        on_seeds: called with the number of seeds done since the last call.

    Raises:
        ValueError: if there are fewer than two sets or two seeds, or shapes differ.
        DescriptorMismatch: if the descriptor does not return one row of a fixed length per image.

    Cost: O(k^2 (N + M) (H W C + D)) time for M couples per pair, and N k calls of ``describe``.
    """
    shapes = {images.shape for images in sets}
    if len(sets) < 2 or len(shapes) != 1 or len(sets[0]) < 2:
        raise ValueError(
            f"expected two sets or more of equal shape (N, H, W, C), N > 1, got {sorted(shapes)}"
        )
    values = sets[0][0].size
    blocks = blocks or plan_blocks(len(sets[0]), len(sets), values)
    table = _Table(len(sets), blocks)
    for chunk in _chunks(blocks, chunk_bytes // (8 * values * len(sets))):
        table.add(chunk, [images[chunk.rows] for images in sets], describe)
        if on_seeds is not None:
            on_seeds(len(chunk.rows))
    return table.comparison()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    """Some seeds: first whole blocks, then, in the last chunk, those that are in no block."""

    rows: npt.NDArray[np.int64]
    blocks: tuple[slice, ...]
    """Places of the blocks among the rows."""
    couples: slice
    """Place of their couples among all couples."""


def _chunks(blocks: Blocks, rows_at_once: int) -> Iterator[_Chunk]:
    """All seeds, as many whole blocks at once as fit."""
    size, order = blocks.size, blocks.order
    step = max(1, rows_at_once // size) * size
    per_block = size * (size - 1)
    for start in range(0, blocks.num_items, step):
        rows = order[start : start + step]
        count, first = len(rows) // size, start // size
        yield _Chunk(
            rows=rows,
            blocks=tuple(slice(b * size, (b + 1) * size) for b in range(count)),
            couples=slice(first * per_block, (first + count) * per_block),
        )


class _Table:
    """The agreements of all pairs, filled chunk by chunk."""

    def __init__(self, num_sets: int, blocks: Blocks) -> None:
        self.pairs = list(itertools.combinations(range(num_sets), 2))
        n, m = blocks.num_items, blocks.num_couples
        self._blocks = blocks
        self._self = np.empty((num_sets, n))
        self._paired = {pair: np.empty((3, n)) for pair in self.pairs}
        self._unpaired = {pair: np.empty((2, m)) for pair in self.pairs}
        self._distance = dict.fromkeys(self.pairs, 0.0)

    def add(self, chunk: _Chunk, images: Sequence[Images], describe: Describe) -> None:
        """Compare the samples of one chunk's seeds."""
        features = [_described(describe, part) for part in images]
        for own, rows in zip(self._self, features, strict=True):
            own[chunk.rows] = similarities(rows, rows)
        for i, j in self.pairs:
            a, b = features[i], features[j]
            paired = self._paired[i, j]
            paired[0, chunk.rows] = similarities(a, b)
            paired[1, chunk.rows] = absolute_errors(images[i], images[j])
            paired[2, chunk.rows] = ((a.astype(np.float64) - b) ** 2).sum(1)
            if chunk.blocks:
                self._add_unpaired(chunk, (i, j), (images[i], images[j]), (a, b))

    def _add_unpaired(
        self,
        chunk: _Chunk,
        pair: tuple[int, int],
        images: tuple[Images, Images],
        features: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    ) -> None:
        a64, b64 = (rows.astype(np.float64) for rows in features)
        products = np.concatenate([unpaired_products(a64[p], b64[p]) for p in chunk.blocks])
        errors = [unpaired_errors(images[0][p], images[1][p]) for p in chunk.blocks]
        self._unpaired[pair][0, chunk.couples] = products
        self._unpaired[pair][1, chunk.couples] = np.concatenate(errors)
        # Every row of a block is in as many couples as every other.
        inside = slice(0, chunk.blocks[-1].stop)
        others = chunk.blocks[0].stop - 1
        lengths = float((a64[inside] ** 2).sum() + (b64[inside] ** 2).sum())
        self._distance[pair] += others * lengths - 2 * float(products.sum())

    def comparison(self) -> Comparison:
        """What was compared."""
        return Comparison(
            num_seeds=self._blocks.num_items,
            blocks=self._blocks,
            pairs={pair: self._agreement(pair) for pair in self.pairs},
            self_similarity=tuple(self._self),
        )

    def _agreement(self, pair: tuple[int, int]) -> Agreement:
        similarity, error = self._unpaired[pair]
        paired, count = self._paired[pair], len(similarity)
        return Agreement(
            similarity=paired[0],
            absolute_error=paired[1],
            squared_distance=paired[2],
            unpaired_similarity=similarity,
            unpaired_error=error,
            unpaired_distance=max(0.0, self._distance[pair] / count),
        )


def _described(describe: Describe, images: Images) -> npt.NDArray[np.float32]:
    rows = describe(images)
    if rows.ndim != 2 or len(rows) != len(images) or not np.isfinite(rows).all():
        raise DescriptorMismatch(
            f"the descriptor gave an array of shape {rows.shape} for {len(images)} images; "
            "expected one finite row per image"
        )
    return rows
