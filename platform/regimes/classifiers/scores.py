"""How well a classifier does on test images, and how sure that is.

For test images i with classes y_i and K classes of n_c images each:

    recall_c           share of the images of class c that are called c
    accuracy           share of all images that are called by their class
    balanced accuracy  mean of the recalls
    AUC                mean over classes of P(score of an image of the class > score of another)

Two things make such a number uncertain, and each has an interval of its own:

* **seeds**: training again (initial weights, order, the images drawn). Student's t over the seeds.
* **images**: other test images for the same classifiers. Wilson for shares, MOVER of those for their
  mean, DeLong for the AUC, each for the mean over the seeds.

Their half-widths add up in quadrature to the interval of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, rankdata, t

from regimes.errors import BadSource
from regimes.scores.result import wilson_interval

_ROUNDING = 1e-12  # of the largest term: by how much equal ones may differ

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]

METRICS = ("balanced_accuracy", "accuracy", "auc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What one classifier says about the test images.

    Raises:
        BadSource: if a class has fewer than two test images, which leaves nothing to judge it by.
    """

    ids: npt.NDArray = field(repr=False)
    """(n,) ids of the test images."""
    labels: npt.NDArray[np.int64] = field(repr=False)
    """(n,) their classes."""
    probabilities: npt.NDArray[np.float32] = field(repr=False)
    """(n, K) of each class; an image is called by the largest, the first of equal ones."""

    def __post_init__(self) -> None:
        """Check that every class can be judged."""
        counts = np.bincount(self.labels, minlength=self.num_classes)
        if len(counts) != self.num_classes or counts.min() < 2:
            raise BadSource(
                f"test images: expected at least two of each of {self.num_classes} classes, got "
                f"{counts.min()} of class number {counts.argmin()}"
            )

    @property
    def num_classes(self) -> int:
        """K."""
        return self.probabilities.shape[1]

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """(n,) the class each image is called by."""
        return self.probabilities.argmax(1)

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(n,) whether that is its class."""
        return np.asarray(self.predicted == self.labels)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """(K,) test images of each class."""
        return np.bincount(self.labels, minlength=self.num_classes)


def recalls(p: Predictions) -> Floats:
    """(K,) recall of each class. Chance level of class c: the share of all images called c."""
    hits = np.bincount(p.labels, weights=p.correct, minlength=p.num_classes)
    return np.asarray(hits / p.counts)


def accuracy(p: Predictions) -> float:
    """Share of correct calls. Chance level: the share of the largest class."""
    return float(p.correct.mean())


def balanced_accuracy(p: Predictions) -> float:
    """Mean recall. Chance level: 1 / K, whatever the sizes of the classes."""
    return float(recalls(p).mean())


def auc(p: Predictions) -> float:
    """Mean over classes of the area under the ROC curve, each class against all others.

    With two classes both areas are the same. Ties count one half. Chance level: 0.5.
    """
    return float(np.mean([placements(p, c)[0].mean() for c in range(p.num_classes)]))


def placements(p: Predictions, label: int) -> tuple[Floats, Floats]:
    """DeLong's structural components of one class against the others.

    Returns:
        For each image of the class, the share of other images that score lower; for each other image,
        the share of images of the class that score higher. The mean of either is the AUC.

    Source: DeLong, DeLong and Clarke-Pearson 1988; by ranks, as Sun and Xu 2014.
    """
    own = p.labels == label
    scores = p.probabilities[:, label].astype(np.float64)
    ranks = rankdata(scores)
    above = (ranks[own] - rankdata(scores[own])) / (~own).sum()
    below = 1 - (ranks[~own] - rankdata(scores[~own])) / own.sum()
    return above, below


def image_terms(p: Predictions, metric: str, label: int | None = None) -> Floats:
    """(n,) what each test image contributes to a score: with other images, it varies as their sum.

    Args:
        p: predictions.
        metric: one of ``METRICS``, or "recall".
        label: the class of a recall.
    """
    if metric == "auc":
        return _auc_terms(p)
    weights = {
        "accuracy": np.full(len(p.labels), 1 / len(p.labels)),
        "balanced_accuracy": 1 / (p.num_classes * p.counts[p.labels]),
        "recall": (p.labels == label) / p.counts[0 if label is None else label],
    }[metric]
    return np.asarray(p.correct * weights)


def _auc_terms(p: Predictions) -> Floats:
    terms = np.zeros(len(p.labels))
    for label in range(p.num_classes):
        own = p.labels == label
        above, below = placements(p, label)
        terms[own] += above / (p.num_classes * own.sum())
        terms[~own] += below / (p.num_classes * (~own).sum())
    return terms


def image_error(terms: Floats, labels: npt.NDArray[np.int64]) -> float:
    """Standard error of a sum of terms over test images, drawn anew within each class.

    Where no two images of a class differ, as if one of each class did, by the largest term: of two
    images each, a class that is all gained and one where nothing changed were surely a gain otherwise.
    """
    variances = [variance for variance, _ in _parts(terms, labels)]
    error = math.sqrt(sum(variances))
    return error or float(np.abs(terms).max()) * math.sqrt(len(variances))


def image_freedom(terms: Floats, labels: npt.NDArray[np.int64]) -> float:
    """Degrees of freedom of that error, few where classes have few test images (Welch and Satterthwaite).

    As many as of a common variance where no two images of a class differ.
    """
    parts = _parts(terms, labels)
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return float(sum(free for _, free in parts))
    return total**2 / sum(variance**2 / free for variance, free in parts)


def _parts(terms: Floats, labels: npt.NDArray[np.int64]) -> list[tuple[float, int]]:
    """Of each class: variance of the sum of its terms, 0 where they differ by rounding alone; its freedom."""
    least = _ROUNDING * float(np.abs(terms).max())
    groups = [terms[labels == label] for label in np.unique(labels)]
    return [(len(g) * float(g.var(ddof=1)) * bool(np.ptp(g) > least), len(g) - 1) for g in groups]


def image_half(terms: Floats, labels: npt.NDArray[np.int64]) -> float:
    """Half-width of the 95% interval of a sum of terms over test images, by Student's t."""
    return float(t.ppf(0.975, image_freedom(terms, labels))) * image_error(terms, labels)


def value(p: Predictions, metric: str, label: int | None = None) -> float:
    """A score by its name: one of ``METRICS``, or "recall" of a class."""
    if metric == "recall":
        assert label is not None
        return float(recalls(p)[label])
    return {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy, "auc": auc}[metric](p)


def image_interval(
    trials: Sequence[Predictions], metric: str, label: int | None = None
) -> Interval:
    """95% interval of the mean over trials of a score, for the choice of test images.

    Wilson for a share: of a single classifier's calls; the mean of several varies less, so it is
    wide rather than narrow. MOVER (Zou and Donner 2008) for the mean of recalls; DeLong for the AUC.
    """
    mean = float(np.mean([value(p, metric, label) for p in trials]))
    first = trials[0]
    if metric == "recall":
        assert label is not None
        return _wilson(mean, int(first.counts[label]))
    if metric == "accuracy":
        return _wilson(mean, len(first.labels))
    if metric == "balanced_accuracy":
        shares = np.mean([recalls(p) for p in trials], axis=0)
        ends = [_wilson(float(q), int(n)) for q, n in zip(shares, first.counts)]
        low = math.sqrt(sum((q - e[0]) ** 2 for q, e in zip(shares, ends))) / len(ends)
        high = math.sqrt(sum((e[1] - q) ** 2 for q, e in zip(shares, ends))) / len(ends)
        return mean - low, mean + high
    terms = np.mean([image_terms(p, metric) for p in trials], axis=0)
    half = image_half(terms, first.labels)
    return max(0.0, mean - half), min(1.0, mean + half)


def _wilson(share: float, trials: int) -> Interval:
    return wilson_interval(min(share * trials, float(trials)), trials)


def seed_interval(values: Sequence[float]) -> Interval:
    """95% interval of the mean over seeds, by Student's t; nan for a single seed."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return math.nan, math.nan
    half = float(t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return mean - half, mean + half


def both(mean: float, first: Interval, second: Interval) -> Interval:
    """The interval that covers two independent sources of error: half-widths add in quadrature."""
    low = math.hypot(mean - first[0], mean - second[0])
    high = math.hypot(first[1] - mean, second[1] - mean)
    return mean - low, mean + high


@dataclass(frozen=True, slots=True)
class McNemar:
    """Images on which two classifiers differ."""

    only_first: int
    """Images that only the first calls correctly."""
    only_second: int
    p_value: float
    """Two-sided and exact: each such image is a fair coin if the classifiers are equally good."""


def mcnemar(first: Predictions, second: Predictions) -> McNemar:
    """McNemar's exact test on the same test images (McNemar 1947); p = 1 where none differs."""
    b = int((first.correct & ~second.correct).sum())
    c = int((~first.correct & second.correct).sum())
    p = 1.0 if b + c == 0 else float(binomtest(min(b, c), b + c, 0.5).pvalue)
    return McNemar(b, c, p)


def combined_p(values: Sequence[float]) -> float:
    """One p-value for all seeds: twice the median, valid however the tests depend on each other.

    The tests of several seeds share their test images, so that products or pooled counts would be
    too small. Source: Meinshausen, Meier and Buehlmann 2009, with gamma = 1/2.
    """
    ordered = sorted(values)
    # For an even number the upper median: the rule takes the value that half or more do not exceed.
    return min(1.0, 2 * ordered[len(ordered) // 2]) if len(ordered) > 1 else ordered[0]


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for the number of comparisons (Holm 1979), in the given order."""
    order = np.argsort(values, kind="stable")
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted
