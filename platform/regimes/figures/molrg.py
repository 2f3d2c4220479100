"""A mixture of low-rank Gaussians: rank by noise level, and what changes when points suffice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from regimes.figures.jacobian import plain_ticks
from regimes.figures.style import REFERENCE, Margins, canvas, styled, width_colors
from regimes.studies.molrg import Cell, MoLRGStudy, RankCurve

_STYLES = ("-", "--", "-.", ":")
_PANEL, _GAP = 1.45, 0.22  # inches


@styled
def rank_by_noise(study: MoLRGStudy) -> Figure:
    """Rank over n against 1 / sigma; dotted, the exact denoiser."""
    d, K, n = study.dim, study.num_classes, study.size
    title = f"The exact rank is {d} of {n} at low noise and {K * d} at high noise"
    figure, axes = canvas(title, (7.4, 3.7), Margins(right=1.9, left=0.95))
    colors = width_colors(range(len(study.curves)))
    for i, curve in enumerate(study.curves):
        x, (mean, low, high) = 1 / np.array(curve.sigmas), curve.interval()
        axes.plot(x, mean, color=colors[i], marker="o", markersize=3.5, label=curve.model, zorder=3)
        axes.fill_between(x, low, high, color=colors[i], alpha=0.2, linewidth=0)
    _exact(axes, study.exact)
    least = min(float(c.ratios.mean(1).min()) for c in (study.exact, *study.curves))
    axes.set(xscale="log", yscale="log", ylim=(max(0.5 * least, 0.5 / n), 1.3))
    plain_ticks(axes, "xy")
    axes.set_xlabel("1 / sigma   (noise falls to the right)")
    axes.set_ylabel("energy rank / n")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.02), fontsize=9.5)
    return figure


def _exact(axes: Axes, curve: RankCurve) -> None:
    look: dict[str, Any] = {"color": REFERENCE, "linestyle": ":", "linewidth": 2.2, "zorder": 4}
    axes.plot(1 / np.array(curve.sigmas), curve.interval()[0], label="exact denoiser", **look)


@styled
def transition(study: MoLRGStudy) -> Figure:
    """Subspaces missed, copies and agreement against points per class, in units of d."""
    panels: tuple[tuple[str, Callable[[Cell], float], Callable[[Cell], float]], ...] = (
        ("missed share", lambda c: c.missed, lambda c: 1 - c.dim / study.size),
        ("GL score", lambda c: c.gl.value, lambda c: c.gl.null),
        ("RP score", lambda c: c.rp.value, lambda c: c.rp.null),
    )
    height = len(panels) * (_PANEL + _GAP)
    title = "Points per class until subspaces are found, samples are new, and two models agree"
    figure, frame = canvas(title, (7.4, height + 0.75), Margins(right=1.9, left=0.95))
    frame.set_axis_off()
    box, total = frame.get_position(), figure.get_size_inches()[1]
    ratios = sorted({c.per_class / c.dim for c in study.cells})
    for i, (name, value, null) in enumerate(panels):
        bottom = box.y1 - ((i + 1) * _PANEL + i * _GAP) / total
        axes = figure.add_axes((box.x0, bottom, box.width, _PANEL / total))
        _lines(axes, study, value, null)
        _axis(axes, ratios, is_last=i == len(panels) - 1)
        axes.set_ylabel(name)
        if i == 0:
            note: dict[str, Any] = {"fontsize": 8.5, "color": REFERENCE, "va": "bottom"}
            axes.text(1.04, 0.02, "M = d", **note)
            axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.05), fontsize=9)
    return figure


def _lines(
    axes: Axes,
    study: MoLRGStudy,
    value: Callable[[Cell], float],
    null: Callable[[Cell], float],
) -> None:
    models = list(dict.fromkeys(model for model, _ in study.lines()))
    dims = sorted({dim for _, dim in study.lines()})
    colors = width_colors(range(len(models)))
    for model, dim in study.lines():
        cells = study.cells_of(model, dim)
        x = [c.per_class / dim for c in cells]
        axes.plot(
            x,
            [value(c) for c in cells],
            color=colors[models.index(model)],
            linestyle=_STYLES[dims.index(dim) % len(_STYLES)],
            marker="o",
            markersize=3.5,
            label=f"{model}, d = {dim}",
        )
    first = study.lines()[0]
    cells = study.cells_of(*first)
    x = [c.per_class / first[1] for c in cells]
    look: dict[str, Any] = {"color": REFERENCE, "linestyle": ":", "linewidth": 1.3}
    axes.plot(x, [null(c) for c in cells], label=f"null, d = {first[1]}", **look)


def _axis(axes: Axes, ratios: Sequence[float], *, is_last: bool) -> None:
    axes.axvline(1, color=REFERENCE, linewidth=0.8)
    axes.set(xscale="log", ylim=(-0.05, 1.05))
    shown = _apart(ratios)
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(shown, [f"{r:.3g}" for r in shown])
    axes.tick_params(labelbottom=is_last)
    if is_last:
        axes.set_xlabel("points per class / d")


def _apart(ratios: Sequence[float]) -> list[float]:
    """Ticks whose labels do not touch: each at least 1.5 times the one before."""
    shown: list[float] = []
    for ratio in ratios:
        if not shown or ratio >= 1.5 * shown[-1]:
            shown.append(ratio)
    return shown
