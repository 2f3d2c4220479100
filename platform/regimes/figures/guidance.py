"""Figures of a guidance sweep: modes and quality by cell, what they cost each other, and the paths.

Heatmaps share one scale per figure, brighter is better; the number in a field is its value. In the
other figures colour is the kernel, black no guidance, and dotted gray what independent draws of the
data give.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regimes.figures.sheets import draw_image
from regimes.figures.style import FAINT, INK, REFERENCE, Margins, canvas, short, styled
from regimes.images.pixels import Images
from regimes.studies.guidance import CellFinding, GuidanceStudy, baseline_key

_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9")  # Okabe and Ito 2008
_MARKERS = ("o", "s", "^", "D", "v", "P")
_FIELD, _ROW = 0.72, 0.32  # inches of a heatmap's field
_GAP, _LEFT = 0.75, 0.8

_FEW = 50  # real points are drawn large if they are no more
_WORDS = 30  # letters below an axis before they are turned

Price = Literal["accepted", "distance"]
_PRICES: dict[Price, str] = {
    "accepted": "accepted samples (%)",
    "distance": "distance from the data (better to the right)",
}


@styled
def heatmaps(
    study: GuidanceStudy,
    value: Callable[[CellFinding], float],
    *,
    title: str,
    unit: str,
    digits: int = 2,
    lower_is_better: bool = False,
) -> Figure:
    """One panel per kernel, strength and group size: factor upwards, S_churn to the right.

    Args:
        study: the findings.
        value: what is drawn.
        title: the finding.
        unit: what the numbers are.
        digits: decimals in the fields.
        lower_is_better: turns the scale round, so that bright fields are the good ones in every figure.
    """
    rows = list(dict.fromkeys(f.key.row for f in study.guided)) or [("none", "none", 0)]
    churns = sorted({f.key.s_churn for f in study.findings})
    factors = sorted({f.key.factor for f in study.findings})
    wide, high = _FIELD * len(churns), _ROW * len(factors)
    pitch = max(wide, 1.5) + _GAP
    down = -(-len(rows) // max(1, int((10.2 - _LEFT) / pitch)))
    across = -(-len(rows) // down)
    size = max(7.8, _LEFT + across * pitch), down * (high + 0.85) + 0.2
    figure, first = canvas(title, size, Margins(left=0, right=0, bottom=0, top=0))
    first.set_axis_off()
    total = figure.get_size_inches()
    values = [value(f) for f in study.findings]
    scale = _Scale(min(values), max(max(values), min(values) + 1e-9), lower_is_better, digits)
    for place, row in enumerate(rows):
        left = _LEFT + place % across * pitch
        bottom = size[1] - (place // across + 1) * (high + 0.85) + 0.3
        axes = figure.add_axes(
            (left / total[0], bottom / total[1], wide / total[0], high / total[1])
        )
        _panel(axes, study, row, (factors, churns), value, scale)
        axes.set_title(f"{row[0]}, {row[1]}, B = {row[2]}", fontsize=9.5, loc="left", pad=4)
        if place % across == 0:
            axes.set_ylabel("factor")
        axes.set_xlabel("S_churn", labelpad=1)
    figure.text(0.12 / total[0], (size[1] - 0.04) / total[1], unit, va="top", fontsize=9.5)
    return figure


@dataclass(frozen=True, slots=True)
class _Scale:
    """How a number becomes a field."""

    low: float
    high: float
    lower_is_better: bool
    digits: int

    def ink(self, number: float) -> str:
        """What can be read on the field of a number."""
        is_dark = (number < (self.low + self.high) / 2) != self.lower_is_better
        return "white" if is_dark else INK


def _panel(
    axes: Axes,
    study: GuidanceStudy,
    row: tuple[str, str, int],
    grid: tuple[Sequence[float], Sequence[float]],
    value: Callable[[CellFinding], float],
    scale: _Scale,
) -> None:
    factors, churns = grid
    table = np.full((len(factors), len(churns)), np.nan)
    for found in study.findings:
        same = found.key.row == row or (found.key.is_baseline and found.key.group_size == row[2])
        if same:
            table[factors.index(found.key.factor), churns.index(found.key.s_churn)] = value(found)
    colors = "cividis_r" if scale.lower_is_better else "cividis"
    axes.imshow(table, aspect="auto", origin="lower", cmap=colors, vmin=scale.low, vmax=scale.high)
    for y, x in itertools.product(range(len(factors)), range(len(churns))):
        if np.isfinite(table[y, x]):
            text, color = f"{table[y, x]:.{scale.digits}f}", scale.ink(table[y, x])
            axes.text(x, y, text, ha="center", va="center", color=color, fontsize=8.5)
    axes.set_xticks(range(len(churns)), [f"{c:g}" for c in churns], fontsize=8.5)
    axes.set_yticks(range(len(factors)), [f"{f:g}" for f in factors], fontsize=8.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


@styled
def pareto(study: GuidanceStudy, *, title: str, by: Price) -> Figure:
    """Distinct modes against quality, with 95% intervals of both; right is better.

    A line joins the factors of one kernel, strength, churn and group size, from its baseline on.

    Args:
        study: the findings.
        title: the finding.
        by: accepted: the share of accepted samples; distance: that from the data.
    """
    figure, axes = canvas(title, (8.2, 4.6), Margins(left=0.7, right=2.75, bottom=0.6, top=0.2))
    kernels = list(dict.fromkeys(f.key.kernel for f in study.guided))
    lines = list(dict.fromkeys((f.key.row, f.key.s_churn) for f in study.guided))
    marks = {
        mark: _MARKERS[i % len(_MARKERS)]
        for i, mark in enumerate(dict.fromkeys((r[1], r[2], c) for r, c in lines))
    }
    for (row, churn), found in ((line, _line(study, *line)) for line in lines):
        color = _PALETTE[kernels.index(row[0]) % len(_PALETTE)]
        x = [_price(f, by)[0] for f in found]
        y = [f.scores.distinct.value for f in found]
        axes.plot(x, y, color=color, linewidth=0.9, alpha=0.7)
        label = f"{row[0]}, {row[1]}, B {row[2]}, churn {churn:g}"
        guided = slice(1, None)
        axes.errorbar(
            x[guided],
            y[guided],
            xerr=np.stack([_reach(f, by) for f in found[guided]], 1),
            yerr=[1.96 * f.scores.distinct.error for f in found[guided]],
            fmt=marks[row[1], row[2], churn],
            color=color,
            elinewidth=0.8,
            markersize=4.5,
            label=label,
        )
    for base in (f for f in study.findings if f.key.is_baseline):
        _baseline(axes, base, by)
    for size in sorted({f.key.group_size for f in study.findings}):
        base = next(f for f in study.findings if f.key.group_size == size)
        mean = base.scores.independent[0]
        axes.axhline(mean, color=REFERENCE, linestyle=":", linewidth=1.2)
    axes.plot([], [], ":", color=REFERENCE, linewidth=1.2, label="independent draws of the data")
    axes.plot([], [], "*", color=INK, markersize=9, label="no guidance")
    axes.set(xlabel=_PRICES[by], ylabel="distinct modes per group")
    if by == "distance":
        axes.invert_xaxis()
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8.2, borderaxespad=0)
    return figure


def _line(study: GuidanceStudy, row: tuple[str, str, int], churn: float) -> list[CellFinding]:
    own = [f for f in study.guided if f.key.row == row and f.key.s_churn == churn]
    own.sort(key=lambda f: f.key.factor)
    return [study.baseline(baseline_key(own[0].key)), *own]


def _price(found: CellFinding, by: Price) -> tuple[float, float]:
    """Value and standard error."""
    if by == "accepted":
        return 100 * found.scores.inliers.value, 100 * found.scores.inliers.error
    return found.scores.quality.value, found.scores.quality.error


def _reach(found: CellFinding, by: Price) -> npt.NDArray[np.float64]:
    """(2,) how far a 95% interval reaches down and up, within what is possible."""
    value, error = _price(found, by)
    high = 100 if by == "accepted" else np.inf
    return np.array([value, high - value]).clip(0, 1.96 * error)


def _baseline(axes: Axes, found: CellFinding, by: Price) -> None:
    x, _ = _price(found, by)
    axes.errorbar(
        x,
        found.scores.distinct.value,
        xerr=_reach(found, by)[:, None],
        yerr=1.96 * found.scores.distinct.error,
        fmt="*",
        color=INK,
        markersize=9,
        elinewidth=0.8,
        zorder=5,
    )


@styled
def marginals(study: GuidanceStudy, found: CellFinding, *, title: str) -> Figure:
    """The share of every mode in the data, without guidance and with it, with 95% intervals."""
    figure, axes = canvas(title, (7.2, 3.4), Margins(left=0.7, right=1.9, bottom=0.85, top=0.2))
    base = study.baseline(found.key)
    places = np.arange(len(study.probabilities))
    data = 100 * np.asarray(study.probabilities)
    for x, cell, color, label in (
        (places - 0.2, base, FAINT, "no guidance"),
        (places + 0.2, found, _PALETTE[0], "guided"),
    ):
        scores = cell.scores
        errors = np.where(np.isfinite(scores.marginal_errors), 196 * scores.marginal_errors, 0)
        bars: dict[str, Any] = {"yerr": errors, "ecolor": INK, "error_kw": {"elinewidth": 0.8}}
        axes.bar(x, 100 * scores.marginal, 0.38, color=color, label=label, **bars)
    axes.hlines(data, places - 0.45, places + 0.45, color=INK, linewidth=1.3, label="data")
    names = [short(name, 10) for name in study.mode_names]
    crowded = sum(map(len, names)) > _WORDS
    axes.set_xticks(places, names)
    if crowded:
        for tick in axes.get_xticklabels():
            tick.set(rotation=30, ha="right", rotation_mode="anchor")
    axes.set(xlabel="mode", ylabel="accepted samples (%)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9, borderaxespad=0)
    return figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Particles of one group on their way, in a plane that was fitted once to real data."""

    name: str
    """What they are called."""
    points: npt.NDArray[np.float64]
    """(steps, B, 2), from noise to samples."""


@styled
def trajectories(
    real: npt.NDArray[np.float64],
    ends: npt.NDArray[np.float64],
    paths: Sequence[Paths],
    *,
    title: str,
    labels: tuple[str, str],
) -> Figure:
    """The same group without guidance and with it, one panel each, over real data.

    Args:
        real: (N, 2), the data in the plane.
        ends: (M, 2), samples of the last of ``paths``' cells, drawn beside its paths.
        paths: one per panel.
        title: the finding.
        labels: of the two axes.
    """
    side, gap = 3.55, 0.55
    size = (0.75 + len(paths) * side + (len(paths) - 1) * gap + 0.2, side + 1.05)
    figure, first = canvas(title, size, Margins(left=0, right=0, bottom=0, top=0))
    first.set_axis_off()
    total = figure.get_size_inches()
    reach = 1.15 * float(np.abs(np.concatenate([real, ends])).max())
    for place, path in enumerate(paths):
        left = 0.75 + place * (side + gap)
        axes = figure.add_axes((left / total[0], 0.6 / total[1], side / total[0], side / total[1]))
        dot = 4 if len(real) > _FEW else 40
        axes.scatter(real[:, 0], real[:, 1], s=dot, color=FAINT, linewidths=0, rasterized=True)
        if place == len(paths) - 1:
            axes.scatter(
                ends[:, 0],
                ends[:, 1],
                s=5,
                color=_PALETTE[0],
                linewidths=0,
                alpha=0.35,
                rasterized=True,
            )
        for particle in range(path.points.shape[1]):
            x, y = path.points[:, particle].T
            axes.plot(x, y, color=INK, linewidth=0.7, alpha=0.6)
            axes.plot(x[-1], y[-1], "o", color="#D55E00", markersize=5, zorder=4)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel=labels[0])
        axes.set_title(path.name, fontsize=9.5, loc="left")
        if place == 0:
            axes.set_ylabel(labels[1])
    return figure


@styled
def groups_sheet(
    rows: Sequence[tuple[str, Sequence[Images], Sequence[bool]]], *, title: str
) -> Figure:
    """Groups of images, one per row, rejected ones framed.

    Args:
        rows: (name, images (H, W, C) uint8, whether each is accepted), at least one.
        title: what they are.
    """
    cell, space, head = 0.56, 0.06, 0.24
    width = max(len(images) for _, images, _ in rows) * (cell + space) + 0.3
    size = (max(width, 5.6), len(rows) * (cell + head + space) + 0.1)
    figure, axes = canvas(title, size, Margins(left=0, right=0, bottom=0, top=0))
    axes.set_axis_off()
    for number, (name, images, accepted) in enumerate(rows):
        y = number * (cell + head + space)
        axes.text(0.14, y + head - 0.06, name, fontsize=9, va="bottom")
        for place, (image, good) in enumerate(zip(images, accepted, strict=True)):
            x = 0.14 + place * (cell + space)
            box = (x, x + cell, y + head + cell, y + head)
            draw_image(axes, image, box)
            if not good:
                frame = [x, x + cell, x + cell, x, x], [box[3], box[3], box[2], box[2], box[3]]
                axes.plot(*frame, color="#D55E00", linewidth=2)
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0), aspect="auto")
    return figure
