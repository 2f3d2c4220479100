"""Unpaired couples: what two sets have in common when the seeds do not match.

Of N seeds there are N (N - 1) couples (a_i, b_j) with i != j. A statistic over all of them is the
exact chance level of the same statistic over pairs (a_i, b_i). Where they are too many, the seeds
are shuffled once and cut into blocks of equal size, and only couples inside a block are taken:
every couple is as likely to be taken as every other, so the mean over them is unbiased. A block that
holds all seeds is the exact case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from regimes.images.pixels import Images
from regimes.noise import keyed_generator

Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

MOST_COUPLES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """How N seeds are cut into blocks of ``size``; fewer than ``size`` seeds are in none."""

    num_items: int
    size: int

    @property
    def exact(self) -> bool:
        """Whether all couples are taken."""
        return self.size == self.num_items

    @property
    def num_couples(self) -> int:
        """Couples taken; 0 if there is a single seed."""
        return self.num_items // self.size * self.size * (self.size - 1)

    @property
    def order(self) -> Index:
        """(N,) positions; each ``size`` of them in turn are a block. Depends on N alone."""
        if self.exact:
            return np.arange(self.num_items)
        return keyed_generator("unpaired couples", self.num_items).permutation(self.num_items)

    def __iter__(self) -> Iterator[Index]:
        """The positions (size,) of each block."""
        whole = self.num_items // self.size * self.size
        return iter(self.order[:whole].reshape(-1, self.size))


def blocks_of(num_items: int, most_couples: int = MOST_COUPLES) -> Blocks:
    """Blocks as large as they can be for about ``most_couples`` couples (never below two seeds)."""
    size = min(num_items, max(2, most_couples // num_items + 1))
    return Blocks(num_items=num_items, size=size)


def off_diagonal(table: Floats) -> Floats:
    """(B, B) -> (B (B - 1),): the entries of unpaired couples."""
    return table[~np.eye(len(table), dtype=bool)]


def unpaired_products(first: Floats, second: Floats) -> Floats:
    """<a_i, b_j> of all couples i != j of one block: (B, D) and (B, D) -> (B (B - 1),)."""
    return off_diagonal(first @ second.T)


def unpaired_errors(first: Images, second: Images) -> Floats:
    """Mean absolute difference of all couples i != j of one block, on the 0-255 scale.

    Args:
        first: (B, H, W, C) uint8.
        second: (B, H, W, C) uint8.

    Returns:
        (B (B - 1),) float64, exact. Cost: O(B^2 H W C), about 1 ns per value.
    """
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (first, second))
    return off_diagonal(cdist(a, b, "cityblock")) / a.shape[1]
