"""The results of an experiment with classifiers: files for people, and for other programs."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from tensorboardX import summary

from regimes.classifiers import scores
from regimes.classifiers.scores import Predictions
from regimes.classifiers.sets import arm_name
from regimes.figures import classification as figures
from regimes.jobs.support.classifier.experiment import (
    PRESETS,
    ClassifierExperiment,
    ClassifierOptions,
)
from regimes.jobs.support.classifier.plan import ClassifierPlan
from regimes.jobs.support.classifier.sources import labels_of
from regimes.jobs.support.result_folder import (
    CONFIG,
    REPORT,
    SCORES,
    TABLE,
    Drawn,
    ResultFolder,
    options,
    parquet_bytes,
    slug,
)
from regimes.jobs.support.tensorboard import Events
from regimes.report.classification import ClassificationReport, SetLine
from regimes.report.page import render
from regimes.storage.artifacts import Recipe, Store, to_json
from regimes.storage.classifiers import (
    COLUMNS,
    WEIGHTS,
    ClassifierRecipe,
    read_classifier_curve,
    read_predictions,
)
from regimes.studies.classification import ClassificationStudy, answer, study

CSV = "accuracy_results.csv"
"""The published table, under its published name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationRecipe(Recipe):
    """What determines the results of an experiment with classifiers."""

    kind: ClassVar[str] = "classification"
    code_version: ClassVar[int] = 3

    experiment: ClassifierExperiment
    sets: tuple[tuple[str, str], ...]
    """Name and fingerprint of every set of images."""
    classifiers: tuple[tuple[str, str], ...]
    """Name and address of every classifier."""


class ClassifierResults(ResultFolder):
    """``<output>/classifier/<name>/``."""

    def __init__(self, run: ClassifierOptions, preset: str, plan: ClassifierPlan) -> None:
        self.plan, self.preset = plan, preset
        recipe = ClassificationRecipe(
            experiment=plan.experiment,
            sets=tuple((name, images.fingerprint) for name, images in plan.images.items()),
            classifiers=tuple((trial.label, trial.address) for trial in plan.trials),
        )
        identity = ("experiment", "sets")
        name = run.name or default_name(plan.experiment)
        super().__init__(run.output, "classifier", name, recipe, identity=identity)

    def write(self, store: Store) -> None:
        """Score, draw and report; the manifest comes last."""
        found = {
            (arm_name(trial.arm), trial.seed): read_predictions(store, trial)
            for trial in self.plan.trials
        }
        judged = study(found, self.plan.sources.classes)
        self.write_files(self._files(store, judged, list(found.values())))

    def _files(
        self, store: Store, judged: ClassificationStudy, predictions: list[Predictions]
    ) -> Iterator[tuple[str, bytes]]:
        config = self.config()
        yield CONFIG, config.encode()
        yield SCORES, to_json(_scores(judged)).encode()
        yield TABLE, _parquet(judged)
        yield CSV, _csv(self.plan, predictions)
        drawn = Drawn(_figures(judged))
        yield from drawn.files()
        for trial, p in zip(self.plan.trials, predictions, strict=True):
            events = _events(store, trial, p)
            yield events.name, events.data
        yield REPORT, render(self._report(judged, drawn, config)).encode()

    def _report(
        self, judged: ClassificationStudy, drawn: Drawn, config: str
    ) -> ClassificationReport:
        plan = self.plan
        changed = options(PRESETS[self.preset], plan.experiment)
        return ClassificationReport(
            title=f"What generated images are worth to a classifier: {plan.experiment.real}",
            answer=answer(judged),
            figures=drawn.captioned,
            study=judged,
            sets=[
                SetLine(name=name, where=source.name, counts=_counts(plan, name))
                for name, source in plan.sources.all.items()
            ],
            training=plan.training,
            network=plan.network,
            recipe=config,
            command=" ".join(["python jobs/classifier.py", f"--preset {self.preset}", *changed]),
            links=[(name, name) for name in (SCORES, TABLE, CSV, CONFIG)],
        )

    def print_summary(self) -> None:
        """Every arm's balanced accuracy, the comparisons, and the answer, on the console."""
        found = json.loads(self.read(SCORES))
        print()
        for row in found["scores"]:
            if row["score"] == "balanced_accuracy":
                name = row["arm"] if row["minus"] is None else f"{row['arm']} - {row['minus']}"
                ends = (
                    "one seed" if row["low"] is None else f"[{row['low']:.3f}, {row['high']:.3f}]"
                )
                print(f"{name:<32}{row['value']:+.3f} {ends}")
        print()
        print("\n".join(found["answer"]))
        print(f"\nreport    {self.location.child(REPORT).uri}")


def default_name(experiment: ClassifierExperiment) -> str:
    """Name of the result folder, ``digits-1a2b3c4d``: the real images, and a hash of all options."""
    digest = hashlib.sha256(to_json(experiment).encode()).hexdigest()[:8]
    return f"{slug(experiment.real or '')[:60] or 'images'}-{digest}"


def _counts(plan: ClassifierPlan, name: str) -> tuple[int, ...]:
    labels = labels_of(plan.sources.all[name])
    return tuple(np.bincount(labels, minlength=len(plan.sources.classes)).tolist())


def _scores(judged: ClassificationStudy) -> dict[str, object]:
    return {
        "answer": answer(judged),
        "arms": judged.arms,
        "seeds": judged.seeds,
        "classes": judged.classes,
        "test_images": judged.test_counts,
        "scores": judged.records(),
        "comparisons": [
            {
                "arm": c.arm,
                "minus": c.base,
                "effect": c.effect,
                "mcnemar": [[t.only_first, t.only_second, t.p_value] for t in c.tests],
                "p_value": c.p_value,
                "p_adjusted": c.p_adjusted,
            }
            for c in judged.comparisons
        ],
        "by_seed": {
            arm: {e.metric: e.by_seed for e in judged.estimates[arm] if e.label is None}
            for arm in judged.arms
        },
    }


def _parquet(judged: ClassificationStudy) -> bytes:
    return parquet_bytes(pa.Table.from_pylist(judged.records()))


def _csv(plan: ClassifierPlan, predictions: list[Predictions]) -> bytes:
    """One row per classifier: arm, file, overall accuracy, and the recall of every class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["Subfolder", "Weight File", "Overall Accuracy", *plan.sources.classes])
    for trial, p in zip(plan.trials, predictions, strict=True):
        shares = [scores.accuracy(p), *scores.recalls(p).tolist()]
        file = f"artifacts/{trial.address}/{WEIGHTS}"
        writer.writerow([arm_name(trial.arm), file, *(f"{share:.4f}" for share in shares)])
    return text.getvalue().encode()


def _figures(judged: ClassificationStudy) -> Iterator[tuple[str, str, Figure]]:
    """(file name, one-line caption, figure)."""
    captions = figures.captions(judged)
    yield "balanced-accuracy", captions["balanced-accuracy"], figures.score_by_arm(judged)
    if "recall" in captions:
        yield "recall", captions["recall"], figures.recall_by_class(judged)


def _events(store: Store, trial: ClassifierRecipe, p: Predictions) -> Events:
    """The event file of a classifier: its curve, and its scores as hyperparameter metrics."""
    events = Events(trial.label)
    curve = read_classifier_curve(store, trial)
    for name in COLUMNS:
        for step, point in zip(curve["step"], curve[name], strict=True):
            events.add(summary.scalar(f"train/{name}", float(point)), int(step))
    found = {f"score/{name}": scores.value(p, name) for name in scores.METRICS}
    for part in summary.hparams({"arm": arm_name(trial.arm), "seed": trial.seed}, found):
        events.add(part)
    for name, point in found.items():
        events.add(summary.scalar(name, point))
    return events
