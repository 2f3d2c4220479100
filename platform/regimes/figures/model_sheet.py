"""What many models make of the same noise: a row per model, a column per seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from regimes.figures import findings
from regimes.figures.sheets import draw_image
from regimes.figures.style import DPI, MARK, REFERENCE, Margins, canvas, short, styled, text_inches
from regimes.images.pixels import Images

_MARGIN, _GAP, _NOTE, _SEEDS, _TEXT, _BREAK = 0.12, 0.12, 0.26, 0.24, 0.22, 0.06  # inches
_LONGEST_ID = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """The samples of one model.

    Args:
        name: of the model.
        images: (K, H, W, C) uint8, the same seeds in every row.
        similarity: (K,) to the images of the first row; None for that row itself.

    Raises:
        ValueError: if there is not one similarity per image.
    """

    name: str
    images: Images
    similarity: npt.NDArray[np.float64] | None

    def __post_init__(self) -> None:
        """Check that every image has its number."""
        if self.similarity is not None and len(self.similarity) != len(self.images):
            raise ValueError(
                f"{self.name}: expected one similarity per image, got {len(self.similarity)} for "
                f"{len(self.images)}"
            )


@styled
def model_sheet(rows: Sequence[ModelRow], ids: Sequence[object], *, threshold: float) -> Figure:
    """Samples of k models for the same seeds, the similarity to the first model under each.

    Args:
        rows: two or more, with images of equal shape.
        ids: K seeds or names.
        threshold: similarity above which an image counts as the first model's; it is framed.

    Raises:
        ValueError: if rows differ in shape or there is one alone.
    """
    shapes = {row.images.shape for row in rows}
    if len(rows) < 2 or len(shapes) != 1 or len(rows[0].images) != len(ids) or len(ids) == 0:
        raise ValueError(
            f"expected two rows or more with images (K, H, W, C) of {len(ids)} ids, "
            f"got {sorted(shapes)}"
        )
    h, w = rows[0].images.shape[1:3]
    width = min(max(0.6, w / DPI), 1.6)
    height = width * h / w
    left = _MARGIN + max(text_inches(short(r.name), size=9.5) for r in rows) + 0.15
    step = height + _TEXT + _BREAK
    total = (left + len(ids) * (width + _GAP), _NOTE + _SEEDS + len(rows) * step)
    size = (max(total[0], 5.2), total[1])
    title = findings.same_noise(
        [r.similarity for r in rows[1:] if r.similarity is not None], threshold
    )
    figure, axes = canvas(title, size, Margins(left=0, right=0, bottom=0, top=0))
    axes.set_axis_off()
    note = f"framed: similarity to {short(rows[0].name)} above {threshold:g}"
    axes.text(_MARGIN, _NOTE / 2, note, va="center", fontsize=9.5, color=MARK)
    places = [left + column * (width + _GAP) for column in range(len(ids))]
    _id_names(axes, ids, places, width)
    for number, row in enumerate(rows):
        _row(axes, row, places, _NOTE + _SEEDS + number * step, (width, height), threshold)
    # Inches from the top left; set last, because drawing an image moves the limits.
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0), aspect="auto")
    return figure


def _id_names(axes: Axes, ids: Sequence[object], places: Sequence[float], width: float) -> None:
    y = _NOTE + _SEEDS / 2
    axes.text(_MARGIN, y, "seed", va="center", fontsize=9.5, color=REFERENCE)
    longest = max(len(str(i)) for i in ids)
    size = 9.5 if longest <= 6 else 7.0
    for name, x in zip(ids, places):
        text = short(str(name), _LONGEST_ID)
        axes.text(x + width / 2, y, text, ha="center", va="center", fontsize=size, color=REFERENCE)


def _row(
    axes: Axes,
    row: ModelRow,
    places: Sequence[float],
    top: float,
    cell: tuple[float, float],
    threshold: float,
) -> None:
    """A model's images; a frame and bold print where they are those of the first row."""
    width, height = cell
    axes.text(_MARGIN, top + height / 2, short(row.name), va="center", fontsize=9.5)
    for column, x in enumerate(places):
        draw_image(axes, row.images[column], (x, x + width, top + height, top))
        if row.similarity is None:
            continue
        similarity = float(row.similarity[column])
        alike = similarity > threshold
        if alike:
            pad = 0.03
            box = (width + 2 * pad, height + 2 * pad)
            axes.add_patch(
                Rectangle((x - pad, top - pad), *box, fill=False, edgecolor=MARK, linewidth=1.8)
            )
        axes.text(
            x + width / 2,
            top + height + _TEXT / 2 + 0.02,
            f"{similarity:.2f}",
            ha="center",
            va="center",
            fontsize=9,
            color=MARK if alike else "#444444",
            weight="bold" if alike else "normal",
        )
