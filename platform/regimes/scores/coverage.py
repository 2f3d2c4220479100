"""Density and coverage (Naeem et al. 2020): precision and recall that outliers do not rule.

With B_j the ball of real image j that reaches to its k-th nearest other real image,

    density  = (1 / (k M)) sum_i #{j: g_i in B_j}      how deep inside real images the samples lie
    coverage = (1 / N) #{j: some g_i in B_j}           how much of the real images they reach

A point on a border is inside, as in ``precision``; the authors' package compares strictly, which
differs for duplicated images only.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import norm

from regimes.scores.balls import count_balls, pairs_inside
from regimes.scores.features import Features, check_comparable
from regimes.scores.fidelity import knn_radii
from regimes.scores.neighbours import nearest
from regimes.scores.products import Device
from regimes.scores.resampling import mean_range, reach_range, reached
from regimes.scores.result import Score, proportion


def density(
    generated: Features,
    reference: Features,
    heldout: Features | None = None,
    *,
    k: int = 5,
    name: str = "density",
    device: Device = "cpu",
) -> Score:
    """Mean number of real balls around a sample, divided by k; it may exceed 1.

    Args:
        generated: (M, D).
        reference: (N, D), real images.
        heldout: (H, D), other real images, for the null; None takes its expectation.
        k: neighbours that set the radius; it is the score's ``threshold``.
        name: name of the result.
        device: where to compute.

    Returns:
        The score, at least 0. Null: the density of held-out images; its expectation is 1 when they
        and the reference are exchangeable and no two distances are equal. The interval is normal, over
        the samples. ``per_item``: id and balls (how many the sample lies in).

    Raises:
        DescriptorMismatch: if the descriptors differ.
        ValueError: if the reference has k images or fewer.

    Cost: O((M + H + N) N D) time.
    """
    check_comparable(generated, reference)
    radii = knn_radii(reference, k, device=device)
    balls = count_balls(generated.values, reference.values, radii, device=device)
    null, null_range = 1.0, None
    if heldout is not None:
        check_comparable(heldout, reference)
        real = count_balls(heldout.values, reference.values, radii, device=device)
        null, null_range = float(real.mean() / k), mean_range(real / k, len(balls))
    value, m = float(balls.mean() / k), len(balls)
    half = float(norm.ppf(0.975)) * balls.std(ddof=1) / k / math.sqrt(m) if m > 1 else math.nan
    return Score(
        name=name,
        value=value,
        low=max(0.0, value - half),
        high=value + half,
        null=null,
        null_range=null_range,
        threshold=float(k),
        num_generated=m,
        num_train=len(reference),
        descriptor=generated.descriptor,
        higher_is_better=True,
        per_item={"id": generated.ids, "balls": balls},
    )


def coverage(
    generated: Features,
    reference: Features,
    heldout: Features | None = None,
    *,
    k: int = 5,
    name: str = "coverage",
    device: Device = "cpu",
) -> Score:
    """Fraction of real images that have a sample in their ball.

    Args:
        generated: (M, D).
        reference: (N, D), real images.
        heldout: (M, D), as many other real images, for the null; None takes its expectation.
        k: neighbours that set the radius; it is the score's ``threshold``.
        name: name of the result.
        device: where to compute.

    Returns:
        The score, in [0, 1]; its items are the real images. Null: the coverage of as many held-out
        images, see ``expected_coverage``. It grows with M: compare at equal M only.

    Raises:
        DescriptorMismatch: if the descriptors differ.
        ValueError: if the reference has k images or fewer, or the held-out images are not M.

    Cost: O((M + N) N D) time.
    """
    check_comparable(generated, reference)
    radii = knn_radii(reference, k, device=device)
    null, null_range = expected_coverage(len(generated), len(reference), k), None
    if heldout is not None:
        check_comparable(heldout, reference)
        if len(heldout) != len(generated):
            raise ValueError(
                f"coverage: expected as many held-out images as samples ({len(generated)}), got "
                f"{len(heldout)}; take as many, or leave them out"
            )
        pairs = pairs_inside(heldout.values, reference.values, radii, device=device)
        times, alone = reached(((j, i) for i, j in pairs), len(reference), len(heldout))
        null, null_range = float((times > 0).mean()), reach_range(times, alone, len(generated))
    _, squared = nearest(reference.values, generated.values, device=device)
    hits = squared[:, 0] <= radii
    return proportion(
        name,
        hits,
        null=null,
        null_range=null_range,
        threshold=float(k),
        num_train=len(generated),
        descriptor=generated.descriptor,
        higher_is_better=True,
        per_item={"id": reference.ids, "covered": hits},
    )


def expected_coverage(num_generated: int, num_reference: int, k: int) -> float:
    """Coverage of samples that are exchangeable with the real images.

    A real image is missed if its k nearest among all others, real and generated, are all real:

        1 - prod_{i=1..k} (N - i) / (N + M - i)

    Source: Naeem et al. 2020, lemma 2; it needs no two distances equal.
    """
    i = np.arange(1, k + 1)
    return float(1 - np.prod((num_reference - i) / (num_reference + num_generated - i)))
