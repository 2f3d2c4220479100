"""Reproducibility: do two models make the same image from the same noise?

    RP(A, B)  = P_z[ <f(x_A(z)), f(x_B(z))> > threshold ]        (Zhang et al. 2024)
    MAE(A, B) = P_z[ mean |x_A(z) - x_B(z)| < threshold ]        (the same, on 0-255 pixels)
    PFD(A, B) = sqrt E_z || f(x_A(z)) - f(x_B(z)) ||^2           (Zhang et al. 2025, no threshold)

z is the noise of a seed, x_A(z) the sample of model A, f a descriptor. Two models that memorize
different data disagree; two that learned the same distribution agree, even without a shared image.
The null of every score is chance: the same over couples of *different* seeds.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from regimes.images.pixels import Images
from regimes.scores.features import Features, Ids, check_ids, join, match_ids
from regimes.scores.neighbours import BLOCK, similarities
from regimes.scores.paired import below, root_mean
from regimes.scores.result import Score, proportion
from regimes.scores.unpaired import MOST_COUPLES, blocks_of, unpaired_errors

Floats = npt.NDArray[np.float64]
RAW_PIXELS = "raw-pixels"


def reproducibility(
    first: Features,
    second: Features,
    *,
    threshold: float,
    name: str = "rp",
    allow_partial: bool = False,
) -> Score:
    """RP score: the fraction of shared seeds whose two samples are more similar than a threshold.

    Args:
        first: samples of one model, (N, D) unit rows with their seeds.
        second: samples of the other, (N, D).
        threshold: similarity in [-1, 1]; strictly greater counts.
        name: name of the result.
        allow_partial: score the shared seeds if some are missing on one side.

    Returns:
        The score. Null: chance, the exact fraction over all pairs of *different* seeds. Neither
        direction is better: high agreement is reproducibility, and at small n shared memorization.

    Raises:
        IdMismatch, DescriptorMismatch: see ``join``.

    Cost: O(N^2 D) time for the null, O(N BLOCK) memory.
    """
    a, b = join(first, second, allow_partial=allow_partial)
    similarity = similarities(a.values, b.values)
    hits = similarity > threshold
    return proportion(
        name,
        hits,
        null=_chance(a, b, threshold, int(hits.sum())),
        threshold=threshold,
        num_train=0,
        descriptor=a.descriptor,
        higher_is_better=None,
        per_item={"id": a.ids, "similarity": similarity},
    )


def _chance(a: Features, b: Features, threshold: float, paired_hits: int) -> float:
    """Fraction of the N (N - 1) unpaired couples above the threshold."""
    if len(a) < 2:
        return float("nan")
    hits = -paired_hits
    b64 = b.values.astype(np.float64)
    for start in range(0, len(a), BLOCK):
        block = a.values[start : start + BLOCK].astype(np.float64)
        hits += int((block @ b64.T > threshold).sum())
    return max(hits, 0) / (len(a) * (len(a) - 1))


def agrees(score: Score, among: int) -> bool:
    """Whether a pair agrees more often than chance, at 2.5% for all pairs together.

    By the binomial law at the share of *all* couples, those of equal seeds included: a matching at random
    gives as many, and two seeds (of which one matching in two is right) say nothing.

    Args:
        score: a fraction of seeds, with that of couples of different seeds as its null.
        among: pairs of models that are compared, of which one could agree by chance (Bonferroni).
    """
    n, hits = score.num_generated, round(score.value * score.num_generated)
    chance = (hits + score.null * n * (n - 1)) / n**2
    return bool(binom.sf(hits - 1, n, chance) <= 0.025 / among)


def absolute_errors(first: Images, second: Images) -> Floats:
    """Mean absolute difference of paired images on the 0-255 scale.

    Args:
        first: (N, H, W, C) uint8.
        second: (N, H, W, C) uint8.

    Returns:
        (N,) float64, exact.

    Raises:
        ValueError: if the shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"expected images of equal shape, got {first.shape} and {second.shape}")
    out = np.empty(len(first))
    rows = max(1, 2**24 // max(first[0].size, 1)) if len(first) else 1
    for start in range(0, len(first), rows):
        a, b = (x[start : start + rows].reshape(-1, x[0].size) for x in (first, second))
        out[start : start + rows] = (np.maximum(a, b) - np.minimum(a, b)).mean(1)
    return out


def mae_score(
    images_a: Images,
    ids_a: Ids,
    images_b: Images,
    ids_b: Ids,
    *,
    threshold: float = 15.0,
    name: str = "mae_score",
    allow_partial: bool = False,
    most_couples: int = MOST_COUPLES,
) -> Score:
    """Fraction of shared seeds whose two samples differ by less than a threshold, pixel by pixel.

    Args:
        images_a: samples of one model, (N, H, W, C) uint8.
        ids_a: (N,) their seeds.
        images_b: samples of the other, (M, H, W, C) uint8.
        ids_b: (M,) their seeds.
        threshold: mean absolute difference on the 0-255 scale; strictly less counts.
        name: name of the result.
        allow_partial: score the shared seeds if some are missing on one side.
        most_couples: the null is exact up to about this many unpaired couples.

    Returns:
        The score. Null: the fraction over couples of different seeds, all of them if they are at
        most ``most_couples``, else an unbiased estimate from about as many (see ``unpaired``).

    Raises:
        IdMismatch: if ids repeat or are not one per image, and see ``match_ids``.
        ValueError: if the images differ in shape.

    Cost: O((N + most_couples) H W C) time.
    """
    check_ids(ids_a, images_a.shape)
    check_ids(ids_b, images_b.shape)
    i, j = match_ids(ids_a, ids_b, allow_partial=allow_partial)
    first, second = images_a[i], images_b[j]
    errors = absolute_errors(first, second)
    blocks = blocks_of(len(i), most_couples)
    unpaired = [unpaired_errors(first[rows], second[rows]) for rows in blocks]
    return below(
        name,
        errors,
        np.concatenate(unpaired),
        threshold=threshold,
        descriptor=RAW_PIXELS,
        per_item={"id": ids_a[i], "absolute_error": errors},
    )


def flow_distance(
    first: Features,
    second: Features,
    *,
    name: str = "flow_distance",
    allow_partial: bool = False,
) -> Score:
    """Root mean squared distance of the features of paired samples; it needs no threshold.

    Args:
        first: samples of one model, (N, D) unit rows with their seeds.
        second: samples of the other, (N, D).
        name: name of the result.
        allow_partial: measure the shared seeds if some are missing on one side.

    Returns:
        The score, in [0, 2]; 0 means equal features for every seed. Its ends are the roots of the
        ends of the mean's normal interval. Null: the same over all couples of different seeds,
        exact. ``threshold`` is nan.

    Raises:
        IdMismatch, DescriptorMismatch: see ``join``.

    Cost: O(N D).
    """
    a, b = join(first, second, allow_partial=allow_partial)
    a64, b64 = (x.values.astype(np.float64) for x in (a, b))
    squared = np.einsum("nd,nd->n", a64 - b64, a64 - b64)
    # Over all N^2 couples the mean is |a|^2 + |b|^2 - 2 <mean a, mean b>; take the pairs away.
    n = len(a)
    lengths = (a64**2).sum() / n + (b64**2).sum() / n
    total = n * n * (lengths - 2 * float(a64.mean(0) @ b64.mean(0)))
    null = max(0.0, total - squared.sum()) / (n * (n - 1)) if n > 1 else math.nan
    return root_mean(
        name, squared, null, descriptor=a.descriptor, per_item={"id": a.ids, "squared": squared}
    )
