"""Exact laws: against published closed forms, numbers worked out independently, and each other."""

from __future__ import annotations

import numpy as np
import pytest

from regimes.noise import keyed_generator
from regimes.toys.diffusion import Diffusion, backwards, path
from regimes.toys.laws import Gaussian, Normal, OnePoint, TwoPoints

GAUSSIAN = Gaussian(law=Normal(mean=3.0, variance=0.5))
POINTS = TwoPoints(half_distance=2.0, height=2.0)

# Means and variances of an independent calculation: T, DDPM, DDIM, start N(0, 50).
TABLE = [
    (10, (2.97030, 5.07136), (2.91045, 0.04455)),
    (100, (2.97030, 0.82239), (2.79380, 0.23620)),
    (1000, (2.97030, 0.52578), (2.72059, 0.43371)),
    (10_000, (2.97030, 0.50246), (2.70431, 0.48574)),
]


def wide(num_steps, **changes):
    return Diffusion(variance=50.0, num_steps=num_steps, **changes)


@pytest.mark.parametrize(("steps", "ddpm", "ddim"), TABLE)
def test_gaussian_recursion_gives_the_known_numbers(steps, ddpm, ddim):
    for method, expected in (("ddpm", ddpm), ("ddim", ddim)):
        law = GAUSSIAN.sampled(wide(steps), method)
        assert (law.mean, law.variance) == pytest.approx(expected, abs=5.1e-6)  # printed digits


def test_gaussian_limits_are_those_of_the_wrong_start():
    law = GAUSSIAN.sampled(wide(10**6), "ddim")
    assert law.mean == pytest.approx(3 * (1 - (0.5 / 50.5) ** 0.5), abs=1e-4)
    assert law.variance == pytest.approx(0.495050, abs=2e-4)


def test_exact_start_gives_the_exact_mean():
    for method, variance in (("ddpm", 0.52583), ("ddim", 0.43804)):
        law = GAUSSIAN.sampled(wide(1000, start="exact"), method)
        assert law.mean == pytest.approx(3, abs=1e-12)
        assert law.variance == pytest.approx(variance, abs=5.1e-6)


@pytest.mark.parametrize("steps", [1, 10, 1000])
def test_posterior_noise_gives_one_variance_at_every_number_of_steps(steps):
    law = GAUSSIAN.sampled(wide(steps, noise="posterior"), "ddpm")
    assert law.variance == pytest.approx(0.499951, abs=1e-6)
    exact = GAUSSIAN.sampled(wide(steps, noise="posterior", start="exact"), "ddpm")
    assert (exact.mean, exact.variance) == pytest.approx((3, 0.5), rel=1e-12)


def test_error_of_ddpm_falls_tenfold_with_ten_times_the_steps():
    bias = [
        GAUSSIAN.sampled(wide(t), "ddpm").variance - 0.5 * (1 - (0.5 / 50.5) ** 2)
        for t in (1000, 10_000, 100_000)
    ]
    assert bias[0] / bias[1] == pytest.approx(10, rel=0.05)
    assert bias[1] / bias[2] == pytest.approx(10, rel=0.05)


def test_ks_distance_is_that_of_the_two_laws():
    for method, expected in (("ddpm", 0.0190), ("ddim", 0.1645)):
        found = GAUSSIAN.sampled(wide(1000), method).distance(GAUSSIAN.law)
        assert found == pytest.approx(expected, abs=5.1e-5)
    assert GAUSSIAN.law.distance(GAUSSIAN.law) == 0


def test_gaussian_posterior_is_that_of_a_grid():
    """Bayes' rule, summed over 20,001 values of x_0."""
    x0 = np.linspace(-8, 14, 20_001)
    x, t = 4.2, 0.03
    weights = GAUSSIAN.law.density(x0) * np.exp(-((x - x0) ** 2) / (2 * 50 * t))
    mean = np.average(x0, weights=weights)
    at = np.array([[x]])
    assert GAUSSIAN.posterior_mean(at, t, variance=50.0)[0, 0] == pytest.approx(mean, rel=1e-9)
    spread = np.average((x0 - mean) ** 2, weights=weights)
    found = GAUSSIAN.posterior_variance(at, t, variance=50.0)[0, 0]
    assert found == pytest.approx(spread, rel=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 20, 333])
def test_paths_to_one_point_are_straight_to_rounding(steps):
    a = OnePoint(point=(2.0, 3.0))
    first = 5 * keyed_generator("one").standard_normal((50, 2))
    process = Diffusion(variance=20.0, num_steps=steps)
    states = path(backwards(a.posterior_mean, first, process, "ddim"))
    np.testing.assert_allclose(states[-1], np.tile(a.point, (50, 1)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(states, a.straight(first, steps), rtol=0, atol=1e-12)


def test_two_points_have_a_tanh_for_a_posterior_mean():
    x = keyed_generator("two").normal(0, 10, (200, 2))
    for t in (1e-6, 0.02, 1.0):
        found = POINTS.posterior_mean(x, t, variance=100.0)
        np.testing.assert_allclose(found[:, 0], 2 * np.tanh(x[:, 0] / (50 * t)), atol=1e-12)
        np.testing.assert_array_equal(found[:, 1], 2.0)
        spread = POINTS.posterior_variance(x, t, variance=100.0)
        np.testing.assert_allclose(spread[:, 0], 4 - found[:, 0] ** 2, atol=1e-12)
        np.testing.assert_array_equal(spread[:, 1], 0.0)


def test_two_points_answer_far_away_where_likelihoods_vanish():
    far = np.array([[1e6, -1e6], [-1e6, 1e6]])
    found = POINTS.posterior_mean(far, 1e-9, variance=100.0)
    np.testing.assert_array_equal(found, [[2, 2], [-2, 2]])


def test_line_and_plane_give_the_same_end():
    first = 10 * keyed_generator("line").standard_normal((500, 2))
    process = Diffusion(variance=100.0, num_steps=50)

    def mean(x, t):
        return POINTS.posterior_mean(x, t, variance=100.0)

    states = path(backwards(mean, first, process, "ddim"))
    np.testing.assert_allclose(states[-1][:, 0], POINTS.end(first[:, 0], process), atol=1e-9)


# T, mean miss, within 0.1, within 0.01: an independent simulation of 200,000 samples.
MISSES = [
    (10, 1.078, 0.010, 0.000),
    (50, 0.363, 0.51, 0.22),
    (200, 0.0289, 0.96, 0.93),
    (1000, 2.4e-5, 0.99997, 0.99994),
]


@pytest.mark.parametrize(("steps", "mean", "tenth", "hundredth"), MISSES)
def test_misses_are_those_of_a_simulation(steps, mean, tenth, hundredth):
    """To the digits that were printed, and four standard errors of 200,000 samples."""
    miss = POINTS.miss(Diffusion(variance=100.0, num_steps=steps))
    chance = 4 * miss.sd / 200_000**0.5
    assert miss.mean == pytest.approx(mean, abs=chance + 1e-6)
    assert miss.within_tenth == pytest.approx(tenth, abs=0.006 if tenth < 0.99 else 5e-5)
    assert miss.within_hundredth == pytest.approx(hundredth, abs=0.006 if tenth < 0.99 else 5e-5)


def test_integral_over_starts_does_not_depend_on_its_nodes():
    process = Diffusion(variance=100.0, num_steps=200, start="exact")
    few, many = (POINTS.miss(process, nodes=n) for n in (40_001, 80_001))
    assert few.mean == pytest.approx(many.mean, abs=1e-6)
    assert few.within_hundredth == pytest.approx(many.within_hundredth, abs=1e-4)
