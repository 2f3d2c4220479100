"""How similar samples are to their nearest training image, as distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from regimes.figures import findings
from regimes.figures.style import MARK, REFERENCE, Margins, canvas, styled, width_colors
from regimes.scores.calibration import Threshold
from regimes.studies.memorization import Row
from regimes.studies.verdict import percent

PANEL, GAP, BINS = 0.92, 0.3, 60  # inches, inches, bins


@styled
def similarity_histogram(
    rows: Sequence[Row], sizes: Sequence[int], width: int, threshold: Threshold
) -> Figure:
    """Similarity to the nearest training image, samples beside held-out images, one panel per n.

    Args:
        rows: the study's table with its per-item arrays; uses gl and gl_heldout. The widths in it
            decide the colours.
        sizes: training-set sizes.
        width: the width to show, both halves pooled.
        threshold: similarity above which an image counts as a copy.

    Raises:
        ValueError: if rows come without per-item similarities, as those read from a table do.
    """
    ordered = sorted(sizes)
    samples = {n: _similarities(rows, "gl", n, width) for n in ordered}
    heldout = {n: _similarities(rows, "gl_heldout", n, None) for n in ordered}
    color = width_colors([r.width for r in rows if r.width is not None])[width]
    bins = np.linspace(_floor([*samples.values(), *heldout.values()]), 1, BINS + 1)
    height = len(ordered) * (PANEL + GAP)
    margins = Margins(left=0.8, right=1.9, top=0.4)
    title = findings.nearness(rows, sizes, width)
    figure, frame = canvas(title, (6.3, height - GAP + margins.top + margins.bottom), margins)
    frame.set_axis_off()
    frame.set_xlim(bins[0], bins[-1])
    panels = stack(figure, frame, len(ordered))
    for n, axes in zip(ordered, panels):
        _panel(axes, n, samples[n], heldout[n], bins, color, threshold)
    panels[-1].set_xlabel("similarity to the nearest training image")
    panels[-1].tick_params(labelbottom=True)
    _name_threshold(panels[0], threshold)
    return figure


def _similarities(
    rows: Sequence[Row], name: str, n: int, width: int | None
) -> npt.NDArray[np.float64]:
    chosen = [r.score for r in rows if (r.score.name, r.n, r.width) == (name, n, width)]
    if not chosen or any("similarity" not in score.per_item for score in chosen):
        raise ValueError(
            f"expected rows named {name} at n={n}, width={width} with per-item similarities, found "
            f"{len(chosen)} rows; pass the rows of score_table, not those of a saved table"
        )
    return np.concatenate([score.per_item["similarity"] for score in chosen])


def _floor(values: Sequence[npt.NDArray[np.float64]]) -> float:
    """Left end of the axis: the half percent that is least similar says nothing."""
    least = float(np.quantile(np.concatenate(list(values)), 0.005))
    return min(np.floor(least * 20) / 20, 0.9)


def stack(figure: Figure, frame: Axes, count: int) -> list[Axes]:
    """A stack of axes in the place of ``frame``, first on top."""
    box, height = frame.get_position(), figure.get_size_inches()[1]
    step = (PANEL + GAP) / height
    places = [box.y1 - PANEL / height - i * step for i in range(count)]
    return [figure.add_axes((box.x0, y, box.width, PANEL / height)) for y in places]


def _panel(
    axes: Axes,
    n: int,
    samples: npt.NDArray[np.float64],
    heldout: npt.NDArray[np.float64],
    bins: npt.NDArray[np.float64],
    color: str,
    threshold: Threshold,
) -> None:
    """One n: filled for samples, outlined for held-out images, and how much of each is copies."""
    looks: tuple[tuple[npt.NDArray[np.float64], dict[str, Any]], ...] = (
        (samples, {"color": color, "alpha": 0.75}),
        (heldout, {"color": REFERENCE, "histtype": "step", "linewidth": 1.4}),
    )
    for values, look in looks:
        kept = np.clip(values, bins[0], bins[-1])
        axes.hist(kept, bins.tolist(), weights=np.full(len(kept), 1 / len(kept)), **look)
    axes.axvspan(threshold.low, threshold.high, color=MARK, alpha=0.18, linewidth=0)
    axes.axvline(threshold.value, color=MARK, linewidth=1.2)
    axes.set_xlim(bins[0], bins[-1])
    axes.yaxis.set_major_locator(MaxNLocator(2))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.tick_params(labelbottom=False, labelsize=9.5)
    axes.set_ylabel("of images", fontsize=9.5)
    copied = [percent(float((v > threshold.value).mean())) for v in (samples, heldout)]
    note: dict[str, Any] = {"transform": axes.transAxes, "va": "center", "fontsize": 9.5}
    axes.text(1.035, 0.84, f"n = {n}", weight="bold", **note)
    axes.text(1.035, 0.5, f"samples: {copied[0]} copies", color=color, **note)
    axes.text(1.035, 0.18, f"held-out: {copied[1]}", color="#666666", **note)


def _name_threshold(axes: Axes, threshold: Threshold) -> None:
    """Label the threshold above the top panel."""
    axes.annotate(
        f"copy threshold {threshold.value:.3f} [{threshold.low:.3f}, {threshold.high:.3f}]",
        xy=(threshold.value, 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(0, 5),
        textcoords="offset points",
        ha="center",
        fontsize=9.5,
        color=MARK,
        annotation_clip=False,
    )
