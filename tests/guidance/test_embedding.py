"""Samples on a map that was fitted once."""

from __future__ import annotations

import numpy as np
import pytest

from regimes.guidance.embedding import fit_map, place


def test_a_real_image_keeps_its_place_and_a_mixture_lies_between():
    rng = np.random.default_rng(0)
    vectors, places = rng.normal(size=(50, 8)), rng.normal(size=(50, 2))
    np.testing.assert_allclose(place(vectors, vectors, places), places, atol=1e-6)
    new = rng.normal(size=(7, 8))
    found = place(new, vectors, places)
    for sample, where in zip(new, found, strict=True):
        distances = np.linalg.norm(vectors - sample, axis=1)
        five = np.argsort(distances)[:5]
        weights = (1 / distances[five]) / (1 / distances[five]).sum()
        np.testing.assert_allclose(where, weights @ places[five])
    order = rng.permutation(7)
    np.testing.assert_allclose(place(new[order], vectors, places), found[order])
    assert place(new[:0], vectors, places).shape == (0, 2)


def test_clusters_stay_apart_on_the_map_and_samples_fall_into_their_own():
    rng = np.random.default_rng(1)
    centres = 20 * np.eye(3, 6)
    labels = np.repeat(np.arange(3), 20)
    vectors = centres[labels] + rng.normal(size=(60, 6))
    places = fit_map(vectors)
    new = place(centres[labels] + rng.normal(size=(60, 6)), vectors, places)
    middles = np.stack([places[labels == k].mean(0) for k in range(3)])
    nearest = np.linalg.norm(new[:, None] - middles, axis=2).argmin(1)
    assert (nearest == labels).all()
    with pytest.raises(ValueError, match="at least 10 real images"):
        fit_map(vectors[:9])
