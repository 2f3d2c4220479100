"""What generated images are worth to a classifier: the scores of every arm, and arms compared.

An arm is a training set (``regimes.classifiers.sets``); each is trained with several seeds, and all
classifiers are judged on the same test images. Two arms are compared seed by seed, since arms of one
seed share their initial weights, their order and their real images:

* the mean difference of each score, with its intervals over seeds and over test images (paired)
* McNemar's exact test, once per seed; the seeds' p-values become one (twice their median), and those
  of all comparisons are adjusted by Holm's rule

An arm **helps** (**hurts**) if the interval of its difference in balanced accuracy, over seeds and
images together, lies above (below) 0, at a level that holds for all comparisons of the study together
(Bonferroni). Few test images of a class give few degrees of freedom. What to expect when nothing is going
on: images that tell no more than the real ones do (copies, at best) give a difference of 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import t as student

from regimes.classifiers import scores
from regimes.classifiers.scores import McNemar, Predictions
from regimes.errors import IdMismatch
from regimes.words import counted

Effect = Literal["helps", "hurts", "no measurable difference", "one seed, no verdict"]
Key = tuple[str, int]
"""(arm, seed) of a classifier"""

MAIN = "balanced_accuracy"
BASE = "real"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A score of an arm, or the difference of two arms."""

    metric: str
    """One of ``scores.METRICS``, or "recall"."""
    label: int | None
    """The class of a recall."""
    value: float
    """Mean over seeds."""
    low: float
    """95% interval for both seeds and test images; nan with one seed."""
    high: float
    seeds: tuple[float, float]
    """95% interval for training again; nan with one seed."""
    images: tuple[float, float]
    """95% interval for other test images."""
    null: float
    """Of an arm: what calls that ignore the images score; for accuracy the share of the largest
    class, if that is more. Of a difference: 0."""
    by_seed: tuple[float, ...]
    freedom: float = math.inf
    """Degrees of freedom of the interval for other test images."""

    def among(self, count: int) -> tuple[float, float]:
        """An interval that holds for ``count`` estimates together (Bonferroni), and contains [low, high].

        Student's t at the level 1 - 0.05 / count, of both errors together (Welch and Satterthwaite): two
        quantiles for few seeds in quadrature would find next to nothing.
        """
        if math.isnan(self.low):
            return math.nan, math.nan
        free = len(self.by_seed) - 1, self.freedom
        errors = [
            max(self.value - low, high - self.value) / student.ppf(0.975, f)
            for (low, high), f in zip((self.seeds, self.images), free, strict=True)
        ]
        total = math.hypot(*errors)
        if total == 0:
            return self.low, self.high
        freedom = total**4 / sum(e**4 / f for e, f in zip(errors, free, strict=True))
        half = float(student.ppf(1 - 0.025 / count, freedom)) * total
        return min(self.low, self.value - half), max(self.high, self.value + half)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two arms."""

    arm: str
    base: str
    differences: tuple[Estimate, ...]
    """Arm minus base, of every score."""
    tests: tuple[McNemar, ...]
    """One per seed, the arm first."""
    p_value: float
    """Of all seeds together."""
    p_adjusted: float
    """By Holm's rule, for all comparisons of the study."""
    among: int
    """How many comparisons the study has."""

    @property
    def main(self) -> Estimate:
        """The difference in balanced accuracy."""
        return next(e for e in self.differences if e.metric == MAIN)

    @property
    def effect(self) -> Effect:
        """Whether the arm does better than its base."""
        low, high = self.main.among(self.among)
        if math.isnan(low):
            return "one seed, no verdict"
        if low > 0:
            return "helps"
        return "hurts" if high < 0 else "no measurable difference"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationStudy:
    """What all classifiers say about the test images."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    classes: tuple[str, ...]
    test_counts: tuple[int, ...]
    """Test images of each class."""
    estimates: Mapping[str, tuple[Estimate, ...]]
    """Scores of every arm."""
    comparisons: tuple[Comparison, ...]

    def of(self, arm: str, metric: str = MAIN, label: int | None = None) -> Estimate:
        """One score of an arm."""
        found = (e for e in self.estimates[arm] if (e.metric, e.label) == (metric, label))
        return next(found)

    def comparison(self, arm: str, base: str = BASE) -> Comparison:
        """Two arms; raises ``StopIteration`` if they are not compared."""
        return next(c for c in self.comparisons if (c.arm, c.base) == (arm, base))

    def records(self) -> list[dict[str, object]]:
        """Plain values for a table, one row per score of an arm or of a comparison."""
        rows = [
            _record(arm, None, self.classes, e) for arm in self.arms for e in self.estimates[arm]
        ]
        for c in self.comparisons:
            rows += [_record(c.arm, c.base, self.classes, e) for e in c.differences]
        return rows


def study(predictions: Mapping[Key, Predictions], classes: Sequence[str]) -> ClassificationStudy:
    """Score every arm and compare arms.

    Args:
        predictions: of every (arm, seed), on the same test images; all arms have the same seeds, and
            one arm is "real".
        classes: K names.

    Raises:
        IdMismatch: if predictions are of different images, or an arm lacks a seed.
    """
    arms = tuple(dict.fromkeys(arm for arm, _ in predictions))
    seeds = tuple(sorted({seed for _, seed in predictions}))
    _check(predictions, arms, seeds)
    trials = {arm: [predictions[arm, seed] for seed in seeds] for arm in arms}
    first = trials[arms[0]][0]
    return ClassificationStudy(
        arms=arms,
        seeds=seeds,
        classes=tuple(classes),
        test_counts=tuple(first.counts.tolist()),
        estimates={
            arm: tuple(estimate(own, *m) for m in _asked(first)) for arm, own in trials.items()
        },
        comparisons=_compare_all(trials, _asked(first)),
    )


def _check(
    predictions: Mapping[Key, Predictions], arms: Sequence[str], seeds: Sequence[int]
) -> None:
    lacking = [
        f"{a} of seed {s}" for a, s in itertools.product(arms, seeds) if (a, s) not in predictions
    ]
    if lacking or BASE not in arms:
        raise IdMismatch(
            f"predictions: expected every arm, {BASE} among them, with every seed; "
            f"{', '.join(lacking) or BASE} is missing"
        )
    first = next(iter(predictions.values()))
    for (arm, seed), p in predictions.items():
        if p.ids.tolist() != first.ids.tolist() or not np.array_equal(p.labels, first.labels):
            raise IdMismatch(
                f"predictions of {arm}, seed {seed}: expected the test images of the others in their "
                "order; were they made from another test set?"
            )


def _asked(p: Predictions) -> list[tuple[str, int | None]]:
    """Every (metric, class)."""
    return [*((m, None) for m in scores.METRICS), *(("recall", c) for c in range(p.num_classes))]


def estimate(
    trials: Sequence[Predictions], metric: str = MAIN, label: int | None = None
) -> Estimate:
    """A score of classifiers that were trained with several seeds, on the same test images.

    Args:
        trials: what each says.
        metric: one of ``scores.METRICS``, or "recall".
        label: the class of a recall.
    """
    by_seed = tuple(scores.value(p, metric, label) for p in trials)
    images = scores.image_interval(trials, metric, label)
    null = float(np.mean([_null(p, metric, label) for p in trials]))
    return as_estimate(metric, label, by_seed, images, null, is_share=True)


def _null(p: Predictions, metric: str, label: int | None) -> float:
    """What the same calls would score if they were dealt out to the test images at random."""
    if metric == "auc":
        return 0.5
    if metric == "balanced_accuracy":
        return 1 / p.num_classes
    called = np.bincount(p.predicted, minlength=p.num_classes) / len(p.labels)
    if metric == "recall":
        return float(called[label])
    shares = p.counts / len(p.labels)
    return float(max(called @ shares, shares.max()))


def as_estimate(
    metric: str,
    label: int | None,
    by_seed: tuple[float, ...],
    images: tuple[float, float],
    null: float,
    *,
    is_share: bool,
    freedom: float = math.inf,
) -> Estimate:
    """Mean over seeds with its intervals, which are cut to what the score can be.

    Args:
        metric: name of the score.
        label: class of a recall.
        by_seed: its values.
        images: 95% interval for other test images.
        null: what it is when nothing is going on.
        is_share: whether it lies in [0, 1], not in [-1, 1].
        freedom: degrees of freedom of ``images``.
    """
    mean = float(np.mean(by_seed))
    seeds = scores.seed_interval(by_seed)
    low, high = scores.both(mean, seeds, images)
    least = 0.0 if is_share else -1.0  # few seeds give intervals that no score could fill
    (low, high), seeds, images = (
        (max(a, least), min(b, 1.0)) for a, b in ((low, high), seeds, images)
    )
    return Estimate(
        metric=metric,
        label=label,
        value=mean,
        low=low,
        high=high,
        seeds=seeds,
        images=images,
        null=null,
        by_seed=by_seed,
        freedom=freedom,
    )


def pairs_of(arms: Sequence[str]) -> list[tuple[str, str]]:
    """What is compared: every arm with the real images, and generated with diverse ones."""
    pairs = [(arm, BASE) for arm in arms if arm != BASE]
    more = [("diverse", "generated"), (f"{BASE}+diverse", f"{BASE}+generated")]
    return pairs + [(a, b) for a, b in more if a in arms and b in arms]


def _compare_all(
    trials: Mapping[str, Sequence[Predictions]], asked: Sequence[tuple[str, int | None]]
) -> tuple[Comparison, ...]:
    pairs = pairs_of(list(trials))
    tests = [
        tuple(scores.mcnemar(a, b) for a, b in zip(trials[arm], trials[base], strict=True))
        for arm, base in pairs
    ]
    combined = [scores.combined_p([test.p_value for test in own]) for own in tests]
    return tuple(
        Comparison(
            arm=arm,
            base=base,
            differences=tuple(difference(trials[arm], trials[base], *m) for m in asked),
            tests=own,
            p_value=p,
            p_adjusted=adjusted,
            among=len(pairs),
        )
        for (arm, base), own, p, adjusted in zip(pairs, tests, combined, scores.holm(combined))
    )


def difference(
    first: Sequence[Predictions],
    second: Sequence[Predictions],
    metric: str = MAIN,
    label: int | None = None,
) -> Estimate:
    """A score of the first minus that of the second, paired in their order and by test image.

    Args:
        first: predictions of the same test images,
        second: as many.
        metric: one of ``scores.METRICS``, or "recall".
        label: the class of a recall.
    """
    by_seed = tuple(
        scores.value(a, metric, label) - scores.value(b, metric, label)
        for a, b in zip(first, second, strict=True)
    )
    terms = np.mean(
        [
            scores.image_terms(a, metric, label) - scores.image_terms(b, metric, label)
            for a, b in zip(first, second, strict=True)
        ],
        axis=0,
    )
    mean = float(np.mean(by_seed))
    labels = first[0].labels
    if label is not None:  # images of other classes have no part in it
        terms, labels = terms[labels == label], labels[labels == label]
    half, freedom = scores.image_half(terms, labels), scores.image_freedom(terms, labels)
    ends = (mean - half, mean + half)
    return as_estimate(metric, label, by_seed, ends, 0.0, is_share=False, freedom=freedom)


def _record(arm: str, base: str | None, classes: Sequence[str], e: Estimate) -> dict[str, object]:
    def number(value: float) -> float | None:
        return None if math.isnan(value) else value

    return {
        "arm": arm,
        "minus": base,
        "score": e.metric,
        "class": None if e.label is None else classes[e.label],
        "value": e.value,
        "low": number(e.low),
        "high": number(e.high),
        "null": e.null,
        "seeds_low": number(e.seeds[0]),
        "seeds_high": number(e.seeds[1]),
        "images_low": e.images[0],
        "images_high": e.images[1],
        "num_seeds": len(e.by_seed),
    }


def answer(found: ClassificationStudy) -> list[str]:
    """A sentence for each arm of two parts, and one on what generated images are worth alone."""
    mixed = [c for c in found.comparisons if c.base == BASE and c.arm.startswith(f"{BASE}+")]
    alone = [c for c in found.comparisons if c.base == BASE and not c.arm.startswith(f"{BASE}+")]
    real = found.of(BASE)
    values = " and ".join(f"{found.of(c.arm).value:.3f} ({c.arm})" for c in alone)
    last = (
        f"Alone, they train classifiers of a balanced accuracy of {values}, against "
        f"{real.value:.3f} of real images (chance: {real.null:.3f})."
    )
    if not learned(found):
        last += " That is not above chance: nothing follows from the comparison; train for longer."
    return [*(_sentence(found, c) for c in mixed), last]


def learned(found: ClassificationStudy) -> bool:
    """Whether the classifiers of real images are above chance, without which no arm can be judged."""
    real = found.of(BASE)
    return min(low for low in (real.low, real.images[0]) if not math.isnan(low)) > real.null


def _sentence(found: ClassificationStudy, c: Comparison) -> str:
    part, e = c.arm.removeprefix(f"{BASE}+"), c.main
    verb = {
        "helps": "help the classifier",
        "hurts": "hurt the classifier",
        "no measurable difference": "make no measurable difference",
        "one seed, no verdict": "were tried with one seed, which tells nothing about the spread",
    }[c.effect]
    low, high = e.among(c.among)
    of_all = f" for all {c.among} comparisons" if c.among > 1 else ""
    interval = "" if math.isnan(low) else f" [{low:+.3f}, {high:+.3f}{of_all}]"
    return (
        f"{part.capitalize()} images beside real ones {verb}: balanced accuracy "
        f"{found.of(BASE).value:.3f} to {found.of(c.arm).value:.3f}, a difference of {e.value:+.3f}"
        f"{interval} over {counted(len(found.seeds), 'seed')} and "
        f"{counted(sum(found.test_counts), 'test image')} (McNemar, corrected: p = {c.p_adjusted:.2g})."
    )
