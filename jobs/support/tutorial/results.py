"""The results of the tutorial: files for people, and for other programs."""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from matplotlib.figure import Figure

from regimes.figures import tutorial as figures
from regimes.jobs.support.result_folder import (
    CONFIG,
    REPORT,
    SCORES,
    Drawn,
    ResultFolder,
    options,
)
from regimes.jobs.support.tutorial.experiment import TutorialExperiment, TutorialRun
from regimes.report import render
from regimes.report.tutorial import TutorialReport, answer
from regimes.storage.artifacts import Recipe, to_json
from regimes.studies.checks import Lesson

_WIDTH = 100
_DRAW: dict[str, tuple[str, Callable[[Any], Figure]]] = {
    "gaussian": (
        (
            "Histograms of samples, the exact law of the sampler (black) and the data (dashed). Right: the "
            "variance against the number of steps; lines are exact, dots are measured."
        ),
        figures.gaussian_figure,
    ),
    "one-point": (
        "Ten paths from noise (circles) to the one data point.",
        figures.one_point_figure,
    ),
    "two-points": (
        (
            "Ten paths from noise (circles); both samplers start at the same places. Right: where DDIM "
            "ends, against where it starts."
        ),
        figures.two_points_figure,
    ),
    "swiss-roll": (
        (
            "Samples (dots) and the true curve. Right: the error of the network's guess at seven times, and "
            "that of the oracle, which knows the curve."
        ),
        figures.swiss_roll_figure,
    ),
}
"""(caption, figure) of every lesson."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TutorialRecipe(Recipe):
    """What determines the results of the tutorial."""

    kind: ClassVar[str] = "tutorial"
    code_version: ClassVar[int] = 1

    experiment: TutorialExperiment


class TutorialResults(ResultFolder):
    """``<output>/tutorial/<name>/``."""

    def __init__(self, run: TutorialRun, experiment: TutorialExperiment) -> None:
        self.experiment = experiment
        recipe = TutorialRecipe(experiment=experiment)
        name = run.name or default_name(experiment)
        super().__init__(run.output, "tutorial", name, recipe, identity=("experiment",))

    def write(self, lessons: Sequence[Lesson]) -> None:
        """Draw and report; the manifest comes last."""
        self.write_files(self._files(lessons))

    def _files(self, lessons: Sequence[Lesson]) -> Iterator[tuple[str, bytes]]:
        config = self.config()
        yield CONFIG, config.encode()
        yield SCORES, _scores_json(lessons).encode()
        drawn = Drawn(_figures(lessons))
        yield from drawn.files()
        changed = options(TutorialExperiment(), self.experiment)
        report = TutorialReport(
            title="Tutorial: four experiments whose answers are known",
            answer=answer(lessons),
            figures=drawn.captioned[:1],
            lessons=lessons,
            lesson_figures=drawn.captioned[1:],
            recipe=config,
            command=" ".join(["python jobs/tutorial.py", *changed]),
            links=[(name, name) for name in (SCORES, CONFIG)],
        )
        yield REPORT, render(report).encode()

    def print_summary(self) -> bool:
        """Every lesson and its checks, on the console; returns whether all checks passed."""
        scores = json.loads(self.read(SCORES))
        for lesson in scores["lessons"]:
            _print_lesson(lesson)
        print()
        print("\n".join(scores["answer"]))
        print(f"\nreport    {self.location.child(REPORT).uri}")
        return bool(scores["passed"])


def default_name(experiment: TutorialExperiment) -> str:
    """Name of the result folder, ``seed0-1a2b3c4d``: the seed, and a hash of all options."""
    digest = hashlib.sha256(to_json(experiment).encode()).hexdigest()[:8]
    return f"seed{experiment.seed}-{digest}"


def _figures(lessons: Sequence[Lesson]) -> Iterator[tuple[str, str, Figure]]:
    """(file name, caption, figure), all checks first."""
    caption = "Every measured number as a dot, in the range that theory allows (gray)."
    yield "checks", caption, figures.checks_figure(lessons)
    for lesson in lessons:
        caption, draw = _DRAW[lesson.name]
        yield lesson.name, caption, draw(lesson)


def _scores_json(lessons: Sequence[Lesson]) -> str:
    return to_json(
        {
            "answer": answer(lessons),
            "passed": all(lesson.passed for lesson in lessons),
            "lessons": [_record(lesson) for lesson in lessons],
        }
    )


def _record(lesson: Lesson) -> dict[str, Any]:
    checks = [
        {
            "what": c.what,
            "measured": c.measured,
            "exact": c.exact,
            "low": c.low,
            "high": c.high,
            "passed": c.passed,
            "cells": c.cells,
        }
        for c in lesson.checks
    ]
    words = {key: getattr(lesson, key) for key in ("name", "title", "question", "seen", "why")}
    return {**words, "checks": checks}


def _print_lesson(lesson: dict[str, Any]) -> None:
    print(f"\n{lesson['title']} ({lesson['name']})")
    for sentences in ([lesson["question"]], lesson["seen"], lesson["why"]):
        print()
        for sentence in sentences:
            print(textwrap.fill(sentence, _WIDTH))
    print()
    rows = [("", "measured", "exact", "allowed", ""), *(c["cells"] for c in lesson["checks"])]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
