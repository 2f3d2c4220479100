"""The laws of sample eigenvalues: closed forms, and what random matrices do."""

import numpy as np
import pytest

from regimes.spectra.laws import (
    covariance_law_density,
    marchenko_pastur_density,
    marchenko_pastur_edges,
)
from regimes.spectra.matrix import eigenvalues
from regimes.spectra.rows import Rows


@pytest.mark.parametrize("ratio", [0.25, 6.0])
def test_edges_of_white_noise_are_those_of_marchenko_and_pastur(ratio):
    width = 1200
    count = int(width / ratio)
    x = np.random.default_rng(1).standard_normal((count, width)) * 2**0.5
    found = eigenvalues(Rows(values=x)).positive()
    low, high = marchenko_pastur_edges(width / (count - 1), 2.0)
    assert found[0] == pytest.approx(high, rel=0.02)
    assert found[-1] == pytest.approx(low, rel=0.02)


@pytest.mark.parametrize("ratio", [0.25, 0.8, 6.0])
def test_the_density_is_normalised_and_has_the_right_mean(ratio):
    low, high = marchenko_pastur_edges(ratio, 3.0)
    # x = centre - half cos(angle) takes the square roots off the edges
    angle = (np.arange(4000) + 0.5) * np.pi / 4000
    x = (low + high) / 2 - (high - low) / 2 * np.cos(angle)
    weight = (
        marchenko_pastur_density(x, ratio, 3.0) * (high - low) / 2 * np.sin(angle) * np.pi / 4000
    )
    assert weight.sum() == pytest.approx(1, abs=1e-5)
    assert (x * weight).sum() == pytest.approx(3.0 * max(ratio, 1), rel=1e-4)  # trace over nonzero


@pytest.mark.parametrize("ratio", [0.25, 6.0])
def test_the_general_law_of_a_white_population_is_marchenko_pasturs(ratio):
    low, high = marchenko_pastur_edges(ratio, 2.0)
    x = np.linspace(low + 0.1 * (high - low), high - 0.1 * (high - low), 50)
    found = covariance_law_density(x, np.full(30, 2.0), ratio, smoothing=1e-4)
    np.testing.assert_allclose(found, marchenko_pastur_density(x, ratio, 2.0), rtol=0.01)


@pytest.mark.parametrize(
    ("population", "count"),
    [
        (np.repeat([1.0, 10.0], 200), 800),
        (np.geomspace(1, 1e-4, 400), 200),
        (np.repeat([0, 1.0], 200), 300),
    ],
)
def test_the_general_law_is_that_of_samples_of_the_population(population, count):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, len(population))) * np.sqrt(population)
    values = np.sort(eigenvalues(Rows(values=x)).positive(relative=1e-9))
    grid = np.geomspace(1e-6 * values[-1], 3 * values[-1], 500)
    density = covariance_law_density(grid, population, len(population) / count)
    cdf = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(grid))])
    assert cdf[-1] == pytest.approx(1, abs=0.04)
    empirical = (np.arange(len(values)) + 0.5) / len(values)
    assert np.abs(np.interp(values, grid, cdf) - empirical).max() < 0.03


def test_impossible_laws_are_refused():
    with pytest.raises(ValueError, match="above 0"):
        marchenko_pastur_edges(0)
    with pytest.raises(ValueError, match="at least 0"):
        covariance_law_density(np.ones(2), np.zeros(3), 0.5)
