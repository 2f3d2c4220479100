"""The gallery of an audit: generated images above their nearest training images, most similar first.

A copy is framed, and the rules that mark it stand under it. Images keep their shape; small ones are
enlarged without smoothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from regimes.figures.sheets import draw_image
from regimes.figures.style import MARK, REFERENCE, Margins, canvas, styled
from regimes.images.pixels import Images

COLUMNS = 8
_MARGIN, _NOTE, _NAMES = 0.14, 0.28, 0.95  # inches: border, line of the note, names of the rows
_SIDE, _GAP, _BETWEEN = 0.86, 0.22, 0.03  # inches: image, between pairs, inside a pair
_LINE, _BREAK = 0.17, 0.16  # inches: a line of text under a pair, between rows
_LINES = 3
_LONGEST_RULE = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryPair:
    """A generated image and the training image nearest to it."""

    rank: int
    """1 is the most similar."""
    generated: Images
    """(H, W, C) uint8, C = 1 or 3."""
    train: Images
    """(H', W', C') uint8."""
    generated_id: str
    train_id: str
    similarity: float
    rules: tuple[str, ...]
    """What marks it as a copy, strongest first."""
    is_copy: bool
    """Whether the audit counts it."""


@styled
def gallery_sheet(
    pairs: Sequence[GalleryPair], title: str, note: str, *, columns: int = COLUMNS
) -> Figure:
    """Pairs in rows, in the order given.

    Args:
        pairs: at least one.
        title: what the sheet shows.
        note: what a frame means.
        columns: pairs per row.

    Raises:
        ValueError: if there is no pair.
    """
    if not pairs:
        raise ValueError("pairs: expected at least one, got none")
    rows = [pairs[i : i + columns] for i in range(0, len(pairs), columns)]
    step = 2 * _SIDE + _BETWEEN + _LINES * _LINE + _BREAK
    width = _MARGIN + _NAMES + min(columns, len(pairs)) * (_SIDE + _GAP)
    size = (max(width, 5.8), _NOTE + len(rows) * step)
    figure, axes = canvas(title, size, Margins(left=0, right=0, bottom=0, top=0))
    axes.set_axis_off()
    axes.text(_MARGIN, _NOTE / 2, note, va="center", fontsize=9.5, color=MARK)
    for number, row in enumerate(rows):
        top = _NOTE + number * step
        _names(axes, top)
        for column, pair in enumerate(row):
            _pair(axes, pair, _MARGIN + _NAMES + column * (_SIDE + _GAP), top)
    # Inches from the top left; set last, because drawing an image moves the limits.
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0), aspect="auto")
    return figure


def _names(axes: Axes, top: float) -> None:
    lower = top + _SIDE + _BETWEEN
    for name, y in (("generated", top), ("nearest\ntraining\nimage", lower)):
        axes.text(_MARGIN, y + _SIDE / 2, name, va="center", fontsize=9.5)


def _pair(axes: Axes, pair: GalleryPair, x: float, top: float) -> None:
    lower = top + _SIDE + _BETWEEN
    for image, y in ((pair.generated, top), (pair.train, lower)):
        _draw(axes, image, x, y)
    if pair.is_copy:
        pad = 0.035
        box = (_SIDE + 2 * pad, 2 * _SIDE + _BETWEEN + 2 * pad)
        frame = Rectangle((x - pad, top - pad), *box, fill=False, edgecolor=MARK, linewidth=1.8)
        axes.add_patch(frame)
    color, weight = (MARK, "bold") if pair.is_copy else ("#444444", "normal")
    middle, below = x + _SIDE / 2, lower + _SIDE + 0.04
    centred: dict[str, Any] = {"ha": "center", "va": "center"}
    axes.text(
        middle,
        below + _LINE / 2,
        f"{pair.similarity:.3f}",
        fontsize=10,
        color=color,
        weight=weight,
        **centred,
    )
    for line, rule in enumerate(_two_lines(pair.rules), start=1):
        y = below + (line + 0.5) * _LINE
        axes.text(middle, y, rule, fontsize=8, color=color, **centred)
    if not pair.rules:
        axes.text(middle, below + 1.5 * _LINE, "no copy", fontsize=8, color=REFERENCE, **centred)


def _two_lines(rules: Sequence[str]) -> list[str]:
    """The rules in at most two lines; what does not fit is counted."""
    lines: list[str] = []
    for number, rule in enumerate(rules):
        joined = f"{lines[-1]}, {rule}" if lines else rule
        if lines and len(joined) <= _LONGEST_RULE:
            lines[-1] = joined
        elif len(lines) < 2:
            lines.append(rule)
        else:
            lines[-1] += f" +{len(rules) - number}"
            break
    return lines


def _draw(axes: Axes, image: Images, x: float, y: float) -> None:
    """One image in its square cell, its shape kept."""
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    w, h = width * scale, height * scale
    left, top = x + (_SIDE - w) / 2, y + (_SIDE - h) / 2
    draw_image(axes, image, (left, left + w, top + h, top))
