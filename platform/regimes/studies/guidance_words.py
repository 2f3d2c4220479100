"""A sweep of particle guidance in sentences; every one follows from the numbers beside it."""

from __future__ import annotations

import math

from regimes.scores.modes import Mean
from regimes.studies.guidance import CellFinding, GuidanceStudy
from regimes.words import counted


def answer(study: GuidanceStudy) -> list[str]:
    """The finding, what chance gives, and what it does to the marginal."""
    found = study.best or study.largest
    if found is None:
        return [_baseline_words(study.findings[0]), "No cell was guided: pass --factors above 0."]
    base = study.baseline(found.key)
    sentences = [_headline(study), _baseline_words(base), _marginal_words(study, found)]
    return [*sentences, _law_words(study, base, found)] if study.law_is_set else sentences


def title(study: GuidanceStudy) -> str:
    """The finding in a line."""
    best = study.best
    if best is not None:
        return f"Guidance covers {best.gain.value:+.2f} modes per group at unchanged quality"
    if any(f.diversifies for f in study.guided):
        return "Guidance covers more modes, but in no cell is quality known to be kept"
    return "Guidance does not cover more modes than independent samples"


def _headline(study: GuidanceStudy) -> str:
    best, largest = study.best, study.largest
    total = len(study.guided)
    if best is not None:
        good = sum(f.is_good for f in study.guided)
        return (
            f"Particle guidance covers more modes at unchanged quality in {good} of "
            f"{counted(total, 'cell')}; most "
            f"with {best.key.label}: {_change(study, best)}."
        )
    assert largest is not None
    if largest.diversifies:
        return (
            f"Particle guidance covers more modes, but in no cell of {total} is quality known to stay within "
            f"the tolerance. The largest gain, with {largest.key.label}: {_change(study, largest)}; its "
            f"quality is {_QUALITY[largest.quality]}."
        )
    return (
        f"Particle guidance does not cover more modes in any of {counted(total, 'cell')}. The largest "
        "gain, with "
        f"{largest.key.label}, is within chance: {_change(study, largest)}."
    )


_QUALITY = {"kept": "kept", "worse": "worse", "open": "open: pass more --groups to tell"}


def _change(study: GuidanceStudy, found: CellFinding) -> str:
    base = study.baseline(found.key)
    low, high = found.gain.interval(study.z)
    return (
        f"{found.scores.distinct.value:.2f} instead of {base.scores.distinct.value:.2f} of "
        f"{len(study.probabilities)} modes per group ({found.gain.value:+.2f}, interval {low:+.2f} to "
        f"{high:+.2f} over all cells together), accepted samples {found.scores.inliers.value:.1%} "
        f"instead of {base.scores.inliers.value:.1%}"
    )


def _baseline_words(base: CellFinding) -> str:
    mean, sd = base.scores.independent
    off, error = base.scores.distinct.value - mean, base.scores.distinct.error
    word = "within three standard errors of"
    if abs(off) > 3 * error:
        word = "fewer than" if off < 0 else "more than"
    return (
        f"Without guidance, groups of {base.key.group_size} cover {base.scores.distinct.value:.2f} modes "
        f"(standard error {base.scores.distinct.error:.2f}), "
        f"{word} those of {base.key.group_size} independent draws of the data: {mean:.2f} on "
        f"average, with a standard deviation of {sd:.2f} per group."
    )


def _marginal_words(study: GuidanceStudy, found: CellFinding) -> str:
    base = study.baseline(found.key)
    if not (found.scores.inliers.value and base.scores.inliers.value):
        return "No samples are accepted, so that nothing is known of the shares of modes."
    moved, before = found.scores.total_variation, base.scores.total_variation
    chance = found.scores.total_variation_null
    word = "leaves the shares of modes no farther from the data than they were"
    if moved > before + 0.01:
        surely = moved > 2 * chance
        word = "moves" if surely else "may move (too few samples to tell)"
        word += " the shares of modes away from the data"
    return (
        f"Guidance {word}: total variation {moved:.3f}, without guidance {before:.3f}; as many "
        f"independent draws would show {chance:.3f}."
    )


def share(study: GuidanceStudy, found: CellFinding, mode: int = 0) -> Mean:
    """Share of a mode among accepted samples."""
    scores = found.scores
    return Mean(float(scores.marginal[mode]), float(scores.marginal_errors[mode]))


def holds(study: GuidanceStudy, found: CellFinding, mode: int = 0) -> bool:
    """Whether the 95% interval of a mode's share holds its probability in the data."""
    low, high = share(study, found, mode).interval()
    return low <= study.probabilities[mode] <= high


def _law_words(study: GuidanceStudy, base: CellFinding, found: CellFinding) -> str:
    """What became of the law that the clips were made with, for its first direction."""
    p, name = study.probabilities[0], study.mode_names[0]
    words = list[str]()
    for which, cell in (("Without guidance", base), (f"with {found.key.label}", found)):
        low, high = share(study, cell).interval()
        if not high < math.inf:
            words.append(f"{which} too few samples are accepted to say how many go {name}")
            continue
        fits = "which holds" if holds(study, cell) else "which does not hold"
        words.append(
            f"{which} {share(study, cell).value:.3f} of accepted samples go {name} (95% interval "
            f"{low:.3f} to {high:.3f}, {fits} the set {p:.3f})"
        )
    return f"{words[0]}; {words[1]}."


def beware(study: GuidanceStudy) -> list[str]:
    """What to be careful with."""
    cautions = [
        (
            "Distinct modes alone reward broken samples that fall on rare modes by accident: rejected "
            "samples count as no mode, and the share of accepted ones stands beside every count."
        ),
        (
            "Guided particles of a group are not independent draws, and their marginal is not the model's: "
            "do not use them to estimate expectations."
        ),
        (
            f"Tolerances of quality: accepted samples {study.tolerance.inliers:.0%} fewer, distance "
            f"{study.tolerance.distance:.0%} longer. Other tolerances can give another verdict."
        ),
        (
            "Cells share their latents with their baseline, which makes differences precise; cells are not "
            "independent of each other."
        ),
    ]
    if max(study.probabilities) > 1.5 * min(study.probabilities):
        cautions.append(
            "Modes are not equally frequent in the data. Repulsion favours rare ones: read the total "
            "variation, which says how far the marginal moved, before the count."
        )
    if any(f.key.is_baseline and f.scores.inliers.value < 0.5 for f in study.findings):
        cautions.append(
            "Of samples without guidance fewer than half are accepted: the model, not its guidance, is what "
            "limits the modes here. Train it for longer, or sample it with more steps."
        )
    if study.law_is_set:
        cautions.append(
            "A sample counts for a direction only if it lies within half the distance between the two "
            "nearest exact next frames: a model that draws the digit badly covers no directions, whatever "
            "its guidance. The published distance, to the frame moved by the measured shift, does not see "
            "jumps of the wrong length."
        )
    groups = [f.scores.distinct for f in study.findings]
    if any(abs(g.error) > 0.25 for g in groups):
        cautions.append("Standard errors above .25 modes: pass more --groups.")
    return cautions


def plus_minus(mean: Mean, digits: int = 2) -> str:
    """Value and 95% half width."""
    return f"{mean.value:.{digits}f} ± {1.96 * mean.error:.{digits}f}"
