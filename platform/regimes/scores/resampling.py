"""Intervals of scores that are not means of items, and sets of equal size.

The delete-a-group jackknife: items are cut at random into G groups, the score is computed G times
without one of them, and

    variance = (G - 1) / G * sum_g (score without group g - their mean)^2

It needs G evaluations, and unlike the bootstrap it never repeats an item, which scores of
distances and of diversity would take for a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import t

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
