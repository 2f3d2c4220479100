"""Samples on a map of real images, without guidance and with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regimes.figures.style import FAINT, INK, Margins, canvas, styled

_PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#8C6D31", "#7F7F7F", "#000000",
    "#9467BD",
)  # fmt: skip
_NAMED = 12  # more classes than that are not named on the map


@styled
def embedding(
    real: npt.NDArray[np.float64],
    labels: Sequence[str],
    panels: Sequence[tuple[str, npt.NDArray[np.float64], npt.NDArray[np.bool_]]],
    *,
    title: str,
) -> Figure:
    """One panel per set of samples, over the same real images.

    Args:
        real: (N, 2), real images in faint colours of their classes.
        labels: (N,) words for their classes.
        panels: (name, (M, 2) samples, (M,) whether each is accepted).
        title: the finding.
    """
    side, gap = 3.7, 0.3
    size = (0.3 + len(panels) * (side + gap), side + 0.75)
    figure, first = canvas(title, size, Margins(left=0, right=0, bottom=0, top=0))
    first.set_axis_off()
    total = figure.get_size_inches()
    classes, of_class = np.unique(list(labels), return_inverse=True)
    low, high = real.min(0), real.max(0)
    pad = 0.06 * (high - low)
    for place, (name, points, accepted) in enumerate(panels):
        left = 0.3 + place * (side + gap)
        axes = figure.add_axes((left / total[0], 0.4 / total[1], side / total[0], side / total[1]))
        for number, k in enumerate(classes):
            own = real[of_class == number]
            color = _PALETTE[number % len(_PALETTE)] if len(classes) <= _NAMED else FAINT
            axes.scatter(
                own[:, 0], own[:, 1], s=7, color=color, alpha=0.28, linewidths=0, rasterized=True
            )
            if len(classes) <= _NAMED:
                _name(axes, own, str(k), color)
        good, bad = points[accepted], points[~accepted]
        dots: dict[str, Any] = {"color": INK, "linewidths": 0, "alpha": 0.8, "zorder": 4}
        axes.scatter(good[:, 0], good[:, 1], s=9, label="accepted", **dots)
        crosses: dict[str, Any] = {
            "color": "#D55E00",
            "linewidths": 0.9,
            "marker": "x",
            "zorder": 5,
        }
        axes.scatter(bad[:, 0], bad[:, 1], s=14, label="rejected", **crosses)
        axes.set(xlim=(low[0] - pad[0], high[0] + pad[0]), ylim=(low[1] - pad[1], high[1] + pad[1]))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(name, fontsize=9.5, loc="left")
        if place == 0:
            axes.legend(
                loc="upper left", bbox_to_anchor=(0, -0.01), ncols=2, fontsize=8.5, frameon=False
            )
    return figure


def _name(axes: Axes, points: npt.NDArray[np.float64], name: str, color: str) -> None:
    """The name of a class above its points, readable over whatever is there."""
    x, y = np.median(points[:, 0]), np.quantile(points[:, 1], 0.98)
    text = axes.text(x, y, name, fontsize=9, color=color, ha="center", va="bottom", zorder=6)
    text.set_path_effects([patheffects.withStroke(linewidth=2.5, foreground="white")])
