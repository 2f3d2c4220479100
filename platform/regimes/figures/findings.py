"""What each figure finds, in one line: titles that follow from the numbers they stand above."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from regimes.studies.memorization import Row, need, pooled
from regimes.studies.reproducibility import ReproducibilityStudy, any_agree
from regimes.studies.verdict import classify, copies_as_real, copies_most, percent

Ints = Sequence[int]
_BY = {"rp": "", "rp_calibrated": " at the calibrated threshold", "mae_score": " pixel by pixel"}


def judged(rows: Sequence[Row], sizes: Ints, widths: Ints) -> list[int]:
    """Sizes at which every model makes something like real images: of others, scores say nothing."""
    regimes = {n: {classify(rows, n, w).name for w in widths} for n in sorted(sizes)}
    return [n for n, names in regimes.items() if "off-manifold" not in names]


def _of_judged(
    find: Callable[[Sequence[Row], Ints, Ints], str],
    shown: str,
    rows: Sequence[Row],
    sizes: Ints,
    widths: Ints,
) -> str:
    """What is found at the sizes that can be judged; what is shown, if none can."""
    kept = judged(rows, sizes, widths)
    others = ", ".join(str(n) for n in sorted(sizes) if n not in kept)
    if not kept:
        return f"{shown} (no model is trained well enough to judge)"
    return find(rows, kept, widths) + (f" (not judged: n = {others})" if others else "")


def copying(rows: Sequence[Row], sizes: Ints, widths: Ints) -> str:
    """Between which sizes copying stops, as far as models are trained well enough to tell."""
    return _of_judged(_copying, "Fraction of samples that are not copies", rows, sizes, widths)


def _copying(rows: Sequence[Row], sizes: Ints, widths: Ints) -> str:
    """Between which sizes copying stops.

    Most samples are copies where the interval of GL lies below 0.5 at every width; copying has
    stopped where, from there on, no width copies more than real held-out images resemble.
    These are the study's rules (``verdict.RULES``).
    """

    def copied(n: int) -> bool:
        return all(copies_most(rows, n, w) for w in widths)

    def free(n: int) -> bool:
        return not copied(n) and all(copies_as_real(rows, n, w) for w in widths)

    ordered = sorted(sizes)
    copying_sizes, free_sizes = [n for n in ordered if copied(n)], _tail(ordered, free)
    if len(copying_sizes) == len(ordered):
        return f"Most samples are copies {_throughout(ordered)}"
    if len(free_sizes) == len(ordered):
        return f"No more copies than among real images {_throughout(ordered)}"
    if copying_sizes and free_sizes:
        return f"Copying stops between n = {copying_sizes[-1]} and n = {free_sizes[0]}"
    if free_sizes:
        return f"Copying stops by n = {free_sizes[0]}"
    if copying_sizes and copying_sizes[-1] != ordered[-1]:
        return (
            f"Copying fades after n = {copying_sizes[-1]} but has not stopped at n = {ordered[-1]}"
        )
    return f"Copying has not stopped at n = {ordered[-1]}"


def agreement(rows: Sequence[Row], sizes: Ints, widths: Ints) -> str:
    """From which size on models agree, as far as they are trained well enough to tell."""
    return _of_judged(_agreement, "How often models agree", rows, sizes, widths)


def _agreement(rows: Sequence[Row], sizes: Ints, widths: Ints) -> str:
    """From which size on models of disjoint data agree; of the same data, if there are no others.

    They agree where the interval lies above that of two memorizers and the value is at least half
    of that of models of the same data (all models, if the study has a single width).
    """

    def agrees(n: int, width: int) -> bool:
        disjoint, null = need(rows, "rp_disjoint", n, width), need(rows, "rp_disjoint_null", n)
        same = pooled(rows, "rp_same_data", n, width)
        floor = 0.5 * (1.0 if same is None else same.value)
        return disjoint.value >= floor and disjoint.low > null.high

    ordered = sorted(sizes)
    if pooled(rows, "rp_disjoint", ordered[-1]) is None:
        return _agreement_on_same_data(rows, ordered)
    tail = _tail(ordered, lambda n: all(agrees(n, w) for w in widths))
    if not tail:
        some = any(agrees(n, w) for n in ordered for w in widths)
        verb = "Only some models" if some else "No models"
        where = "" if some else f" {'at' if len(ordered) == 1 else 'up to'} n = {ordered[-1]}"
        return f"{verb} trained on disjoint data agree{where}"
    n, last = tail[0], tail[-1]
    value = percent(need(rows, "rp_disjoint", last).value)
    if n == last:
        return f"Models trained on disjoint data agree on {value} of seeds at n = {n}"
    return f"Models trained on disjoint data agree from n = {n} on: {value} of seeds at n = {last}"


def _agreement_on_same_data(rows: Sequence[Row], ordered: Ints) -> str:
    """Where widths agree least, which is between memorization and what comes after it."""
    values = {n: pooled(rows, "rp_same_data", n) for n in ordered}
    scores = {n: score.value for n, score in values.items() if score is not None}
    if not scores:
        return "How often models make the image of the perfect memorizer"
    shares = {percent(value) for value in scores.values()}
    if len(shares) == 1:
        return f"Widths agree on {shares.pop()} of seeds {_throughout(ordered)}"
    least = min(scores, key=lambda n: scores[n])
    ends = [n for n in (ordered[0], ordered[-1]) if n != least]
    others = ", ".join(f"{percent(scores[n])} at n = {n}" for n in ends)
    return f"Widths agree least at n = {least}: {percent(scores[least])}" + (
        f" ({others})" if others else ""
    )


def fidelity(rows: Sequence[Row], sizes: Ints, widths: Ints) -> str:
    """Whether samples at the largest size are as precise as real images, or merely linear."""
    n = max(sizes)
    value, real = need(rows, "precision", n), need(rows, "precision_heldout", n)
    linear = [need(rows, "wiener_similarity", n, w) for w in widths]
    if all(score.low > 0.5 for score in linear):
        return f"Most samples are those of the linear denoiser at n = {n}"
    null = need(rows, "precision_null", n)
    if value.low <= null.high:
        return f"Samples are no more precise than the linear denoiser's at n = {n}"
    numbers = f"{value.value:.2f} against {real.value:.2f}"
    if value.high < real.low:
        return f"Samples are less precise than real images at n = {n}: {numbers}"
    return f"Samples are about as precise as real images at n = {n}: {numbers}"


def nearness(rows: Sequence[Row], sizes: Ints, width: int) -> str:
    """How the share of samples above the threshold changes from the smallest n to the largest."""
    if not judged(rows, sizes, [width]):
        return f"Width {width}: similarity of samples to their nearest training image"
    first, last = min(sizes), max(sizes)
    share = {n: percent(1 - need(rows, "gl", n, width).value) for n in (first, last)}
    text = f"Width {width}: {share[first]} of samples are copies at n = {first}"
    return text if first == last else f"{text}, {share[last]} at n = {last}"


def shown(counts: Sequence[tuple[int, int, int]], one: str, many: str) -> str:
    """Counts of a picture sheet in words.

    Args:
        counts: (n, marked, shown) per block.
        one: what is counted, after "1 of the 10".
        many: the same after any other number.
    """
    ordered = sorted(counts)
    n, marked, total = ordered[0]
    text = f"{marked} of the {total} shown {one if marked == 1 else many} at n = {n}"
    if len(ordered) > 1:
        text += f", {ordered[-1][1]} at n = {ordered[-1][0]}"
    return text


def _tail(ordered: Ints, holds: Callable[[int], bool]) -> list[int]:
    """The sizes from which on a property always holds."""
    tail: list[int] = []
    for n in reversed(ordered):
        if not holds(n):
            break
        tail.insert(0, n)
    return tail


def _throughout(ordered: Ints) -> str:
    return f"at n = {ordered[0]}" if len(ordered) == 1 else f"at every n up to {ordered[-1]}"


def matrix(study: ReproducibilityStudy, name: str) -> str:
    """How far the models of a comparison agree, by one of its fractions of seeds."""
    scores = study.of(name)
    lowest, highest = (scores[pair] for pair in study.extremes(name))
    chance = study.chance(name)
    if not any_agree(scores.values()):
        who = " and ".join(study.names) if len(study.names) == 2 else "No two models"
        verb = "do not agree" if len(study.names) == 2 else "agree"
        return f"{who} {verb} more often than chance ({percent(chance)}){_BY[name]}"
    span = percent(lowest.value)
    if percent(highest.value) != span:
        span += f" to {percent(highest.value)}"
    who = " and ".join(study.names) if len(study.names) == 2 else "Models"
    return f"{who} agree on {span} of seeds{_BY[name]} (chance: {percent(chance)})"


def similarity_of_pairs(study: ReproducibilityStudy, shown: Sequence[tuple[str, str]]) -> str:
    """How similar two images of one seed are, beside two of different seeds."""
    means = [study.of("mean_similarity")[pair] for pair in shown]
    low, high = min(m.value for m in means), max(m.value for m in means)
    span = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
    null = round(sum(m.null for m in means) / len(means), 2) + 0.0  # no minus zero
    return f"Mean similarity is {span} for the same seed, {null:.2f} for different seeds"


def same_noise(similarities: Sequence[npt.NDArray[np.float64]], threshold: float) -> str:
    """For how many of the seeds shown all models make the first one's image."""
    alike = np.all([values > threshold for values in similarities], axis=0)
    models = "both models" if len(similarities) == 1 else f"all {len(similarities) + 1} models"
    return f"Same noise: {models} agree on {int(alike.sum())} of the {len(alike)} seeds shown"
