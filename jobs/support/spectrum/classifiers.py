"""What classifiers learn from samples and from the mixture, beside their spectra: the published follow-up.

Everything that classifiers are trained on comes from half A of the real images; they are tested on half B,
which no model and no mixture has seen. Where a set has no classes, the classes of all sets but the real one
are those that a linear classifier of half A gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from regimes.classifiers.curves import Labelled, labels_by
from regimes.errors import ConfigError
from regimes.gaussians.fit import FitConfig, fit_mixture
from regimes.gaussians.model import Mixture
from regimes.images.split import Split
from regimes.jobs.support.spectrum.experiment import SpectrumExperiment
from regimes.spectra.rows import Rows
from regimes.studies.classifier_curves import ClassifierCurves, classifier_curves
from regimes.studies.spectrum import MIXTURE, REAL

SEEDS = 5
Labels = npt.NDArray[np.int64]


def num_trainings(e: SpectrumExperiment) -> int:
    """How often ``advance`` is called."""
    return 2 * len(e.classifier_sizes) * (len(e.sets) + e.with_mixture + 2)


def compare_classifiers(
    rows: Mapping[str, Rows],
    labels: Mapping[str, Labels | None],
    e: SpectrumExperiment,
    *,
    pixels: bool,
    advance: Callable[[], None],
) -> ClassifierCurves:
    """Curves of every set of images and of one Gaussian per class.

    Args:
        rows: by set, the real ones among them, in the order of the source.
        labels: (N,) classes, or None.
        e: sizes, mixture and seed.
        pixels: whether rows are pixels in [0, 1], which classifiers see in [-1, 1].
        advance: called ``num_trainings`` times.

    Raises:
        ConfigError, BadSource: if there are no classes, or too few images of one.
    """
    real_labels = labels[REAL]
    if real_labels is None:
        raise ConfigError(
            f"--classifier-sizes: {e.real} does not say the classes of its images; leave it out"
        )
    classes, known = np.unique(real_labels, return_inverse=True)
    split = Split(num_images=len(known), seed=e.measure.seed)
    a, b = split.indices("A"), split.indices("B")

    def shown(some: Rows) -> npt.NDArray[np.float32]:
        return (2 * some.dense() - 1 if pixels else some.dense()).astype(np.float32)

    real, test = (Labelled(shown(rows[REAL].take(i)), known[i].astype(np.int64)) for i in (a, b))
    own = {name: labels[name] for name in rows if name != REAL}
    found: dict[str, Labelled] = {}
    for name, given in own.items():
        values = shown(rows[name])
        found[name] = Labelled(values, np.zeros(len(values), np.int64))
        if given is not None and np.isin(given, classes).all():
            found[name] = Labelled(values, np.searchsorted(classes, given).astype(np.int64))
    if e.with_mixture:
        config = FitConfig(by="class", shrinkage=e.mixture.shrinkage, ridge=e.mixture.ridge)
        found[MIXTURE] = _mixture(rows[REAL].take(a), known[a], config, e, pixels)
    if any(given is None or not np.isin(given, classes).all() for given in own.values()):
        found = {n: Labelled(s.values, labels_by(real, s.values)) for n, s in found.items()}
    pairs = [(MIXTURE, name) for name in own if e.with_mixture]
    pairs += [(name, REAL) for name in found]
    return classifier_curves(
        {REAL: real} | found,
        test,
        sizes=e.classifier_sizes,
        seeds=range(SEEDS),
        pairs=pairs,
        progress=advance,
    )


def _mixture(
    rows: Rows, labels: Labels, config: FitConfig, e: SpectrumExperiment, pixels: bool
) -> Labelled:
    """Unclipped samples of one Gaussian per class, enough that seeds share none."""
    mixture = fit_mixture(rows, config, labels)
    each = 2 * SEEDS * max(e.classifier_sizes)
    parts = [
        Mixture(weights=np.ones(1), components=(g,)).draw(each, "classifiers", e.measure.seed, k)[0]
        for k, g in enumerate(mixture.components)
    ]
    values = np.concatenate(parts)
    drawn = np.repeat(np.asarray(mixture.labels, np.int64), each)
    return Labelled((2 * values - 1 if pixels else values).astype(np.float32), drawn)
