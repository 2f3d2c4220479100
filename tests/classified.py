"""Planted predictions: classifiers that are right as often as they are told to be."""

from __future__ import annotations

import numpy as np

from regimes.classifiers.scores import Predictions

CLASSES = ("NORMAL", "PNEUMONIA")


def planted(rates, *, counts=(60, 100), seed=0, sharpness=0.3):
    """Predictions whose recall of class c is rates[c], up to rounding; who is missed depends on seed."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    called = labels.copy()
    for c, (rate, n) in enumerate(zip(rates, counts, strict=True)):
        missed = rng.permutation(np.flatnonzero(labels == c))[: round((1 - rate) * n)]
        called[missed] = (c + 1) % len(counts)
    probabilities = rng.uniform(0, sharpness, (len(labels), len(counts)))
    probabilities[np.arange(len(labels)), called] += 1
    probabilities /= probabilities.sum(1, keepdims=True)
    ids = np.array([f"test-{i:04d}" for i in range(len(labels))])
    return Predictions(ids=ids, labels=labels, probabilities=probabilities.astype(np.float32))


def planted_arms(rates, *, seeds=4, spread=0.01, counts=(60, 100)):
    """Predictions by (arm, seed); rates by arm, with a spread over seeds."""
    found = {}
    for arm, own in rates.items():
        for seed in range(seeds):
            shift = spread * (seed - (seeds - 1) / 2)
            shifted = [min(1.0, max(0.0, r + shift)) for r in own]
            found[arm, seed] = planted(shifted, counts=counts, seed=seed)
    return found


GOOD = {
    "real": (0.60, 0.80),
    "generated": (0.40, 0.70),
    "diverse": (0.40, 0.70),
    "real+generated": (0.60, 0.80),
    "real+diverse": (0.90, 0.95),
}
"""Diverse images help, generated ones change nothing, and neither is worth a real image."""
