"""The spiral, its oracle, and distances to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regimes.denoisers.closed_form import EmpiricalDenoiser
from regimes.noise import keyed_generator
from regimes.toys.swiss_roll import FIRST_ANGLE, LAST_ANGLE, SwissRoll, spiral

ROLL = SwissRoll()


def test_moments_are_the_known_ones():
    points = spiral(np.linspace(FIRST_ANGLE, LAST_ANGLE, 100_000))
    assert points.mean(0) == pytest.approx([-0.0040, -0.0981], abs=2e-4)
    assert points.var(0) == pytest.approx([0.1922, 0.1784], abs=2e-4)
    assert ROLL.variance == pytest.approx(points.var(0).mean(), abs=1e-4)
    assert np.linalg.norm(points, axis=1)[[0, -1]] == pytest.approx([1 / 8, 1])


@pytest.mark.parametrize("t", [0.001, 0.03, 1.0])
def test_oracle_is_the_empirical_denoiser_of_many_points(t):
    """20,000 points evenly in angle stand for the curve; 500 nodes of the oracle are as good."""
    points = spiral(np.linspace(FIRST_ANGLE, LAST_ANGLE, 20_000))
    rng = keyed_generator("oracle", str(t))
    x = ROLL.draw(50, rng) + np.sqrt(t) * rng.standard_normal((50, 2))
    images = torch.from_numpy(points)[:, :, None, None]
    expected = EmpiricalDenoiser(images)(torch.from_numpy(x)[:, :, None, None], t**0.5)
    found = ROLL.posterior_mean(x, t, variance=1.0)
    np.testing.assert_allclose(found, expected[:, :, 0, 0].numpy(), atol=3e-4)


def test_oracle_takes_a_time_per_point():
    x = keyed_generator("times").standard_normal((4, 2))
    t = np.array([0.01, 0.1, 0.5, 1.0])
    each = [ROLL.posterior_mean(x[i : i + 1], t[i], variance=1.0)[0] for i in range(4)]
    np.testing.assert_allclose(ROLL.posterior_mean(x, t, variance=1.0), each, rtol=1e-12)


def test_distance_is_zero_on_the_curve_and_that_of_a_shift_along_its_normal():
    theta = np.linspace(FIRST_ANGLE + 0.1, LAST_ANGLE - 0.1, 50)
    on = ROLL.nearest(spiral(theta))
    assert on.rms < 1e-4
    np.testing.assert_allclose(on.theta, theta, atol=1e-3)
    tangent = spiral(theta + 1e-6) - spiral(theta - 1e-6)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1) / np.linalg.norm(tangent, axis=1)[:, None]
    np.testing.assert_allclose(
        ROLL.nearest(spiral(theta) + 0.05 * normal).distance, 0.05, atol=1e-4
    )


def test_data_fill_all_bins_evenly():
    bins = ROLL.nearest(ROLL.draw(20_000, keyed_generator("bins"))).bins(20)
    assert bins.sum() == 20_000
    assert np.abs(bins - 1000).max() < 5 * 1000**0.5


def test_noise_lies_as_far_away_as_is_known():
    noise = keyed_generator("far").standard_normal((20_000, 2))
    assert ROLL.nearest(noise).rms == pytest.approx(0.796, abs=0.02)
