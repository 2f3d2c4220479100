"""How many modes a group of samples covers, beside what independent samples would cover.

B independent samples of K modes with probabilities p cover, on average,

    E = sum_k (1 - u_k),   u_k = (1 - p_k)^B,
    Var = sum_k u_k (1 - u_k) + sum_{k != l} [(1 - p_k - p_l)^B - u_k u_l]

distinct modes. A sample that is like none of them (rejected) counts as no mode, so that broken images
cannot pass for diversity; and a method that makes all modes equally frequent where the data have them
unequal shows in the total variation of the marginal, 1/2 sum_k |q_k - p_k|.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

REJECTED = -1
Z_95 = 1.959964


def expected_distinct(probabilities: Sequence[float], count: float) -> tuple[float, float]:
    """Mean and standard deviation of the distinct modes among ``count`` independent samples.

    Args:
        probabilities: of the K modes; their sum may be below 1, the rest being rejected.
        count: B, at least 0.
    """
    p = np.asarray(probabilities, np.float64)
    missed = (1 - p) ** count
    both = np.clip(1 - p[:, None] - p[None], 0, None) ** count - missed[:, None] * missed[None]
    np.fill_diagonal(both, 0)
    variance = float((missed * (1 - missed)).sum() + both.sum())
    return float((1 - missed).sum()), math.sqrt(max(variance, 0.0))


def distinct_modes(modes: npt.NDArray[np.int64], num_modes: int) -> npt.NDArray[np.int64]:
    """Distinct modes of every group, rejected samples left out; (G, B) -> (G,)."""
    seen = np.zeros((len(modes), num_modes + 1), bool)
    rows = np.arange(len(modes))[:, None]
    seen[rows, np.where(modes == REJECTED, num_modes, modes)] = True
    return seen[:, :num_modes].sum(1)


def marginal(modes: npt.NDArray[np.int64], num_modes: int) -> npt.NDArray[np.float64]:
    """Share of every mode among the samples that are not rejected, (K,); zeros if all are."""
    kept = modes[modes != REJECTED]
    return np.bincount(kept, minlength=num_modes) / max(len(kept), 1)


def marginal_errors(modes: npt.NDArray[np.int64], num_modes: int) -> npt.NDArray[np.float64]:
    """Standard error of every share of ``marginal``, (K,); infinite for a single group.

    Particles of a group are not independent of each other, groups are: the error is that of a ratio of
    means over groups, sqrt(G / (G - 1) sum_g (n_gk - q_k n_g)^2) / n.
    """
    groups = len(modes)
    counts = np.stack([(modes == k).sum(1) for k in range(num_modes)], 1)  # (G, K)
    kept = counts.sum(1, keepdims=True)
    if groups < 2 or kept.sum() == 0:
        return np.full(num_modes, math.inf)
    off = counts - counts.sum(0) / kept.sum() * kept
    return np.sqrt(groups / (groups - 1) * (off**2).sum(0)) / kept.sum()


def total_variation(q: npt.NDArray[np.float64], p: npt.NDArray[np.float64]) -> float:
    """1/2 sum |q - p|, from 0 to 1."""
    return float(np.abs(q - p).sum() / 2)


def total_variation_null(p: Sequence[float], count: int) -> float:
    """Expected total variation between p and the shares among ``count`` independent samples.

    By the normal approximation E|q_k - p_k| = sqrt(2 p_k (1 - p_k) / (pi n)); what is not above it is
    no evidence that the marginal was moved.
    """
    a = np.asarray(p, np.float64)
    return float(np.sqrt(2 * a * (1 - a) / (math.pi * max(count, 1))).sum() / 2)


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over groups and its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, values: npt.NDArray[np.float64] | npt.NDArray[np.int64]) -> Mean:
        """Of values per group, (G,); the error of a single group is infinite."""
        spread = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf
        return cls(float(values.mean()), spread)

    def interval(self, z: float = Z_95) -> tuple[float, float]:
        """Normal interval, 95% by default."""
        return self.value - z * self.error, self.value + z * self.error


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeScores:
    """What groups of samples cover, and at what price."""

    distinct: Mean
    """Distinct modes per group, rejected samples left out."""
    independent: tuple[float, float]
    """Mean and standard deviation per group of as many independent samples of the data."""
    inliers: Mean
    """Share of samples that are not rejected; the unit of the error is the group."""
    quality: Mean
    """Distance to the mode or to the nearest real image; lower is better."""
    marginal: npt.NDArray[np.float64]
    """Share of every mode, (K,)."""
    marginal_errors: npt.NDArray[np.float64]
    """Standard error of every share, (K,), from its scatter between groups."""
    total_variation: float
    """Of the marginal from that of the data."""
    total_variation_null: float
    """What as many independent samples would show on average."""


def mode_scores(
    modes: npt.NDArray[np.int64],
    quality: npt.NDArray[np.float64],
    probabilities: Sequence[float],
) -> ModeScores:
    """Score groups of samples.

    Args:
        modes: (G, B), 0 to K - 1, or ``REJECTED``.
        quality: (G, B), a distance.
        probabilities: of the K modes in the data.
    """
    p = np.asarray(probabilities, np.float64)
    shares = marginal(modes, len(p))
    return ModeScores(
        distinct=Mean.of(distinct_modes(modes, len(p))),
        independent=expected_distinct(probabilities, modes.shape[1]),
        inliers=Mean.of((modes != REJECTED).mean(1)),
        quality=Mean.of(quality.mean(1)),
        marginal=shares,
        marginal_errors=marginal_errors(modes, len(p)),
        total_variation=total_variation(shares, p),
        total_variation_null=total_variation_null(probabilities, int((modes != REJECTED).sum())),
    )
