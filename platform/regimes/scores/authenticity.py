"""Copying without a threshold of similarity: authenticity, and the C_T test.

With d(g, T) the distance of a sample to its nearest training image t*:

* a sample is **authentic** if t* has another training image nearer to it than the sample is,
  d(t*, T without t*) < d(g, t*) (Alaa et al. 2022, AuthPct);
* **C_T** compares the distances d(g, T) of samples with d(p, T) of held-out images, by rank, in
  each cell of the space (Meehan et al. 2020). Far below 0: samples are nearer to the training
  images than unseen real images are, which is copying. Far above 0: underfitting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.stats import norm, rankdata

from regimes.scores.features import Features, check_comparable
from regimes.scores.neighbours import Floats, Index, first_occurrences, nearest
from regimes.scores.products import Device
from regimes.scores.result import Score, proportion


def authenticity(
    generated: Features,
    train: Features,
    heldout: Features,
    *,
    name: str = "authenticity",
    collapse: bool = True,
    device: Device = "cpu",
) -> Score:
    """Fraction of samples that are authentic.

    Args:
        generated: (M, D).
        train: (N, D), the images that the model was trained on.
        heldout: (H, D), real images that it was not trained on.
        name: name of the result.
        collapse: count exact duplicates among the training images once. As published (False), an
            image that is there twice has a neighbour at distance 0, and every copy of it that is
            not exact passes as authentic.
        device: where to compute.

    Returns:
        The score, in [0, 1] (packages report percent; one of them, percent minus 50). Null: that of
        held-out images. Sparse regions pass less easily than dense ones, and samples that crowd
        around one training image look like copies: compare with the null, not with 1. ``threshold``
        is nan. ``per_item``: id, nearest_id, distance, reach (of that image to the next), authentic.

    Raises:
        DescriptorMismatch: if the descriptors differ.
        ValueError: if fewer than two training images are left.

    Cost: O((M + H + N) N D) time.
    """
    check_comparable(generated, train)
    check_comparable(heldout, train)
    if collapse:
        train = train.take(np.unique(first_occurrences(train.values)))
    _, reach = nearest(train.values, train.values, exclude_self=True, device=device)
    found = [nearest(x.values, train.values, device=device) for x in (generated, heldout)]
    (authentic, positions), (null, _) = (
        (reach[p[:, 0], 0] < squared[:, 0], p[:, 0]) for p, squared in found
    )
    return proportion(
        name,
        authentic,
        null=float(null.mean()),
        threshold=math.nan,
        num_train=len(train),
        descriptor=generated.descriptor,
        higher_is_better=True,
        per_item={
            "id": generated.ids,
            "nearest_id": train.ids[positions],
            "distance": np.sqrt(found[0][1][:, 0]),
            "reach": np.sqrt(reach[positions, 0]),
            "authentic": authentic,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Regions of feature space, each of the points nearest to one centre after a projection.

    Args:
        mean: (D,) what is taken off.
        directions: (P, D) orthonormal rows onto which points are projected.
        centres: (C, P).
        descriptor: the space.
    """

    mean: Floats
    directions: Floats
    centres: Floats
    descriptor: str

    def of(self, features: Features) -> Index:
        """(N,) the cell of every row."""
        from scipy.spatial.distance import cdist

        points = (features.values.astype(np.float64) - self.mean) @ self.directions.T
        return cdist(points, self.centres, "sqeuclidean").argmin(1)


def fit_cells(
    train: Features, *, num_cells: int = 3, most_directions: int = 64, seed: int = 0
) -> Cells:
    """Cells by k-means of the training images, on their first principal components.

    Args:
        train: (N, D).
        num_cells: how many.
        most_directions: components kept; D, if that is less.
        seed: of k-means, which is otherwise different every time.

    Raises:
        ValueError: if there are fewer training images than cells.

    Cost: O(N D min(N, D) + min(N, D)^3), and ten runs of k-means.
    """
    from sklearn.cluster import KMeans

    if not 1 <= num_cells <= len(train):
        raise ValueError(f"num_cells: expected 1 to {len(train)}, got {num_cells}")
    values = train.values.astype(np.float64)
    mean = values.mean(0)
    kept = _principal_directions(values - mean, most_directions)
    means = KMeans(num_cells, n_init=10, random_state=seed).fit((values - mean) @ kept.T)
    return Cells(
        mean=mean, directions=kept, centres=means.cluster_centers_, descriptor=train.descriptor
    )


def _principal_directions(centred: Floats, most: int) -> Floats:
    """The first min(most, N, D) principal directions of (N, D) rows of mean 0: (P, D) orthonormal."""
    wide = centred.shape[1] > len(centred)  # then the products of rows have the same spectrum
    products = centred @ centred.T if wide else centred.T @ centred
    size = len(products)
    chosen = (max(0, size - most), size - 1)
    variances, vectors = eigh(products, subset_by_index=chosen)
    if wide:
        kept = variances > size * np.finfo(np.float64).eps * variances[-1]
        kept[-1] = True  # of rows that are all equal, one direction of length 0
        vectors = centred.T @ (vectors[:, kept] / np.sqrt(variances[kept].clip(min=1e-300)))
    return vectors[:, ::-1].T


def copying_test(
    generated: Features,
    train: Features,
    heldout: Features,
    *,
    cells: Cells | None = None,
    smallest_share: float | None = None,
    name: str = "c_t",
    device: Device = "cpu",
) -> Score:
    """C_T: whether samples are nearer to training images than held-out images are, cell by cell.

        C_T = sum_c p_c z_c / sum_c p_c,    p_c the share of held-out images in cell c

    z_c standardizes the Mann-Whitney statistic of d(g, T_c) against d(p, T_c), T_c the training
    images in the cell; ties count a half, and their variance is corrected for.

    Args:
        generated: (M, D).
        train: (N, D), the images that the model was trained on.
        heldout: (H, D), real images that it was not trained on.
        cells: see ``fit_cells``, whose defaults make them unless given.
        smallest_share: cells with at most this share of the samples are left out; 20 / M unless
            given. So are cells without a training image or without a held-out image, for which
            the published code fails.
        name: name of the result.
        device: where to compute.

    Returns:
        The score, a number of standard deviations: it grows with the square root of the numbers of
        items. Null: 0, its expectation when samples and held-out images are exchangeable, with
        standard deviation at most 1. The interval is normal, each z_c with the variance of its
        area under the curve (DeLong et al. 1988). ``threshold`` is the smallest share.
        ``per_item``: id, cell, distance (nan where left out) and z of the cell.

    Raises:
        DescriptorMismatch: if the descriptors differ.
        ValueError: if no cell is left.

    Source: Meehan, Chaudhuri & Dasgupta 2020, section 4. Cost: O((M + H) N D).
    """
    for other in (generated, heldout):
        check_comparable(other, train)
    cells = cells or fit_cells(train)
    share = 20 / len(generated) if smallest_share is None else smallest_share
    of = {"g": cells.of(generated), "t": cells.of(train), "p": cells.of(heldout)}
    distance, z_of = (np.full(len(generated), np.nan) for _ in range(2))
    weights, zs, variances = [], [], []
    for cell in range(len(cells.centres)):
        inside = {role: np.flatnonzero(labels == cell) for role, labels in of.items()}
        if len(inside["g"]) <= share * len(generated) or not (
            len(inside["t"]) and len(inside["p"])
        ):
            continue
        reference = train.values[inside["t"]]
        ours, theirs = (
            np.sqrt(nearest(x.values[inside[role]], reference, device=device)[1][:, 0])
            for x, role in ((generated, "g"), (heldout, "p"))
        )
        z, variance = standardized_rank_sum(ours, theirs)
        distance[inside["g"]], z_of[inside["g"]] = ours, z
        weights.append(len(theirs))
        zs.append(z)
        variances.append(variance)
    if not zs:
        raise ValueError(
            f"{name}: no cell has more than {share:.3g} of the samples, a training image and a "
            "held-out image; use fewer cells or more images"
        )
    p = np.array(weights) / sum(weights)
    value, half = float(p @ zs), float(norm.ppf(0.975)) * float(p**2 @ variances) ** 0.5
    return Score(
        name=name,
        value=value,
        low=value - half,
        high=value + half,
        null=0.0,
        threshold=share,
        num_generated=len(generated),
        num_train=len(train),
        descriptor=generated.descriptor,
        higher_is_better=None,
        per_item={"id": generated.ids, "cell": of["g"], "distance": distance, "z": z_of},
    )


def standardized_rank_sum(first: Floats, second: Floats) -> tuple[float, float]:
    """Mann-Whitney's U of two samples as a standard normal number, and the variance of that number.

        U = #{first > second} + #{first = second} / 2,  z = (U - n m / 2) / sd_0(U)

    Args:
        first: (M,).
        second: (N,).

    Returns:
        z, negative where the first are smaller (0 if all values are equal), and its variance under
        whatever law generated the samples; 1 if a sample has a single value.

    Source: Mann & Whitney 1947, variance with ties; DeLong et al. 1988. Cost: O(n log n).
    """
    m, n = len(first), len(second)
    both = np.concatenate([first, second])
    ranks = rankdata(both)
    _, ties = np.unique(both, return_counts=True)
    spread = (m + n + 1) - (ties**3 - ties).sum() / ((m + n) * (m + n - 1))
    deviation = math.sqrt(m * n * spread / 12)
    if deviation == 0:
        return 0.0, 1.0
    # Placements: the share of the other sample that lies below each value.
    below_first = (ranks[:m] - rankdata(first)) / n
    above_second = 1 - (ranks[m:] - rankdata(second)) / m
    z = float(m * n * (below_first.mean() - 0.5) / deviation)
    if m < 2 or n < 2:
        return z, 1.0
    variance = below_first.var(ddof=1) / m + above_second.var(ddof=1) / n
    return z, float(variance * (m * n / deviation) ** 2)
