"""Fidelity and coverage: are samples inside the region of real images, and do they fill it?

The region of a set is the union of balls around its points, each reaching to the point's k-th
nearest neighbour (Kynkaanniemi et al. 2019).
"""

from __future__ import annotations

from regimes.scores.features import Features, check_comparable
from regimes.scores.neighbours import Floats, inside_any_ball, nearest
from regimes.scores.result import Score, proportion


def knn_radii(reference: Features, k: int) -> Floats:
    """Squared distance of every point to its k-th nearest *other* point, (N,) float64."""
    _, squared = nearest(reference.values, reference.values, k, exclude_self=True)
    return squared[:, -1]


def precision(
    generated: Features,
    reference: Features,
    baseline: Features,
    *,
    k: int = 3,
    name: str = "precision",
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

    Returns:
        The score. Null: precision of ``baseline``. A point on a border counts as inside, as in the
        original (packages that use a strict comparison differ on duplicated images).

    Raises:
        ValueError: if the reference has k points or fewer.

    Source: Kynkaanniemi et al. 2019, equation 1. Cost: O((M + B + N) N D) time, O(BLOCK N) memory.
    """
    check_comparable(generated, reference)
    check_comparable(baseline, reference)
    radii = knn_radii(reference, k)
    return proportion(
        name,
        inside := inside_any_ball(generated.values, reference.values, radii),
        null=float(inside_any_ball(baseline.values, reference.values, radii).mean()),
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
) -> Score:
    """Improved recall: the fraction of real images inside the region of the samples.

    Args and cost: as ``precision``, with the roles swapped.

    Returns:
        The score; its items are the real images. Null: recall of ``baseline``. Depends on the
        number of samples: compare at equal M.
    """
    check_comparable(generated, reference)
    check_comparable(baseline, reference)
    inside = inside_any_ball(reference.values, generated.values, knn_radii(generated, k))
    covered = inside_any_ball(reference.values, baseline.values, knn_radii(baseline, k))
    return proportion(
        name,
        inside,
        null=float(covered.mean()),
        threshold=float(k),
        num_train=len(generated),
        descriptor=generated.descriptor,
        higher_is_better=True,
        per_item={"id": reference.ids, "inside": inside},
    )
