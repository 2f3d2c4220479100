"""Reproducibility: do two models make the same image from the same noise?

    RP(A, B) = P_z[ <f(x_A(z)), f(x_B(z))> > threshold ]         (Zhang et al. 2024)

z is the noise of a seed, x_A(z) the sample of model A, f a descriptor. Two models that memorize
different data disagree; two that learned the same distribution agree, even without a shared image.
"""

from __future__ import annotations

import numpy as np

from regimes.scores.features import Features, join
from regimes.scores.neighbours import BLOCK, similarities
from regimes.scores.result import Score, proportion


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
