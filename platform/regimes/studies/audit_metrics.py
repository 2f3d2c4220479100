"""The metrics of an audit, each with its interval and its null.

The null is the same metric with held-out images in place of generated ones. Where it needs them and
there are none, it is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from regimes.scores.authenticity import authenticity, copying_test
from regimes.scores.coverage import coverage, density
from regimes.scores.duplicates import DuplicateGroups, find_duplicates
from regimes.scores.features import Features, Index
from regimes.scores.fidelity import precision, recall
from regimes.scores.frechet import By, frechet_score
from regimes.scores.kernel import kernel_score
from regimes.scores.products import Device
from regimes.scores.resampling import equal_number
from regimes.scores.result import Score, proportion
from regimes.scores.vendi import vendi_score
from regimes.studies.audit import AuditSets, Copies
from regimes.studies.audit_matches import Flags

NUM_METRIC_STEPS = 12
NEIGHBOURS = 5
"""k of precision, recall, density and coverage."""
WIDEST_FRECHET = 2048
"""Numbers per image; wider covariances take minutes per decomposition."""
KID_SUBSET = 1000
_KERNEL_GROUPS, _FRECHET_GROUPS = 20, 10  # of the jackknife, where there are as many images
FEWEST_FOR_VENDI = 20
_REPEATS = ("duplicates_train", "duplicates_generated")


def copy_scores(copies: Copies, sets: AuditSets) -> list[Score]:
    """The scores that count copies."""
    c, real, fraction = copies, ~copies.identical_real, partial(_fraction, copies)
    levels = sorted(c.rules.published)
    found = [
        fraction("memorized", c.is_copy, c.real_similarity > c.threshold.value, sets,
                  threshold=c.threshold.value),
        *(
            fraction(f"memorized_published_{t:g}", c.is_published(t), c.real.unflipped[real] > t, sets,
                      threshold=t)
            for t in levels
        ),
        fraction("beyond_real", c.is_beyond, 1 / (c.chance(0)[1] + 1), sets,
                  threshold=float(c.real_similarity.max())),
        fraction("identical", c.identical,
                  math.nan if c.reference == "train" else c.identical_real, sets, threshold=0.0),
    ]  # fmt: skip
    if sets.mirrored is not None:
        flipped = c.real.flipped & (c.real.similarity > c.threshold.value)
        found.append(fraction("flips", c.is_flip, flipped[real], sets, threshold=c.threshold.value))
    near = c.real.d1 < c.rules.ratio * c.real.d2
    found.append(fraction("ratio", c.is_ratio, near[real], sets, threshold=c.rules.ratio))
    return found


def _fraction(
    copies: Copies,
    name: str,
    hits: Flags,
    null: Flags | float,
    sets: AuditSets,
    *,
    threshold: float,
) -> Score:
    low, high = copies.interval(hits)
    score = proportion(
        name,
        hits,
        null=null if isinstance(null, float) else float(null.mean()),
        threshold=threshold,
        num_train=len(sets.train),
        descriptor=sets.train.descriptor,
        higher_is_better=False,
    )
    return replace(score, low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many images costly metrics look at."""

    manifold: int
    """Of each set, at most, where all pairs are compared more than once."""
    device: Device = "cpu"
    """Where neighbours are searched."""


def duplicate_groups(
    features: Features, mirrored: Features | None, distance: float, *, device: Device = "cpu"
) -> DuplicateGroups:
    """Images that are the same; those without contrast, which have no direction, are not compared.

    Args:
        features: (N, D) unit rows.
        mirrored: (N, D) flips: an image is the same as its flip.
        distance: up to which two rows are the same; sameness is transitive.
        device: where neighbours are searched.

    Cost: O(N^2 D) time, four times as much with flips.
    """
    described = np.flatnonzero(features.values.any(1))
    rows, n = features.take(described), len(described)
    if mirrored is not None:
        values = np.concatenate([rows.values, mirrored.values[described]])
        rows = Features(np.arange(2 * n), values, rows.descriptor)
    found = find_duplicates(rows, distance=distance, device=device).first
    if mirrored is not None:
        found = _merged(found[:n], found[n:])
    first = np.arange(len(features))
    first[described] = described[found]
    return DuplicateGroups(ids=features.ids, first=first, distance=distance)


def _merged(plain: Index, flipped: Index) -> Index:
    """First image of every group, if the group of an image and that of its flip are one, (N,)."""
    n = len(plain)
    graph = coo_array((np.ones(n, np.bool_), (plain, flipped)), shape=(2 * n, 2 * n))
    _, component = connected_components(graph, directed=False)
    _, first, inverse = np.unique(component[plain], return_index=True, return_inverse=True)
    return first[inverse]


def all_scores(
    copies: Copies,
    sets: AuditSets,
    raw: Mapping[str, Features],
    duplicates: tuple[DuplicateGroups, DuplicateGroups],
    limits: Limits,
    on_step: Callable[[], None] = lambda: None,
) -> list[Score]:
    """Every metric of an audit.

    Args:
        copies: what ``find_copies`` found.
        sets: the images.
        raw: features as a network gives them, by set, where distances are defined on those.
        duplicates: among the training images, and among the generated ones.
        limits: see there.
        on_step: called ``NUM_METRIC_STEPS`` times in all, with those of ``find_copies`` and one per
            call of ``duplicate_groups``.

    Returns:
        The scores, named as in ``report.audit``.
    """
    parts, found = _Parts.of(sets, limits), list[Score]()
    groups: list[Callable[[], list[Score]]] = [
        partial(copy_scores, copies, sets),
        partial(distance_tests, sets, limits.device),
        *parts.manifold_scores,
        parts.diversity_scores,
        partial(distance_scores, sets, raw, limits.manifold),
    ]
    for group in groups:
        found += group()
        on_step()
    return found + [
        _repeats(name, same, sets.train.descriptor)
        for name, same in zip(_REPEATS, duplicates, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """Random parts of the sets: as many generated images as held-out ones, so that both compare."""

    train: Features
    generated: Features
    heldout: Features | None
    device: Device

    @classmethod
    def of(cls, sets: AuditSets, limits: Limits) -> _Parts:
        most = limits.manifold
        count = min(len(sets.generated), most)
        if sets.heldout is not None:
            count = min(count, len(sets.heldout))
        return cls(
            train=equal_number(sets.train, min(len(sets.train), most)),
            generated=equal_number(sets.generated, count),
            heldout=None if sets.heldout is None else equal_number(sets.heldout, count),
            device=limits.device,
        )

    @property
    def null(self) -> Features:
        """What is compared with the training images for the null; it does not count without held-out."""
        return self.generated if self.heldout is None else self.heldout

    @property
    def manifold_scores(self) -> list[Callable[[], list[Score]]]:
        """Precision, recall, density and coverage: a call each, as each may take minutes."""
        return [
            *(partial(self._region, score) for score in (precision, recall)),
            *(partial(self._balls, score) for score in (density, coverage)),
        ]

    def _region(self, score: Callable[..., Score]) -> list[Score]:
        three = self.generated, self.train, self.null
        return [self._honest(score(*three, k=NEIGHBOURS, device=self.device))]

    def _balls(self, score: Callable[..., Score]) -> list[Score]:
        """Of scores that know their expectation for images that are like the training images."""
        three = self.generated, self.train, self.heldout
        return [score(*three, k=NEIGHBOURS, device=self.device)]

    def diversity_scores(self) -> list[Score]:
        """The Vendi score of images that have a direction."""
        sides = [f.take(np.flatnonzero(f.values.any(1))) for f in (self.generated, self.null)]
        count = min(map(len, sides))
        if count < FEWEST_FOR_VENDI:
            return []
        return [self._honest(vendi_score(*(equal_number(f, count) for f in sides)))]

    def _honest(self, score: Score) -> Score:
        """Without held-out images there is no null."""
        return replace(score, null=math.nan, null_range=None) if self.heldout is None else score


def distance_tests(sets: AuditSets, device: Device) -> list[Score]:
    """AuthPct and C_T, which have no threshold of similarity; C_T needs held-out images."""
    if sets.heldout is None:
        score = authenticity(
            sets.generated, sets.train, sets.generated, name="authentic", device=device
        )
        return [replace(score, null=math.nan)]
    three = sets.generated, sets.train, sets.heldout
    found = [authenticity(*three, name="authentic", device=device)]
    try:
        found.append(copying_test(*three, device=device))
    except ValueError:  # no cell holds enough images of every set: there is nothing to say
        return found
    return found


def distance_scores(sets: AuditSets, raw: Mapping[str, Features], most: int) -> list[Score]:
    """Fréchet and kernel distance to the training images: FID and KID on raw Inception features.

    The Fréchet distance depends on the number of images, so its null has as many: with fewer held-out
    than generated images it is a score of its own, of a part of the generated ones.
    """
    is_fid = bool(raw)
    chosen: Mapping[str, Features | None] = raw or {
        "train": sets.train, "generated": sets.generated, "heldout": sets.heldout
    }  # fmt: skip
    train, generated, heldout = chosen["train"], chosen["generated"], chosen.get("heldout")
    assert train is not None
    assert generated is not None
    names = ("fid", "kid") if is_fid else ("frechet", "kernel")
    found: list[Score] = []
    if train.values.shape[1] <= WIDEST_FRECHET:
        found += _frechet(train, generated, heldout, names[0], is_fid)
    parts = [equal_number(f, min(len(f), most)) for f in (generated, train, heldout or generated)]
    fits = is_fid and min(map(len, parts)) >= KID_SUBSET
    score = kernel_score(
        *parts,
        name=names[1],
        by="torch-fidelity" if fits else "regimes",
        num_groups=min(_KERNEL_GROUPS, *map(len, parts[:2])),
    )
    return [*found, replace(score, null=math.nan) if heldout is None else score]


def _frechet(
    train: Features, generated: Features, heldout: Features | None, name: str, is_fid: bool
) -> list[Score]:
    by: By = "torch-fidelity" if is_fid else "regimes"
    num_groups = min(_FRECHET_GROUPS, len(generated), len(heldout or generated))
    score = partial(frechet_score, by=by, num_groups=num_groups)
    if heldout is not None and len(heldout) >= len(generated):
        return [score(generated, train, heldout, name=name)]
    whole = replace(score(generated, train, generated, name=name), null=math.nan)
    if heldout is None:
        return [whole]
    part = equal_number(generated, len(heldout))
    return [whole, score(part, train, heldout, name=f"{name}_matched")]


def _repeats(name: str, same: DuplicateGroups, descriptor: str) -> Score:
    """Images that repeat an earlier one of their own set."""
    return proportion(
        name,
        same.first != np.arange(len(same.first)),
        null=math.nan,
        threshold=same.distance,
        num_train=len(same.first),
        descriptor=descriptor,
        higher_is_better=False,
    )
