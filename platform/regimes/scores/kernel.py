"""Kernel distance: the unbiased squared maximum mean discrepancy of two feature sets.

    k(x, y) = (<x, y> / D + 1)^3
    KD = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

With Inception features it is KID (Binkowski et al. 2018). Its expectation is 0 for equal
distributions at any number of items, so it may come out below 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from regimes.errors import ConfigError
from regimes.noise import keyed_generator
from regimes.scores.features import Features, check_comparable
from regimes.scores.resampling import interval, jackknife_variance, random_groups
from regimes.scores.result import Score

Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Rows = npt.NDArray[np.float32]
By = Literal["regimes", "torch-fidelity"]

BLOCK = 2048


def polynomial_kernel(first: Floats, second: Floats, *, degree: int = 3) -> Floats:
    """(<x_i, y_j> / D + 1)^degree, (M, D) and (N, D) -> (M, N)."""
    return np.asarray((first @ second.T / first.shape[1] + 1) ** degree)


def kernel_distance(first: Rows, second: Rows, *, degree: int = 3) -> float:
    """Kernel distance of all items of both sets, of any two numbers.

    Args:
        first: (M, D), M >= 2.
        second: (N, D), N >= 2.
        degree: of the polynomial.

    Returns:
        A number near 0 or above it.

    Raises:
        ValueError: if a set has a single row.

    Cost: O((M + N)^2 D) time, in float64; O(BLOCK^2) memory.
    """
    sets = [rows.astype(np.float64) for rows in (first, second)]
    groups = [np.zeros(len(rows), np.int64) for rows in sets]
    return float(_Sums(sets, groups, degree).distance())


class _Sums:
    """Sums of the kernel over couples of groups: every distance without a group follows from them."""

    def __init__(self, sets: list[Floats], groups: list[Index], degree: int) -> None:
        x, y = sets
        self.xx = _table(x, x, groups[0], groups[0], degree)
        self.yy = _table(y, y, groups[1], groups[1], degree)
        self.xy = _table(x, y, groups[0], groups[1], degree)
        self.diagonals = [_diagonal(rows, g, degree) for rows, g in zip(sets, groups, strict=True)]
        self.counts = [np.bincount(g) for g in groups]

    def distance(self, without_x: int | None = None, without_y: int | None = None) -> float:
        """The kernel distance, without a group of the first or of the second set."""
        kept = [
            np.arange(len(counts)) != (-1 if gone is None else gone)
            for counts, gone in zip(self.counts, (without_x, without_y), strict=True)
        ]
        m, n = (int(c[k].sum()) for c, k in zip(self.counts, kept, strict=True))
        if m < 2 or n < 2:
            raise ValueError(f"kernel distance: expected 2 rows or more in each set, got {m}, {n}")
        inside = [
            (table[np.ix_(k, k)].sum() - diagonal[k].sum()) / (count * (count - 1))
            for table, diagonal, k, count in zip(
                (self.xx, self.yy), self.diagonals, kept, (m, n), strict=True
            )
        ]
        return float(sum(inside) - 2 * self.xy[np.ix_(*kept)].sum() / (m * n))


def _table(x: Floats, y: Floats, groups_x: Index, groups_y: Index, degree: int) -> Floats:
    """(G, H) sums of k over the couples of group g of x and group h of y."""
    out = np.zeros((groups_x.max() + 1, groups_y.max() + 1))
    for i in _blocks(len(x)):
        for j in _blocks(len(y)):
            kernel = polynomial_kernel(x[i], y[j], degree=degree)
            by_row = np.zeros((len(kernel), out.shape[1]))
            for h in np.unique(groups_y[j]):
                by_row[:, h] = kernel[:, groups_y[j] == h].sum(1)
            np.add.at(out, groups_x[i], by_row)
    return out


def _diagonal(rows: Floats, groups: Index, degree: int) -> Floats:
    own = (np.einsum("nd,nd->n", rows, rows) / rows.shape[1] + 1) ** degree
    return np.bincount(groups, weights=own).astype(np.float64)


def _blocks(length: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, length, BLOCK))


def kernel_score(
    generated: Features,
    reference: Features,
    heldout: Features,
    *,
    name: str = "kernel",
    by: By = "regimes",
    subset_size: int | None = None,
    num_subsets: int = 100,
    degree: int = 3,
    num_groups: int = 20,
    seed: int = 0,
) -> Score:
    """Kernel distance of samples to real images; not a fraction.

    Args:
        generated: (M, D).
        reference: (N, D), real images.
        heldout: (H, D), real images that are neither; any number.
        name: name of the result.
        by: "torch-fidelity" takes value and null from that package's own function: subsets of
            ``subset_size`` (1000 unless given), drawn as published with its seed 2020.
        subset_size: None uses all couples of items, which has the least variance; a number takes
            the mean over subsets of that many of each set, as published.
        num_subsets: how many subsets.
        degree: of the polynomial kernel.
        num_groups: groups of the jackknife that gives the interval.
        seed: of groups and subsets.

    Returns:
        The score; lower is better. Null: the distance of the held-out images, whose expectation is
        0. The interval is about the full estimate's spread, and covers the choice of samples and of
        reference images; subsets add to it. ``threshold`` is nan.

    Raises:
        ConfigError: if torch-fidelity is asked for and not installed.
        DescriptorMismatch: if the descriptors differ.
        ValueError: if a subset is larger than a set, or there are too few items for the groups.

    Cost: O((M + N)^2 D) time, in float64; O(BLOCK^2 + (M + N) D) memory.
    """
    check_comparable(generated, reference)
    check_comparable(heldout, reference)
    sets = [x.values.astype(np.float64) for x in (generated, reference)]
    groups = [random_groups(len(rows), num_groups, seed=seed) for rows in sets]
    sums = _Sums(sets, groups, degree)
    variance = sum(
        jackknife_variance([sums.distance(**{side: g}) for g in range(num_groups)])
        for side in ("without_x", "without_y")
    )

    def distance(items: Features) -> float:
        rows = items.values, reference.values
        if by == "torch-fidelity":
            return _torch_fidelity(*rows, subset_size or 1000, num_subsets, degree)
        if subset_size is None:
            return kernel_distance(*rows, degree=degree)
        return _subsets(*rows, subset_size, num_subsets, degree, seed)

    plain = by == "regimes" and subset_size is None
    value = sums.distance() if plain else distance(generated)
    low, high = interval(value, variance, num_groups=num_groups)
    return Score(
        name=name,
        value=value,
        low=low,
        high=high,
        null=distance(heldout),
        threshold=math.nan,
        num_generated=len(generated),
        num_train=len(reference),
        descriptor=generated.descriptor,
        higher_is_better=False,
        per_item={"id": generated.ids},
    )


def _subsets(
    first: Rows, second: Rows, size: int, num_subsets: int, degree: int, seed: int
) -> float:
    """Mean over random subsets of equal size of both sets, without replacement within a subset."""
    _check_subsets(first, second, size)
    rng = keyed_generator("kernel subsets", seed, len(first), len(second), size)
    chosen = (
        [rows[rng.choice(len(rows), size, replace=False)] for rows in (first, second)]
        for _ in range(num_subsets)
    )
    return float(np.mean([kernel_distance(a, b, degree=degree) for a, b in chosen]))


def _check_subsets(first: Rows, second: Rows, size: int) -> None:
    fewest = min(len(first), len(second))
    if not 2 <= size <= fewest:
        raise ValueError(f"subset_size: expected 2 to {fewest} items, got {size}")


def _torch_fidelity(first: Rows, second: Rows, size: int, num_subsets: int, degree: int) -> float:
    """The package's own arithmetic on features, in float64."""
    _check_subsets(first, second, size)
    try:
        from torch_fidelity import metric_kid
    except ImportError as error:
        raise ConfigError("torch-fidelity is not installed: pip install torch-fidelity") from error
    import torch

    rows = (torch.from_numpy(x.astype(np.float64)) for x in (first, second))
    found = metric_kid.kid_features_to_metric(
        *rows,
        kid_subsets=num_subsets,
        kid_subset_size=size,
        kid_kernel_poly_degree=degree,
        verbose=False,
    )
    return float(found[metric_kid.KEY_METRIC_KID_MEAN])
