"""The results of a guidance sweep: files for people, and for other programs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from matplotlib.figure import Figure
from tensorboardX import summary

from regimes.figures import guidance as figures
from regimes.figures.embedding import embedding
from regimes.guidance.embedding import place
from regimes.images.pixels import to_uint8
from regimes.jobs.support.console import RunOptions, duration
from regimes.jobs.support.guidance import GuidancePlan
from regimes.jobs.support.guidance_experiment import PRESETS, GuidanceExperiment
from regimes.jobs.support.result_folder import (
    CONFIG,
    REPORT,
    SCORES,
    TABLE,
    Drawn,
    ResultFolder,
    options,
)
from regimes.jobs.support.tensorboard import Events
from regimes.report import render
from regimes.report.guidance import GuidanceReport
from regimes.scores.modes import REJECTED
from regimes.storage.artifacts import Recipe, Store, to_json
from regimes.storage.guidance import GuidedRecipe, read_cell, sample_cell
from regimes.storage.judges import load_judge
from regimes.storage.maps import MapRecipe, obtain_map
from regimes.studies.guidance import (
    CellData,
    CellFinding,
    CellKey,
    GuidanceStudy,
    baseline_key,
    study_guidance,
)
from regimes.studies.guidance_words import answer, title

_SHOWN_GROUPS = 2
_MAPPED = 1000  # samples of a cell on the map


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidanceRecipe(Recipe):
    """What determines the results of a sweep."""

    kind: ClassVar[str] = "guidance"
    code_version: ClassVar[int] = 1

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
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(records), sink)
        yield TABLE, bytes(sink.getvalue())
        drawn = Drawn(_figures(store, self.plan, study))
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
            distance=_distance_words(e),
            groups=e.groups,
            recipe=config,
            command=" ".join([f"python jobs/guidance.py --preset {self.preset}", *changed]),
            links=[(name, name) for name in (SCORES, TABLE, CONFIG)],
        )
        yield REPORT, render(page).encode()

    def _about(self, store: Store) -> list[str]:
        """What was sampled and how it is judged."""
        e, plan = self.plan.experiment, self.plan
        steps = f"{e.sampler.num_steps} steps of {e.sampler.solver}"
        compared = "the noisy state" if e.space == "x" else "the estimates of the image"
        guided = (
            f"Particles are compared by {compared}; bandwidth: {e.bandwidth}, times {e.bandwidth_scale:g}; "
            f"noise levels {e.lowest:g} to {e.highest:g}."
        )
        if e.target == "clips":
            return [*self._about_clips(steps), guided]
        if plan.judge is None:
            return [f"The exact denoiser of target {e.target}, {steps}.", guided]
        judge = load_judge(store, plan.judge)
        model = e.model or f"a network of width {e.width}, trained for {e.steps:,} steps here"
        return [
            f"Model: {model}; {steps}.",
            guided,
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
                f"{e.clips.motion}; the model sees {seen} frame{'s' if seen > 1 else ''} and makes the next. "
                f"It learned from {len(plan.decoded.images):,} windows: {training.steps:,} steps of "
                f"{training.batch_size}, P_mean {training.p_mean:g}; {steps}."
            ),
            (
                f"Group g continues the g-th of {len(plan.continued.images)} clips of held-out digits, all "
                "just before a change of direction."
            ),
        ]

    def print_summary(self) -> None:
        """The table and the answer, on the console."""
        scores = json.loads(self.read(SCORES))
        print()
        for row in scores["cells"]:
            gain = "" if row["factor"] == 0 else f"{row['gain']:+.2f}"
            print(
                f"factor {row['factor']:<6g} {row['kernel']:<8} {row['strength']:<9} "
                f"churn {row['s_churn']:<4g} B {row['group_size']:<3} "
                f"modes {row['distinct']:5.2f} {gain:>6}  "
                f"accepted {row['inliers']:6.1%}  tv {row['total_variation']:.3f}  {row['verdict']}"
            )
        print()
        print("\n".join(scores["answer"]))
        print(f"\nreport    {self.location.uri}/{REPORT}")


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


def _distance_words(e: GuidanceExperiment) -> str:
    if e.target == "clips":
        return "distance of pixels in [0, 1] to the exact next frame in the sample's direction"
    if e.target == "images":
        return "root-mean-square distance of pixels in [-1, 1] to the nearest training image"
    return "mean distance to the centre of the nearest mode"


def _figures(
    store: Store, plan: GuidancePlan, study: GuidanceStudy
) -> Iterator[tuple[str, str, Figure]]:
    """(file name, one-line caption, figure), the answer first."""
    prices: tuple[figures.Price, ...] = ("accepted", "distance")
    # Samples of exact targets are nearly all accepted: their distance tells more.
    for by in prices if plan.experiment.target == "images" else prices[::-1]:
        yield (
            f"pareto-{by}",
            f"Diversity against quality ({by}), a line per row of the sweep, with 95% intervals.",
            figures.pareto(study, title=title(study), by=by),
        )
    yield (
        "modes",
        "Distinct modes per group in every cell, rejected samples left out.",
        figures.heatmaps(
            study,
            lambda f: f.scores.distinct.value,
            title=f"Distinct modes of {len(study.probabilities)}",
            unit="distinct modes per group",
        ),
    )
    yield (
        "accepted",
        "Share of accepted samples in every cell.",
        figures.heatmaps(
            study,
            lambda f: 100 * f.scores.inliers.value,
            title="Samples that are accepted",
            unit="% of samples",
            digits=1,
        ),
    )
    yield (
        "distance",
        f"Quality in every cell: {_distance_words(plan.experiment)}.",
        figures.heatmaps(
            study,
            lambda f: f.scores.quality.value,
            title="Distance from the data (lower is better)",
            unit="distance",
            digits=3,
        ),
    )
    shown = study.best or study.largest
    if shown is None:
        return
    yield (
        "marginal",
        f"Shares of modes without guidance and with {shown.key.label}.",
        figures.marginals(study, shown, title=_marginal_title(study, shown)),
    )
    yield ("paths", *_paths(store, plan, shown))
    if plan.experiment.target != "ring":
        yield ("samples", *_sheet(store, plan, shown))
    if plan.map is not None:
        yield ("embedding", *_embedding(store, plan, plan.map, shown))


def _marginal_title(study: GuidanceStudy, shown: CellFinding) -> str:
    before = study.baseline(shown.key).scores.total_variation
    return (
        f"Total variation from the data: {shown.scores.total_variation:.3f} guided, "
        f"{before:.3f} without"
    )


def _pair(plan: GuidancePlan, key: CellKey) -> Sequence[tuple[str, GuidedRecipe]]:
    base = baseline_key(key)
    return [("without guidance", plan.cells[base]), (key.label, plan.cells[key])]


def _paths(store: Store, plan: GuidancePlan, shown: CellFinding) -> tuple[str, Figure]:
    """One group on its way, without guidance and with it, from the same latents."""
    origin, axes, real = plan.plane()
    is_ring = plan.experiment.target == "ring"
    limit = np.inf if is_ring else 1.0  # images are judged within their range
    paths = []
    for name, recipe in _pair(plan, shown.key):
        points: list[np.ndarray] = []

        def on_step(
            sigma: float, x: torch.Tensor, D: torch.Tensor, points: list[np.ndarray] = points
        ) -> None:
            points.append((x if is_ring else D).flatten(1).double().numpy())

        last = sample_cell(store, recipe, groups=1, on_step=on_step)
        points.append(last.flatten(1).numpy())
        plane = (np.stack(points).clip(-limit, limit) - origin) @ axes.T
        paths.append(figures.Paths(name=name, points=plane))
    cell = read_cell(store, plan.cells[shown.key])
    ends = cell.samples.reshape(-1, len(origin)).clip(-limit, limit)
    own = plan.experiment.target == "clips"
    if own:  # samples of other groups continue other clips
        ends = ends[: shown.key.group_size]
    what = "states" if is_ring else "estimates D(x)"
    labels = ("x", "y") if is_ring else ("first principal axis of the data", "second")
    over, blue = ("real data", "all samples of the guided cell")
    if own:
        over, blue = ("the exact next frames", "where the guided ones end")
    caption = (
        f"Paths of the {what} of one group from the same latents, over {over} (gray); blue: {blue}. "
        "The plane was fitted once, to the gray points."
    )
    return caption, figures.trajectories(
        real,
        (ends - origin) @ axes.T,
        paths,
        title="Where the particles of a group go",
        labels=labels,
    )


def _embedding(
    store: Store, plan: GuidancePlan, recipe: MapRecipe, shown: CellFinding
) -> tuple[str, Figure]:
    """Samples of both cells on one map of real images."""
    fitted, panels = obtain_map(store, recipe), []
    for name, cell_recipe in _pair(plan, shown.key):
        cell = read_cell(store, cell_recipe)
        vectors = cell.samples.clip(-1, 1).reshape(-1, fitted.vectors.shape[1])[:_MAPPED]
        accepted = cell.modes.ravel()[:_MAPPED] != REJECTED
        panels.append((name, place(vectors, fitted.vectors, fitted.places), accepted))
    caption = (
        f"t-SNE of {len(fitted.vectors)} real images (numbers: digits), fitted once and kept; at most "
        f"{_MAPPED} samples of each cell are placed at the mean of their five nearest real images, by "
        "inverse distance of pixels."
    )
    return caption, embedding(
        fitted.places, fitted.labels, panels, title="Samples on a map of real images"
    )


def _sheet(store: Store, plan: GuidancePlan, shown: CellFinding) -> tuple[str, Figure]:
    """The first groups, without guidance and with it."""
    rows = []
    for name, recipe in _pair(plan, shown.key):
        cell = read_cell(store, recipe)
        images = to_uint8(torch.from_numpy(cell.samples))
        size = recipe.guidance.group_size
        for group in range(min(_SHOWN_GROUPS, recipe.groups)):
            part = slice(group * size, (group + 1) * size)
            accepted = (cell.modes[group] != REJECTED).tolist()
            shown_images = list(images[part])
            if plan.continued is not None:
                last = plan.continued.images[group % len(plan.continued.images)][..., -2:-1]
                shown_images, accepted = [last, *shown_images], [True, *accepted]
            rows.append((f"group {group + 1}, {name}", shown_images, accepted))
    caption = "The first groups of samples from the same latents; rejected samples are framed."
    if plan.continued is not None:
        caption += " The first image of a row is the last frame that the model saw."
    return caption, figures.groups_sheet(rows, title="Groups without guidance and with it")


def print_plan(plan: GuidancePlan, store: Store, results: GuidanceResults) -> None:
    """What would be computed."""
    e = plan.experiment
    missing = store.missing(plan.cells.values())
    print(f"results   {results.location.uri}")
    if plan.model is not None:
        state = "complete" if not store.missing([plan.model]) else "to be made"
        print(f"model     {e.model or f'width {e.width}, {e.steps} steps'}, {state}")
    samples = sum(len(r.seeds) for r in missing)
    calls = sum(len(r.seeds) * r.sampler.num_evaluations for r in missing)
    print(f"cells     {len(plan.cells)}, {len(missing)} missing: {samples:,} samples")
    print(f"cost      {calls:,} evaluations of the denoiser, each of one image")


def seconds_words(store: Store, plan: GuidancePlan) -> str:
    """Time that all cells took on one device."""
    return duration(sum(read_cell(store, r).seconds for r in plan.cells.values()))
