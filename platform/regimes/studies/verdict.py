"""Which regime a cell is in, by a stated rule, and the answer of the study in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from regimes.scores.result import Score
from regimes.studies.memorization import Row, pooled

RegimeName = Literal["memorization", "linear", "off-manifold", "generalization", "transition"]

RULES: dict[RegimeName, str] = {
    "memorization": "more than half of the samples are copies: the interval of GL lies below 0.5",
    "linear": "more than half of the samples are those of the linear (Wiener) denoiser, "
    "so agreement and novelty are those of second-order statistics",
    "off-manifold": "samples are no more like real images than those of the linear denoiser "
    "(precision not above its precision): agreement and novelty say nothing",
    "generalization": "as few copies as among real held-out images (GL at least 0.9 of theirs), "
    "and models that share no training image agree at least half as often as models that share "
    "all, and more often than two memorizers do",
    "transition": "none of the other rules holds",
}
"""The rules, in the order in which they are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """The regime of the cells of one (n, width), both halves pooled."""

    n: int
    width: int
    name: RegimeName
    because: str
    """The numbers that decided, in words."""


def classify(rows: Sequence[Row], n: int, width: int) -> Regime:
    """Apply ``RULES`` to one (n, width).

    Raises:
        ValueError: if the table lacks a score that the rules need.
    """
    gl, wiener = _need(rows, "gl", n, width), _need(rows, "wiener_similarity", n, width)
    fidelity, baseline = _need(rows, "precision", n, width), _need(rows, "precision_null", n)
    if gl.high < 0.5:
        name: RegimeName = "memorization"
        because = f"{_percent(1 - gl.value)} of samples are copies"
    elif wiener.low > 0.5:
        name = "linear"
        because = f"{_percent(wiener.value)} of samples match the linear denoiser"
    elif fidelity.low <= baseline.high:
        name = "off-manifold"
        because = f"precision {fidelity.value:.2f}, linear denoiser {baseline.value:.2f}"
    else:
        name, because = _novelty(rows, n, width)
    return Regime(n=n, width=width, name=name, because=because)


def _novelty(rows: Sequence[Row], n: int, width: int) -> tuple[RegimeName, str]:
    """Tell generalization from transition, for a model that neither copies nor is trivial."""
    gl, ceiling = _need(rows, "gl", n, width), _need(rows, "gl_heldout", n)
    disjoint, null = _need(rows, "rp_disjoint", n, width), _need(rows, "rp_disjoint_null", n)
    same = pooled(rows, "rp_same_data", n, width)
    same_value = same.value if same is not None else 1.0
    because = (
        f"{_percent(1 - gl.value)} copies (real held-out images: {_percent(1 - ceiling.value)}); "
        f"agreement across disjoint data {_percent(disjoint.value)} "
        f"(memorizers: {_percent(null.value)}, same data: {_percent(same_value)})"
    )
    no_copies = gl.value >= 0.9 * ceiling.value
    reproducible = disjoint.value >= 0.5 * same_value and disjoint.low > null.high
    return ("generalization" if no_copies and reproducible else "transition"), because


def answer(rows: Sequence[Row], sizes: Sequence[int], widths: Sequence[int]) -> tuple[str, str]:
    """The study's answer in two sentences: does it memorize, does it generalize."""
    regimes = {(n, w): classify(rows, n, w).name for n in sizes for w in widths}
    return _copying(rows, sizes, widths, regimes), _learning(rows, sizes, regimes)


def _copying(
    rows: Sequence[Row],
    sizes: Sequence[int],
    widths: Sequence[int],
    regimes: dict[tuple[int, int], RegimeName],
) -> str:
    memorizing = [n for n in sizes if all(regimes[n, w] == "memorization" for w in widths)]
    last = _need(rows, "gl", sizes[-1])
    end = f"{_percent(1 - last.value)} at n = {sizes[-1]}"
    if not memorizing:
        return f"No size memorizes at every width: copies are {end}."
    first = _need(rows, "gl", sizes[0])
    return (
        f"Up to n = {max(memorizing)} training images every model memorizes "
        f"({_percent(1 - first.value)} of samples are copies at n = {sizes[0]}), and copying falls "
        f"to {end}, where real held-out images resemble a training image as closely in "
        f"{_percent(1 - _need(rows, 'gl_heldout', sizes[-1]).value)} of cases."
    )


def _learning(
    rows: Sequence[Row], sizes: Sequence[int], regimes: dict[tuple[int, int], RegimeName]
) -> str:
    generalizing = sorted({n for (n, _), name in regimes.items() if name == "generalization"})
    if not generalizing:
        return "No cell generalizes: models that share no training image do not agree often enough."
    n = generalizing[-1]
    rp, null = _need(rows, "rp_disjoint", n), _need(rows, "rp_disjoint_null", n)
    fidelity, real = _need(rows, "precision", n), _need(rows, "precision_heldout", n)
    short = "still short of" if fidelity.high < real.low else "on a par with"
    return (
        f"At n = {n} two models that share no training image make the same image from the same "
        f"noise in {_percent(rp.value)} of cases (two memorizers: {_percent(null.value)}): they "
        f"generalize, with a precision of {fidelity.value:.2f}, {short} the {real.value:.2f} of "
        "real images."
    )


def _need(rows: Sequence[Row], name: str, n: int, width: int | None = None) -> Score:
    score = pooled(rows, name, n, width)
    if score is None:
        raise ValueError(f"the table has no {name} at n={n}, width={width}")
    return score


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%" if 0 < value < 0.1 or 0.9 < value < 1 else f"{100 * value:.0f}%"
