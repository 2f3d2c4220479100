"""How far k models agree: the matrix of a score, and the distribution of similarities behind it.

The same over images of different seeds is the null: dotted gray in the matrix's scale, outlined in
the histogram.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from regimes.figures import findings
from regimes.figures.histograms import BINS, GAP, PANEL, stack
from regimes.figures.style import (
    INK,
    MARK,
    REFERENCE,
    Margins,
    canvas,
    short,
    styled,
    text_inches,
)
from regimes.scores.agreement import Agreement
from regimes.scores.result import Score
from regimes.studies.reproducibility import ReproducibilityStudy
from regimes.studies.verdict import percent

_CELL = (0.78, 0.5)  # inches: width and height
_SCALE = 1.25  # inches: of the colour scale with its label
_SLANT = math.radians(40)
_COLORS = colormaps["Blues"]  # one hue: order is lightness, which every eye sees
_EMPTY = "#EFEFEF"
_SHOWN_PAIRS = 6
_LABELS = {"rp": "RP score", "rp_calibrated": "RP score", "mae_score": "MAE score"}


@styled
def agreement_matrix(study: ReproducibilityStudy, name: str) -> Figure:
    """One score of every two models, as a symmetric matrix with the interval in each cell.

    Args:
        study: what was found.
        name: a score that is a fraction of seeds: rp, rp_calibrated or mae_score.
    """
    names = [short(n) for n in study.names]
    k, (width, height) = len(names), _CELL
    longest = max(text_inches(n, size=9.5) for n in names)
    flat = longest < width - 0.1
    margins = Margins(
        left=longest + 0.25,
        right=_SCALE + (0 if flat else max(0.0, longest * math.cos(_SLANT) - width / 2)),
        top=0.32 if flat else longest * math.sin(_SLANT) + 0.25,
        bottom=0.15,
    )
    size = (margins.left + k * width + margins.right, margins.top + k * height + margins.bottom)
    title = findings.matrix(study, name)
    figure, axes = canvas(title, (max(size[0], 4.6), size[1]), _padded(margins, size[0]))
    _cells(axes, study.matrix(name))
    _model_names(axes, names, flat=flat)
    axes.set(xlim=(0, k), ylim=(k, 0))
    _scale(figure, axes, _LABELS[name], study.chance(name))
    return figure


def _padded(margins: Margins, width: float) -> Margins:
    """Room for the title, where the matrix itself is narrower."""
    more = max(0.0, 4.6 - width)
    return Margins(
        left=margins.left,
        right=margins.right + more,
        top=margins.top,
        bottom=margins.bottom,
    )


def _cells(axes: Axes, table: Sequence[Sequence[Score | None]]) -> None:
    """Value and interval on the colour of the value; a model with itself is not a finding."""
    shade = Normalize(0, 1)
    for row, scores in enumerate(table):
        for column, score in enumerate(scores):
            color = _EMPTY if score is None else _COLORS(shade(score.value))
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor=color, edgecolor="white"))
            if score is None:
                continue
            ink = "white" if score.value > 0.65 else INK
            middle: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
            where = column + 0.5
            axes.text(where, row + 0.36, f"{score.value:.2f}", weight="bold", fontsize=10, **middle)
            ends = f"{score.low:.2f}\u2013{score.high:.2f}"
            axes.text(where, row + 0.72, ends, fontsize=7.5, **middle)


def _model_names(axes: Axes, names: Sequence[str], *, flat: bool) -> None:
    axes.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=9.5)
    axes.xaxis.tick_top()
    if flat:
        axes.set_xticks(np.arange(len(names)) + 0.5, names, fontsize=9.5)
    else:
        axes.set_xticks(
            np.arange(len(names)) + 0.5,
            names,
            fontsize=9.5,
            rotation=math.degrees(_SLANT),
            ha="left",
            va="bottom",
            rotation_mode="anchor",
        )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _scale(figure: Figure, axes: Axes, label: str, chance: float) -> None:
    """The colours from 0 to 1, with chance marked where it is."""
    box, (width, height) = axes.get_position(), figure.get_size_inches()
    right = figure.add_axes((box.x1 + 0.2 / width, box.y0, 0.16 / width, box.height))
    shades = np.linspace(0, 1, 256)[:, None]
    right.imshow(
        shades, cmap=_COLORS, vmin=0, vmax=1, extent=(0, 1, 0, 1), aspect="auto", origin="lower"
    )
    right.set_xticks([])
    right.yaxis.tick_right()
    ticks = [0.0, 0.5, 1.0] if box.height * height < 1.6 else [0, 0.25, 0.5, 0.75, 1.0]
    right.set_yticks(ticks, [f"{t:g}" for t in ticks], fontsize=8.5)
    right.set_title(label, fontsize=8.5, loc="left", pad=4)
    right.axhline(chance, color=REFERENCE, linestyle=":", linewidth=1.6, clip_on=False)
    right.annotate(
        "chance",
        xy=(1, chance),
        xytext=(26, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=REFERENCE,
        annotation_clip=False,
    )


@styled
def pair_histogram(study: ReproducibilityStudy) -> Figure:
    """Similarity of the two images of a seed, beside that of images of different seeds, per pair.

    Args:
        study: what was found; of more than six pairs, the three least and the three most similar
            are shown.
    """
    shown = _shown(study)
    samples = [study.agreements[pair] for pair in shown]
    names = [f"{short(a, 18)}, {short(b, 18)}" for a, b in shown]
    bins = np.linspace(_floor(samples), 1, BINS + 1)
    height = len(shown) * (PANEL + GAP)
    side = max(1.55, *(text_inches(n, size=9.5, weight="bold") for n in names)) + 0.35
    margins = Margins(left=0.8, right=side, top=0.42)
    size = (4.4 + side, height - GAP + margins.top + margins.bottom)
    figure, frame = canvas(findings.similarity_of_pairs(study, shown), size, margins)
    frame.set_axis_off()
    panels = stack(figure, frame, len(shown))
    for axes, name, agreement in zip(panels, names, samples):
        _panel(axes, name, agreement, bins, study)
    panels[-1].set_xlabel("similarity of two images")
    panels[-1].tick_params(labelbottom=True)
    _name_thresholds(panels[0], study, bins)
    return figure


def _shown(study: ReproducibilityStudy) -> list[tuple[str, str]]:
    means = study.of("mean_similarity")
    if len(means) <= _SHOWN_PAIRS:
        return list(means)
    ordered = sorted(means, key=lambda pair: means[pair].value)
    half = _SHOWN_PAIRS // 2
    return [*ordered[:half], *ordered[-half:]]


def _floor(samples: Sequence[Agreement]) -> float:
    """Left end of the axis: the half percent that is least similar says nothing."""
    every = np.concatenate([np.r_[a.similarity, a.unpaired_similarity] for a in samples])
    return float(min(np.floor(np.quantile(every, 0.005) * 10) / 10, 0.9))


def _panel(
    axes: Axes,
    name: str,
    agreement: Agreement,
    bins: npt.NDArray[np.float64],
    study: ReproducibilityStudy,
) -> None:
    """One pair: filled for the same seed, outlined for different seeds."""
    looks: tuple[tuple[npt.NDArray[np.float64], dict[str, Any]], ...] = (
        (agreement.similarity, {"color": INK, "alpha": 0.75}),
        (
            agreement.unpaired_similarity,
            {"color": REFERENCE, "histtype": "step", "linewidth": 1.3, "linestyle": ":"},
        ),
    )
    for values, look in looks:
        kept = np.clip(values, bins[0], bins[-1])
        axes.hist(kept, bins.tolist(), weights=np.full(len(kept), 1 / len(kept)), **look)
    axes.axvline(study.rules.threshold, color=MARK, linewidth=1.2)
    axes.axvline(study.calibrated, color=MARK, linewidth=1.2, linestyle="--")
    axes.set_xlim(bins[0], bins[-1])
    axes.yaxis.set_major_locator(MaxNLocator(2))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.tick_params(labelbottom=False, labelsize=9.5)
    axes.set_ylabel("of images", fontsize=9.5)
    above = [
        percent(float((v > study.rules.threshold).mean()))
        for v in (agreement.similarity, agreement.unpaired_similarity)
    ]
    note: dict[str, Any] = {"transform": axes.transAxes, "va": "center", "fontsize": 9.5}
    axes.text(1.035, 0.84, name, weight="bold", **note)
    axes.text(1.035, 0.5, f"above {study.rules.threshold:g}: {above[0]}", color=INK, **note)
    axes.text(1.035, 0.18, f"different seeds: {above[1]}", color="#666666", **note)


def _name_thresholds(
    axes: Axes, study: ReproducibilityStudy, bins: npt.NDArray[np.float64]
) -> None:
    """Label the thresholds above the top panel, on the outer side of each."""
    marks = sorted(
        [
            (study.rules.threshold, f"{study.rules.threshold:g}"),
            (study.calibrated, f"calibrated {study.calibrated:.2f}"),
        ]
    )
    for (value, text), side in zip(marks, ("right", "left")):
        place = float(np.clip(value, bins[0], bins[-1]))
        axes.annotate(
            text,
            xy=(place, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(3 if side == "right" else -3, 5),
            textcoords="offset points",
            ha=side,
            fontsize=9.5,
            color=MARK,
            annotation_clip=False,
        )
