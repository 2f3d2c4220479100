"""Classifiers over training-set size, one panel per kind, one colour per source of training images.

Bands are 95% intervals for both seeds and test images; dotted gray: shuffled labels, and a gap of 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regimes.figures.style import (
    INK,
    REFERENCE,
    Margins,
    canvas,
    log2_axis,
    short,
    styled,
    text_inches,
    width_colors,
)
from regimes.studies.classification import Estimate
from regimes.studies.classifier_curves import SHUFFLED, ClassifierCurves, CurvePoint, Gap
from regimes.words import counted

_PANEL, _SPACE = 3.1, 0.25  # inches: width of a panel, and between panels
_HEIGHT, _GAP_HEIGHT = 2.7, 1.5  # inches
_MARKERS = "osD^vP*X"
NAME = "classifier-curves"
"""File name of the figure."""


def finding(found: ClassifierCurves) -> str:
    """The first pair of sources in one line, for all kinds of classifiers."""
    if not all(found.learned(kind) for kind in found.classifiers):
        return (
            f"Classifiers of {short(found.sources[0])} images are not above chance: nothing follows"
        )
    if not found.gaps:
        return "Balanced accuracy of classifiers by what they were trained on"
    first, second = found.gaps[0].first, found.gaps[0].second
    said: dict[str, list[str]] = {}
    for kind in found.classifiers:
        gap = found.gap(kind, first, second)
        largest = f"{gap.by_size[-1].value:+.3f}".replace("-", "\N{MINUS SIGN}")
        said.setdefault(gap.verdict, []).append(f"{kind} ({largest})")
    parts = [f"{verdict} for {' and '.join(kinds)}" for verdict, kinds in said.items()]
    text = f"{short(first)} against {short(second)} images: {', '.join(parts)} classifiers"
    text += f" (gap at n = {found.sizes[-1]})"
    return text[0].upper() + text[1:]


@styled
def curves_figure(found: ClassifierCurves) -> Figure:
    """Balanced accuracy on the common test images against images per class; below it the gaps."""
    names = [*found.sources, SHUFFLED]
    pairs = list(dict.fromkeys((g.first, g.second) for g in found.gaps))
    labels = [*map(short, names), *(_pair_name(*pair) for pair in pairs)]
    legend = max(text_inches(label, size=9.5) for label in labels) + 0.75
    margins = Margins(left=0.85, right=legend, bottom=0.62, top=0.3)
    figure, rows = _grid(found, margins, has_gaps=bool(pairs))
    for axes, kind in zip(rows[0], found.classifiers, strict=True):
        _curves(axes, found, [found.of(kind, name) for name in names], f"{kind} classifier")
    for row in rows[1:]:
        for axes, kind in zip(row, found.classifiers, strict=True):
            _gaps(axes, found, [found.gap(kind, *pair) for pair in pairs])
    _finish(found, rows)
    return figure


def _grid(
    found: ClassifierCurves, margins: Margins, *, has_gaps: bool
) -> tuple[Figure, list[list[Axes]]]:
    """A row of panels for the curves, and one for the gaps; a panel per kind of classifier."""
    count = len(found.classifiers)
    heights = [_HEIGHT, _GAP_HEIGHT] if has_gaps else [_HEIGHT]
    inside = count * _PANEL + (count - 1) * _SPACE
    tall = sum(heights) + _SPACE * (len(heights) - 1)
    size = (margins.left + inside + margins.right, margins.bottom + tall + margins.top)
    figure, frame = canvas(finding(found), size, margins)
    frame.set_axis_off()
    box, (width, height) = frame.get_position(), figure.get_size_inches()
    rows, top = [], box.y1
    for inches in heights:
        bottom = top - inches / height
        lefts = [box.x0 + i * (_PANEL + _SPACE) / width for i in range(count)]
        shape = (_PANEL / width, inches / height)
        rows.append([figure.add_axes((left, bottom, *shape)) for left in lefts])
        top = bottom - _SPACE / height
    return figure, rows


def _curves(
    axes: Axes, found: ClassifierCurves, curves: Sequence[Sequence[CurvePoint]], title: str
) -> None:
    colors = [*width_colors(range(len(found.sources))).values(), REFERENCE]
    for i, curve in enumerate(curves):
        is_null = curve[0].source == SHUFFLED
        _line(
            axes,
            found,
            [p.accuracy for p in curve],
            color=colors[i],
            linestyle=":" if is_null else "-",
            marker="" if is_null else _MARKERS[i % len(_MARKERS)],
            label=short(curve[0].source),
        )
    chance = 1 / found.num_classes
    axes.axhline(chance, color=REFERENCE, linewidth=0.8, label=f"chance: {chance:.2f}", zorder=0)
    axes.set_title(title, fontsize=10.5, loc="left")


def _gaps(axes: Axes, found: ClassifierCurves, gaps: Sequence[Gap]) -> None:
    axes.axhline(0, color=REFERENCE, linestyle=":", linewidth=1.2, zorder=0)
    for gap, style in zip(gaps, itertools.cycle(("-", "--", "-.", (0, (1, 1))))):
        name = _pair_name(gap.first, gap.second)
        look: dict[str, Any] = {"color": INK, "linestyle": style, "marker": "o", "label": name}
        _line(axes, found, gap.by_size, **look)


def _line(axes: Axes, found: ClassifierCurves, estimates: Sequence[Estimate], **look: Any) -> None:
    low, value, high = np.array([(e.low, e.value, e.high) for e in estimates]).T
    axes.plot(found.sizes, value, markersize=4, **look)
    if not np.isnan(low).any():
        axes.fill_between(found.sizes, low, high, color=look["color"], alpha=0.15, linewidth=0)


def _finish(found: ClassifierCurves, rows: list[list[Axes]]) -> None:
    """Axes that are read against one another have one scale, and say once what they show."""
    labels = (f"balanced accuracy\n({found.num_test} real test images)", "gap")
    for row, label in zip(rows, labels):
        limits = np.array([axes.get_ylim() for axes in row])
        low, high = float(limits[:, 0].min()), float(limits[:, 1].max())
        for axes in row:
            axes.set_ylim((0, min(high, 1.02)) if row is rows[0] else (low, high))
            log2_axis(axes, found.sizes)
            axes.set_xlabel("training images per class n" if row is rows[-1] else "")
            axes.tick_params(labelleft=axes is row[0], labelbottom=row is rows[-1])
        row[0].set_ylabel(label)
        row[-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.05), fontsize=9.5)


def _pair_name(first: str, second: str) -> str:
    return f"{short(first, 16)} \N{MINUS SIGN} {short(second, 16)}"


def captions(found: ClassifierCurves) -> dict[str, str]:
    """File name of the figure, and its caption."""
    text = (
        f"Balanced accuracy on {found.num_test} real test images of classifiers trained on n images per "
        "class of each source; nothing is chosen by the test images. Bands: 95% intervals for "
        f"{counted(len(found.seeds), 'seed')} and test images; dotted: trained on shuffled labels of "
        f"{found.sources[0]} "
        "images."
    )
    shared = [f"{name} ({share:.0%})" for name, share in found.shared.items() if share > 0]
    if shared and not math.isnan(found.points[0].accuracy.low):
        text += (
            f" Seeds share training images at the largest n: {', '.join(shared)}; there the bands are too "
            "narrow."
        )
    return {NAME: text}
