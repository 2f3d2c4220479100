"""The images of an experiment with classifiers: three disjoint sets of real ones, and generated ones.

Training, validation and test images never overlap, and the test images are used once. Classes are
matched by the names of folders where both sides have them, else by number.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from regimes.classifiers.sets import Labels, Part, hold_out
from regimes.denoisers.closed_form import EmpiricalDenoiser, WienerDenoiser
from regimes.errors import BadSource
from regimes.images.arrays import ArraySource, row_ids
from regimes.images.cifar import is_cifar10
from regimes.images.fingerprints import hash_parts
from regimes.images.pixels import Images, to_float, to_uint8
from regimes.images.selection import Selection
from regimes.images.sources import ImageSource, load_images, open_source
from regimes.jobs.support.classifier.experiment import ClassifierExperiment
from regimes.samplers.config import SamplerConfig
from regimes.samplers.edm import sample_seeds

FORMS = {"empirical": EmpiricalDenoiser, "wiener": WienerDenoiser}
LARGEST_FORM = 3072  # values per image (32x32x3): the Gaussian takes their square
_KINDS = ("", ".zip", ".npz", ".parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """All images of an experiment, not decoded yet."""

    classes: tuple[str, ...]
    parts: dict[Part, ImageSource]
    """What arms are made of; the real images are those to train on."""
    validation: ImageSource
    test: ImageSource

    @property
    def all(self) -> dict[str, ImageSource]:
        """Every set by name."""
        found: dict[str, ImageSource] = dict(self.parts.items())
        return found | {"validation": self.validation, "test": self.test}


def _readable(source: ImageSource, experiment: ClassifierExperiment) -> ImageSource:
    """The source, or with ``--skip-bad-images`` what can be decoded of it; the others are named."""
    if not experiment.skip_bad_images:
        return source
    kept = []
    for index in range(len(source.ids)):
        try:
            source.read(index)
        except BadSource as error:
            print(f"left out   {str(error).split('; ')[0]}", file=sys.stderr)
        else:
            kept.append(index)
    return source if len(kept) == len(source.ids) else Selection(source, kept)


def labels_of(source: ImageSource, num_classes: int | None = None) -> Labels:
    """(N,) classes of a source's images.

    Raises:
        BadSource: if it has none, or one that is not among ``num_classes``.
    """
    if source.labels is None:
        raise BadSource(
            f"{source.name}: the class of each image is not known; expected a folder per class (two "
            "or more), or labels in the .npz or .parquet file"
        )
    labels = np.asarray(source.labels, np.int64)
    if num_classes is not None and labels.max() >= num_classes:
        raise BadSource(
            f"{source.name}: expected classes 0 to {num_classes - 1}, those of the real images, got "
            f"{labels.max()}"
        )
    return labels


def class_names(source: ImageSource) -> tuple[str, ...] | None:
    """The names of a source's class folders in the order of its labels, or None without such."""
    tops = [image_id.split("/", 1)[0] for image_id in source.ids]
    names = sorted(set(tops))
    by_folder = all("/" in image_id for image_id in source.ids)
    if not by_folder or labels_of(source).tolist() != [names.index(top) for top in tops]:
        return None
    return tuple(names)


def open_sources(experiment: ClassifierExperiment) -> Sources:
    """Find all images, and hold out those for validation and testing.

    Raises:
        BadSource: if images, classes or splits are missing or do not fit together.
        ConfigError: if too few images would be left to train on.
    """
    assert experiment.real is not None
    opened = _open_real(experiment.real)
    train, validation, test = (None if s is None else _readable(s, experiment) for s in opened)
    assert train is not None
    names = class_names(train)
    num_classes = len(names) if names else int(labels_of(train).max()) + 1
    classes = names or tuple(map(str, range(num_classes)))
    for given in (validation, test):
        if given is not None:
            _check_classes(given, classes, names)
    if test is None:
        train, test = _split(train, num_classes, experiment, "test", 0, experiment.test_fraction)
    train, validation = _validation(train, validation, num_classes, experiment)
    parts: dict[Part, ImageSource] = {"real": train}
    specs: dict[Part, str | None] = {
        "generated": experiment.generated,
        "diverse": experiment.diverse,
    }
    for seed, (part, spec) in enumerate(specs.items()):
        if spec in FORMS:
            parts[part] = ClosedFormSource(spec, train, seed)
        elif spec is not None:
            parts[part] = _readable(open_source(_training_part(spec)), experiment)
            _check_classes(parts[part], classes, names)
    return Sources(classes=classes, parts=parts, validation=validation, test=test)


def _open_real(spec: str) -> tuple[ImageSource, ImageSource | None, ImageSource | None]:
    """Training, validation and test images as they are given."""
    path = Path(spec)
    if spec != "digits" and path.exists() and is_cifar10(path):
        return open_source(spec), None, open_source(f"{spec}#test")
    found = {name: _find(path / name) for name in ("train", "val", "test")}
    if found["train"] is None:
        if found["test"] is not None:
            raise BadSource(f"{spec}: expected a folder train beside test, found none")
        return open_source(spec), None, None
    if found["test"] is None:
        raise BadSource(f"{spec}: expected a folder test beside train, found none")
    train, val, test = (None if p is None else open_source(str(p)) for p in found.values())
    assert train is not None
    return train, val, test


def _training_part(spec: str) -> str:
    """Of generated images that lie as the real ones do, in {train,val,test}, those to train on."""
    train, test = (_find(Path(spec) / name) for name in ("train", "test"))
    return spec if train is None or test is None else str(train)


def _find(stem: Path) -> Path | None:
    return next((p for k in _KINDS if (p := stem.with_name(stem.name + k)).exists()), None)


def _check_classes(
    source: ImageSource, classes: Sequence[str], names: tuple[str, ...] | None
) -> None:
    """Refuse images of other classes than the real ones."""
    labels_of(source, None if names else len(classes))
    own = class_names(source)
    if names and own and own != names:
        raise BadSource(
            f"{source.name}: expected the class folders {', '.join(names)}, those of the real "
            f"images, found {', '.join(own)}"
        )
    labels = labels_of(source, len(classes))
    missing = [name for i, name in enumerate(classes) if i not in labels]
    if missing:
        raise BadSource(
            f"{source.name}: expected images of every class, found none of {missing[0]}"
        )


def _validation(
    train: ImageSource,
    given: ImageSource | None,
    num_classes: int,
    experiment: ClassifierExperiment,
) -> tuple[ImageSource, ImageSource]:
    """The given validation images if there are enough of each class; else a part of all."""
    least = experiment.validation_per_class
    if given is not None:
        if np.bincount(labels_of(given), minlength=num_classes).min() >= least:
            return train, given
        train = Joined(train, given)
    return _split(
        train, num_classes, experiment, "validation", least, experiment.validation_fraction
    )


def _split(
    source: ImageSource,
    num_classes: int,
    experiment: ClassifierExperiment,
    name: str,
    least: int,
    share: float,
) -> tuple[ImageSource, ImageSource]:
    """What is left of a source, and what is held out."""
    labels = labels_of(source)
    sizes = np.bincount(labels, minlength=num_classes)
    counts = [max(least, round(share * int(n))) for n in sizes]
    groups = None if experiment.group is None else groups_of(source.ids, experiment.group)
    held = hold_out(labels, counts, name=name, seed=experiment.split_seed, groups=groups)
    return Selection(source, np.flatnonzero(~held)), Selection(source, np.flatnonzero(held))


def groups_of(ids: Sequence[str], pattern: str) -> list[str]:
    """What a regular expression finds in every name; a name in which it finds nothing is alone."""
    matches = [re.search(pattern, image_id.rsplit("/", 1)[-1]) for image_id in ids]
    return [f"found {m[0]}" if m else f"alone {i}" for m, i in zip(matches, ids)]


class Joined:
    """The images of two sources, under names that say which."""

    def __init__(self, first: ImageSource, second: ImageSource) -> None:
        self.sources, self.name = (first, second), first.name
        self.ids = [f"{i}/{image_id}" for i, s in enumerate(self.sources) for image_id in s.ids]

    @property
    def labels(self) -> list[int]:
        """See ``ImageSource``."""
        return [label for source in self.sources for label in labels_of(source).tolist()]

    @property
    def fingerprint(self) -> str:
        """Hash of both."""
        return hash_parts(source.fingerprint.encode() for source in self.sources)

    def read(self, index: int, *, image_size: int | None = None) -> Images:
        """See ``ImageSource``."""
        first, second = self.sources
        past = index - len(first.ids)
        if past < 0:
            return first.read(index, image_size=image_size)
        return second.read(past, image_size=image_size)


class ClosedFormSource:
    """Samples of the closed-form denoisers of a labelled source, one denoiser per class.

    As many of each class as the source has, made when the first one is read. The Gaussian's are new
    images; the empirical denoiser's are copies of the source's, which nobody can learn more from.

    Args:
        form: empirical or wiener.
        source: what the denoisers are fitted to.
        seed: samples of another seed are others.

    Raises:
        BadSource: if images are too large, or differ in size.
    """

    def __init__(self, form: str, source: ImageSource, seed: int) -> None:
        self._form, self._source, self._seed = form, source, seed
        self.name = f"{form} of {source.name}"
        self.labels = labels_of(source).tolist()
        self.ids = row_ids(len(self.labels))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what determines the samples."""
        about = f"{self._form} {self._seed} {SamplerConfig()}"
        return hash_parts([about.encode(), self._source.fingerprint.encode()])

    @cached_property
    def _samples(self) -> ArraySource:
        _, images, _ = load_images(self._source)
        if images[0].size > LARGEST_FORM:
            raise BadSource(
                f"{self.name}: images of {images[0].size} values are too large for a closed form "
                f"(at most {LARGEST_FORM}); pass generated images"
            )
        made, labels = np.empty_like(images), np.asarray(self.labels)
        _, height, width, channels = images.shape
        for label in np.unique(labels):
            own = np.flatnonzero(labels == label)
            denoiser = FORMS[self._form](to_float(images[own]))
            seeds = [self._seed * len(labels) + int(i) for i in own]
            x = sample_seeds(
                denoiser, seeds, (channels, height, width), config=SamplerConfig(), batch_size=256
            )
            made[own] = to_uint8(x)
        return ArraySource(self.name, made)

    def read(self, index: int, *, image_size: int | None = None) -> Images:
        """See ``ImageSource``."""
        return self._samples.read(index, image_size=image_size)
