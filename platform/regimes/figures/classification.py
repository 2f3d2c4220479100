"""What generated images are worth to a classifier: a score per arm, and the recall of every class.

Hollow dots are single classifiers (seeds), filled ones their means, bars 95% intervals for both
seeds and test images. Dotted gray: the mean of the real images, which is what the others are read
against.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regimes.figures.style import INK, REFERENCE, Margins, canvas, short, styled, text_inches
from regimes.studies.classification import (
    BASE,
    MAIN,
    ClassificationStudy,
    Comparison,
    Estimate,
    learned,
)
from regimes.words import counted

_ROW = 0.42  # inches
_WIDTH = 4.6  # inches, of the axes
_MARKERS = "osD^v"
MOST_CLASSES = 30
"""Classes whose recalls one figure can show."""


def finding(study: ClassificationStudy) -> str:
    """Which arms help beside real images, in one line."""
    mixed = [c for c in study.comparisons if c.base == BASE and c.arm.startswith(f"{BASE}+")]
    if not learned(study):
        return "The classifiers of real images are not above chance: nothing follows"
    if len(study.seeds) == 1:
        return "Balanced accuracy of one classifier per training set: one seed tells no spread"
    said = {"helps": "help", "hurts": "hurt"}
    parts = [
        f"{_part(c)} images {said[c.effect]} ({c.main.value:+.3f})"
        for c in mixed
        if c.effect in said
    ]
    rest = [_part(c) for c in mixed if c.effect not in said]
    if rest:
        parts.append(f"{' and '.join(rest)} images make no measurable difference")
    text = "; ".join(parts) + " beside real ones"
    return text[0].upper() + text[1:]


def _part(comparison: Comparison) -> str:
    return comparison.arm.removeprefix(f"{BASE}+")


@styled
def score_by_arm(study: ClassificationStudy) -> Figure:
    """Balanced accuracy of every arm, with its seeds and its interval."""
    longest = max(text_inches(arm, size=10.5) for arm in study.arms)
    margins = Margins(left=longest + 0.35, right=0.35, bottom=0.62, top=0.35)
    size = (margins.left + _WIDTH + margins.right, 0.97 + _ROW * len(study.arms))
    figure, axes = canvas(finding(study), size, margins)
    for row, arm in enumerate(study.arms):
        _draw(axes, study.of(arm), row)
    _base_line(axes, study.of(BASE).value)
    chance = study.of(BASE).null
    axes.set_xlabel(
        f"balanced accuracy, {counted(sum(study.test_counts), 'test image')} (chance: {chance:.2f})"
    )
    _rows(axes, list(study.arms))
    return figure


def _draw(axes: Axes, e: Estimate, row: float, marker: str = "o", *, seeds: bool = True) -> None:
    """One estimate: interval, mean, and the seeds behind it."""
    if not math.isnan(e.low):
        axes.plot([e.low, e.high], [row, row], color=INK, linewidth=1.6, solid_capstyle="butt")
    if seeds:
        at = row + 0.22 * np.linspace(-1, 1, len(e.by_seed)) if len(e.by_seed) > 1 else [row]
        axes.plot(e.by_seed, at, "o", markersize=4, markerfacecolor="none", color=REFERENCE)
    axes.plot([e.value], [row], marker, markersize=6.5, color=INK)


def _base_line(axes: Axes, value: float) -> None:
    axes.axvline(value, color=REFERENCE, linestyle=":", linewidth=1.2, zorder=0)
    axes.annotate(
        f"real: {value:.3f}",
        (value, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        color=REFERENCE,
        fontsize=9,
    )


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


@styled
def recall_by_class(study: ClassificationStudy) -> Figure:
    """Recall of every class, one marker per arm; for at most ``MOST_CLASSES`` classes."""
    names = [f"{short(n)} ({k})" for n, k in zip(study.classes, study.test_counts)]
    longest = max(text_inches(n, size=10.5) for n in names)
    legend = max(text_inches(arm, size=10.5) for arm in study.arms) + 0.5
    margins = Margins(left=longest + 0.35, right=legend + 0.1, bottom=0.62, top=0.12)
    row = max(_ROW, 0.16 * len(study.arms))
    size = (margins.left + _WIDTH + margins.right, 0.8 + row * len(names))
    figure, axes = canvas(_recall_finding(study), size, margins)
    offsets = np.linspace(-0.3, 0.3, len(study.arms))
    for arm, marker, offset in zip(study.arms, _MARKERS, offsets):
        for label in range(len(names)):
            _draw(axes, study.of(arm, "recall", label), label + offset, marker, seeds=False)
        axes.plot([], [], marker, color=INK, label=arm)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.2)
    axes.set_xlabel("recall: share of the class's test images called by their class")
    _rows(axes, names)
    return figure


def _recall_finding(study: ClassificationStudy) -> str:
    """The class whose recall changes most when images are added."""
    changes = [
        (e, c)
        for c in study.comparisons
        if c.base == BASE and c.arm.startswith(f"{BASE}+")
        for e in c.differences
        if e.metric == "recall"
    ]
    e, c = max(changes, key=lambda pair: abs(pair[0].value))
    assert e.label is not None
    sure = not math.isnan(e.low) and (e.low > 0 or e.high < 0)
    doubt = "" if sure else ", within its interval of none"
    return (
        f"Largest change of a recall: {short(study.classes[e.label])} {e.value:+.3f} with "
        f"{_part(c)} images{doubt}"
    )


def captions(study: ClassificationStudy) -> dict[str, str]:
    """File name of every figure of a study, and its caption."""
    found = {
        MAIN.replace("_", "-"): (
            "Balanced accuracy of classifiers by what they were trained on; hollow: single seeds; bars: "
            "95% intervals for seeds and test images; arms are judged by their paired differences, in the "
            "table."
        )
    }
    if len(study.classes) <= MOST_CLASSES:
        found["recall"] = "Recall of every class (its test images in brackets), by training set."
    return found
