"""Which regime a cell is in, by a stated rule, and the answer of the study in words."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from regimes.scores.reproducibility import agrees
from regimes.scores.result import Score
from regimes.studies.memorization import Row, need, pooled

RegimeName = Literal[
    "memorization", "linear", "off-manifold", "generalization", "novel", "transition"
]

RULES: dict[RegimeName, str] = {
    "memorization": "more than half of the samples are copies: the interval of GL lies below 0.5",
    "linear": "more than half of the samples are those of the linear (Wiener) denoiser, "
    "so agreement and novelty are those of second-order statistics",
    "off-manifold": "samples are no more like real images than those of the linear denoiser "
    "(precision not above its precision): agreement and novelty say nothing",
    "generalization": "copies are as rare as among real held-out images: the intervals of the two GL "
    "overlap (or samples are copied less), and there are samples enough to exclude 10 percentage points more "
    "copies. And models that share no training image agree at least half as often as models that share all, "
    "and more often than two memorizers do",
    "novel": "copies are as rare as that, and models of another width agree on more seeds than chance "
    "(binomial, 2.5%). But no models of disjoint data were trained: whether the samples depend on these "
    "particular training images was not tested",
    "transition": "none of the other rules holds",
}
"""The rules, in the order in which they are tried."""
_MARGIN = 0.1
"""How many more copies than among real images samples must exclude. Of 24 samples a tenth more were called
as few in 64% of cases, of 1,000 never; so at least 60 are needed, or 25 without any copy."""


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
    gl, wiener = need(rows, "gl", n, width), need(rows, "wiener_similarity", n, width)
    fidelity, baseline = need(rows, "precision", n, width), need(rows, "precision_null", n)
    if copies_most(rows, n, width):
        name: RegimeName = "memorization"
        because = f"{percent(1 - gl.value)} of samples are copies"
    elif wiener.low > 0.5:
        name = "linear"
        because = f"{percent(wiener.value)} of samples match the linear denoiser"
    elif fidelity.low <= baseline.high:
        name = "off-manifold"
        because = f"precision {fidelity.value:.2f}, linear denoiser {baseline.value:.2f}"
    else:
        name, because = _novelty(rows, n, width)
    return Regime(n=n, width=width, name=name, because=because)


def copies_most(rows: Sequence[Row], n: int, width: int) -> bool:
    """More than half of the samples are copies, beyond the interval of GL."""
    return need(rows, "gl", n, width).high < 0.5


def copies_as_real(rows: Sequence[Row], n: int, width: int) -> bool:
    """No more copies than among real held-out images, within the intervals, and surely not many more."""
    gl, real = need(rows, "gl", n, width), need(rows, "gl_heldout", n)
    return gl.high >= real.low and not _too_few(gl, real)


def _too_few(gl: Score, real: Score) -> bool:
    """Whether samples are so few that a tenth more of them may be copies than among real images."""
    return gl.low <= real.value - _MARGIN


def _doubt(gl: Score, real: Score) -> str:
    """What to add to the numbers of a cell whose samples are too few to be called free of copies."""
    undecided = gl.high >= real.low and _too_few(gl, real)
    return f"; too few samples to exclude {percent(_MARGIN)} more copies" if undecided else ""


def _novelty(rows: Sequence[Row], n: int, width: int) -> tuple[RegimeName, str]:
    """Tell generalization from transition, for a model that neither copies nor is trivial."""
    if pooled(rows, "rp_disjoint", n, width) is None:
        return _untested_novelty(rows, n, width)
    gl, ceiling = need(rows, "gl", n, width), need(rows, "gl_heldout", n)
    disjoint, null = need(rows, "rp_disjoint", n, width), need(rows, "rp_disjoint_null", n)
    same = pooled(rows, "rp_same_data", n, width)
    same_value = same.value if same is not None else 1.0
    because = (
        f"{percent(1 - gl.value)} copies (real held-out images: {percent(1 - ceiling.value)}); "
        f"agreement across disjoint data {percent(disjoint.value)} "
        f"(memorizers: {percent(null.value)}, same data: {percent(same_value)}){_doubt(gl, ceiling)}"
    )
    reproducible = disjoint.value >= 0.5 * same_value and disjoint.low > null.high
    return (
        "generalization" if copies_as_real(rows, n, width) and reproducible else "transition"
    ), because


def _untested_novelty(rows: Sequence[Row], n: int, width: int) -> tuple[RegimeName, str]:
    """The same where models of one half of the data only were trained."""
    gl, ceiling = need(rows, "gl", n, width), need(rows, "gl_heldout", n)
    same = pooled(rows, "rp_same_data", n, width)
    because = (
        f"{percent(1 - gl.value)} copies (real held-out images: {percent(1 - ceiling.value)}); "
        "agreement with another width "
        + (
            "not tested"
            if same is None
            else f"{percent(same.value)} (chance: {percent(same.null)})"
        )
        + _doubt(gl, ceiling)
    )
    reproducible = same is not None and agrees(_of_one_pair(rows, same, n, width), among=1)
    name: RegimeName = "novel" if copies_as_real(rows, n, width) and reproducible else "transition"
    return name, because


def _of_one_pair(rows: Sequence[Row], same: Score, n: int, width: int) -> Score:
    """A pooled score as one of as many seeds as there are: pairs of models share them (see ``pooled``)."""
    seeds = min(
        r.score.num_generated
        for r in rows
        if r.score.name == same.name and r.n == n and width in (r.width, r.width_other)
    )
    return dataclasses.replace(same, num_generated=seeds)


def answer(rows: Sequence[Row], sizes: Sequence[int], widths: Sequence[int]) -> tuple[str, str]:
    """The study's answer in two sentences: does it memorize, does it generalize."""
    ordered = sorted(sizes)
    regimes = {(n, w): classify(rows, n, w).name for n in ordered for w in widths}
    found = set(regimes.values())
    if "off-manifold" in found and found <= {"off-manifold", "linear"}:
        return _untrained(rows, ordered[-1])
    return _copying(rows, ordered, regimes), _learning(rows, widths, regimes)


def _untrained(rows: Sequence[Row], n: int) -> tuple[str, str]:
    """What to say when no model makes anything like a real image."""
    fidelity, linear = need(rows, "precision", n), need(rows, "precision_null", n)
    finding = (
        f"No model is trained well enough to judge: at n = {n} precision is {fidelity.value:.2f}, "
        f"and {linear.value:.2f} for the linear denoiser."
    )
    return finding, (
        "Train longer (--steps; networks: --training.duration-kimg), raise --widths, or choose smaller "
        "images; until then the other scores say nothing."
    )


def _copying(
    rows: Sequence[Row], sizes: Sequence[int], regimes: dict[tuple[int, int], RegimeName]
) -> str:
    def every_model_memorizes(n: int) -> bool:
        return all(name == "memorization" for (m, _), name in regimes.items() if m == n)

    memorizing = list(itertools.takewhile(every_model_memorizes, sizes))
    last = need(rows, "gl", sizes[-1])
    end = f"{percent(1 - last.value)} at n = {sizes[-1]}"
    start = f"{percent(1 - need(rows, 'gl', sizes[0]).value)} at n = {sizes[0]}"
    both = end if len(sizes) == 1 else f"{start}, {end}"
    if not memorizing:
        some = any(name == "memorization" for (n, _), name in regimes.items() if n == sizes[0])
        who = "every" if some else "any"
        return f"Not even the smallest training set is memorized by {who} model: copies are {both}."
    first, largest = need(rows, "gl", memorizing[0]), max(memorizing)
    start = f"{percent(1 - first.value)} of samples are copies at n = {memorizing[0]}"
    if largest == sizes[-1]:
        return f"Every model memorizes, up to the largest training set: copies are {both}."
    real = 1 - need(rows, "gl_heldout", sizes[-1]).value
    return (
        f"Up to n = {largest} training images every model memorizes ({start}), and copying falls "
        f"to {end}, where real held-out images resemble a training image as closely in "
        f"{percent(real)} of cases."
    )


def _learning(
    rows: Sequence[Row], widths: Sequence[int], regimes: dict[tuple[int, int], RegimeName]
) -> str:
    generalizing = [cell for cell, name in regimes.items() if name == "generalization"]
    novel = [cell for cell, name in regimes.items() if name == "novel"]
    if novel:
        return _of_novelty(rows, widths, novel)
    if not generalizing:
        return "No cell generalizes; the table of regimes says what each lacks."
    n = max(m for m, _ in generalizing)
    chosen = [w for m, w in generalizing if m == n]
    of_width = "" if len(chosen) == len(widths) else f" of width {' or '.join(map(str, chosen))}"
    rows = [r for r in rows if r.width is None or r.width in chosen]
    rp, null = need(rows, "rp_disjoint", n), need(rows, "rp_disjoint_null", n)
    fidelity, real = need(rows, "precision", n), need(rows, "precision_heldout", n)
    short = "still short of" if fidelity.high < real.low else "not measurably below"
    return (
        f"At n = {n} two models{of_width} that share no training image make the same image from "
        f"the same noise in {percent(rp.value)} of cases (two memorizers: {percent(null.value)}): "
        f"they generalize, with a precision of {fidelity.value:.2f}, {short} the "
        f"{real.value:.2f} of real images."
    )


def _of_novelty(
    rows: Sequence[Row], widths: Sequence[int], novel: Sequence[tuple[int, int]]
) -> str:
    n = max(m for m, _ in novel)
    chosen = [w for m, w in novel if m == n]
    of_width = "" if len(chosen) == len(widths) else f" of width {' or '.join(map(str, chosen))}"
    rows = [r for r in rows if r.width is None or r.width in chosen]
    same = need(rows, "rp_same_data", n)
    fidelity, real = need(rows, "precision", n), need(rows, "precision_heldout", n)
    return (
        f"At n = {n} models{of_width} copy no more than real images resemble each other, and make the "
        f"same image from the same noise as another width in {percent(same.value)} of cases (chance: "
        f"{percent(same.null)}), with a precision of {fidelity.value:.2f} (real images: "
        f"{real.value:.2f}); models of disjoint data, which would tell generalization, were not trained."
    )


def percent(value: float) -> str:
    """A fraction in percent, with a decimal where it is close to none or all."""
    return f"{100 * value:.1f}%" if 0 < value < 0.1 or 0.9 < value < 1 else f"{100 * value:.0f}%"
