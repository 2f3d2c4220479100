"""Diverse samples: which samples lie outside the region of the real images?

Four rules, which differ in what "outside" means:

* ``calibrated``: farther from its nearest real image than real images are from one another, at a
  quantile q. Of samples that are as real as the real ones, 1 - q are selected: by construction.
* ``knn``: in no ball around a real image that reaches to its k-th neighbour (1 - precision).
* ``pca-hull``, ``tsne-hull``: outside the convex hull of the real images in the plane; see
  ``planes``. The last is the published rule.

"Far" also describes broken images, so the first rule can ask for plausibility, and that a sample is
no copy. No rule says anything without its null: some real images lie outside, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regimes.scores.balls import count_balls, inside_any_ball
from regimes.scores.features import Features, check_comparable
from regimes.scores.fidelity import knn_radii, realism
from regimes.scores.neighbours import Floats, first_occurrences, nearest, nearest_two_groups
from regimes.scores.products import Device
from regimes.scores.result import Score, proportion

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """What a diverse sample must be besides far away. None switches a gate off.

    Args:
        k: neighbours that set the radius of the balls around real images.
        looseness: plausible if within this many radii of some real image (1: improved precision).
        least_realism: plausible if at least this real, see ``realism``; asked in addition.
        copy_ratio: a copy if this much nearer to one real image than to any other (ratio test).
    """

    k: int = 5
    looseness: float | None = 2.0
    least_realism: float | None = None
    copy_ratio: float | None = 1 / 3

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("looseness", "least_realism", "copy_ratio"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}: expected a number above 0 or None, got {value}")

    def plausible(self, items: Features, real: Features, *, device: Device = "cpu") -> Mask:
        """(M,) which items pass for real images. Cost: as ``precision`` (and ``realism``)."""
        out = np.ones(len(items), np.bool_)
        if self.looseness is not None:
            squared = knn_radii(real, self.k, device=device) * self.looseness**2
            out &= inside_any_ball(items.values, real.values, squared, device=device)
        if self.least_realism is not None:
            out &= realism(items, real, k=self.k, device=device) >= self.least_realism
        return out

    def copies(self, items: Features, real: Features, *, device: Device = "cpu") -> Mask:
        """(M,) which items are copies of a real image, exact duplicates of which count once."""
        if self.copy_ratio is None:
            return np.zeros(len(items), np.bool_)
        kept = np.unique(first_occurrences(real.values))
        _, squared = nearest_two_groups(items.values, real.values[kept], kept, device=device)
        d1, d2 = np.sqrt(squared).T
        return np.asarray(d1 < self.copy_ratio * d2)


def calibrated(
    generated: Features,
    real: Features,
    *,
    quantile: float = 0.95,
    heldout: Features | None = None,
    gates: Gates | None = None,
    copies: Mask | None = None,
    name: str = "diverse_calibrated",
    device: Device = "cpu",
) -> Score:
    """Fraction of samples that are farther from the real images than these are from one another.

        selected: d(g, real) > t,   t the m-th largest of n calibration distances,
                                    m = floor((1 - q) (n + 1))

    The calibration distances are those of every real image to the nearest other one. Put g among
    the real images: none of their distances that matter changes (a distance of at least d(g, real)
    cannot be shortened by g), so if all are exchangeable the rank of d(g, real) is uniform, and the
    rate is m / (n + 1), exactly, for any n and any distribution without ties. With ``heldout`` the
    calibration distances are those of held-out images to the real ones, and the same holds.

    Args:
        generated: (M, D).
        real: (N, D), the real images, training images among them.
        quantile: q in (0, 1).
        heldout: (H, D), real images that are not among ``real``. Use them where ``real`` holds
            duplicates or bursts of similar images, whose distances to one another are too small.
        gates: what else is asked of a sample; None asks for nothing.
        copies: (M,) samples known as copies from other scores; they are not selected.
        name: name of the result.
        device: where to compute.

    Returns:
        The score. Null: m / (n + 1), an upper bound of it with gates; with gates and held-out
        images, (h + 1) / (H + 1) where h of the H held-out ones are selected. Wilson's interval covers the
        choice of samples, not that of real images. Neither direction is better. ``threshold`` is
        t. ``per_item``: id, nearest_id, distance, far, plausible, copy, selected.

    Raises:
        DescriptorMismatch: if the descriptors differ.
        ValueError: if q is not inside (0, 1), or there are too few calibration distances for it.

    Source: conformal prediction (Vovk, Gammerman & Shafer 2005). Cost: O((M + N) N D) time.
    """
    check_comparable(generated, real)
    far_from, null = _calibration(real, heldout, quantile, device)
    positions, squared = nearest(generated.values, real.values, device=device)
    far = squared[:, 0] > far_from
    plausible, copy = _gated(gates, generated, real, device)
    if copies is not None:
        copy = copy | copies
    selected = far & plausible & ~copy
    if gates is not None and heldout is not None:
        _, own = nearest(heldout.values, real.values, device=device)
        real_plausible, real_copy = _gated(gates, heldout, real, device)
        hits = int(((own[:, 0] > far_from) & real_plausible & ~real_copy).sum())
        null = (hits + 1) / (
            len(heldout) + 1
        )  # these images set the threshold: one more is expected
    return proportion(
        name,
        selected,
        null=null,
        threshold=math.sqrt(far_from),
        num_train=len(real),
        descriptor=generated.descriptor,
        higher_is_better=None,
        per_item={
            "id": generated.ids,
            "nearest_id": real.ids[positions[:, 0]],
            "distance": np.sqrt(squared[:, 0]),
            "far": far,
            "plausible": plausible,
            "copy": copy,
            "selected": selected,
        },
    )


def _gated(
    gates: Gates | None, items: Features, real: Features, device: Device
) -> tuple[Mask, Mask]:
    """Which items are plausible, and which are copies."""
    if gates is None:
        return np.ones(len(items), np.bool_), np.zeros(len(items), np.bool_)
    return gates.plausible(items, real, device=device), gates.copies(items, real, device=device)


def _calibration(
    real: Features, heldout: Features | None, quantile: float, device: Device
) -> tuple[float, float]:
    """The squared distance beyond which a sample is selected, and the rate under exchangeability."""
    if not 0 < quantile < 1:
        raise ValueError(f"quantile: expected a number inside (0, 1), got {quantile}")
    if heldout is None:
        _, squared = nearest(real.values, real.values, exclude_self=True, device=device)
    else:
        check_comparable(heldout, real)
        _, squared = nearest(heldout.values, real.values, device=device)
    n = len(squared)
    largest = math.floor((1 - quantile) * (n + 1) + 1e-9)  # 1 - .9 is a little less than .1
    if largest < 1:
        raise ValueError(
            f"quantile {quantile}: expected at least {math.ceil(1 / (1 - quantile) - 1e-9) - 1} images "
            f"to calibrate with, got {n}"
        )
    return float(np.sort(squared[:, 0])[-largest]), largest / (n + 1)


def outside_balls(
    generated: Features,
    real: Features,
    *,
    k: int = 3,
    heldout: Features | None = None,
    name: str = "diverse_knn",
    device: Device = "cpu",
) -> Score:
    """Fraction of samples that lie in no ball around a real image: 1 - improved precision.

    Args:
        generated: (M, D).
        real: (N, D).
        k: neighbours that set the radius; it is the score's ``threshold``.
        heldout: (H, D), real images that are not among ``real``. Use them where the descriptor was
            fitted to ``real``: those images are farther from one another in it than unseen ones.
        name: name of the result.
        device: where to compute.

    Returns:
        The score. Null: the same fraction of held-out images; without, the fraction of real images
        that lie in no *other* real image's ball, which is what the score of one more real image is on
        average (with N - 1 images in place of N; a ball that was drawn with the image among its
        neighbours holds it in either case). Neither direction is better. ``per_item``: id, selected.

    Raises:
        DescriptorMismatch: if the descriptors differ.
        ValueError: if there are k real images or fewer.

    Cost: O((M + H + N) N D) time.
    """
    check_comparable(generated, real)
    radii = knn_radii(real, k, device=device)
    selected = ~inside_any_ball(generated.values, real.values, radii, device=device)
    if heldout is None:
        alone = count_balls(real.values, real.values, radii, device=device) == 1  # its own
    else:
        check_comparable(heldout, real)
        alone = ~inside_any_ball(heldout.values, real.values, radii, device=device)
    return proportion(
        name,
        selected,
        null=float(alone.mean()),
        threshold=float(k),
        num_train=len(real),
        descriptor=generated.descriptor,
        higher_is_better=None,
        per_item={"id": generated.ids, "selected": selected},
    )


def jaccard(selections: list[Mask]) -> Floats:
    """Overlap of every two selections of the same samples, |A and B| / |A or B|; 1 for two empty ones.

    Args:
        selections: S masks (M,).

    Returns:
        (S, S) float64, symmetric, with ones on the diagonal.
    """
    masks = np.array(selections).astype(np.float64)
    both = masks @ masks.T
    sizes = masks.sum(1)
    either = sizes[:, None] + sizes - both
    return np.divide(both, either, out=np.ones_like(both), where=either > 0)
