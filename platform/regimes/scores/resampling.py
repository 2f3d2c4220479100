"""Intervals of scores that are not means of items, ranges of nulls, and sets of equal size.

The delete-a-group jackknife: items are cut at random into G groups, the score is computed G times
without one of them, and

    variance = (G - 1) / G * sum_g (score without group g - their mean)^2

It needs G evaluations, and unlike the bootstrap it never repeats an item, which scores of
distances and of diversity would take for a copy.

A null that was measured on one set is uncertain too. Its **range** is where 95% of other sets fall that are
like it: what a score is held against, since its own interval does not know how that set was drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import betabinom, t

from regimes.noise import keyed_generator
from regimes.scores.features import Features

Index = npt.NDArray[np.int64]


def random_groups(count: int, num_groups: int, *, seed: int = 0) -> Index:
    """(N,) the group of every item: ``num_groups`` random groups, equal in size up to one.

    Raises:
        ValueError: unless 2 <= num_groups <= count.
    """
    if not 2 <= num_groups <= count:
        raise ValueError(f"jackknife: expected 2 to {count} groups of items, got {num_groups}")
    order = keyed_generator("jackknife", seed, count, num_groups).permutation(count)
    return order % num_groups


def jackknife_variance(left_out: Sequence[float]) -> float:
    """Variance of a score, from its values without each of the groups."""
    values = np.asarray(left_out, np.float64)
    return float((len(values) - 1) / len(values) * ((values - values.mean()) ** 2).sum())


def interval(value: float, variance: float, *, num_groups: int) -> tuple[float, float]:
    """95% interval by Student's t with ``num_groups - 1`` degrees of freedom."""
    half = float(t.ppf(0.975, num_groups - 1)) * variance**0.5
    return value - half, value + half


def effective_number(groups: Index) -> float:
    """How many independent items count for as much as these, of which some are the same: n^2 / sum size^2.

    Source: Kish 1965. Where groups are equal in size, it is their number; n where no two are the same.

    Args:
        groups: (N,) a number for every item, equal for those that are the same.
    """
    sizes = np.unique(groups, return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def share_range(hits: float, trials: float, others: int) -> tuple[float, float]:
    """Range of the share among ``others`` items, where ``hits`` of ``trials`` such items are hit.

    BetaBinomial(others, hits + 1/2, trials - hits + 1/2), Jeffreys' prior.
    """
    misses = max(trials - hits, 0.0)
    low, high = betabinom.ppf([0.025, 0.975], others, hits + 0.5, misses + 0.5)
    return float(low) / others, float(high) / others


def mean_range(values: npt.NDArray[np.float64], others: int) -> tuple[float, float]:
    """Range of the mean of ``others`` items like these: Student's t; nan for a single one."""
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    variance = float(values.var(ddof=1)) * (1 / n + 1 / others)
    return interval(float(values.mean()), variance, num_groups=n)


def reached(
    pairs: Iterable[tuple[Index, Index]], num_targets: int, num_items: int
) -> tuple[Index, Index]:
    """By how many items every target is reached, and how many targets every item alone reaches.

    Args:
        pairs: (targets, items) that reach them, in parts; no pair twice.
        num_targets: N.
        num_items: M.

    Returns:
        (N,) and (M,) int64.
    """
    times, last = np.zeros(num_targets, np.int64), np.zeros(num_targets, np.int64)
    for targets, items in pairs:
        times += np.bincount(targets, minlength=num_targets)
        last[targets] = items
    return times, np.bincount(last[times == 1], minlength=num_items)


def reach_range(times: Index, alone: Index, others: int) -> tuple[float, float]:
    """Range of the share of targets that ``others`` items reach, where these items reach as ``reached`` says.

    By the jackknife over items: without one of them, the targets that it alone reaches are lost.
    """
    n, share = len(alone), float((times > 0).mean())
    if n < 2:
        return 0.0, 1.0
    variance = jackknife_variance((share - alone / len(times)).tolist()) * (1 + n / others)
    low, high = interval(share, variance, num_groups=n)
    return max(low, 0.0), min(high, 1.0)


def equal_number(heldout: Features, count: int, *, seed: int = 0) -> Features:
    """As many held-out images as there are samples, chosen at random.

    Scores that grow or fall with the number of items are compared at equal numbers only.

    Raises:
        ValueError: if there are fewer.
    """
    if len(heldout) < count:
        raise ValueError(
            f"held-out images: expected at least as many as samples ({count}), got {len(heldout)}; "
            "score fewer samples"
        )
    chosen = keyed_generator("equal number", seed, len(heldout), count).permutation(len(heldout))
    return heldout.take(np.sort(chosen[:count]))
