"""Diverse samples: what lies outside the region of the real images, and is that more than chance?

Every rule (see ``scores.diversity``) is applied to every set of samples. Real images lie outside, too:
each rule has a null, the fraction that is selected if samples are exchangeable with real images. The
null is itself estimated from n real images, so the number selected scatters more than a binomial:

    calibrated           BetaBinomial(M, h + 1, n - h) where h of n calibration images are selected,
                         exact if these are held out
    knn, h of n images   BetaBinomial(M, h + 1/2, n - h + 1/2), Jeffreys' predictive
    hull, V vertices     negative binomial, see ``scores.planes``

with both numbers of the first two halved where real images are compared with one another (``_most``).

The **critical number** is exceeded in at most 5% of such cases; only a larger one says that anything is
new. Equal samples, and equal held-out images, count once in it. Held-out images, where there are any, give
the null of the rules of distances, and are judged by the hull rules as a control.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.stats import betabinom

from regimes.scores.diversity import Gates, Mask, calibrated, jaccard, outside_balls
from regimes.scores.features import Features, check_comparable
from regimes.scores.neighbours import Rows, first_occurrences, nearest
from regimes.scores.planes import (
    HullSelection,
    Library,
    Stability,
    most_outside,
    outside_hull,
    tsne,
)
from regimes.scores.products import Device
from regimes.scores.resampling import effective_number
from regimes.scores.result import Score, wilson_interval

Rule = Literal["calibrated", "knn", "pca-hull", "tsne-hull"]
RULES: tuple[Rule, ...] = get_args(Rule)
HULLS: tuple[Rule, ...] = ("pca-hull", "tsne-hull")
CONTROL = "held-out images"
"""Name of the control among the sets."""
_LEVEL = 0.95

MakeMap = Callable[[str, int, Rows], npt.NDArray]
"""(name of the set, seed, rows (N + M, D) of the real images and the set) -> (N + M, 2) by t-SNE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiverseRules:
    """Which rules, and their settings."""

    names: tuple[Rule, ...] = ("calibrated",)
    """At least one, each once."""
    quantile: float = 0.95
    """Of ``calibrated``: share of calibration distances that a diverse sample must exceed."""
    gates: Gates = field(default_factory=Gates)
    """Of ``calibrated``: what else is asked of a sample."""
    neighbours: int = 3
    """Of ``knn``: neighbours that set the radius of a ball."""
    library: Library = "scikit-learn"
    """Of ``tsne-hull``."""
    seeds: int = 5
    """Of ``tsne-hull``: seeds 0, 1, ... of the map; the selection is that of seed 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiverseSets:
    """The features that are compared.

    Raises:
        DescriptorMismatch: if descriptors differ.
    """

    real: Features
    """(N, D), unit rows."""
    generated: Mapping[str, Features]
    """(M, D) by name of the set."""
    heldout: Features | None = None
    """(H, D), real images that are not among ``real``."""

    def __post_init__(self) -> None:
        """Check once what every rule needs."""
        for features in (*self.generated.values(), self.heldout):
            if features is not None:
                check_comparable(features, self.real)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one rule says of one set."""

    set_name: str
    rule: Rule
    score: Score
    """The fraction selected; ``per_item["selected"]`` are the samples."""
    expected: float
    """Number selected if samples are exchangeable with real images, at most."""
    critical: int
    """The number that is exceeded in at most 5% of such cases; equal samples count once."""
    independent: float
    """How many different samples they count for."""
    is_control: bool = False
    """Whether these are held-out real images."""
    plane: HullSelection | None = None
    """Of a hull rule."""
    stability: Stability | None = None
    """Of ``tsne-hull``; None for the control."""
    times_selected: npt.NDArray[np.int64] | None = None
    """(M,) with how many of those seeds each sample is selected."""

    @property
    def selected(self) -> Mask:
        """(M,) which samples are."""
        return np.asarray(self.score.per_item["selected"])

    @property
    def count(self) -> int:
        """How many are."""
        return int(self.selected.sum())

    @property
    def exceeds_null(self) -> bool:
        """Whether more are than real images in place of the samples would give."""
        return self.count > self.critical


@dataclass(frozen=True, slots=True, kw_only=True)
class DiverseStudy:
    """Everything that was found."""

    rules: DiverseRules
    findings: tuple[Finding, ...]
    """A row per set and rule, sets in the order given, the control last."""
    nearest: Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]
    """By set of samples: position (M,) of the nearest real image, and the distance (M,) to it."""
    num_real: int
    calibrated_by: str
    """What gave the null of the rules of distances: "held-out images" or "real images"."""

    def of(self, set_name: str, rule: Rule) -> Finding:
        """One row."""
        return next(f for f in self.findings if (f.set_name, f.rule) == (set_name, rule))

    @property
    def samples(self) -> list[Finding]:
        """The rows of samples, without the control."""
        return [f for f in self.findings if not f.is_control]

    @property
    def names(self) -> list[str]:
        """Of the sets of samples."""
        return list(self.nearest)


def find_diverse(
    sets: DiverseSets,
    rules: DiverseRules,
    planes: DiverseSets | None = None,
    on_step: Callable[[], None] = lambda: None,
    *,
    make_map: MakeMap | None = None,
    device: Device = "cpu",
) -> DiverseStudy:
    """Apply every rule to every set.

    Args:
        sets: unit rows, for distances.
        rules: which rules.
        planes: the features that hulls are drawn of, if others (the published rule takes them as the
            network gives them).
        on_step: called ``num_steps`` times.
        make_map: t-SNE with the library of the rules, perhaps kept from an earlier run.
        device: where neighbours are searched; t-SNE runs on the CPU.

    Raises:
        ValueError: of a rule; the message begins with the name of the set.

    Cost: per set O(M N D) time for each of calibrated and knn, and one t-SNE of N + M points for each
    seed of tsne-hull.
    """
    planes = planes or sets
    make_map = make_map or (lambda _, seed, rows: tsne(rows, seed, rules.library))
    distances = sets if sets.heldout is not None else _distinct(sets)
    judge = _Judge(rules=rules, make_map=make_map, on_step=on_step, device=device)
    findings: list[Finding] = []
    found = {}
    for name, items in sets.generated.items():
        positions, squared = nearest(items.values, sets.real.values, device=device)
        found[name] = positions[:, 0], np.sqrt(squared[:, 0])
        on_step()
        for rule in rules.names:
            flat = planes if rule in HULLS else distances
            findings.append(judge.of(name, rule, flat.generated[name], flat))
    for rule in rules.names if sets.heldout is not None else ():
        if rule in HULLS:  # these images are the null of the others
            findings.append(judge.control(rule, planes if rule in HULLS else sets))
    return DiverseStudy(
        rules=rules,
        findings=tuple(findings),
        nearest=found,
        num_real=len(sets.real),
        calibrated_by="real images" if sets.heldout is None else CONTROL,
    )


def _distinct(sets: DiverseSets) -> DiverseSets:
    """Real images once each: compared with one another, one that is there twice has a distance of 0.

    Were all there twice, every new image would be farther from them than they are from one another.
    """
    kept = np.unique(first_occurrences(sets.real.values))
    return dataclasses.replace(sets, real=sets.real.take(kept))


def num_steps(rules: DiverseRules, num_sets: int, *, heldout: bool) -> int:
    """How often ``find_diverse`` calls ``on_step``."""
    each = 1 + sum(rules.seeds if rule == "tsne-hull" else 1 for rule in rules.names)
    return num_sets * each + heldout * sum(rule in HULLS for rule in rules.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    """Applies rules to sets."""

    rules: DiverseRules
    make_map: MakeMap
    on_step: Callable[[], None]
    device: Device

    def of(self, name: str, rule: Rule, items: Features, sets: DiverseSets) -> Finding:
        """One rule on one set of samples."""
        with _named(name, rule):
            if rule == "tsne-hull":
                return self._mapped(name, items, sets.real)
            if rule == "pca-hull":
                found = _hull(name, outside_hull(items, sets.real, rule=rule), items)
            elif rule == "knn":
                found = self._balls(name, items, sets)
            else:
                found = self._far(name, items, sets)
        self.on_step()
        return found

    def control(self, rule: Rule, sets: DiverseSets) -> Finding:
        """Held-out images in place of samples, with one seed."""
        assert sets.heldout is not None
        with _named(CONTROL, rule):
            if rule == "pca-hull":
                plane = outside_hull(sets.heldout, sets.real, rule=rule)
            else:
                plane = self._on_map(CONTROL, sets.heldout, sets.real, 0)
            found = _hull(CONTROL, plane, sets.heldout)
        self.on_step()
        return dataclasses.replace(found, is_control=True)

    def _far(self, name: str, items: Features, sets: DiverseSets) -> Finding:
        score = calibrated(
            items,
            sets.real,
            quantile=self.rules.quantile,
            heldout=sets.heldout,
            gates=self.rules.gates,
            device=self.device,
        )
        n = len(sets.real if sets.heldout is None else sets.heldout)
        hits = round(score.null * (n + 1)) - 1  # an integer but for rounding
        weight = _independent(sets.heldout) / n if sets.heldout is not None else 1.0
        law = functools.partial(
            _most,
            hits=weight * hits + 1,
            misses=weight * (n - hits),
            is_shared=sets.heldout is None,
        )
        return _finding(name, "calibrated", score, items, law)

    def _balls(self, name: str, items: Features, sets: DiverseSets) -> Finding:
        score = outside_balls(
            items,
            sets.real,
            k=self.rules.neighbours,
            heldout=sets.heldout,
            device=self.device,
        )
        n = len(sets.real if sets.heldout is None else sets.heldout)
        alone = round(score.null * n)
        weight = _independent(sets.heldout) / n if sets.heldout is not None else 1.0
        law = functools.partial(
            _most,
            hits=weight * alone + 0.5,
            misses=weight * (n - alone) + 0.5,
            is_shared=sets.heldout is None,
        )
        return _finding(name, "knn", score, items, law)

    def _mapped(self, name: str, items: Features, real: Features) -> Finding:
        """``tsne-hull`` with every seed; the finding is that of seed 0, as published."""
        first, masks = None, []
        seeds = tuple(range(self.rules.seeds))
        for seed in seeds:
            plane = self._on_map(name, items, real, seed)
            first = first or plane
            masks.append(plane.selected)
            self.on_step()
        assert first is not None
        counts = tuple(int(mask.sum()) for mask in masks)
        return dataclasses.replace(
            _hull(name, first, items),
            stability=Stability(seeds=seeds, counts=counts, overlap=jaccard(masks)),
            times_selected=np.sum(masks, axis=0, dtype=np.int64),
        )

    def _on_map(self, name: str, items: Features, real: Features, seed: int) -> HullSelection:
        points = self.make_map(name, seed, np.concatenate([real.values, items.values]))
        return outside_hull(items, real, rule="tsne-hull", points=points)


@contextlib.contextmanager
def _named(name: str, rule: Rule) -> Iterator[None]:
    """Errors say which set and which rule they are about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}, rule {rule}: {error}") from error


def _hull(name: str, plane: HullSelection, items: Features) -> Finding:
    law = functools.partial(most_outside, len(plane.real_hull.vertices), len(plane.real_points))
    return dataclasses.replace(_finding(name, plane.rule, plane.score, items, law), plane=plane)


def _finding(
    name: str, rule: Rule, score: Score, items: Features, law: Callable[[int], int]
) -> Finding:
    """A finding whose interval and limit are those of as many different samples as there are.

    Args:
        name: of the set.
        rule: which samples are selected by.
        score: their share.
        items: the samples.
        law: of how many different ones -> the number of selected ones that is rarely exceeded.
    """
    n = _independent(items)
    low, high = wilson_interval(min(score.value * n, n), n)
    return Finding(
        set_name=name,
        rule=rule,
        score=dataclasses.replace(score, low=low, high=high),
        expected=score.null * len(items),
        critical=int(law(int(n)) * len(items) / int(n)),
        independent=n,
    )


def _independent(items: Features) -> float:
    return effective_number(first_occurrences(items.values))


def _most(num_items: int, *, hits: float, misses: float, is_shared: bool) -> int:
    """How many of some items are rarely exceeded.

    Real images that are compared with one another share distances, two that are each other's nearest
    have one: each counts for a half. The share that is expected stays the same.
    """
    each = 0.5 if is_shared else 1.0
    return int(betabinom.ppf(_LEVEL, num_items, each * hits, each * misses))


def fewest_calibrators(quantile: float) -> int:
    """Images that ``calibrated`` needs to calibrate with."""
    return math.ceil(1 / (1 - quantile) - 1e-9) - 1
