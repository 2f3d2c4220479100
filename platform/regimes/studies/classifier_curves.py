"""Is a set of images worth as much to a classifier as its mixture? Accuracy over training-set sizes.

Gaussian universality (Seddik et al. 2020, arXiv 2001.08370; arXiv 2501.07741) says that a linear classifier
trained on images does as well as one trained on a Gaussian mixture of the same means and covariances. Here
classifiers are trained on n images per class of each **source** (real images, those of a model, those of a
mixture fitted to either), and all are judged on one common set of real test images.

What makes the numbers mean something:

* **nothing is chosen by the test images**: the linear classifier's penalty is chosen by leaving out single
  training images, the two-layer one is trained for a fixed number of steps and its last weights are taken
* **nulls**: chance, 1 / K; and the same classifiers trained on shuffled labels
* **intervals** of 95% over seeds (other training images, other initial weights) and over test images
* two sources are compared by their **gap** at every size, the difference of balanced accuracy, paired by
  test image; nothing going on is a gap of 0. They differ if it is outside of 0 at some size, by intervals
  that hold for all sizes together (Bonferroni)

The published procedure stops early and takes the best epoch by the test images, and tests on images of the
source that was trained on. The former is not offered; the latter is ``own_tests``, beside the common set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from regimes.classifiers import scores
from regimes.classifiers.curves import (
    CLASSIFIERS,
    Classifier,
    Labelled,
    draw_nested,
    mean_overlap,
    predict,
    shared_share,
    shuffled,
)
from regimes.classifiers.scores import Predictions
from regimes.classifiers.two_layer import TwoLayerConfig
from regimes.errors import BadSource, ConfigError
from regimes.studies.classification import Estimate, difference, estimate

SHUFFLED = "shuffled labels"
"""Name of the null among the sources of a study."""
Verdict = Literal[
    "better",
    "worse",
    "better and worse",
    "no measurable difference",
    "one seed, no verdict",
    "the same images in every seed, no verdict",
]
Trials = dict[tuple[Classifier, str, int], list[list[Predictions]]]
"""Predictions by (classifier, source, size): of the common test images, and of the source's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """Balanced accuracy of one classifier trained on n images per class of a source."""

    classifier: Classifier
    source: str
    """Or ``SHUFFLED``."""
    size: int
    """n."""
    accuracy: Estimate
    """On the common test images; its null is 1 / K."""
    own: Estimate | None
    """On the source's own test images, if there are any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Two sources: balanced accuracy of the first minus that of the second."""

    classifier: Classifier
    first: str
    second: str
    by_size: tuple[Estimate, ...]
    """In the order of the sizes; each interval is for its size alone."""

    @property
    def together(self) -> tuple[tuple[float, float], ...]:
        """By size, intervals that hold for all sizes together with 95%; nan with one seed."""
        return tuple(e.among(len(self.by_size)) for e in self.by_size)

    @property
    def signs(self) -> tuple[int, ...]:
        """By size, 1 where training on the first does better, -1 where worse, 0 where no difference shows."""
        return tuple((low > 0) - (high < 0) for low, high in self.together)

    @property
    def verdict(self) -> Verdict:
        """Whether training on the first does better, at one size at least."""
        first = self.by_size[0]
        if math.isnan(first.low):
            alone = len(first.by_seed) < 2
            return "one seed, no verdict" if alone else "the same images in every seed, no verdict"
        found = {sign for sign in self.signs if sign}
        if len(found) > 1:
            return "better and worse"
        return "no measurable difference" if not found else "better" if 1 in found else "worse"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierCurves:
    """What ``classifier_curves`` found."""

    sources: tuple[str, ...]
    sizes: tuple[int, ...]
    """Images per class, ascending."""
    seeds: tuple[int, ...]
    classifiers: tuple[Classifier, ...]
    num_classes: int
    num_test: int
    shared: Mapping[str, float]
    """By source, the share of a seed's images that other seeds use too, at the largest size; above 0 the
    interval over seeds is too narrow for that source."""
    points: tuple[CurvePoint, ...]
    """Of every source (``SHUFFLED`` last), size and classifier."""
    gaps: tuple[Gap, ...]

    def of(self, classifier: Classifier, source: str) -> list[CurvePoint]:
        """The curve of a source, by size."""
        return [p for p in self.points if (p.classifier, p.source) == (classifier, source)]

    def gap(self, classifier: Classifier, first: str, second: str) -> Gap:
        """Two sources; raises ``StopIteration`` if they are not compared."""
        key = classifier, first, second
        return next(g for g in self.gaps if (g.classifier, g.first, g.second) == key)

    def learned(self, classifier: Classifier) -> bool:
        """Whether training on the first source does better than chance and shuffled labels, at the end."""
        real, null = (self.of(classifier, s)[-1].accuracy for s in (self.sources[0], SHUFFLED))
        low = real.images[0] if math.isnan(real.low) else real.low
        return low > max(real.null, null.images[1] if math.isnan(null.high) else null.high)

    def records(self) -> list[dict[str, object]]:
        """Plain values for a table: a row per point, one more if it has own test images, one per gap."""
        rows: list[dict[str, object]] = []
        for p in self.points:
            tested = (("common", p.accuracy), ("own", p.own))
            rows += [_record(p, p.source, None, p.size, t, e) for t, e in tested if e]
        for g in self.gaps:
            sized = zip(self.sizes, g.by_size, strict=True)
            rows += [_record(g, g.first, g.second, size, "common", e) for size, e in sized]
        return rows


def classifier_curves(
    sources: Mapping[str, Labelled],
    test: Labelled,
    *,
    sizes: Sequence[int],
    seeds: Sequence[int] = range(5),
    classifiers: Sequence[Classifier] = CLASSIFIERS,
    pairs: Sequence[tuple[str, str]] = (),
    own_tests: Mapping[str, Labelled] | None = None,
    training: TwoLayerConfig | None = None,
    device: str = "cpu",
    progress: Callable[[], None] | None = None,
) -> ClassifierCurves:
    """Train linear and two-layer classifiers on n images per class of every source.

    Args:
        sources: by name, such as real, diffusion, mixture. The first is also trained on shuffled labels.
            All have values of one dimension and on one scale; real ones must not contain test images.
        test: real images that no source, model or mixture was fitted to; at least two of each class.
        sizes: n, training images per class; each source needs as many of every class as the largest.
        seeds: of the training images drawn, of initial weights and order. Seeds of a source have no image
            in common if it has ``len(seeds) * max(sizes)`` of every class.
        classifiers: which of ``CLASSIFIERS``.
        pairs: names of two sources to compare, the first against the second.
        own_tests: by source, further images of it to test on beside the common ones, as was published;
            not every source needs some.
        training: of the two-layer classifiers.
        device: where classifiers are trained.
        progress: called after every (source, size, classifier), those of ``SHUFFLED`` included.

    Returns:
        Curves with intervals and nulls, and gaps for ``pairs``.

    Raises:
        ConfigError: if sizes, seeds, classifiers or pairs make no sense.
        BadSource: if values differ in dimension, a source has too few images of a class, or a class has
            fewer than two test images.

    Cost: per seed and size, O(n K D min(n K, D)) for the linear classifier, ``training.steps`` updates for
    the other.
    """
    asked = _Asked(
        tuple(sorted(sizes)), tuple(seeds), tuple(classifiers), int(test.labels.max(initial=0)) + 1
    )
    asked.check(sources, test, pairs, own_tests or {})
    found: Trials = {}
    for name in (*sources, SHUFFLED):
        source = sources.get(name, next(iter(sources.values())))
        own = (own_tests or {}).get(name)
        tests = [t for t in (test, own) if t is not None]
        for key, trials in _train(asked, name, source, tests, training, device):
            found[key] = trials
            if progress is not None:
                progress()
    return _collect(asked, sources, test, pairs, found)


@dataclass(frozen=True, slots=True)
class _Asked:
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    classifiers: tuple[Classifier, ...]
    num_classes: int

    def check(
        self,
        sources: Mapping[str, Labelled],
        test: Labelled,
        pairs: Sequence[tuple[str, str]],
        own_tests: Mapping[str, Labelled],
    ) -> None:
        """Refuse what makes no sense."""
        for name, values, least in (("sizes", self.sizes, 1), ("seeds", self.seeds, 0)):
            if not values or min(values) < least or len(set(values)) < len(values):
                raise ConfigError(
                    f"{name}: expected distinct numbers from {least}, got {list(values)}"
                )
        unknown = [c for c in self.classifiers if c not in CLASSIFIERS]
        if unknown or not self.classifiers:
            raise ConfigError(
                f"classifiers: expected some of {', '.join(CLASSIFIERS)}, got {unknown}"
            )
        named = [*(name for pair in pairs for name in pair), *own_tests]
        lacking = [name for name in named if name not in sources]
        if lacking or not sources or SHUFFLED in sources:
            raise ConfigError(
                f"sources: expected {', '.join(lacking) or 'one or more'} among them, and none called "
                f"{SHUFFLED!r}; got {', '.join(sources) or 'none'}"
            )
        for name, source in sources.items():
            _check_source(name, source, test.dim, self.num_classes, max(self.sizes))
        for name, own in own_tests.items():
            _check_source(f"{name}, test images", own, test.dim, self.num_classes, 2)


def _check_source(name: str, source: Labelled, dim: int, num_classes: int, least: int) -> None:
    if source.dim != dim:
        raise BadSource(f"{name}: expected {dim} numbers per image, as tested on, got {source.dim}")
    counts = np.bincount(source.labels, minlength=num_classes)
    if len(counts) > num_classes or counts.min() < least:
        raise BadSource(
            f"{name}: expected at least {least} images of each of {num_classes} classes, as tested on, "
            f"got {counts.tolist()!s:.80}"
        )


def _train(
    asked: _Asked,
    name: str,
    source: Labelled,
    tests: Sequence[Labelled],
    training: TwoLayerConfig | None,
    device: str,
) -> Iterator[tuple[tuple[Classifier, str, int], list[list[Predictions]]]]:
    """All classifiers of one source, in the order of the sizes."""
    x = source.vectors(device)
    against = [(t.vectors(device), t.labels) for t in tests]
    for size in asked.sizes:
        listed = draw_nested(
            source.labels,
            asked.num_classes,
            size=size,
            largest=max(asked.sizes),
            count=len(asked.seeds),
            name=name,
        )
        labels = source.labels[listed]
        if name == SHUFFLED:
            labels = shuffled(labels, asked.seeds)
        for kind in asked.classifiers:
            yield (
                (kind, name, size),
                predict(
                    kind,
                    x,
                    listed,
                    labels,
                    against,
                    num_classes=asked.num_classes,
                    seeds=asked.seeds,
                    training=training,
                ),
            )


def _collect(
    asked: _Asked,
    sources: Mapping[str, Labelled],
    test: Labelled,
    pairs: Sequence[tuple[str, str]],
    found: Trials,
) -> ClassifierCurves:
    largest, count = max(asked.sizes), len(asked.seeds)
    overlap = {
        name: mean_overlap(s.labels, asked.num_classes, largest=largest, count=count)
        for name, s in sources.items()
    }
    return ClassifierCurves(
        sources=tuple(sources),
        sizes=asked.sizes,
        seeds=asked.seeds,
        classifiers=asked.classifiers,
        num_classes=asked.num_classes,
        num_test=len(test.labels),
        shared={
            name: shared_share(s.labels, asked.num_classes, largest=largest, count=count)
            for name, s in sources.items()
        },
        points=tuple(
            CurvePoint(
                classifier=kind,
                source=name,
                size=size,
                accuracy=estimate(trials[0]),
                own=estimate(trials[1]) if len(trials) > 1 else None,
            )
            for (kind, name, size), trials in found.items()
        ),
        gaps=tuple(
            _gap(kind, *pair, asked.sizes, found, max(overlap[name] for name in pair))
            for kind in asked.classifiers
            for pair in pairs
        ),
    )


def _gap(
    kind: Classifier, first: str, second: str, sizes: Sequence[int], found: Trials, overlap: float
) -> Gap:
    by_size = tuple(
        _of_new_images(
            difference(found[kind, first, n][0], found[kind, second, n][0]), min(overlap, 1.0)
        )
        for n in sizes
    )
    return Gap(classifier=kind, first=first, second=second, by_size=by_size)


def _of_new_images(e: Estimate, overlap: float) -> Estimate:
    """An estimate whose interval over seeds is that of other training images, if seeds share some.

    Means over seeds with a correlation of r have (1 + (S - 1) r) / (1 - r) times the variance that their
    spread shows. The share of common images stands for r (Nadeau and Bengio 2003); of seeds with the same
    images nothing is known.
    """
    seeds = len(e.by_seed)
    if overlap == 0 or seeds < 2:
        return e
    if overlap == 1:
        unknown = (math.nan, math.nan)
        return replace(e, low=math.nan, high=math.nan, seeds=unknown)
    factor = math.sqrt((1 + (seeds - 1) * overlap) / (1 - overlap))
    wide = e.value + factor * (e.seeds[0] - e.value), e.value + factor * (e.seeds[1] - e.value)
    low, high = scores.both(e.value, wide, e.images)
    return replace(e, low=max(low, -1.0), high=min(high, 1.0), seeds=wide)


def _record(
    of: CurvePoint | Gap,
    source: str,
    minus: str | None,
    size: int,
    tested: str,
    e: Estimate,
) -> dict[str, object]:
    return {
        "classifier": of.classifier,
        "source": source,
        "minus": minus,
        "size": size,
        "tested_on": tested,
        "balanced_accuracy": e.value,
        "low": None if math.isnan(e.low) else e.low,
        "high": None if math.isnan(e.high) else e.high,
        "null": e.null,
        "num_seeds": len(e.by_seed),
    }
