"""Tables of scores as the memorization study makes them, with chosen values."""

from __future__ import annotations

import itertools
import math

import numpy as np

from regimes.scores.calibration import Threshold
from regimes.scores.result import Score, wilson_interval
from regimes.studies.memorization import Row

N = 400
SIZES, WIDTHS = (16, 64, 256, 850), (128, 256)
TAU = Threshold(value=0.88, low=0.87, high=0.9, quantile=0.95, num_heldout=900, num_train=850)

# Scores by n that follow the measured ones on digits.
GL = {16: 0.01, 64: 0.1, 256: 0.84, 850: 0.99}
DISJOINT = {16: 0.0, 64: 0.0, 256: 0.01, 850: 0.56}
PRECISION = {16: 0.92, 64: 0.91, 256: 0.9, 850: 0.64}


def score(name, value, null=0.0, threshold=0.88):
    """A score of N items, ``value`` of which are hits; similarities split at the threshold."""
    hits = round(value * N)
    low, high = wilson_interval(hits, N)
    similarity = np.concatenate([np.linspace(0.3, 0.8, hits), np.linspace(0.9, 1, N - hits)])
    return Score(
        name=name,
        value=hits / N,
        low=low,
        high=high,
        null=null,
        threshold=threshold,
        num_generated=N,
        num_train=850,
        descriptor="pixels",
        higher_is_better=True,
        per_item={"similarity": similarity} if name.startswith("gl") else {},
    )


def table(sizes=SIZES, widths=WIDTHS, gl=None, disjoint=None, precision=None, wiener=None):
    """Rows as ``score_table`` makes them, with chosen values."""

    def at(values, default, n):
        return (values or {}).get(n, default.get(n, 0.5))

    rows = []
    for n, half in itertools.product(sizes, "AB"):

        def add(name, value, width=None, null=0.0, half=half, n=n, **extra):
            rows.append(
                Row(score=score(name, value, null), n=n, width=width, half=half, versus="", **extra)
            )

        add("gl_heldout", 0.95, null=math.nan)
        add("gl_wiener", 1.0)
        add("precision_heldout", 0.9)
        add("precision_null", 0.1)
        for w in widths:
            add("gl", at(gl, GL, n), w, null=0.95)
            add("precision", at(precision, PRECISION, n), w, null=0.1)
            add("rp_optimal", 0.9 - at(gl, GL, n) * 0.9, w)
            add("wiener_similarity", at(wiener, {}, n) if wiener else 0.05, w)
        for w, v in itertools.combinations(widths, 2):
            add("rp_same_data", 0.75, w, width_other=v, half_other=half)
        if half == "A":
            add("rp_disjoint_null", 0.01, half_other="B")
            add("rp_disjoint_wiener", 1.0, half_other="B")
            for w in widths:
                add("rp_disjoint", at(disjoint, DISJOINT, n), w, width_other=w, half_other="B")
    return rows
