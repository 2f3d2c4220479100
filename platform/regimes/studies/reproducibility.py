"""The reproducibility study: k sample sets of the same seeds, every two compared.

Scores of a pair, in the order of the table:

* ``rp``: fraction of seeds whose similarity is above the given threshold
* ``rp_calibrated``: the same above the similarity that few *unpaired* couples reach
* ``mae_score``: fraction of seeds whose mean absolute pixel difference is below a threshold
* ``mean_similarity``, ``mean_absolute_error``: means over seeds
* ``flow_distance``: root mean squared distance of features, which needs no threshold

The null of each is the same over couples of different seeds. A set compared with itself must give
RP = 1; it does not where an image has no contrast, which no descriptor of pixels can tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from regimes.errors import BadSource, IdMismatch
from regimes.images.pixels import Images
from regimes.scores import paired
from regimes.scores.agreement import Agreement, Comparison
from regimes.scores.features import Ids, check_ids
from regimes.scores.reproducibility import RAW_PIXELS, agrees
from regimes.scores.result import Score
from regimes.studies.verdict import percent

Floats = npt.NDArray[np.float64]

FRACTIONS = ("rp", "rp_calibrated", "mae_score")
SCORES = (*FRACTIONS, "mean_similarity", "mean_absolute_error", "flow_distance")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSet:
    """The samples of one model.

    Raises:
        IdMismatch: if ids repeat or are not one per image.
    """

    name: str
    ids: Ids
    """(N,) seeds, or names."""
    images: Images = field(repr=False)
    """(N, H, W, C) uint8."""

    def __post_init__(self) -> None:
        """Check that every image has its own id."""
        try:
            check_ids(self.ids, self.images.shape)
        except IdMismatch as error:
            raise IdMismatch(f"{self.name}: {error}") from error


def align(sets: Sequence[SampleSet], *, allow_partial: bool = False) -> list[SampleSet]:
    """The same sets with the same ids in the same order.

    Args:
        sets: two or more.
        allow_partial: keep the ids that all sets share instead of raising when one lacks some.

    Raises:
        IdMismatch: if a set lacks ids that another has, unless ``allow_partial``; or fewer than two
            are shared, which leaves no couple of different seeds.
        BadSource: if images differ in size or channels.
    """
    first = sets[0]
    for other in sets[1:]:
        if other.images.shape[1:] != first.images.shape[1:]:
            raise BadSource(
                f"{first.name} has images of {_shape(first)}, {other.name} of {_shape(other)}; "
                "pass --image-size or --channels to convert both"
            )
    shared: Ids = first.ids
    everything: Ids = first.ids
    for other in sets[1:]:
        shared = np.intersect1d(shared, other.ids)
        everything = np.union1d(everything, other.ids)
    if len(shared) < 2 or (len(shared) < len(everything) and not allow_partial):
        raise IdMismatch(_missing(sets, everything, len(shared)))
    return [_take(one, shared) for one in sets]


def _shape(one: SampleSet) -> str:
    height, width, channels = one.images.shape[1:]
    return f"{width}x{height} {'gray' if channels == 1 else 'RGB'}"


def _missing(sets: Sequence[SampleSet], everything: Ids, num_shared: int) -> str:
    """Which ids each set lacks."""
    lacks = [(one.name, np.setdiff1d(everything, one.ids)) for one in sets]
    parts = [
        f"{name} lacks {len(ids)} ({', '.join(map(str, ids[:5]))}{', ...' if len(ids) > 5 else ''})"
        for name, ids in lacks
        if len(ids)
    ]
    if num_shared < 2:
        remedy = "compare at least two images; are their names seeds, or the same in all sets?"
    else:
        remedy = "make the missing ones, or pass --allow-partial"
    parts = parts or ["nothing is missing"]
    return f"ids: {'; '.join(parts)}; {num_shared} are in all sets; {remedy}"


def _take(one: SampleSet, ids: Ids) -> SampleSet:
    order = np.argsort(one.ids)
    index = order[np.searchsorted(one.ids, ids, sorter=order)]
    if np.array_equal(index, np.arange(len(one.ids))):
        return one  # spares a copy
    return SampleSet(name=one.name, ids=ids, images=one.images[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What counts as the same image."""

    threshold: float
    """Similarity above which two samples agree."""
    quantile: float
    """Share of unpaired couples at or below the calibrated threshold."""
    mae_threshold: float
    """Mean absolute pixel difference (0-255) below which two samples agree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """One score of one pair of models."""

    score: Score
    first: str
    second: str

    def record(self) -> dict[str, object]:
        """Plain values for a table; an absent null, threshold or end is None."""
        s = self.score

        def number(value: float) -> float | None:
            return None if math.isnan(value) else value

        return {
            "score": s.name,
            "first": self.first,
            "second": self.second,
            "value": s.value,
            "low": number(s.low),
            "high": number(s.high),
            "null": number(s.null),
            "threshold": number(s.threshold),
            "n": s.num_generated,
            "descriptor": s.descriptor,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproducibilityStudy:
    """What the comparison of k sample sets found."""

    names: tuple[str, ...]
    num_seeds: int
    num_couples: int
    """Unpaired couples per pair that the nulls rest on."""
    exact: bool
    """Whether these are all of them."""
    rules: Rules
    calibrated: float
    """Similarity that the rules' quantile of all unpaired couples does not exceed."""
    diagonal: Mapping[str, tuple[float, ...]]
    """Every score of every set with itself: a check, not a finding. RP is 1 but for images without
    contrast."""
    rows: tuple[PairRow, ...]
    agreements: Mapping[tuple[str, str], Agreement] = field(repr=False)

    def of(self, name: str) -> dict[tuple[str, str], Score]:
        """One score of all pairs."""
        return {(r.first, r.second): r.score for r in self.rows if r.score.name == name}

    def matrix(self, name: str) -> list[list[Score | None]]:
        """One score as a symmetric k x k table; None on the diagonal."""
        found = self.of(name)
        table: list[list[Score | None]] = []
        for a in self.names:
            table.append(
                [None if a == b else found.get((a, b), found.get((b, a))) for b in self.names]
            )
        return table

    def values(self, name: str) -> list[list[float]]:
        """One score as a symmetric k x k table of numbers, each set with itself on the diagonal."""
        own = self.diagonal[name]
        return [
            [own[i] if score is None else score.value for score in row]
            for i, row in enumerate(self.matrix(name))
        ]

    def extremes(self, name: str) -> tuple[tuple[str, str], tuple[str, str]]:
        """The pairs of the lowest and of the highest value."""
        found = self.of(name)
        return min(found, key=lambda p: found[p].value), max(found, key=lambda p: found[p].value)

    def chance(self, name: str) -> float:
        """The null, averaged over pairs."""
        return float(np.mean([score.null for score in self.of(name).values()]))


def study(
    names: Sequence[str], comparison: Comparison, *, descriptor: str, rules: Rules
) -> ReproducibilityStudy:
    """Score every pair.

    Args:
        names: k distinct names.
        comparison: of their samples, two seeds or more.
        descriptor: what the similarities rest on.
        rules: thresholds.
    """
    agreements = {(names[i], names[j]): a for (i, j), a in comparison.pairs.items()}
    unpaired = np.concatenate([a.unpaired_similarity for a in agreements.values()])
    calibrated = float(np.quantile(unpaired, rules.quantile, method="higher"))
    return ReproducibilityStudy(
        names=tuple(names),
        num_seeds=comparison.num_seeds,
        num_couples=comparison.blocks.num_couples,
        exact=comparison.blocks.exact,
        rules=rules,
        calibrated=calibrated,
        diagonal=_diagonal(comparison.self_similarity, rules, calibrated),
        rows=tuple(
            PairRow(score=score, first=first, second=second)
            for (first, second), agreement in agreements.items()
            for score in scores_of(agreement, rules, calibrated, descriptor)
        ),
        agreements=agreements,
    )


def _diagonal(
    own: Sequence[Floats], rules: Rules, calibrated: float
) -> dict[str, tuple[float, ...]]:
    """The scores of sets with themselves, from <f(x), f(x)>; differences are 0."""
    zero = tuple(0.0 for _ in own)
    return {
        "rp": tuple(float((x > rules.threshold).mean()) for x in own),
        "rp_calibrated": tuple(float((x > calibrated).mean()) for x in own),
        "mae_score": tuple(float(rules.mae_threshold > 0) for _ in own),
        "mean_similarity": tuple(float(x.mean()) for x in own),
        "mean_absolute_error": zero,
        "flow_distance": zero,
    }


def scores_of(
    agreement: Agreement, rules: Rules, calibrated: float, descriptor: str
) -> list[Score]:
    """The six scores of a pair."""
    a = agreement
    similar = (a.similarity, a.unpaired_similarity)
    error = (a.absolute_error, a.unpaired_error)
    means = [float(values.mean()) if len(values) else math.nan for values in (similar[1], error[1])]
    return [
        paired.above("rp", *similar, threshold=rules.threshold, descriptor=descriptor),
        paired.above("rp_calibrated", *similar, threshold=calibrated, descriptor=descriptor),
        paired.below("mae_score", *error, threshold=rules.mae_threshold, descriptor=RAW_PIXELS),
        paired.mean("mean_similarity", similar[0], means[0], descriptor=descriptor),
        paired.mean("mean_absolute_error", error[0], means[1], descriptor=RAW_PIXELS),
        paired.root_mean(
            "flow_distance", a.squared_distance, a.unpaired_distance, descriptor=descriptor
        ),
    ]


def answer(found: ReproducibilityStudy) -> tuple[str, str]:
    """Do the models make the same images: what was found, and at other thresholds."""
    rules, seeds = found.rules, found.num_seeds
    share, chance = _span(found, "rp"), found.chance("rp")
    pair = " and ".join(found.names) if len(found.names) == 2 else None
    if not any_agree(found.of("rp").values()):
        nobody = f"{pair} do not agree" if pair else "No two models agree"
        first = (
            f"{nobody} more often than chance: {share} of {seeds} seeds, "
            f"{percent(chance)} of images of different seeds."
        )
    else:
        first = (
            f"{pair or 'Two of the models'} make the same image from the same noise for {share} of "
            f"{seeds} seeds; "
            f"images of different seeds are as similar in {percent(chance)} of cases."
        )
    calibrated, error = _span(found, "rp_calibrated"), _span(found, "mae_score")
    second = (
        f"By the calibrated threshold ({found.calibrated:.3f}, exceeded by "
        f"{percent(1 - rules.quantile)} of images of different seeds) they agree for {calibrated}; "
        f"pixel by pixel (mean difference below {rules.mae_threshold:g} of 255) for {error}, by "
        f"chance for {percent(found.chance('mae_score'))}."
    )
    return first, second


def any_agree(scores: Collection[Score]) -> bool:
    """Whether some of all pairs that are compared agree more often than chance."""
    return any(agrees(score, len(scores)) for score in scores)


def _span(found: ReproducibilityStudy, name: str) -> str:
    """``62% (A, B) to 91% (C, D)``, or one number if all pairs have the same."""
    scores = found.of(name)
    lowest, highest = found.extremes(name)
    if percent(scores[lowest].value) == percent(scores[highest].value):
        return percent(scores[lowest].value)
    low, high = (f"{percent(scores[p].value)} ({', '.join(p)})" for p in (lowest, highest))
    return f"{low} to {high}"
