"""The memorization study: one table of scores for a grid of models.

A **cell** is one model: training-set size n, width, and half (A or B) of the data. Four comparisons
place it: with its training images (copies), with a model of another width on the same images, with
a model of its own width on the other half (no image in common), and with the two denoisers known in
closed form, the perfect memorizer (empirical) and the linear one (Wiener). A study of one half, as
the published grids are, does without the third.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from regimes.images.split import HALVES, Half
from regimes.scores.calibration import Threshold, calibrate_threshold
from regimes.scores.features import Features
from regimes.scores.fidelity import precision, recall
from regimes.scores.generalization import generalization_score, ratio_test
from regimes.scores.reproducibility import reproducibility
from regimes.scores.result import Score, wilson_interval

Cell = tuple[int, int, Half]
"""(width, n, half)"""
ClosedCell = tuple[int, Half]
"""(n, half)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """One set of images, described twice."""

    features: Features
    """Rows of the study's descriptor."""
    pixels: Features
    """Raw pixels in [-1, 1], for the ratio test."""

    def first(self, n: int) -> ImageSet:
        """The first n images."""
        index = np.arange(n)
        return ImageSet(features=self.features.take(index), pixels=self.pixels.take(index))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything the study compares."""

    sizes: tuple[int, ...]
    widths: tuple[int, ...]
    train: Mapping[Half, ImageSet]
    """Largest training set of each half; its first n images are the training set of size n."""
    heldout: Mapping[Half, ImageSet]
    """Images that no model of the half saw: all of the other half, if there are two."""
    models: Mapping[Cell, ImageSet]
    empirical: Mapping[ClosedCell, ImageSet]
    wiener: Mapping[ClosedCell, ImageSet]
    mirrored: Mapping[Half, ImageSet] | None = None
    """Left-right flips of ``train``, where they count as training images too."""

    @property
    def halves(self) -> tuple[Half, ...]:
        """The halves that models were trained on."""
        return tuple(self.train)

    def mirrored_first(self, half: Half, n: int) -> ImageSet | None:
        """The flips of the first n training images of a half, where they count."""
        return None if self.mirrored is None else self.mirrored[half].first(n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One score of one cell, or of a pair of cells."""

    score: Score
    n: int
    width: int | None = None
    half: str | None = None
    width_other: int | None = None
    half_other: str | None = None
    versus: str

    def record(self) -> dict[str, object]:
        """Plain values for a table; everything but the per-item arrays."""
        s = self.score
        return {
            "score": s.name,
            "n": self.n,
            "width": self.width,
            "half": self.half,
            "value": s.value,
            "low": s.low,
            "high": s.high,
            "null": None if math.isnan(s.null) else s.null,
            "threshold": s.threshold,
            "num_generated": s.num_generated,
            "num_train": s.num_train,
            "width_other": self.width_other,
            "half_other": self.half_other,
            "versus": self.versus,
            "descriptor": s.descriptor,
            "higher_is_better": s.higher_is_better,
        }


def calibrate(evidence: Evidence, quantile: float) -> Threshold:
    """The study's one similarity threshold: held-out images against the largest half A."""
    return calibrate_threshold(
        evidence.heldout["A"].features,
        evidence.train["A"].features,
        quantile=quantile,
        mirrored=None if evidence.mirrored is None else evidence.mirrored["A"].features,
    )


def score_table(
    evidence: Evidence, threshold: Threshold, *, published_threshold: float
) -> list[Row]:
    """All scores of the study.

    Args:
        evidence: the image sets.
        threshold: the calibrated similarity.
        published_threshold: the fixed similarity of the papers; scores at it are reported beside
            the calibrated ones under names that end in ``_published``.

    Returns:
        Rows named gl, ratio, rp_same_data, rp_disjoint, rp_optimal, wiener_similarity, precision,
        recall; with suffix _heldout where real held-out images take the place of samples, _null
        where memorizers that share no data do (rp_disjoint) or the linear denoiser does
        (precision, recall), and _wiener for the linear denoiser elsewhere. Where flips count as
        copies, gl_unflipped and ratio_unflipped are the scores that do not count them; published
        scores never do.
    """
    tau = threshold.value
    return [
        *_copies(evidence, tau, published_threshold),
        *_same_data(evidence, tau, ""),
        *_same_data(evidence, published_threshold, "_published"),
        *_disjoint(evidence, tau, ""),
        *_disjoint(evidence, published_threshold, "_published"),
        *_against_closed_forms(evidence, tau),
        *_fidelity(evidence),
    ]


def _copies(evidence: Evidence, tau: float, published: float) -> Iterator[Row]:
    """GL and ratio test, with the held-out ceiling and the linear denoiser as references."""
    for n, half in itertools.product(evidence.sizes, evidence.halves):
        train, heldout = evidence.train[half].first(n), evidence.heldout[half]
        mirrored = evidence.mirrored_first(half, n)
        gl = partial(_gl, train=train, heldout=heldout, mirrored=mirrored)
        plain = partial(_gl, train=train, heldout=heldout, mirrored=None)
        ratio = partial(_ratio, train=train, heldout=heldout, mirrored=mirrored)
        row = partial(Row, n=n, half=half, versus="training images")
        yield row(score=_reference(gl(heldout, threshold=tau, name="gl_heldout")))
        yield row(score=gl(evidence.wiener[n, half], threshold=tau, name="gl_wiener"))
        yield row(score=_reference(ratio(heldout, name="ratio_heldout")))
        for width in evidence.widths:
            samples = evidence.models[width, n, half]
            yield row(score=gl(samples, threshold=tau, name="gl"), width=width)
            yield row(score=plain(samples, threshold=published, name="gl_published"), width=width)
            yield row(score=ratio(samples, name="ratio"), width=width)
            if mirrored is not None:
                unflipped = plain(samples, threshold=tau, name="gl_unflipped")
                yield row(score=unflipped, width=width)
                unflipped = _ratio(samples, train, heldout, None, "ratio_unflipped")
                yield row(score=unflipped, width=width)


def _gl(
    items: ImageSet,
    *,
    train: ImageSet,
    heldout: ImageSet,
    mirrored: ImageSet | None,
    threshold: float,
    name: str,
) -> Score:
    return generalization_score(
        items.features,
        train.features,
        heldout.features,
        threshold=threshold,
        name=name,
        mirrored=None if mirrored is None else mirrored.features,
    )


def _ratio(
    items: ImageSet, train: ImageSet, heldout: ImageSet, mirrored: ImageSet | None, name: str
) -> Score:
    return ratio_test(
        items.pixels,
        train.pixels,
        heldout.pixels,
        name=name,
        mirrored=None if mirrored is None else mirrored.pixels,
    )


def _same_data(evidence: Evidence, tau: float, suffix: str) -> Iterator[Row]:
    """Two widths trained on the same images."""
    pairs = list(itertools.combinations(evidence.widths, 2))
    for n, half, (w0, w1) in itertools.product(evidence.sizes, evidence.halves, pairs):
        score = reproducibility(
            evidence.models[w0, n, half].features,
            evidence.models[w1, n, half].features,
            threshold=tau,
            name=f"rp_same_data{suffix}",
        )
        yield Row(
            score=dataclasses.replace(score, num_train=n),
            n=n,
            width=w0,
            half=half,
            width_other=w1,
            half_other=half,
            versus="another width, same training images",
        )


def _disjoint(evidence: Evidence, tau: float, suffix: str) -> Iterator[Row]:
    """Two models of one width that share no training image; null: two memorizers of the same."""
    name = f"rp_disjoint{suffix}"
    for n in evidence.sizes if len(evidence.halves) == 2 else ():
        row = partial(Row, n=n, half="A", half_other="B")
        empirical = {half: evidence.empirical[n, half] for half in HALVES}
        wiener = {half: evidence.wiener[n, half] for half in HALVES}
        memorizers = _rp_of_halves(empirical, n, tau, f"{name}_null")
        linear = _rp_of_halves(wiener, n, tau, f"{name}_wiener")
        yield row(score=memorizers, versus="empirical denoisers of both halves")
        yield row(score=linear, versus="Wiener denoisers of both halves")
        for width in evidence.widths:
            models = {half: evidence.models[width, n, half] for half in HALVES}
            score = _rp_of_halves(models, n, tau, name)
            yield row(
                score=dataclasses.replace(score, null=memorizers.value),
                width=width,
                width_other=width,
                versus="the other half's model",
            )


def _rp_of_halves(sets: dict[Half, ImageSet], n: int, tau: float, name: str) -> Score:
    score = reproducibility(sets["A"].features, sets["B"].features, threshold=tau, name=name)
    return dataclasses.replace(score, num_train=n, higher_is_better=True)


def _against_closed_forms(evidence: Evidence, tau: float) -> Iterator[Row]:
    """A model beside the perfect memorizer and beside the linear denoiser of its training set."""
    for (width, n, half), samples in evidence.models.items():
        references = {
            "rp_optimal": (evidence.empirical[n, half], "empirical denoiser"),
            "wiener_similarity": (evidence.wiener[n, half], "Wiener denoiser"),
        }
        for name, (reference, versus) in references.items():
            score = reproducibility(samples.features, reference.features, threshold=tau, name=name)
            score = dataclasses.replace(score, num_train=n, higher_is_better=False)
            yield Row(score=score, n=n, width=width, half=half, versus=versus)


def _fidelity(evidence: Evidence) -> Iterator[Row]:
    """Precision and recall against unseen images; ceiling: the real images of the own half."""
    for n, half in itertools.product(evidence.sizes, evidence.halves):
        reference = evidence.heldout[half].features
        baseline = evidence.wiener[n, half].features
        real = evidence.train[half].features
        row = partial(Row, n=n, half=half, versus="held-out images")
        for metric in (precision, recall):
            name = metric.__name__
            heldout = metric(real, reference, baseline, name=f"{name}_heldout")
            yield row(score=heldout)
            null = metric(baseline, reference, baseline, name=f"{name}_null")
            yield row(score=_reference(null))
            for width in evidence.widths:
                samples = evidence.models[width, n, half].features
                yield row(score=metric(samples, reference, baseline), width=width)


def _reference(score: Score) -> Score:
    """A score that is itself a null has none."""
    return dataclasses.replace(score, null=math.nan, null_range=None)


def pooled(rows: Sequence[Row], name: str, n: int, width: int | None = None) -> Score | None:
    """The mean of a score over halves (and width pairs that include ``width``) at one n.

    All models get the same seeds, so samples of one seed are not independent. The interval is
    therefore that of as many items as *one* of the scores has, not of all together: right if the
    halves agree on every seed, and too wide otherwise. None if there is no row.
    """
    chosen = [
        r.score
        for r in rows
        if r.score.name == name and r.n == n and width in (None, r.width, r.width_other)
    ]
    if not chosen:
        return None
    weights = [s.num_generated for s in chosen]
    value = float(np.average([s.value for s in chosen], weights=weights))
    low, high = wilson_interval(value * min(weights), min(weights))
    return dataclasses.replace(
        chosen[0],
        value=value,
        low=low,
        high=high,
        null=float(np.average([s.null for s in chosen], weights=weights)),
        null_range=None,
        num_generated=sum(weights),
        per_item={},
    )


def need(rows: Sequence[Row], name: str, n: int, width: int | None = None) -> Score:
    """The pooled score; raises ``ValueError`` that names what the table lacks."""
    score = pooled(rows, name, n, width)
    if score is None:
        raise ValueError(f"the table has no {name} at n={n}, width={width}; score that cell first")
    return score
