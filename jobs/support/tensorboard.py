"""TensorBoard event files of a memorization study: the browser of the sweep.

One run per cell (``w128-n16-A``): its training loss by step, a grid of its samples, and its scores
as hyperparameter metrics, so that the HPARAMS tab is a sortable table of all cells. One run per
width and half (``curve-w128-A``): every score with n as the step, which is the study's curve.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from regimes.images.pixels import Images
from regimes.jobs.support.memorization.grid import MemorizationGrid
from regimes.storage.artifacts import Store
from regimes.storage.denoisers import TrainedRecipe, read_training_curve
from regimes.storage.images import read_images
from regimes.studies.memorization import Cell, Row

GRID_SIDE = 8


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


class Events:
    """An event file in memory. Equal events give equal bytes: no clock, no host name."""

    def __init__(self, label: str) -> None:
        self.name = f"tensorboard/{label}/events.out.tfevents.0.{label}"
        self._records = [self._record(Event(wall_time=0.0, file_version="brain.Event:2"))]

    @staticmethod
    def _record(event: Any) -> bytes:
        """Length, its checksum, the event, its checksum: the TFRecord format."""
        data = event.SerializeToString(deterministic=True)
        length = struct.pack("<Q", len(data))
        crc = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
        return length + crc[0] + data + crc[1]

    def add(self, value: Any, step: int = 0) -> None:
        """Append a summary."""
        self._records.append(self._record(Event(wall_time=0.0, step=step, summary=value)))

    @property
    def data(self) -> bytes:
        """The file."""
        return b"".join(self._records)


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
