"""The answer of an audit in words, and what to beware of.

The calibrated threshold lets a known share of real, unseen images pass (5% by default), so a count
above it is evidence only as far as it exceeds that share. Two counts need no threshold: images whose
pixels equal a training image's, and images more similar to one than any real image is, of which
M / (H + 1) are expected by chance; of N training images compared with one another, 2 M / (N + 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from regimes.scores.resampling import effective_number, share_range
from regimes.scores.result import Score
from regimes.studies.audit import Copies
from regimes.studies.audit_alarms import REAL, SURE, alarms, any_real, most_beyond
from regimes.studies.audit_metrics import WIDEST_FRECHET
from regimes.words import counted


def share(value: float) -> str:
    """A fraction in percent, with two digits that say something: 0.074%, 5.2%, 37%."""
    if value in (0.0, 1.0):
        return f"{100 * value:.0f}%"
    digits = 2 if value < 0.1 else 3
    return f"{100 * value:#.{digits}g}".rstrip(".") + "%"


def real_name(copies: Copies, *, count: bool = False) -> str:
    """What the reference images are, in words."""
    text = REAL[copies.reference]
    return f"{len(copies.real_similarity):,} {text}" if count else text


def answer(copies: Copies) -> list[str]:
    """The answer in two sentences: that of copies that need no threshold first, where there are any."""
    sentences = [_copies(copies), _certain(copies)]
    found = alarms(copies).keys() & {"exact", "beyond"}
    return sentences[::-1] if found or copies.is_biased else sentences


def _copies(copies: Copies) -> str:
    found, total = int(copies.is_copy.sum()), len(copies.is_copy)
    low, high = copies.interval(copies.is_copy)
    passed = f"{100 * (1 - copies.rules.quantile):.3g}%"
    compared = (
        f"that {passed} of {real_name(copies)} reach"
        if copies.reference == "heldout"
        else f"that {passed} of training images reach with another one (no held-out images)"
    )
    return (
        f"{found:,} of {total:,} generated images ({share(found / total)} [{share(low)}, "
        f"{share(high)}]) are at least as similar to a training image as the threshold {compared}: "
        f"{_against_chance(copies)}.{_repeated(copies)}"
    )


def _repeated(copies: Copies) -> str:
    """Images that repeat one another are no independent evidence."""
    _, distinct = copies.distinct_beyond
    total, independent = len(copies.is_copy), copies.independent
    if independent > _FEW_REPEATS * total:
        return ""
    return (
        f" {distinct:,} of the generated images are different ones: they count for {independent:,.0f} of "
        f"{total:,} in the interval."
    )


def _against_chance(copies: Copies) -> str:
    """How the share of copies compares with that of the reference images."""
    if copies.is_biased:
        return _BIASED
    found, expected = copies.intervals
    name = "unseen real images" if copies.reference == "heldout" else "the training images"
    if found[0] > expected[1]:
        return f"more than among {name}, so the generator copies"
    yet = "; the exact ones are copies all the same" if copies.identical.any() else ""
    if found[1] < expected[0]:
        return f"fewer than among {name}{yet}"
    return f"not measurably more or fewer than among {name}{yet}"


def _certain(copies: Copies) -> str:
    """The counts that need no threshold."""
    if copies.is_biased:
        return f"{_exact(copies)} in every pixel."
    beyond, total = copies.distinct_beyond
    _, independent = copies.chance(0)
    chance = total / (independent + 1)
    most = most_beyond(copies)
    so = ": more than chance explains, so some are copies" if beyond > most else ""
    return (
        f"{_exact(copies)} in every pixel{_flips(copies)}, and {beyond:,} "
        f"{'different ones ' if beyond != 1 and total < len(copies.is_beyond) else ''}"
        f"{'is' if beyond == 1 else 'are'} more "
        f"similar to one than {any_real(copies)} (by chance {chance:.2g}, "
        f"in {SURE:.0%} of cases at most {most:,}){so}."
    )


def _exact(copies: Copies) -> str:
    """How many images equal a training image."""
    exact = int(copies.identical.sum())
    if exact == 0:
        return "None equals a training image"
    turned = " or its flip" if (copies.identical & copies.generated.flipped).any() else ""
    verb = "equals" if exact == 1 else "equal"
    return (
        f"{exact:,} of {len(copies.identical):,} generated images {verb} a training image{turned}"
    )


def _flips(copies: Copies) -> str:
    flips, exact = int(copies.is_flip.sum()), int((copies.is_flip & copies.identical).sum())
    if not flips:
        return ""
    return f", {flips:,} {'copies' if flips == 1 else 'copy'} a flipped one ({exact:,} exactly)"


def null_range(copies: Copies, score: Score) -> tuple[float, float] | None:
    """Where 95% of sets lie that are like the reference images, or None if that is not known.

    The null is measured on H reference images, so for M others a count is beta-binomial (``share_range``).
    A null outside of a score's interval may still have the score inside its range.
    """
    counted = ("memorized", "flips", "ratio")
    if not score.name.startswith(counted) or math.isnan(score.null):
        return score.null_range
    hits, references = copies.chance(round(score.null * len(copies.real_similarity)))
    return share_range(hits, references, round(copies.independent))


def finding(copies: Copies) -> str:
    """The title of a figure: how many copies, and what real images give."""
    found, total = int(copies.is_copy.sum()), len(copies.is_copy)
    exact = int(copies.identical.sum())
    if copies.is_biased:
        return f"{_exact(copies)} in every pixel; for more, held-out images are needed"
    real = copies.real_similarity
    passed = share(float((real > copies.threshold.value).mean()))
    return (
        f"{found:,} of {total:,} generated images ({share(found / total)}) are above the threshold"
        f"{f', {exact:,} equal a training image' if exact else ''}; of "
        f"{real_name(copies)}, {passed} are"
    )


_BLIND = (
    "What this cannot see: a part of a training image inside a new one, crops, strong changes of "
    "colour or scale, or a copied style, unless the descriptor was trained to ignore them (SSCD is, for "
    "some edits; pixels are not, not even for a shift). No copy found is not a proof that there is none."
)
_INTERVALS = (
    "Intervals cover the choice of generated images from this model, these training images and this "
    "threshold. They do not cover training or sampling again."
)
_LOOK = (
    "A copy is what a rule says is one. Look at the gallery around the threshold before drawing a "
    "conclusion, and at what has no frame: plain images are near to each other without any copying."
)
_NO_HELDOUT = (
    "There are no held-out images, so the null is how similar training images are to each other. "
    "Real data hold series of similar images: the threshold is not that of unseen images, and copies may be "
    "missed. whitened-pixels is fitted to both sets together; where most generated images are copies, it "
    "makes the others seem near as well. Precision, recall, "
    "AuthPct, Vendi and distances have no null, and C_T is left out. Pass --heldout."
)
_BIASED = (
    "which says nothing, as the descriptor was fitted to these few training images and makes them unlike "
    "one another. Pass --heldout, or --descriptor pixels"
)
_HIGH_NULL = 0.2
_FEW_REPEATS = 0.9


def beware(copies: Copies, metrics: Sequence[Score]) -> list[str]:
    """What to beware of, with the audit's own numbers where it has them."""
    found = [
        _NO_HELDOUT if copies.reference == "train" else "",
        _leaked(copies),
        _series(copies),
        _published(metrics),
        _unequal(metrics),
        _too_wide(metrics),
    ]
    return [*(text for text in found if text), _BLIND, _LOOK, _INTERVALS]


def _leaked(copies: Copies) -> str:
    leaked = int(copies.identical_real.sum())
    if not leaked:
        return ""
    return (
        f"{counted(leaked, 'held-out image equals', 'held-out images equal')} a training image in every "
        "pixel, which is not held out: the threshold leaves such images out. Whether the rest is unseen "
        "cannot be told from here."
    )


def _series(copies: Copies) -> str:
    """Held-out images that are the same."""
    count, first = len(copies.repeats.heldout), copies.repeats.heldout
    if not count or effective_number(first) > _FEW_REPEATS * count:
        return ""
    return (
        f"{len(np.unique(first)):,} of {count:,} held-out images are different ones: the threshold and every "
        f"null rest on as few as {effective_number(first):,.0f} independent images. Series that differ by "
        "more than --duplicate-distance are not seen, and make intervals and chances too sure."
    )


def _published(metrics: Sequence[Score]) -> str:
    """A fixed threshold that real images pass says nothing."""
    high = [s for s in metrics if s.name.startswith("memorized_published") and s.null > _HIGH_NULL]
    if not high:
        return ""
    lowest = min(high, key=lambda s: s.threshold)
    return (
        f"At the published threshold of {lowest.threshold:g}, {share(lowest.null)} of real images count "
        "as copies: for these images and this descriptor it says nothing. Read the calibrated one."
    )


def _unequal(metrics: Sequence[Score]) -> str:
    by_name = {s.name: s for s in metrics}
    for name in ("fid", "frechet"):
        if f"{name}_matched" in by_name:
            part, whole = by_name[f"{name}_matched"], by_name[name]
            return (
                f"The Fréchet distance falls as images are added. That of {whole.num_generated:,} "
                f"generated images has no null, because there are {part.num_generated:,} held-out "
                f"ones; {name}_matched compares equal numbers."
            )
    return ""


def _too_wide(metrics: Sequence[Score]) -> str:
    """Say why a distance that was to be expected is not there."""
    if any(s.name in ("fid", "frechet") for s in metrics):
        return ""
    return (
        f"There is no Fréchet distance: these descriptors have more than {WIDEST_FRECHET:,} numbers, and "
        "their covariances would take minutes each. --descriptor inception-fid gives FID."
    )
