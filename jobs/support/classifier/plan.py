"""An experiment with classifiers as recipes, before anything is trained; and what it would cost."""

from __future__ import annotations

import dataclasses
import itertools
import time
from dataclasses import dataclass

import numpy as np

from regimes.classifiers.networks import build_classifier
from regimes.classifiers.sets import (
    Labels,
    Part,
    arm_name,
    arms_of,
    class_counts,
    num_listed,
)
from regimes.classifiers.training import ClassifierTrainer
from regimes.errors import ConfigError
from regimes.jobs.support.classifier.experiment import ClassifierExperiment
from regimes.jobs.support.classifier.sources import Sources, labels_of
from regimes.jobs.support.console import duration
from regimes.storage.artifacts import Store
from regimes.storage.classifiers import ClassifierRecipe, identify_pretrained
from regimes.storage.images import ImagesRecipe
from regimes.threads import torch_threads
from regimes.words import counted

_TIMED_STEPS = 3
_TIMED_PIXELS = 200_000  # of a step: enough that the work outweighs the calls


@dataclass(frozen=True, kw_only=True)
class ClassifierPlan:
    """All recipes of an experiment."""

    experiment: ClassifierExperiment
    sources: Sources
    images: dict[str, ImagesRecipe]
    """Of every set of images, by name."""
    counts: tuple[int, ...]
    """Images of each class drawn from every part."""
    trials: list[ClassifierRecipe]

    @property
    def num_listed(self) -> int:
        """Images that every arm lists."""
        return num_listed(self.counts, self.experiment.mixed)

    @property
    def training(self) -> str:
        """What every arm trains on, in words."""
        e, steps = self.experiment, self.trials[0].num_steps
        each = (
            f"{min(self.counts)}"
            if len(set(self.counts)) == 1
            else f"{min(self.counts)} to {max(self.counts)}"
        )
        how = {
            "added": f"{each} of each class from every part, twice where there is one part alone",
            "replaced": f"{each} of each class, half of them from each part where there are two",
        }[e.mixed]
        return (
            f"Every arm lists {self.num_listed} images ({how}), drawn "
            f"{'with repetition where a set is too small' if e.repeat else 'without replacement'} by the "
            f"seed, and trains for {steps} steps of {e.training.batch_size}."
        )

    @property
    def network(self) -> str:
        """What is trained, in words."""
        start = "new weights" if self.experiment.weights is None else "pretrained weights"
        return f"The network is {self.experiment.network} of torchvision, from {start}."


def make_plan(experiment: ClassifierExperiment, sources: Sources) -> ClassifierPlan:
    """Lay out an experiment; a source is read once for its fingerprint.

    Raises:
        ConfigError: if a set is too small.
        BadCheckpoint: if the weights to start from cannot be read.
    """
    labels: dict[Part, Labels] = {part: labels_of(s) for part, s in sources.parts.items()}
    counts = class_counts(
        labels, len(sources.classes), per_class=experiment.per_class, repeat=experiment.repeat
    )
    if experiment.mixed == "replaced" and min(counts) < 2:
        raise ConfigError("--mixed replaced: expected at least 2 images of each class, got 1")
    images = {
        name: ImagesRecipe(
            fingerprint=source.fingerprint,
            image_size=experiment.image_size,
            channels=experiment.channels,
            skip_bad=False,  # what cannot be read is not among the sources
        )
        for name, source in sources.all.items()
    }
    start = None if experiment.weights is None else identify_pretrained(experiment.weights)
    trials = [
        ClassifierRecipe(
            arm=arm,
            sets=tuple(images[part] for part in arm),
            counts=counts,
            mixing=experiment.mixed,
            validation=images["validation"],
            test=images["test"],
            network=experiment.network,
            pretrained=start,
            training=experiment.training,
            seed=seed,
        )
        for arm, seed in itertools.product(arms_of(list(sources.parts)), experiment.seeds)
    ]
    return ClassifierPlan(
        experiment=experiment, sources=sources, images=images, counts=counts, trials=trials
    )


def print_plan(store: Store, plan: ClassifierPlan) -> None:
    """What would be done, and how long one CPU of this machine would take; writes nothing."""
    for name, source in plan.sources.all.items():
        counts = np.bincount(labels_of(source), minlength=len(plan.counts)).tolist()
        shown = ", ".join(map(str, counts[:12])) + (", ..." if len(counts) > 12 else "")
        print(f"{name:<11}{counted(len(source.ids), 'image')} ({shown}), {source.name}")
    arms = dict.fromkeys(arm_name(trial.arm) for trial in plan.trials)
    print(f"arms       {', '.join(arms)}; {counted(plan.experiment.num_seeds, 'seed')} each")
    print(f"training   {plan.training} {plan.network}")
    waiting = len(store.missing(plan.trials))
    print(f"trials     {len(plan.trials) - waiting} kept, {waiting} to train")
    seconds, parameters = _seconds(plan)
    print(
        f"time       about {duration(seconds * waiting)} on one CPU of this machine, divided by the "
        "number of trials at a time; a GPU takes far less; images, scores and report not counted"
    )
    print(f"disk       {4 * parameters * len(plan.trials) / 1e6:.0f} MB of weights")


def _seconds(plan: ClassifierPlan) -> tuple[float, int]:
    """Of one trial, from a few timed steps; and the numbers that a classifier learns."""
    e, source = plan.experiment, plan.sources.parts["real"]
    image = source.read(0, image_size=e.image_size)
    size, height, width = e.training.batch_size, *image.shape[:2]
    timed = min(size, max(4, _TIMED_PIXELS // (height * width)))
    batch = np.repeat(image[None], timed, axis=0)
    network = build_classifier(e.network, len(plan.counts), seed=0)
    with torch_threads(1):
        trainer = ClassifierTrainer(
            network,
            batch,
            np.zeros(len(batch), np.int64),
            np.arange(len(batch)),
            dataclasses.replace(e.training, batch_size=timed),
            seed=0,
        )
        trainer.step()
        started = time.perf_counter()
        for _ in range(_TIMED_STEPS):
            trainer.step()
        step = (time.perf_counter() - started) / _TIMED_STEPS * size / timed
        started = time.perf_counter()
        trainer.probabilities(batch)
        classify = (time.perf_counter() - started) / len(batch)
    points = len(e.training.evaluation_steps(plan.num_listed))
    judged = points * len(plan.sources.validation.ids) + len(plan.sources.test.ids)
    total = step * plan.trials[0].num_steps + classify * judged
    return total, sum(p.numel() for p in network.parameters())
