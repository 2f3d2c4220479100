"""Scores of paired values: one value per seed, judged beside the values of unpaired couples.

Neither direction is better: agreement is reproducibility, and at small n shared memorization.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from regimes.scores.result import Score, Vector, proportion

Floats = npt.NDArray[np.float64]


def above(
    name: str,
    paired: Floats,
    unpaired: Floats,
    *,
    threshold: float,
    descriptor: str,
    per_item: Mapping[str, Vector] | None = None,
) -> Score:
    """Fraction of paired values strictly above a threshold; null: of the unpaired ones."""
    return proportion(
        name,
        paired > threshold,
        null=float((unpaired > threshold).mean()) if len(unpaired) else math.nan,
        threshold=threshold,
        num_train=0,
        descriptor=descriptor,
        higher_is_better=None,
        per_item=per_item,
    )


def below(
    name: str,
    paired: Floats,
    unpaired: Floats,
    *,
    threshold: float,
    descriptor: str,
    per_item: Mapping[str, Vector] | None = None,
) -> Score:
    """Fraction of paired values strictly below a threshold; null: of the unpaired ones."""
    negated = above(
        name, -paired, -unpaired, threshold=-threshold, descriptor=descriptor, per_item=per_item
    )
    return dataclasses.replace(negated, threshold=threshold)


def mean(
    name: str,
    paired: Floats,
    null: float,
    *,
    descriptor: str,
    per_item: Mapping[str, Vector] | None = None,
) -> Score:
    """Mean of the paired values with its 95% normal interval (nan for a single one)."""
    value, n = float(paired.mean()), len(paired)
    half = float(norm.ppf(0.975)) * float(paired.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return Score(
        name=name,
        value=value,
        low=value - half,
        high=value + half,
        null=null,
        threshold=math.nan,
        num_generated=n,
        num_train=0,
        descriptor=descriptor,
        higher_is_better=None,
        per_item=dict(per_item or {}),
    )


def root_mean(
    name: str,
    squared: Floats,
    null: float,
    *,
    descriptor: str,
    per_item: Mapping[str, Vector] | None = None,
) -> Score:
    """Root of the mean of squares, of the ends of its interval, and of the null's mean."""
    score = mean(name, squared, null, descriptor=descriptor, per_item=per_item)
    ends = (score.value, score.low, score.high, score.null)
    value, low, high, chance = (math.sqrt(max(0.0, x)) if not math.isnan(x) else x for x in ends)
    return dataclasses.replace(score, value=value, low=low, high=high, null=chance)
