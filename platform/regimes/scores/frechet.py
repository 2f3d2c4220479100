"""Fréchet distance: how far apart the means and covariances of two feature sets are.

    FD = |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))

With Inception features it is FID (Heusel et al. 2017). With S_i = F_i^T F_i, the trace of the root
is the sum of the singular values of F_1 F_2^T: no root of a matrix, no complex numbers, no loss of
half the digits where a covariance is singular. Accumulated in float64.

Finite sets are never at distance 0: from n images the covariance is off by order 1 / n, and FD with
it. ``frechet_infinity`` extrapolates to n = infinity (Chong & Forsyth 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from regimes.errors import ConfigError
from regimes.noise import keyed_generator
from regimes.scores.features import Features, check_comparable
from regimes.scores.resampling import equal_number, interval, jackknife_variance, random_groups
from regimes.scores.result import Score

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]
By = Literal["regimes", "torch-fidelity"]

_BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Sums over rows, about an origin near their mean; sums of parts add up to those of the whole.

    Args:
        count: rows summed.
        origin: (D,) what was taken off every row.
        first: (D,) sum of x - origin.
        second: (D, D) sum of (x - origin)(x - origin)^T.
    """

    count: int
    origin: Floats
    first: Floats
    second: Floats

    @classmethod
    def of(cls, rows: Rows, origin: Floats | None = None) -> Moments:
        """Moments of (N, D) rows; cost O(N D^2). ``origin`` is their first row unless given."""
        origin = rows[0].astype(np.float64) if origin is None else origin
        first, second = np.zeros_like(origin), np.zeros((len(origin),) * 2)
        for start in range(0, len(rows), _BLOCK):
            part = rows[start : start + _BLOCK].astype(np.float64) - origin
            first += part.sum(0)
            second += part.T @ part
        return cls(count=len(rows), origin=origin, first=first, second=second)

    def plus(self, other: Moments, sign: int = 1) -> Moments:
        """Moments of both parts, or, with sign -1, of what is left without the other part."""
        shift = other.origin - self.origin
        outer = np.outer(other.first, shift)
        second = other.second + outer + outer.T + other.count * np.outer(shift, shift)
        return Moments(
            count=self.count + sign * other.count,
            origin=self.origin,
            first=self.first + sign * (other.first + other.count * shift),
            second=self.second + sign * second,
        )

    @property
    def mean(self) -> Floats:
        """(D,)."""
        return self.origin + self.first / self.count

    @property
    def covariance(self) -> Floats:
        """(D, D), divided by count - 1."""
        if self.count < 2:
            raise ValueError(f"covariance: expected 2 rows or more, got {self.count}")
        scatter = self.second - np.outer(self.first, self.first) / self.count
        return scatter / (self.count - 1)


def frechet_distance(first: Moments, second: Moments) -> float:
    """Fréchet distance of two sets, at least 0 up to rounding.

    Raises:
        ValueError: if a set has fewer than 2 rows.

    Cost: O(D^3), three decompositions.
    """
    return _distance(first.mean, _factor(first.covariance), second.mean, _factor(second.covariance))


def _distance(mean_1: Floats, factor_1: Floats, mean_2: Floats, factor_2: Floats) -> float:
    """|m_1 - m_2|^2 + |F_1|^2 + |F_2|^2 - 2 * (sum of singular values of F_1 F_2^T)."""
    shift = float(((mean_1 - mean_2) ** 2).sum())
    traces = float((factor_1**2).sum() + (factor_2**2).sum())
    return shift + traces - 2 * float(np.linalg.svd(factor_1 @ factor_2.T, compute_uv=False).sum())


def _factor(covariance: Floats) -> Floats:
    """F with F^T F = S; rows of directions without variance are left out."""
    variances, directions = np.linalg.eigh(covariance)
    kept = variances > 0
    return np.sqrt(variances[kept])[:, None] * directions[:, kept].T


def frechet_score(
    generated: Features,
    reference: Features,
    heldout: Features,
    *,
    name: str = "frechet",
    by: By = "regimes",
    num_groups: int = 10,
    seed: int = 0,
) -> Score:
    """Fréchet distance of samples to real images; a squared distance, not a fraction.

    Args:
        generated: (M, D).
        reference: (N, D), real images.
        heldout: (H, D), real images that are neither, H >= M.
        name: name of the result.
        by: "torch-fidelity" takes value and null from that package's own functions, for numbers
            that are compared with published ones; the two agree to about 1e-6 of the traces where
            no covariance is singular.
        num_groups: groups of samples of the jackknife that gives the interval.
        seed: of the groups, and of the choice of held-out images.

    Returns:
        The score; lower is better. Null: the distance of M held-out images, which is not 0. The
        interval covers the choice of samples, not of reference images. ``threshold`` is nan.

    Raises:
        ConfigError: if torch-fidelity is asked for and not installed.
        DescriptorMismatch: if the descriptors differ.
        ValueError: if there are fewer held-out images than samples, or too few samples for groups.

    Cost: O((M + N) D^2 + num_groups D^3); at D = 2048 a decomposition takes seconds.
    """
    check_comparable(generated, reference)
    check_comparable(heldout, reference)
    target = Moments.of(reference.values)
    mean, factor = target.mean, _factor(target.covariance)
    parts = _group_moments(generated.values, num_groups, seed)
    whole = _sum(parts)
    values = [
        _distance(m.mean, _factor(m.covariance), mean, factor)
        for m in (whole, *(whole.plus(part, -1) for part in parts))
    ]
    null_rows = equal_number(heldout, len(generated), seed=seed).values
    if by == "torch-fidelity":
        value, null = (_torch_fidelity(x, reference.values) for x in (generated.values, null_rows))
    else:
        value, null = values[0], frechet_distance(Moments.of(null_rows), target)
    low, high = interval(value, jackknife_variance(values[1:]), num_groups=num_groups)
    return Score(
        name=name,
        value=value,
        low=max(0.0, low),
        high=high,
        null=null,
        threshold=math.nan,
        num_generated=len(generated),
        num_train=len(reference),
        descriptor=generated.descriptor,
        higher_is_better=False,
        per_item={"id": generated.ids},
    )


def _group_moments(rows: Rows, num_groups: int, seed: int) -> list[Moments]:
    groups = random_groups(len(rows), num_groups, seed=seed)
    origin = rows[0].astype(np.float64)
    return [Moments.of(rows[groups == g], origin) for g in range(num_groups)]


def _sum(parts: list[Moments]) -> Moments:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.plus(part)
    return whole


def _torch_fidelity(first: Rows, second: Rows) -> float:
    """The package's own arithmetic on features, in float64."""
    try:
        from torch_fidelity import metric_fid
    except ImportError as error:
        raise ConfigError("torch-fidelity is not installed: pip install torch-fidelity") from error
    import torch

    rows = (torch.from_numpy(x.astype(np.float64)) for x in (first, second))
    statistics = [metric_fid.fid_features_to_statistics(x) for x in rows]
    found = metric_fid.fid_statistics_to_metric(*statistics, False)
    return float(found[metric_fid.KEY_METRIC_FID])


def frechet_infinity(
    generated: Features,
    reference: Features,
    *,
    num_sizes: int = 15,
    smallest: int | None = None,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Fréchet distance at infinitely many samples: the intercept of a line in 1 / n.

    Args:
        generated: (M, D).
        reference: (N, D). The distance is still biased by the finite N.
        num_sizes: subsets of samples, evenly spaced sizes up to M, drawn without replacement.
        smallest: their smallest size; min(5000, M / 10) by default, but D + 2 at least.
        seed: of the subsets.

    Returns:
        The intercept and its 95% interval, from the scatter about the line. The subsets overlap, so
        the interval is too narrow by an unknown amount.

    Raises:
        ValueError: if there are fewer than 3 sizes between ``smallest`` and M.

    Source: Chong & Forsyth 2020, with their plain instead of quasi-random draws. Cost:
    O(num_sizes (M D^2 + D^3)).
    """
    check_comparable(generated, reference)
    count, width = generated.values.shape
    smallest = smallest or max(min(5000, count // 10), width + 2)
    sizes = np.unique(np.linspace(smallest, count, num_sizes).astype(int))
    if len(sizes) < 3 or not 2 <= smallest < count:
        raise ValueError(
            f"extrapolation: expected at least 3 sizes from {smallest} up to {count} samples, "
            f"got {len(sizes)}; generate more samples"
        )
    target = Moments.of(reference.values)
    rng = keyed_generator("frechet infinity", seed, count)
    chosen = (np.sort(rng.permutation(count)[:size]) for size in sizes)
    found = [frechet_distance(Moments.of(generated.values[i]), target) for i in chosen]
    return _intercept(1 / sizes, np.array(found))


def _intercept(x: Floats, y: Floats) -> tuple[float, float, float]:
    """Least squares of y = a + b x: a, with its 95% interval."""
    from scipy.stats import linregress, t

    line = linregress(x, y)
    half = float(t.ppf(0.975, len(x) - 2) * line.intercept_stderr)
    return float(line.intercept), float(line.intercept) - half, float(line.intercept) + half
