"""Curves over the training-set size n: copies, reproducibility, fidelity.

Every curve pools the two halves of the data; its 95% interval is a band. Lines are labelled at
their right end, where they can be read without a legend that would cover data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.optimize import isotonic_regression

from regimes.figures import findings
from regimes.figures.style import (
    FAINT,
    INK,
    LINES,
    REFERENCE,
    Margins,
    canvas,
    log2_axis,
    styled,
    upright_ticks,
    width_colors,
)
from regimes.scores.result import Score
from regimes.studies.memorization import Row, pooled

Series = list[tuple[int, Score]]
"""(n, score) in the order of n"""
_HALF_MARKERS = {"A": "^", "B": "v"}
_WIDTH, _KEY_ROW = 6.3, 0.25  # inches: of the figure, height of a row of the key
_KEYS_PER_ROW = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Label:
    """Words to stand right of the axes, beside the end of a line."""

    text: str
    n: int
    value: float
    color: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plot:
    """A figure in the making; labels are placed last, when all are known."""

    figure: Figure
    axes: Axes
    shade: float
    """Opacity of bands: lighter where there are many."""
    labels: list[_Label] = field(default_factory=list)


@styled
def copies(rows: Sequence[Row], sizes: Sequence[int], widths: Sequence[int]) -> Figure:
    """GL score against n, one line per width, beside that of real held-out images.

    Args:
        rows: the study's table; uses gl and gl_heldout.
        sizes: training-set sizes.
        widths: model widths.
    """
    halves = sorted({r.half for r in rows if r.score.name == "gl" and r.half in _HALF_MARKERS})
    key = [_marker_key(f"half {half}", _HALF_MARKERS[str(half)]) for half in halves]
    key = key if len(halves) == 2 else []
    title = findings.copying(rows, sizes, widths)
    plot = _open(title, sizes, widths, "GL score: fraction of samples not copied", key)
    for width, color in width_colors(widths).items():
        _draw(plot, _series(rows, "gl", sizes, width), color, "same data")
        if key:
            _draw_halves(plot, rows, sizes, width, color)
    _label(plot, "samples", [_series(rows, "gl", sizes, w) for w in widths], INK)
    _reference(plot, _series(rows, "gl_heldout", sizes), "real held-out\nimages")
    return _close(plot)


@styled
def reproducibility(rows: Sequence[Row], sizes: Sequence[int], widths: Sequence[int]) -> Figure:
    """RP score against n, by what is compared: same data, other half, closed-form denoisers.

    Args:
        rows: the study's table; uses rp_same_data (absent with one width), rp_disjoint with its
            _null and _wiener, and rp_optimal.
        sizes: training-set sizes.
        widths: model widths.
    """
    title = findings.agreement(rows, sizes, widths)
    plot = _open(title, sizes, widths, "RP score: fraction of seeds that agree")
    linear = _series(rows, "rp_disjoint_wiener", sizes)
    _draw(plot, linear, FAINT, "linear", band=False)
    _label(plot, "two linear\ndenoisers", [linear], "#7D7D7D")
    _reference(plot, _series(rows, "rp_disjoint_null", sizes), "two memorizers,\ndisjoint data")
    same = _series(rows, "rp_same_data", sizes)
    _draw(plot, same, "black", "same data")
    _label(plot, "another width,\nsame data", [same], "black")
    _per_width(
        plot, rows, "rp_optimal", sizes, widths, "empirical", "perfect memorizer,\nsame data"
    )
    _per_width(plot, rows, "rp_disjoint", sizes, widths, "other half", "same width,\ndisjoint data")
    return _close(plot)


@styled
def fidelity(rows: Sequence[Row], sizes: Sequence[int], widths: Sequence[int]) -> Figure:
    """Precision against n with its ceiling and null, and how much of a model is linear.

    Args:
        rows: the study's table; uses precision with its _heldout and _null, wiener_similarity.
        sizes: training-set sizes.
        widths: model widths.
    """
    title = findings.fidelity(rows, sizes, widths)
    plot = _open(title, sizes, widths, "fraction of samples")
    ceiling, null = (_series(rows, f"precision_{end}", sizes) for end in ("heldout", "null"))
    _reference(plot, ceiling, "real images:\nprecision")
    _reference(plot, null, "linear denoiser:\nprecision")
    _per_width(plot, rows, "precision", sizes, widths, "other half", "samples:\nprecision")
    name = "samples that match\nlinear denoiser"
    _per_width(plot, rows, "wiener_similarity", sizes, widths, "linear", name)
    return _close(plot)


def _open(
    title: str,
    sizes: Sequence[int],
    widths: Sequence[int],
    ylabel: str,
    key: Sequence[Line2D] = (),
) -> _Plot:
    """Axes for fractions over n, with the key of colours above them."""
    handles = [
        Line2D([], [], color=color, linewidth=4, label=f"width {width}")
        for width, color in width_colors(widths).items()
    ]
    handles.extend(key)
    lines = -(-len(handles) // _KEYS_PER_ROW)
    usual, key_room = Margins(), _KEY_ROW * lines
    tick_room = upright_ticks(sizes, _WIDTH - usual.left - usual.right)
    margins = Margins(top=0.12 + key_room, bottom=usual.bottom + tick_room)
    figure, axes = canvas(title, (_WIDTH, 3.6 + key_room + tick_room), margins)
    log2_axis(axes, sizes)
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel(ylabel)
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=min(_KEYS_PER_ROW, len(handles)),
        borderaxespad=0.2,
        handlelength=1.2,
        columnspacing=1.4,
        fontsize=9.5,
    )
    return _Plot(figure=figure, axes=axes, shade=0.18 if len(widths) <= 3 else 0.09)


def _series(
    rows: Sequence[Row], name: str, sizes: Sequence[int], width: int | None = None
) -> Series:
    """The pooled scores that the table has."""
    found = ((n, pooled(rows, name, n, width)) for n in sorted(sizes))
    return [(n, score) for n, score in found if score is not None]


def _draw(plot: _Plot, series: Series, color: str, comparison: str, *, band: bool = True) -> None:
    """A line with its interval; a single point gets an interval with ends instead."""
    if not series:
        return
    x = [n for n, _ in series]
    y, low, high = (
        np.array([getattr(s, end) for _, s in series]) for end in ("value", "low", "high")
    )
    marker = "" if comparison in ("reference", "linear") and len(x) > 1 else "o"
    plot.axes.plot(x, y, linestyle=LINES[comparison], color=color, marker=marker, clip_on=False)
    if band and len(x) > 1:
        plot.axes.fill_between(x, low, high, color=color, alpha=plot.shade, linewidth=0)
    elif band:
        plot.axes.errorbar(x, y, [y - low, high - y], color=color, capsize=4, clip_on=False)


def _draw_halves(
    plot: _Plot, rows: Sequence[Row], sizes: Sequence[int], width: int, color: str
) -> None:
    """GL of each half by itself, light, to show how far two draws of the data differ."""
    for half, marker in _HALF_MARKERS.items():
        found = _series([r for r in rows if r.half == half], "gl", sizes, width)
        x, y = [n for n, _ in found], [s.value for _, s in found]
        style: dict[str, Any] = {"linestyle": "", "markersize": 7, "alpha": 0.55, "clip_on": False}
        plot.axes.plot(x, y, marker=marker, color=color, markerfacecolor="none", **style)


def _marker_key(text: str, marker: str) -> Line2D:
    return Line2D(
        [], [], linestyle="", marker=marker, color=REFERENCE, markerfacecolor="none", label=text
    )


def _per_width(
    plot: _Plot,
    rows: Sequence[Row],
    name: str,
    sizes: Sequence[int],
    widths: Sequence[int],
    comparison: str,
    text: str,
) -> None:
    """One line per width, and one label for all of them."""
    lines = {w: _series(rows, name, sizes, w) for w in widths}
    for width, color in width_colors(widths).items():
        _draw(plot, lines[width], color, comparison)
    _label(plot, text, lines.values(), INK)


def _reference(plot: _Plot, series: Series, text: str) -> None:
    """A null or a ceiling."""
    _draw(plot, series, REFERENCE, "reference", band=False)
    _label(plot, text, [series], REFERENCE)


def _label(plot: _Plot, text: str, lines: Iterable[Series], color: str) -> None:
    """Note a label at the end of the middle one of these lines."""
    ends = sorted((s[-1][1].value, s[-1][0]) for s in lines if s)
    if ends:
        value, n = ends[len(ends) // 2]
        plot.labels.append(_Label(text=text, n=n, value=value, color=color))


def _close(plot: _Plot) -> Figure:
    """Place the labels right of the axes, apart from each other, each tied to its line."""
    axes = plot.axes
    labels = sorted(plot.labels, key=lambda label: label.value)
    height = plot.figure.get_size_inches()[1] * axes.get_position().height
    low, high = axes.get_ylim()
    unit = (high - low) / height  # data units per inch
    heights = np.array([0.165 * (1 + label.text.count("\n")) + 0.07 for label in labels]) * unit
    places = spread(np.array([label.value for label in labels]), heights, low, high)
    for label, place in zip(labels, places):
        axes.annotate(
            label.text,
            xy=(label.n, label.value),
            xytext=(1.055, place),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=9.5,
            linespacing=1.1,
            color=label.color,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": label.color,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
        )
    return plot.figure


def spread(values: np.ndarray, heights: np.ndarray, low: float, high: float) -> np.ndarray:
    """Positions of labels that do not overlap, as near as possible to where they belong.

    Args:
        values: (K,) where each label belongs, ascending.
        heights: (K,) space that each takes.
        low: lower end of the space there is.
        high: upper end; labels run over it only if there is no room.

    Returns:
        (K,) centres: the least squares solution, an isotonic regression after the stack's own
        offsets are taken away.
    """
    if len(values) == 0:
        return values
    offsets = np.concatenate([[0.0], np.cumsum((heights[1:] + heights[:-1]) / 2)])
    base = isotonic_regression(values - offsets).x
    bottom, top = low + heights[0] / 2, high - heights[-1] / 2 - offsets[-1]
    return np.clip(base, bottom, max(bottom, top)) + offsets
