"""TensorBoard event files of a memorization study: the browser of the sweep.

One run per cell (``w128-n16-A``): its training loss by step, a grid of its samples, and its scores
as hyperparameter metrics, so that the HPARAMS tab is a sortable table of all cells. One run per
width and half (``curve-w128-A``): every score with n as the step, which is the study's curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from tensorboardX import summary

from regimes.jobs.support.memorization.grid import MemorizationGrid
from regimes.jobs.support.tensorboard import Events, tile
from regimes.storage.artifacts import Store
from regimes.storage.denoisers import TrainedRecipe, read_training_curve
from regimes.storage.images import read_images
from regimes.studies.memorization import Cell, Row


def event_files(
    store: Store, grid: MemorizationGrid, rows: Sequence[Row]
) -> Iterator[tuple[str, bytes]]:
    """Names (below the result folder) and contents of all event files."""
    for cell, recipe in grid.models.items():
        events = Events(recipe.label)
        _write_cell(events, store, grid, recipe, _scores_of(rows, cell))
        yield events.name, events.data
    for width in grid.experiment.widths:
        for half in grid.halves:
            events = Events(f"curve-w{width}-{half}")
            _write_curve(events, rows, width, half)
            yield events.name, events.data


def _scores_of(rows: Sequence[Row], cell: Cell) -> dict[str, float]:
    """Scores of one cell, and those of the pairs that it is part of."""
    width, n, half = cell
    return {
        row.score.name: row.score.value
        for row in rows
        if row.n == n
        and width in (row.width, row.width_other)
        and half in (row.half, row.half_other)
    }


def _write_cell(
    events: Events,
    store: Store,
    grid: MemorizationGrid,
    recipe: TrainedRecipe,
    scores: dict[str, float],
) -> None:
    for step, loss in zip(*read_training_curve(store, recipe), strict=True):
        events.add(summary.scalar("train/loss", float(loss)), int(step))
    _, images = read_images(store, grid.samples(recipe))
    events.add(summary.image("samples", tile(images), dataformats="HWC"))
    about = {"n": recipe.train.size, "width": recipe.width, "half": recipe.train.half}
    for part in summary.hparams(about, {f"score/{name}": v for name, v in scores.items()}):
        events.add(part)
    for name, value in scores.items():
        events.add(summary.scalar(f"score/{name}", value))


def _write_curve(events: Events, rows: Sequence[Row], width: int, half: str) -> None:
    for row in sorted(rows, key=lambda r: r.n):
        of_cell = width in (row.width, row.width_other) and half in (row.half, row.half_other)
        if of_cell and math.isfinite(row.score.value):
            events.add(summary.scalar(f"curve/{row.score.name}", row.score.value), row.n)
