"""TensorBoard event files of a memorization study: the browser of the sweep.

One run per cell (``w128-n16-A``): its training loss by step, a grid of its samples, and its scores
as hyperparameter metrics, so that the HPARAMS tab is a sortable table of all cells. One run per
width and half (``curve-w128-A``): every score with n as the step, which is the study's curve.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from regimes.images.pixels import Images
from regimes.jobs.support.grid import MemorizationGrid
from regimes.storage.artifacts import Store
from regimes.storage.images import read_images
from regimes.storage.models import ModelRecipe, read_curve
from regimes.studies.memorization import Cell, Row

GRID_SIDE = 8


def event_files(
    store: Store, grid: MemorizationGrid, rows: Sequence[Row]
) -> Iterator[tuple[str, bytes]]:
    """Names (below the result folder) and contents of all event files."""
    for cell, recipe in grid.models.items():
        with _run(recipe.label) as run:
            _write_cell(run.writer, store, grid, recipe, _scores_of(rows, cell))
        yield run.name, run.data
    for width in grid.experiment.widths:
        for half in ("A", "B"):
            with _run(f"curve-w{width}-{half}") as run:
                _write_curve(run.writer, rows, width, half)
            yield run.name, run.data


class _run:
    """An event file in a temporary folder; ``data`` is its content afterwards."""

    def __init__(self, label: str) -> None:
        # TensorBoard looks for "tfevents"; the usual name would carry time and host name.
        self.name = f"tensorboard/{label}/events.out.tfevents.0.{label}"
        self._folder = tempfile.TemporaryDirectory(prefix="regimes-tensorboard-")
        self.writer = SummaryWriter(self._folder.name)
        self.data = b""

    def __enter__(self) -> _run:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()
        (path,) = Path(self._folder.name).glob("*tfevents*")
        self.data = path.read_bytes()
        self._folder.cleanup()


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
    writer: SummaryWriter,
    store: Store,
    grid: MemorizationGrid,
    recipe: ModelRecipe,
    scores: dict[str, float],
) -> None:
    for step, loss in zip(*read_curve(store, recipe), strict=True):
        writer.add_scalar("train/loss", float(loss), int(step), walltime=0.0)
    _, images = read_images(store, grid.samples(recipe))
    writer.add_image("samples", tile(images), 0, walltime=0.0, dataformats="HWC")
    about = {"n": recipe.train.size, "width": recipe.width, "half": recipe.train.half}
    for summary in hparams(about, {f"score/{name}": value for name, value in scores.items()}):
        writer.file_writer.add_summary(summary, walltime=0.0)
    for name, value in scores.items():
        writer.add_scalar(f"score/{name}", value, 0, walltime=0.0)


def _write_curve(writer: SummaryWriter, rows: Sequence[Row], width: int, half: str) -> None:
    for row in sorted(rows, key=lambda r: r.n):
        of_cell = width in (row.width, row.width_other) and half in (row.half, row.half_other)
        if of_cell and math.isfinite(row.score.value):
            writer.add_scalar(f"curve/{row.score.name}", row.score.value, row.n, walltime=0.0)


def tile(images: Images, *, zoom: int = 4, side: int = GRID_SIDE) -> Images:
    """The first side^2 images as one (H', W', C) picture, enlarged without smoothing."""
    count = min(len(images), side * side)
    _, height, width, channels = images.shape
    sheet = np.full((side * side, height + 1, width + 1, channels), 255, np.uint8)
    sheet[:count, :height, :width] = images[:count]
    rows = sheet.reshape(side, side, height + 1, width + 1, channels)
    picture = rows.transpose(0, 2, 1, 3, 4).reshape(
        side * (height + 1), side * (width + 1), channels
    )
    return picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
