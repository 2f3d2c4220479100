"""Diverse samples in the plane: samples outside the convex hull of the real images.

``tsne-hull`` is the published rule of "The Deficit of New Information in Diffusion Models" (2024): a
joint t-SNE of real and generated features, the convex hull of the real points, and every generated
point that is not strictly inside. ``pca-hull`` projects on two principal components of the real
images instead, which at least is a map that does not depend on what else is in the picture.

What such a count means is known. If samples and real images are exchangeable, one more point lies
outside the hull of N as often as a point of N + 1 is a vertex, so with V vertices

    E[count] = M V / N

whatever the distribution. V is about 10 to 25, and a count is evidence of novelty only above that.
How the missed probability scatters from one real set to the next is taken as gamma with V degrees
of freedom, so that counts are negative binomial (variance E + E^2 / V).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import nbinom

from regimes.errors import ConfigError
from regimes.scores.diversity import Mask, jaccard
from regimes.scores.features import Features, check_comparable
from regimes.scores.hulls import Hull, convex_hull, intersection_area, strictly_inside
from regimes.scores.result import Score, proportion

Floats = npt.NDArray[np.float64]
Plane = Literal["pca-hull", "tsne-hull"]
Library = Literal["scikit-learn", "openTSNE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HullSelection:
    """The samples outside the hull, and everything that is drawn about them."""

    rule: Plane
    score: Score
    """Fraction outside; null: V / N. ``per_item``: id, selected."""
    real_points: npt.NDArray
    """(N, 2)."""
    generated_points: npt.NDArray
    """(M, 2)."""
    real_hull: Hull
    generated_hull: Hull
    overlap_percent: float
    """Area that both hulls cover, in percent of the area that either covers."""
    expected: float
    """Number outside if samples are exchangeable with real images: M V / N."""
    critical: int
    """The number that is exceeded in at most 5% of such cases."""

    @property
    def selected(self) -> Mask:
        """(M,) which samples are outside the hull, or on its border."""
        return self.score.per_item["selected"]

    @property
    def count(self) -> int:
        """How many are."""
        return int(self.selected.sum())

    @property
    def exceeds_null(self) -> bool:
        """Whether there are more than real images in place of the samples would give."""
        return self.count > self.critical

    @property
    def words(self) -> str:
        """One sentence that says what the count means."""
        verdict = (
            "more than chance"
            if self.exceeds_null
            else "no more than chance: no evidence of anything new"
        )
        return (
            f"{self.count} of {len(self.selected)} samples lie outside the hull of "
            f"{len(self.real_points)} real images; {self.expected:.1f} would if they were real "
            f"images themselves (up to {self.critical} in 95% of cases): {verdict}."
        )


def outside_hull(
    generated: Features,
    real: Features,
    *,
    rule: Plane = "pca-hull",
    seed: int = 0,
    library: Library = "scikit-learn",
    name: str | None = None,
    points: npt.NDArray | None = None,
) -> HullSelection:
    """The samples that are not strictly inside the convex hull of the real images in the plane.

    Args:
        generated: (M, D).
        real: (N, D).
        rule: "pca-hull" or "tsne-hull".
        seed: of t-SNE; 0 as published. The other rule has no use for it.
        library: "scikit-learn" as published, "openTSNE" faster from some ten thousand images on;
            the two give different maps.
        name: name of the result; "diverse_pca_hull" or "diverse_tsne_hull" unless given.
        points: (N + M, 2), a map of ``tsne`` that was made before, the real images first.

    Raises:
        ConfigError: if openTSNE is asked for and not installed.
        DescriptorMismatch: if the descriptors differ.
        ValueError: if a rule or library is unknown, or points lie on a line.

    Cost: O(N D^2 + D^3) for PCA; t-SNE of N + M points, minutes at 10,000.
    """
    check_comparable(generated, real)
    if rule not in ("pca-hull", "tsne-hull"):
        raise ValueError(f"rule: expected pca-hull or tsne-hull, got {rule}")
    if rule == "pca-hull":
        theirs, ours = _pca(generated, real)
    else:
        if points is None:
            points = tsne(np.concatenate([real.values, generated.values]), seed, library)
        theirs, ours = points[: len(real)], points[len(real) :]
    hull, own = convex_hull(theirs), convex_hull(ours)
    selected = ~strictly_inside(ours, hull)
    vertices, expected = len(hull.vertices), len(ours) * len(hull.vertices) / len(theirs)
    shared = intersection_area(hull, own)
    return HullSelection(
        rule=rule,
        score=proportion(
            name or f"diverse_{rule.replace('-', '_')}",
            selected,
            null=vertices / len(theirs),
            threshold=math.nan,
            num_train=len(real),
            descriptor=generated.descriptor,
            higher_is_better=None,
            per_item={"id": generated.ids, "selected": selected},
        ),
        real_points=theirs,
        generated_points=ours,
        real_hull=hull,
        generated_hull=own,
        overlap_percent=100 * shared / (hull.area + own.area - shared),
        expected=expected,
        critical=most_outside(vertices, len(theirs), len(ours)),
    )


def most_outside(vertices: int, num_real: int, num_items: int) -> int:
    """How many of ``num_items`` are outside a hull in 95% of cases, if they are like the real images."""
    return int(nbinom.ppf(0.95, vertices, num_real / (num_real + num_items)))


def _pca(generated: Features, real: Features) -> tuple[Floats, Floats]:
    """Both sets on the two directions in which real images vary most; signs are arbitrary but fixed."""
    values = real.values.astype(np.float64)
    mean = values.mean(0)
    if values.shape[1] < 2:
        raise ValueError(f"pca-hull: expected features 2 wide or more, got {values.shape[1]}")
    _, directions = np.linalg.eigh((values - mean).T @ (values - mean))
    plane = directions[:, -2:]
    plane = plane * np.where(plane.sum(0) < 0, -1, 1)
    return (values - mean) @ plane, (generated.values.astype(np.float64) - mean) @ plane


def tsne(rows: npt.NDArray[np.float32], seed: int, library: Library) -> npt.NDArray:
    """(N, 2) by t-SNE with the library's defaults: a result of its version, of N and of the seed.

    Both libraries start from principal components, whatever the seed: all maps would be the same. Seeds
    other than 0 start at random.

    Raises:
        ConfigError: if the library is not installed.
        ValueError: if it is unknown, or there are too few rows (the perplexity is 30).
    """
    if library not in ("scikit-learn", "openTSNE"):
        raise ValueError(f"library: expected scikit-learn or openTSNE, got {library}")
    if len(rows) <= 30:
        raise ValueError(f"t-SNE: expected more than 30 images in all, got {len(rows)}")
    start: Literal["pca", "random"] = "pca" if seed == 0 else "random"
    if library == "scikit-learn":
        from sklearn.manifold import TSNE

        return TSNE(n_components=2, random_state=seed, init=start).fit_transform(rows)
    try:
        import openTSNE
    except ImportError as error:
        raise ConfigError(
            "openTSNE is not installed: pip install openTSNE, or take scikit-learn"
        ) from error
    return np.asarray(
        openTSNE.TSNE(n_components=2, random_state=seed, initialization=start).fit(rows)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """The same selection with several seeds of t-SNE."""

    seeds: tuple[int, ...]
    counts: tuple[int, ...]
    """Samples selected with each seed."""
    overlap: Floats
    """(S, S) Jaccard overlap of the selections."""

    @property
    def mean_overlap(self) -> float:
        """Mean over different seeds."""
        return float(self.overlap[~np.eye(len(self.seeds), dtype=bool)].mean())


def stability(
    generated: Features,
    real: Features,
    *,
    seeds: Iterable[int] = range(5),
    library: Library = "scikit-learn",
) -> Stability:
    """How much the samples that ``tsne-hull`` selects depend on its seed.

    Args, errors and cost: as ``outside_hull``, once per seed; at least two.
    """
    seeds = tuple(seeds)
    if len(seeds) < 2:
        raise ValueError(f"seeds: expected 2 or more, got {seeds}")
    masks = [
        outside_hull(generated, real, rule="tsne-hull", seed=seed, library=library).selected
        for seed in seeds
    ]
    return Stability(seeds=seeds, counts=tuple(int(m.sum()) for m in masks), overlap=jaccard(masks))
