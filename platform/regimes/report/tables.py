"""The numbers of a memorization study: a table per family of scores, a row per model, a column per n."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from regimes.scores.result import Score
from regimes.studies.memorization import Row, pooled

_SCORES: dict[str, dict[str, str]] = {
    "Copies": {
        "gl": "GL: samples that are not copies",
        "gl_heldout": "GL of real held-out images",
        "gl_wiener": "GL of the linear denoiser",
        "gl_unflipped": "GL, flips of training images not counted as copies",
        "gl_published": "GL at the published threshold",
        "ratio": "Ratio test: samples far nearer to one training image than to all others",
        "ratio_unflipped": "Ratio test, flips not counted",
        "ratio_heldout": "Ratio test on real held-out images",
    },
    "Reproducibility": {
        "rp_disjoint": "RP, disjoint training data",
        "rp_disjoint_null": "RP of two memorizers, disjoint data",
        "rp_disjoint_wiener": "RP of two linear denoisers, disjoint data",
        "rp_same_data": "RP, same training data, two widths",
        "rp_optimal": "RP with the perfect memorizer (empirical denoiser)",
        "rp_disjoint_published": "RP, disjoint data, published threshold",
        "rp_disjoint_published_null": "RP of two memorizers, published threshold",
        "rp_disjoint_published_wiener": "RP of two linear denoisers, published threshold",
        "rp_same_data_published": "RP, same data, two widths, published threshold",
    },
    "Fidelity": {
        "precision": "Precision: samples among real images",
        "precision_heldout": "Precision of real images",
        "precision_null": "Precision of the linear denoiser",
        "wiener_similarity": "Samples that match the linear denoiser",
        "recall": "Recall: real images among samples",
        "recall_heldout": "Recall of real images",
        "recall_null": "Recall of the linear denoiser",
    },
}
"""What each score of ``score_table`` is called, by family, in the order to show."""

Key = tuple[int | None, int | None]
"""(width, width_other) of a row"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a table: a model, or a pair, over n."""

    label: str
    cells: tuple[tuple[str, str, str] | None, ...]
    """(value, interval, null) per n, or None where there is no score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The lines of one score."""

    name: str
    title: str
    level: str
    """What an item is compared with, in words."""
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One table."""

    title: str
    sizes: tuple[int, ...]
    groups: tuple[Group, ...]


def families(rows: Sequence[Row]) -> list[Family]:
    """All scores, halves pooled; scores without an entry above come last under their own names."""
    names = list(dict.fromkeys(row.score.name for row in rows))
    known = {name for scores in _SCORES.values() for name in scores}
    rest = {name: name for name in names if name not in known}
    sizes = tuple(sorted({row.n for row in rows}))
    tables = []
    for title, scores in {**_SCORES, "Other scores": rest}.items():
        groups = tuple(_group(rows, n, t, sizes) for n, t in scores.items() if n in names)
        if groups:
            tables.append(Family(title=title, sizes=sizes, groups=groups))
    return tables


def _group(rows: Sequence[Row], name: str, title: str, sizes: tuple[int, ...]) -> Group:
    chosen = [row for row in rows if row.score.name == name]
    keys: list[Key] = list(dict.fromkeys((row.width, row.width_other) for row in chosen))
    lines = []
    for key in keys:
        of_key = [row for row in chosen if (row.width, row.width_other) == key]
        cells = tuple(_cell(pooled(of_key, name, n)) for n in sizes)
        lines.append(Line(label=_label(key), cells=cells))
    return Group(name=name, title=title, level=_level(chosen[0].score), lines=tuple(lines))


def _label(key: Key) -> str:
    width, beside = key
    if width is None:
        return "any width"
    return f"width {width}" if beside in (None, width) else f"widths {width}, {beside}"


def _cell(score: Score | None) -> tuple[str, str, str] | None:
    if score is None:
        return None
    null = "" if math.isnan(score.null) else f"null {score.null:.3f}"
    return f"{score.value:.3f}", f"[{score.low:.3f}, {score.high:.3f}]", null


def _level(score: Score) -> str:
    if score.name.startswith(("precision", "recall")):
        return f"k = {score.threshold:.0f}"
    if score.name.startswith("ratio"):
        return f"ratio < {score.threshold:.3f}"
    return f"similarity > {score.threshold:.3f}"
