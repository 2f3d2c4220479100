"""The figures of a guidance sweep: the answer first, then what it costs, then samples to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from regimes.figures import guidance as figures
from regimes.figures.embedding import embedding
from regimes.guidance.directions import movements
from regimes.guidance.embedding import place
from regimes.images.pixels import to_float, to_uint8
from regimes.jobs.support.guidance.experiment import GuidanceExperiment
from regimes.jobs.support.guidance.sweep import GuidancePlan
from regimes.scores.modes import REJECTED
from regimes.storage.artifacts import Store
from regimes.storage.guidance import GuidedRecipe, read_cell, sample_cell
from regimes.storage.guided_targets import ClipTarget
from regimes.storage.maps import FittedMap, MapRecipe, obtain_map
from regimes.studies.guidance import CellFinding, CellKey, GuidanceStudy, baseline_key
from regimes.studies.guidance_words import title

_SHOWN_GROUPS = 2
_MAPPED = 1000  # samples of a cell on the map
_ELSEWHERE = "elsewhere"


def distance_words(e: GuidanceExperiment) -> str:
    """What the distance from the data is."""
    if e.target == "clips":
        return "distance of pixels in [0, 1] to the exact next frame in the sample's direction"
    if e.target == "images":
        return "root-mean-square distance of pixels in [-1, 1] to the nearest training image"
    return "mean distance to the centre of the nearest mode"


def guidance_figures(
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
    yield from _maps(plan, study)
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


def _maps(plan: GuidancePlan, study: GuidanceStudy) -> Iterator[tuple[str, str, Figure]]:
    """All cells at a glance, by diversity and by both measures of quality."""
    modes = max(study.findings, key=lambda f: f.scores.distinct.value)
    least = min(study.findings, key=lambda f: f.scores.inliers.value)
    farthest = max(study.findings, key=lambda f: f.scores.quality.value)
    yield (
        "modes",
        "Distinct modes per group in every cell, rejected samples left out.",
        figures.heatmaps(
            study,
            lambda f: f.scores.distinct.value,
            title=f"Most modes, {modes.scores.distinct.value:.2f} of {len(study.probabilities)}: "
            f"{modes.key.label}",
            unit="distinct modes per group",
        ),
    )
    yield (
        "accepted",
        "Share of accepted samples in every cell.",
        figures.heatmaps(
            study,
            lambda f: 100 * f.scores.inliers.value,
            title=f"Fewest accepted samples, {least.scores.inliers.value:.1%}: {least.key.label}",
            unit="accepted samples (%)",
            digits=1,
        ),
    )
    yield (
        "distance",
        f"Quality in every cell: {distance_words(plan.experiment)}.",
        figures.heatmaps(
            study,
            lambda f: f.scores.quality.value,
            title=f"Farthest from the data, {farthest.scores.quality.value:.3f}: {farthest.key.label}",
            unit="distance from the data (lower is better)",
            digits=3,
            lower_is_better=True,
        ),
    )


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

        last = sample_cell(store, recipe, groups=range(1), on_step=on_step)
        points.append(last.flatten(1).numpy())
        plane = (np.stack(points).clip(-limit, limit) - origin) @ axes.T
        paths.append(figures.Paths(name=name, points=plane))
    cell = read_cell(store, plan.cells[shown.key])
    ends = cell.samples.reshape(-1, len(origin)).clip(-limit, limit)
    own = plan.experiment.target == "clips"
    if own:  # samples of other groups continue other clips
        ends = ends[:0]
    what = "states" if is_ring else "estimates D(x)"
    labels = ("x", "y") if is_ring else ("first principal axis of the data", "second")
    over = "real data (gray); blue: all samples of the guided cell"
    if own:
        over = "the exact next frames (gray)"
    caption = (
        f"Paths of the {what} of one group from the same latents, over {over}. The plane was fitted once, "
        "to the gray points."
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
    labels, what = [str(k) for k in fitted.labels], "their classes"
    if isinstance(plan.target, ClipTarget):
        labels, what = _went(plan, plan.target, fitted), "where they went since the frame before"
    caption = (
        f"t-SNE of {len(fitted.vectors)} real images (in colour: {what}), fitted once and kept; at most "
        f"{_MAPPED} samples of each cell are placed at the mean of their five nearest real images, by "
        "inverse distance of pixels."
    )
    title = "Samples on a map of real images"
    return caption, embedding(fitted.places, labels, panels, title=title)


def _went(plan: GuidancePlan, target: ClipTarget, fitted: FittedMap) -> list[str]:
    """Direction of every real frame since the one before; elsewhere of those that did not move so."""
    frames = to_float(fitted.images).double().numpy()
    modes = movements(frames[:, -1], frames[:, -2], target.displacements).modes
    return [_ELSEWHERE if m == REJECTED else plan.mode_names[m] for m in modes]


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
