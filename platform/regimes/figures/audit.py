"""Figures of an audit: similarity to the nearest training image, generated beside real images.

Shares are on a log axis: a handful of copies among tens of thousands of images is what matters here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from regimes.figures.style import INK, MARK, REFERENCE, Margins, canvas, styled
from regimes.scores.calibration import Threshold
from regimes.scores.result import wilson_interval

Floats = npt.NDArray[np.float64]

BINS, POINTS = 80, 240
GENERATED = "#0072B2"
_SIZE = (8.2, 3.6)


@styled
def similarity_audit(
    generated: Floats, real: Floats, threshold: Threshold, *, title: str, real_name: str
) -> Figure:
    """Histogram of similarities, generated images filled, real ones outlined, with the threshold.

    Args:
        generated: (M,) similarity of every generated image to its nearest training image.
        real: (H,) the same of real images that are no copies.
        threshold: similarity above which an image counts as a copy.
        title: the finding.
        real_name: what the real images are, such as "held-out images".
    """
    figure, axes = canvas(title, _SIZE, Margins(right=1.9, top=0.5))
    low = _lowest(generated, real, threshold)
    bins = np.linspace(low, 1, BINS + 1)
    looks: tuple[tuple[Floats, dict[str, Any]], ...] = (
        (generated, {"color": GENERATED, "alpha": 0.75, "label": "generated images"}),
        (real, {"color": INK, "histtype": "step", "linewidth": 1.3, "label": real_name}),
    )
    for values, look in looks:
        kept = np.clip(values, low, 1)
        axes.hist(kept, bins.tolist(), weights=np.full(len(kept), 1 / len(kept)), **look)
    axes.set(xlim=(low, 1), xlabel="similarity to the nearest training image")
    axes.set_ylabel("share of images, per bin")
    _mark_threshold(axes, threshold)
    _log_share(axes, 0.5 / max(len(generated), len(real)))
    _name_sets(axes)
    return figure


@styled
def exceedance(
    generated: Floats,
    real: Floats,
    threshold: Threshold,
    published: Sequence[float],
    *,
    title: str,
    real_name: str,
) -> Figure:
    """The share of images above every threshold, with 95% intervals (Wilson).

    Args:
        generated: (M,) similarities.
        real: (H,) of real images that are no copies.
        threshold: the calibrated one.
        published: thresholds in use elsewhere, dotted.
        title: the finding.
        real_name: what the real images are.
    """
    figure, axes = canvas(title, _SIZE, Margins(right=1.9, top=0.5))
    low = _lowest(generated, real, threshold)
    grid = np.linspace(low, 1, POINTS)
    for values, color, name in (
        (generated, GENERATED, "generated images"),
        (real, INK, real_name),
    ):
        _curve(axes, values, grid, color, name)
    for level in published:
        if low < level < 1:
            axes.axvline(level, color=REFERENCE, linestyle=":", linewidth=1.1)
            axes.annotate(
                f"{level:g}",
                xy=(level, 0.5),
                xycoords=axes.get_xaxis_transform(),
                xytext=(3, 0),
                textcoords="offset points",
                fontsize=8.5,
                color=REFERENCE,
            )
    axes.set(xlim=(low, 1), xlabel="threshold of similarity", ylabel="share of images above it")
    _mark_threshold(axes, threshold)
    _log_share(axes, 0.5 / max(len(generated), len(real)))
    _name_sets(axes)
    return figure


def _curve(axes: Axes, values: Floats, grid: Floats, color: str, name: str) -> None:
    ordered = np.sort(values)
    above = len(ordered) - np.searchsorted(ordered, grid, "right")
    low, high = np.array([wilson_interval(int(k), len(ordered)) for k in above]).T
    share = np.where(above > 0, above / len(ordered), np.nan)  # 0 has no place on a log axis
    axes.fill_between(grid, np.maximum(low, 1e-9), high, color=color, alpha=0.15, linewidth=0)
    axes.plot(grid, share, color=color, label=name)


def _lowest(generated: Floats, real: Floats, threshold: Threshold) -> float:
    """Left end of the axis: the half percent that is least similar says nothing."""
    least = float(np.quantile(np.concatenate([generated, real]), 0.005))
    least = min(least, threshold.low - 0.01)
    return float(min(np.floor(least * 20) / 20, 0.9))


def _log_share(axes: Axes, least: float) -> None:
    axes.set_yscale("log")
    axes.set_ylim(least, 1.3)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g}%"))


def _name_sets(axes: Axes) -> None:
    """Beside the axes: there is no corner that curves and histograms leave free."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9.5, borderaxespad=0)


def _mark_threshold(axes: Axes, threshold: Threshold) -> None:
    axes.axvspan(threshold.low, threshold.high, color=MARK, alpha=0.18, linewidth=0)
    axes.axvline(threshold.value, color=MARK, linewidth=1.2)
    left, right = 0.25, 0.75  # a label near an end of the axis leans inwards
    axes.annotate(
        f"calibrated threshold {threshold.value:.3f} [{threshold.low:.3f}, {threshold.high:.3f}]",
        xy=(threshold.value, 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(0, 6),
        textcoords="offset points",
        ha=_side(axes, threshold.value, left, right),
        fontsize=9.5,
        color=MARK,
        annotation_clip=False,
    )


def _side(axes: Axes, value: float, left: float, right: float) -> str:
    low, high = axes.get_xlim()
    place = (value - low) / (high - low)
    return "left" if place < left else "right" if place > right else "center"
