"""What every score returns, and the interval of a proportion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

Vector = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A number that can be judged: with its interval and with what it is when nothing is going on."""

    name: str
    value: float
    """The score: a fraction in [0, 1], unless the function that returns it says otherwise."""
    low: float
    """Lower end of the 95% interval."""
    high: float
    """Upper end."""
    null: float
    """The same score where the effect is absent; each score's docstring says of what."""
    null_range: tuple[float, float] | None = None
    """Where 95% of sets fall that are like the one that gave the null; None where that is not known."""
    threshold: float
    """What an item is compared with."""
    num_generated: int
    """Items scored."""
    num_train: int
    """Items they were compared with."""
    descriptor: str
    """The space in which they were compared."""
    higher_is_better: bool | None
    """Direction, for a reader who wants models that learn and do not copy; None if neither."""
    per_item: Mapping[str, Vector] = field(default_factory=dict, repr=False)
    """Arrays of length ``num_generated`` from which figures are drawn."""


def wilson_interval(
    successes: float, trials: float, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a proportion that stays inside [0, 1] and works at 0 and at 1.

    Args:
        successes: 0 to ``trials``; a mean over several models may give a fraction.
        trials: at least 1; a fraction where items count for less than one.
        confidence: coverage.

    Returns:
        (low, high), both in [0, 1].

    Source: Wilson 1927.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(
            f"expected 0 <= successes <= trials and trials >= 1, got {successes}, {trials}"
        )
    z = float(norm.ppf((1 + confidence) / 2))
    p = successes / trials
    centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    # The ends are exact at 0 and 1, where rounding would leave 1e-17.
    low = 0.0 if successes == 0 else float(max(0.0, centre - half))
    high = 1.0 if successes == trials else float(min(1.0, centre + half))
    return low, high


def proportion(
    name: str,
    hits: npt.NDArray[np.bool_],
    *,
    null: float,
    threshold: float,
    num_train: int,
    descriptor: str,
    higher_is_better: bool | None,
    per_item: Mapping[str, Vector] | None = None,
    null_range: tuple[float, float] | None = None,
) -> Score:
    """The ``Score`` that is a fraction of items, with its Wilson interval over the items.

    The interval covers the choice of items (seeds) for these models, this threshold and these
    training images; it does not cover training another model.
    """
    low, high = wilson_interval(int(hits.sum()), len(hits))
    return Score(
        name=name,
        value=float(hits.mean()),
        low=low,
        high=high,
        null=null,
        null_range=null_range,
        threshold=threshold,
        num_generated=len(hits),
        num_train=num_train,
        descriptor=descriptor,
        higher_is_better=higher_is_better,
        per_item=dict(per_item or {}),
    )
