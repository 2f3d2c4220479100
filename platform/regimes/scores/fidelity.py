"""Fidelity and coverage: are samples inside the region of real images, and do they fill it?

The region of a set is the union of balls around its points, each reaching to the point's k-th
nearest neighbour (Kynkaanniemi et al. 2019).
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from regimes.scores.balls import inside_any_ball, pairs_inside
from regimes.scores.features import Features, check_comparable
from regimes.scores.neighbours import Floats, nearest
from regimes.scores.products import Device
from regimes.scores.resampling import reach_range, reached, share_range
from regimes.scores.result import Score, proportion

_REALISM_ROWS = 256


def knn_radii(reference: Features, k: int, *, device: Device = "cpu") -> Floats:
    """Squared distance of every point to its k-th nearest *other* point, (N,) float64."""
    rows = reference.values
    _, squared = nearest(rows, rows, k, exclude_self=True, device=device)
    return squared[:, -1]


def realism(
    generated: Features, reference: Features, *, k: int = 3, device: Device = "cpu"
) -> Floats:
    """Realism of every sample: how far inside the region of real images it lies.

        R(g) = max_j radius_j / |g - y_j|,    over the half of the balls that is smaller

    Args:
        generated: (M, D).
        reference: (N, D), real images.
        k: neighbours that set the radius.
        device: where the neighbours are found.

    Returns:
        (M,) float64, inf for copies of real images; at least 1 inside the region.

    Raises:
        DescriptorMismatch: if the descriptors differ.
        ValueError: if the reference has k images or fewer.

    Source: Kynkaanniemi et al. 2019, equation 3. Cost: O(M N D) time by subtraction in float64,
    slower than ``precision`` by about ten times.
    """
    check_comparable(generated, reference)
    radii = np.sqrt(knn_radii(reference, k, device=device))
    kept = radii <= np.median(radii)
    centres, radii = reference.values[kept].astype(np.float64), radii[kept]
    out = np.empty(len(generated))
    for start in range(0, len(generated), _REALISM_ROWS):
        part = generated.values[start : start + _REALISM_ROWS].astype(np.float64)
        distances = cdist(part, centres)
        ratio = np.divide(
            radii, distances, out=np.full_like(distances, np.inf), where=distances > 0
        )
        out[start : start + _REALISM_ROWS] = ratio.max(1)
    return out


def precision(
    generated: Features,
    reference: Features,
    baseline: Features,
    *,
    k: int = 3,
    name: str = "precision",
    device: Device = "cpu",
) -> Score:
    """Improved precision: the fraction of samples inside the region of real images.

    Use real images that the model was *not* trained on as reference: then copying the training set
    does not help, and a model that has learned the distribution scores like held-out real images.

    Args:
        generated: (M, D).
        reference: (N, D), real images.
        baseline: (B, D), samples of a model that knows nothing worth knowing (in the jobs: the
            linear denoiser, whose samples are Gaussian with the right covariance).
        k: neighbours that set the radius; the point itself is not one of them.
        name: name of the result.
        device: where to compute.

    Returns:
        The score. Null: precision of ``baseline``. A point on a border counts as inside, as in the
        original (packages that use a strict comparison differ on duplicated images).

    Raises:
        ValueError: if the reference has k points or fewer.

    Source: Kynkaanniemi et al. 2019, equation 1. Cost: O((M + B + N) N D) time.
    """
    check_comparable(generated, reference)
    check_comparable(baseline, reference)
    radii = knn_radii(reference, k, device=device)
    null = inside_any_ball(baseline.values, reference.values, radii, device=device)
    return proportion(
        name,
        inside := inside_any_ball(generated.values, reference.values, radii, device=device),
        null=float(null.mean()),
        null_range=share_range(int(null.sum()), len(null), len(generated)),
        threshold=float(k),
        num_train=len(reference),
        descriptor=generated.descriptor,
        higher_is_better=True,
        per_item={"id": generated.ids, "inside": inside},
    )


def recall(
    generated: Features,
    reference: Features,
    baseline: Features,
    *,
    k: int = 3,
    name: str = "recall",
    device: Device = "cpu",
) -> Score:
    """Improved recall: the fraction of real images inside the region of the samples.

    Args and cost: as ``precision``, with the roles swapped.

    Returns:
        The score; its items are the real images. Null: recall of ``baseline``. Depends on the
        number of samples: compare at equal M.
    """
    check_comparable(generated, reference)
    check_comparable(baseline, reference)
    radii, of_baseline = (knn_radii(items, k, device=device) for items in (generated, baseline))
    inside = inside_any_ball(reference.values, generated.values, radii, device=device)
    pairs = pairs_inside(reference.values, baseline.values, of_baseline, device=device)
    times, alone = reached(pairs, len(reference), len(baseline))
    return proportion(
        name,
        inside,
        null=float((times > 0).mean()),
        null_range=reach_range(times, alone, len(generated)),
        threshold=float(k),
        num_train=len(generated),
        descriptor=generated.descriptor,
        higher_is_better=True,
        per_item={"id": reference.ids, "inside": inside},
    )
