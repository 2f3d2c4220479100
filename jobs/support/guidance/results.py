"""The results of a guidance sweep: files for people, and for other programs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
from tensorboardX import summary

from regimes.jobs.support.console import RunOptions, duration
from regimes.jobs.support.guidance.experiment import PRESETS, PUBLISHED, GuidanceExperiment
from regimes.jobs.support.guidance.figures import distance_words, guidance_figures
from regimes.jobs.support.guidance.sweep import GuidancePlan
from regimes.jobs.support.result_folder import (
    CONFIG,
    REPORT,
    SCORES,
    TABLE,
    Drawn,
    ResultFolder,
    options,
    parquet_bytes,
)
from regimes.jobs.support.tensorboard import Events
from regimes.report import render
from regimes.report.guidance import GuidanceReport
from regimes.storage.artifacts import Recipe, Store, to_json
from regimes.storage.guidance import read_cell
from regimes.storage.judges import load_judge
from regimes.storage.networks import NetworkRecipe
from regimes.studies.guidance import (
    CellData,
    CellFinding,
    GuidanceStudy,
    study_guidance,
)
from regimes.studies.guidance_words import answer
from regimes.words import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidanceRecipe(Recipe):
    """What determines the results of a sweep."""

    kind: ClassVar[str] = "guidance"
    code_version: ClassVar[int] = 2

    experiment: GuidanceExperiment
    cells: tuple[str, ...]
    """Addresses of all cells, which rest on the images and the model."""


class GuidanceResults(ResultFolder):
    """``<output>/guidance/<name>/``."""

    def __init__(self, run: RunOptions, preset: str, plan: GuidancePlan) -> None:
        self.plan, self.preset = plan, preset
        addresses = tuple(recipe.address for recipe in plan.cells.values())
        recipe = GuidanceRecipe(experiment=plan.experiment, cells=addresses)
        name = run.name or default_name(preset, plan.experiment)
        super().__init__(run.output, "guidance", name, recipe, identity=("experiment", "cells"))

    def write(self, store: Store) -> None:
        """Compare, draw and report; the manifest comes last."""
        cells = {
            key: CellData(modes=c.modes, quality=c.quality, seconds=c.seconds, measures=c.measures)
            for key, c in ((key, read_cell(store, r)) for key, r in self.plan.cells.items())
        }
        probabilities = self.plan.probabilities
        study = study_guidance(
            cells,
            probabilities,
            mode_names=self.plan.mode_names,
            tolerance=self.plan.experiment.tolerance,
            law_is_set=self.plan.experiment.target == "clips",
        )
        self.write_files(self._files(store, study))

    def _files(self, store: Store, study: GuidanceStudy) -> Iterator[tuple[str, bytes]]:
        config = self.config()
        records = [record(study, f) for f in study.findings]
        about = self._about(store)
        yield CONFIG, config.encode()
        yield (
            SCORES,
            to_json({"answer": answer(study), "about": about, "cells": records}).encode(),
        )
        yield TABLE, parquet_bytes(pa.Table.from_pylist(records))
        drawn = Drawn(guidance_figures(store, self.plan, study))
        yield from drawn.files()
        yield from event_files(study)
        e = self.plan.experiment
        changed = options(PRESETS[self.preset], e)
        page = GuidanceReport(
            title=f"Particle guidance: {_name(e)}",
            answer=answer(study),
            figures=drawn.captioned,
            study=study,
            about=about,
            distance=distance_words(e),
            groups=e.groups,
            recipe=config,
            command=" ".join([f"python jobs/guidance.py --preset {self.preset}", *changed]),
            links=[(name, name) for name in (SCORES, TABLE, CONFIG)],
        )
        yield REPORT, render(page).encode()

    def _about(self, store: Store) -> list[str]:
        """What was sampled and how it is judged."""
        e, plan = self.plan.experiment, self.plan
        steps, guided = f"{e.sampler.num_steps} steps of {e.sampler.solver}", guided_words(plan)
        if e.target == "clips":
            return [*self._about_clips(steps), *guided]
        if plan.judge is None:
            return [f"The exact denoiser of target {e.target}, {steps}.", *guided]
        judge = load_judge(store, plan.judge)
        model = e.model or f"a network of width {e.width}, trained for {e.steps:,} steps here"
        return [
            f"Model: {model}; {steps}.",
            *guided,
            (
                f"Classes are told by a small classifier, right for {judge.accuracy:.1%} of held-out "
                f"images of {e.source}; of those {judge.accepted:.1%} are accepted, so that a model as "
                "good as the data reaches no more."
            ),
        ]

    def _about_clips(self, steps: str) -> list[str]:
        e, plan = self.plan.experiment, self.plan
        assert plan.decoded is not None
        assert plan.continued is not None
        training, seen = e.network_training, e.clips.window - 1
        digits = "built-in digits" if e.clips.digits == "digits" else e.clips.digits
        return [
            (
                f"Clips of {digits}, {e.clips.digit} pixels high on {e.clips.canvas}, motion "
                f"{e.clips.motion}; the model sees {counted(seen, 'frame')} and makes the next. "
                f"It learned from {len(plan.decoded.images):,} windows: {training.steps:,} steps of "
                f"{training.batch_size}, P_mean {training.p_mean:g}; {steps}."
            ),
            (
                f"Group g continues the g-th of {len(plan.continued.images)} clips of held-out digits, all "
                "just before a change of direction."
            ),
        ]

    def _legend(self) -> list[str]:
        """How the verdicts follow from the numbers of the table."""
        tolerance = self.plan.experiment.tolerance
        return [
            (
                "modes     per group, and the gain over the row without guidance with its interval (95% for "
                "all rows together): more modes if that lies above 0"
            ),
            f"distance  {distance_words(self.plan.experiment)}, and its change",
            (
                f"samples   worse if accepted ones surely drop by more than {tolerance.inliers:.0%} or the "
                f"distance surely grows by more than {tolerance.distance:.0%}; open if --groups are too few "
                "to tell"
            ),
            "tv        total variation between the shares of modes and those of the data",
        ]

    def print_summary(self) -> None:
        """The table and the answer, on the console."""
        scores = json.loads(self.read(SCORES))
        print()
        for row in scores["cells"]:
            print(_cell_line(row))
        print()
        print("\n".join(self._legend()))
        print()
        print("\n".join(scores["answer"]))
        print(f"\nreport    {self.location.child(REPORT).uri}")


def _cell_line(row: dict[str, Any]) -> str:
    """A cell on the console."""
    gain, distance = "", f"distance {row['distance']:.3f}"
    if row["factor"] != 0:
        gain = f"{row['gain']:+.2f} [{row['gain_low']:+.2f}, {row['gain_high']:+.2f}]"
        distance += f" ({row['distance_change']:+.3f})"
    return (
        f"factor {row['factor']:<6g} {row['kernel']:<8} {row['strength']:<9} "
        f"churn {row['s_churn']:<4g} B {row['group_size']:<3} "
        f"modes {row['distinct']:5.2f} {gain:<22} accepted {row['inliers']:6.1%}  "
        f"{distance:<24}  tv {row['total_variation']:.3f}  "
        f"{row['verdict']}"
    )


def guided_words(plan: GuidancePlan) -> list[str]:
    """How particles repel each other, one sentence each."""
    e, words = plan.experiment, list[str]()
    compared = "the noisy state" if e.space == "x" else "the estimates of the image"
    if plan.features is not None:
        compared = f"features of the estimates of the image, by {plan.features.name}"
    if e.kernels != (PUBLISHED,):
        words.append(
            f"Particles are compared by {compared}; bandwidth: {e.bandwidth}, times {e.bandwidth_scale:g}; "
            f"noise levels {e.lowest:g} to {e.highest:g}."
        )
    if PUBLISHED in e.kernels:
        words.append(
            "Kernel published is the whole method as the thesis published it, with its own bandwidth, noise "
            "levels and first noise, and its errors."
        )
    return words


def default_name(preset: str, experiment: GuidanceExperiment) -> str:
    """The preset, and a hash of what was changed."""
    if experiment == PRESETS[preset]:
        return preset
    return f"{preset}-{hashlib.sha256(to_json(experiment).encode()).hexdigest()[:8]}"


def record(study: GuidanceStudy, found: CellFinding) -> dict[str, Any]:
    """A row of the table as plain values."""
    key, scores = found.key, found.scores
    low, high = found.gain.interval(study.z)
    return {
        "factor": key.factor,
        "kernel": key.kernel,
        "strength": key.strength,
        "s_churn": key.s_churn,
        "group_size": key.group_size,
        "distinct": scores.distinct.value,
        "distinct_error": scores.distinct.error,
        "independent": scores.independent[0],
        "independent_sd": scores.independent[1],
        "gain": found.gain.value,
        "gain_low": low,
        "gain_high": high,
        "inliers": scores.inliers.value,
        "inliers_error": scores.inliers.error,
        "inlier_change": found.inlier_change.value,
        "distance": scores.quality.value,
        "distance_error": scores.quality.error,
        "distance_change": found.distance_change.value,
        "total_variation": scores.total_variation,
        "total_variation_null": scores.total_variation_null,
        "marginal": [float(q) for q in scores.marginal],
        "marginal_error": [float(q) for q in scores.marginal_errors],
        **{name: mean.value for name, mean in found.measures.items()},
        "seconds_ratio": found.seconds_ratio,
        "verdict": found.verdict,
    }


def event_files(study: GuidanceStudy) -> Iterator[tuple[str, bytes]]:
    """TensorBoard: one run per row of the sweep, scores by the number of the factor, 0 the baseline."""
    lines = dict.fromkeys((f.key.row, f.key.s_churn) for f in study.guided)
    for row, churn in lines:
        events = Events(f"{row[0]}-{row[1]}-B{row[2]}-churn{churn:g}")
        own = [f for f in study.guided if f.key.row == row and f.key.s_churn == churn]
        for step, found in enumerate([study.baseline(own[0].key), *own]):
            scalars = ("factor", "distinct", "inliers", "distance", "total_variation")
            for name in (*scalars, *found.measures):
                value = record(study, found)[name]
                events.add(summary.scalar(f"guidance/{name}", value), step)
        yield events.name, events.data


def _name(e: GuidanceExperiment) -> str:
    return {"images": e.source, "clips": f"clips, {e.clips.motion}"}.get(e.target, e.target)


def print_plan(plan: GuidancePlan, store: Store, results: GuidanceResults) -> None:
    """What would be computed."""
    e = plan.experiment
    missing = store.missing(plan.cells.values())
    print(f"results   {results.location.uri}")
    if plan.model is not None:
        state = "complete" if not store.missing([plan.model]) else "to be made"
        width, steps = e.width, e.steps
        if isinstance(plan.model, NetworkRecipe):
            width, steps = plan.model.width, plan.model.training.steps
        print(f"model     {e.model or f'width {width}, {steps} steps'}, {state}")
    samples = sum(len(r.seeds) for r in missing)
    calls = sum(len(r.seeds) * r.sampler.num_evaluations for r in missing)
    print(f"cells     {len(plan.cells)}, {len(missing)} missing: {counted(samples, 'sample')}")
    print(
        f"cost      {counted(calls, 'evaluation')} of the denoiser, each of one image; training, judging and "
        "report not counted"
    )


def seconds_words(store: Store, plan: GuidancePlan) -> str:
    """Time that all cells took on one device."""
    return duration(sum(read_cell(store, r).seconds for r in plan.cells.values()))
