"""Classifiers trained on n images per class of a source, for several n and seeds.

The images of a class are put into one random order, keyed by the source and the class. Seed number k trains
on n of them from place k max(n) on, going round at the end: smaller sets lie within larger ones, and seeds
have no image in common as long as there are enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regimes.classifiers.ridge import fit_ridge
from regimes.classifiers.scores import Predictions
from regimes.classifiers.two_layer import TwoLayerConfig, train_two_layers
from regimes.errors import BadSource
from regimes.images.pixels import pixel_vectors
from regimes.noise import keyed_generator

Classifier = Literal["linear", "two-layer"]
CLASSIFIERS: tuple[Classifier, ...] = get_args(Classifier)
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Images, or features of images, with classes.

    Args:
        values: (N, H, W, C) uint8 images, or floats (N, ...) that are taken as they are: images on the
            scale [-1, 1], clipped or not, (N, H, W, C) as well; or features.
        labels: (N,) classes from 0 to K - 1.

    Raises:
        BadSource: if they are not equally many, or neither uint8 nor floats.
    """

    values: npt.NDArray = field(repr=False)
    labels: Labels = field(repr=False)

    def __post_init__(self) -> None:
        """Check shapes and kinds."""
        if self.labels.shape != self.values.shape[:1] or self.values.ndim < 2:
            raise BadSource(
                f"labelled images: expected (N, ...) values and (N,) labels, got shapes "
                f"{self.values.shape} and {self.labels.shape}"
            )
        if self.values.dtype != np.uint8 and self.values.dtype.kind != "f":
            raise BadSource(f"labelled images: expected uint8 or floats, got {self.values.dtype}")

    @property
    def dim(self) -> int:
        """D, numbers per image."""
        return math.prod(self.values.shape[1:])

    def vectors(self, device: str = "cpu") -> Tensor:
        """(N, D) float32; uint8 becomes [-1, 1]."""
        if self.values.dtype == np.uint8:
            return torch.from_numpy(pixel_vectors(self.values)).to(device)
        flat = self.values.reshape(len(self.values), -1)
        return torch.from_numpy(flat.astype(np.float32)).to(device)


def draw_nested(
    labels: Labels, num_classes: int, *, size: int, largest: int, count: int, name: str
) -> Labels:
    """Rows that each of ``count`` seeds trains on.

    Args:
        labels: (N,) classes of the source.
        num_classes: K.
        size: n of every class.
        largest: the largest n of the curve.
        count: number of seeds.
        name: of the source, for the key.

    Returns:
        (count, n K) rows.
    """
    parts = []
    for label in range(num_classes):
        order = keyed_generator("curve-set", name, label).permutation(
            np.flatnonzero(labels == label)
        )
        places = np.arange(count)[:, None] * largest + np.arange(size)
        parts.append(order[places % len(order)])
    return np.concatenate(parts, 1)


def shared_share(labels: Labels, num_classes: int, *, largest: int, count: int) -> float:
    """Share of a seed's images that other seeds use too, at the largest size, in the scarcest class."""
    least = int(np.bincount(labels, minlength=num_classes).min())
    uses = np.bincount(np.arange(count * largest) % least, minlength=least)
    return float(uses[uses > 1].sum() / uses.sum())


def mean_overlap(labels: Labels, num_classes: int, *, largest: int, count: int) -> float:
    """Share of a seed's images that another seed uses too, on average, as ``shared_share`` counts."""
    if count < 2:
        return 0.0
    least = int(np.bincount(labels, minlength=num_classes).min())
    uses = np.bincount(np.arange(count * largest) % least, minlength=least)
    return float((uses * (uses - 1)).sum() / (count * (count - 1) * largest))


def shuffled(labels: Labels, seeds: Sequence[int]) -> Labels:
    """(M, n) classes of the listed images, dealt out anew among the images of every seed."""
    rows = [
        keyed_generator("curve-shuffle", s).permutation(row)
        for s, row in zip(seeds, labels, strict=True)
    ]
    return np.stack(rows)


def predict(
    kind: Classifier,
    x: Tensor,
    listed: Labels,
    labels: Labels,
    tests: Sequence[tuple[Tensor, Labels]],
    *,
    num_classes: int,
    seeds: Sequence[int],
    training: TwoLayerConfig | None = None,
) -> list[list[Predictions]]:
    """Train one classifier per seed, and let it call every set of test images.

    Args:
        kind: linear or two-layer.
        x: (N, D) float32 values of the source.
        listed: (M, n) rows that each seed trains on.
        labels: (M, n) their classes.
        tests: (T, D) float32 values and (T,) classes of each set.
        num_classes: K.
        seeds: M.
        training: of the two-layer classifier.

    Returns:
        For each set of test images, M predictions. Of a linear classifier the "probabilities" are its
        scores.
    """
    called: Iterator[list[npt.NDArray[np.float64]]]
    if kind == "linear":
        fits = [fit_ridge(x[r], torch.from_numpy(y), num_classes) for r, y in zip(listed, labels)]
        called = ([fit.scores(t) for fit in fits] for t, _ in tests)
    else:
        made = train_two_layers(x, listed, labels, num_classes, seeds=seeds, config=training)
        called = (list(made.scores(t)) for t, _ in tests)
    return [
        [_predictions(own, p) for p in each] for (_, own), each in zip(tests, called, strict=True)
    ]


def _predictions(labels: Labels, scores: npt.NDArray[np.float64]) -> Predictions:
    ids = np.arange(len(labels))
    return Predictions(ids=ids, labels=labels, probabilities=scores.astype(np.float32))


def labels_by(known: Labelled, values: npt.NDArray) -> Labels:
    """Classes of images that have none, such as those of an unconditional model: by a linear classifier.

    What classifiers learn from such labels is in part what this one knows; compare sources that are
    labelled alike.

    Args:
        known: real images with classes, none of them a test image.
        values: (N, ...) of the same kind.

    Returns:
        (N,) classes.
    """
    num_classes = int(known.labels.max()) + 1
    fit = fit_ridge(known.vectors(), torch.from_numpy(known.labels), num_classes)
    unknown = Labelled(values, np.zeros(len(values), np.int64))
    return fit.scores(unknown.vectors()).argmax(1)
