"""Comparisons of models that agree on planted shares of seeds."""

from __future__ import annotations

import numpy as np

from regimes.descriptors.pixels import Pixels
from regimes.scores.agreement import compare
from regimes.studies.reproducibility import Rules, study

RULES = Rules(threshold=0.6, quantile=0.95, mae_threshold=15.0)


def planted_sets(shares, count=100, side=8, channels=1, seed=0):
    """Sets of noise images; set i shares its first ``shares[i] * count`` images with the first set."""
    rng = np.random.default_rng(seed)
    shape = (count, side, side, channels)
    first = rng.integers(0, 256, shape, np.uint8)
    sets = [first]
    for share in shares:
        own = rng.integers(0, 256, shape, np.uint8)
        same = round(share * count)
        own[:same] = first[:same]
        sets.append(own)
    return sets


def compared(shares, names=None, **options):
    """The study of such sets."""
    sets = planted_sets(shares, **options)
    names = names or [f"model {i}" for i in range(len(sets))]
    return study(names, compare(sets, Pixels()), descriptor="pixels", rules=RULES)
