"""What in an audit should stop a release: the claims that chance does not explain, one line each."""

from __future__ import annotations

from typing import Literal, get_args

from scipy.stats import betabinom

from regimes.studies.audit import Copies
from regimes.words import counted

Alarm = Literal["exact", "beyond", "calibrated"]
ALARMS: tuple[Alarm, ...] = get_args(Alarm)
SURE = 0.99
REAL = {"heldout": "held-out images", "train": "training images"}


def alarms(copies: Copies) -> dict[Alarm, str]:
    """The alarms that an audit raises, the surest first, each in words.

    exact: generated images equal a training image (or its flip, where flips count) in every pixel.
    beyond: more images than chance gives in 99% of cases are more similar to a training image than any
    of the H reference images is. Of M images like these, BetaBinomial(M, 1, H) are; where N training
    images are compared with one another, H is (N - 1) / 2 (see ``Copies.chance``). Images that are the
    same count once.
    calibrated: the share above the calibrated threshold has an interval above that of the reference
    images (both 95%, Wilson).

    Where the null says nothing (``Copies.is_biased``) only the first can be raised.
    """
    found: dict[Alarm, str] = {}
    if exact := int(copies.identical.sum()):
        found["exact"] = f"{_images(exact, 'equals', 'equal')} a training image in every pixel"
    if copies.is_biased:
        return found
    beyond, most = copies.distinct_beyond[0], most_beyond(copies)
    if beyond > most:
        found["beyond"] = (
            f"{_images(beyond, 'is', 'are')} more similar to a training image than {any_real(copies)}; "
            f"by chance, in {SURE:.0%} of cases, at most {most:,}"
        )
    generated, reference = copies.intervals
    if generated[0] > reference[1]:
        found["calibrated"] = (
            f"{_images(int(copies.is_copy.sum()), 'is', 'are')} above the threshold, a larger share than "
            f"of {REAL[copies.reference]}"
        )
    return found


def most_beyond(copies: Copies) -> int:
    """How many different images are beyond all real ones by chance, at most, in 99% of cases."""
    return int(betabinom.ppf(SURE, copies.distinct_beyond[1], 1, copies.chance(0)[1]))


def any_real(copies: Copies) -> str:
    """What images beyond all real ones are compared with, in words."""
    name = f"any of {len(copies.real_similarity):,} {REAL[copies.reference]} is"
    return name if copies.reference == "heldout" else f"{name} to another"


def _images(count: int, one: str, many: str) -> str:
    return f"{counted(count, 'generated image')} {one if count == 1 else many}"
