"""How similar is "a copy"? A threshold that real, unseen images set.

A fixed similarity (0.6 is common) means something only for one descriptor and one kind of image: of
unseen real digits, 93% are "copies" by it. Instead, take real images that no model was trained on
and look up the most similar training image of each. The 95th percentile of those similarities is
what chance resemblance reaches once in twenty times; a sample must exceed it to count as a copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from regimes.scores.features import Features, check_comparable, check_mirrored
from regimes.scores.neighbours import nearest, similarities


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A calibrated similarity, with what it rests on."""

    value: float
    """Similarity above which an item counts as a copy."""
    low: float
    """Lower end of its 95% interval."""
    high: float
    """Upper end."""
    quantile: float
    """Fraction of held-out images at or below it."""
    num_heldout: int
    num_train: int


def nearest_similarity(
    items: Features, train: Features, mirrored: Features | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Position of the most similar training image and the similarity, (M,) int64 and (M,) float64.

    With ``mirrored``, the left-right flips of the training images in the same order, an image is as
    similar as the more similar of the two.
    """
    check_comparable(items, train)
    if mirrored is not None:
        check_mirrored(train, mirrored)
        positions, best = nearest_similarity(items, train)
        of_mirrored, best_mirrored = nearest_similarity(items, mirrored)
        flipped = best_mirrored > best
        return np.where(flipped, of_mirrored, positions), np.where(flipped, best_mirrored, best)
    # An image without contrast is a row of zeros, nearer to everything than a dissimilar image is.
    described = np.flatnonzero(train.values.any(1))
    if len(described) == 0:
        raise ValueError("no training image has any contrast: nothing can be similar to it")
    positions, _ = nearest(items.values, train.values[described])
    best = described[positions[:, 0]]
    return best, similarities(items.values, train.values[best])


def calibrate_threshold(
    heldout: Features,
    train: Features,
    *,
    quantile: float = 0.95,
    mirrored: Features | None = None,
) -> Threshold:
    """The similarity to their nearest training image that held-out images exceed rarely.

    Args:
        heldout: (M, D), real images that are not in ``train``.
        train: (N, D), training images. The threshold grows with N: calibrate at the largest.
        quantile: fraction of held-out images that should not count as copies.
        mirrored: (N, D), flips of ``train`` that count as training images too.

    Returns:
        The sample quantile and its distribution-free 95% interval (order statistics, binomial).

    Raises:
        ValueError: if quantile is not inside (0, 1).
    """
    _, best = nearest_similarity(heldout, train, mirrored)
    return quantile_threshold(best, quantile=quantile, num_train=len(train))


def quantile_threshold(
    similarities: npt.NDArray[np.float64], *, quantile: float, num_train: int
) -> Threshold:
    """``calibrate_threshold`` of similarities that are known: (M,) to the nearest training image."""
    if not 0 < quantile < 1:
        raise ValueError(f"quantile: expected a number inside (0, 1), got {quantile}")
    ordered, m = np.sort(similarities), len(similarities)
    low, high = binom.ppf([0.025, 0.975], m, quantile).astype(int)
    return Threshold(
        value=float(np.quantile(ordered, quantile)),
        low=float(ordered[max(low - 1, 0)]),
        high=float(ordered[min(high, m - 1)]),
        quantile=quantile,
        num_heldout=m,
        num_train=num_train,
    )
