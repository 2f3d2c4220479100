"""Closed-form denoisers against brute force, dense linear algebra and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import entr, softmax
from sklearn.linear_model import Ridge

from regimes.denoisers.closed_form import EmpiricalDenoiser, WienerDenoiser
from regimes.noise import karras_sigmas

SHAPE = (2, 3, 3)


def images(rng, n=37):
    return torch.from_numpy(rng.uniform(-1, 1, (n, *SHAPE)))


def noisy(rng, y, sigma, b=6):
    chosen = y[torch.from_numpy(rng.integers(0, len(y), b))]
    return chosen + sigma * torch.from_numpy(rng.standard_normal(chosen.shape))


def brute_force(x, y, sigma):
    """Softmax average by explicit differences, float64."""
    flat_x, flat_y = x.flatten(1).numpy(), y.flatten(1).numpy()
    squared = ((flat_x[:, None] - flat_y[None]) ** 2).sum(-1)
    return (softmax(-squared / (2 * sigma**2), axis=1) @ flat_y).reshape(x.shape)


@pytest.mark.parametrize("tile", [1, 5, 37, 4096])
@pytest.mark.parametrize("sigma", [0.002, 0.02, 0.3, 1.0, 5.0, 80.0])
def test_empirical_denoiser_equals_the_brute_force_average(rng, tile, sigma):
    y = images(rng)
    x = noisy(rng, y, sigma)
    found = EmpiricalDenoiser(y, tile=tile)(x, torch.tensor(sigma)).numpy()
    expected = brute_force(x, y, sigma)
    assert found.dtype == np.float64
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


def test_empirical_denoiser_is_exact_at_every_level_of_the_sampler_with_more_than_a_tile(rng):
    # Images of 32x32x3, as in the papers, where dot products reach 1e3 and exponents 1e9; more of
    # them, and more noisy ones, than a tile holds. Half of the noisy images lie near the middle of
    # two training images, where at low noise the weights depend on the last digits.
    y = torch.from_numpy(rng.uniform(-1, 1, (23, 3, 32, 32)))
    denoiser = EmpiricalDenoiser(y, tile=5)
    middle = (y[:8] + y[1:9]) / 2
    for sigma in karras_sigmas(18)[:-1]:
        x = torch.cat([noisy(rng, y, float(sigma), b=8), middle + 1e-9 * (y[:8] - y[1:9])])
        found = denoiser(x, sigma).numpy()
        expected = brute_force(x, y, float(sigma))
        assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max(), float(sigma)
        # The condition of the hard half: both neighbours count, even at the lowest level.
        assert float(denoiser.weights_summary(x, sigma)[0][8:].min()) > 1.5


def brute_force_weights(x, y, sigma):
    squared = ((x.flatten(1)[:, None] - y.flatten(1)[None]) ** 2).sum(-1).numpy()
    return softmax(-squared / (2 * sigma**2), axis=1)


@pytest.mark.parametrize("tile", [1, 5, 4096])
@pytest.mark.parametrize("sigma", [0.002, 0.3, 1.0, 2.0, 80.0])
def test_weights_summary_is_that_of_the_brute_force_weights(rng, tile, sigma):
    y = images(rng)
    x = noisy(rng, y, sigma, b=11)
    weights = brute_force_weights(x, y, sigma)
    size, entropy = EmpiricalDenoiser(y, tile=tile).weights_summary(x, sigma)
    assert (size.dtype, entropy.dtype) == (torch.float64, torch.float64)
    np.testing.assert_allclose(size, 1 / (weights**2).sum(1), rtol=1e-9)
    np.testing.assert_allclose(entropy, entr(weights).sum(1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("tile", [2, 37, 100])
def test_weights_summary_runs_from_one_image_to_all_of_them(rng, tile):
    y = images(rng)
    denoiser = EmpiricalDenoiser(y, tile=tile)
    size, entropy = denoiser.weights_summary(y[:4], 1e-3)
    assert (size.tolist(), entropy.tolist()) == ([1.0] * 4, [0.0] * 4)
    size, entropy = denoiser.weights_summary(y[:4], 1e6)
    torch.testing.assert_close(size, torch.full((4,), 37.0, dtype=torch.float64))
    torch.testing.assert_close(entropy, torch.full((4,), math.log(37), dtype=torch.float64))


def test_weights_summary_of_an_image_that_occurs_three_times_counts_three(rng):
    y = images(rng)
    size, entropy = EmpiricalDenoiser(torch.cat([y, y[:1], y[:1]])).weights_summary(y[:2], 0.01)
    assert size.tolist() == pytest.approx([3, 1], rel=1e-9)
    assert entropy.tolist() == pytest.approx([math.log(3), 0], abs=1e-9)


def test_empirical_denoiser_between_two_images_weighs_them_as_the_formula_at_low_noise(rng):
    # Near the middle of two images neither weight vanishes: the hard case for rounding.
    y = images(rng, 2)
    sigma = 0.002
    x = (y[:1] + y[1:]) / 2 + 1e-7 * (y[1:] - y[:1])
    gap = float((y[1] - y[0]).square().sum())
    weight = 1 / (1 + math.exp(-1e-7 * gap / sigma**2))  # of the second image
    expected = (1 - weight) * y[0] + weight * y[1]
    torch.testing.assert_close(EmpiricalDenoiser(y)(x, sigma)[0], expected, rtol=1e-6, atol=1e-6)


def test_empirical_denoiser_returns_the_nearest_image_as_noise_vanishes(rng):
    y = images(rng)
    x = noisy(rng, y, 0.4)
    nearest = torch.cdist(x.flatten(1), y.flatten(1)).argmin(1)
    torch.testing.assert_close(
        EmpiricalDenoiser(y, tile=8)(x, 1e-4), y[nearest], rtol=0, atol=1e-12
    )


def test_empirical_denoiser_returns_the_mean_image_as_noise_grows(rng):
    y = images(rng)
    found = EmpiricalDenoiser(y)(images(rng, 2), 1e5)
    torch.testing.assert_close(found, y.mean(0).expand(2, *SHAPE), rtol=0, atol=1e-8)


def test_empirical_denoiser_takes_a_noise_level_per_image(rng):
    y = images(rng)
    x = noisy(rng, y, 0.5, b=3)
    levels = torch.tensor([0.05, 0.5, 5.0])
    together = EmpiricalDenoiser(y)(x, levels)
    for i, sigma in enumerate([0.05, 0.5, 5.0]):
        alone = brute_force(x[i : i + 1], y, float(levels[i].double()))
        np.testing.assert_allclose(
            together[i : i + 1].numpy(), alone, rtol=1e-6, err_msg=str(sigma)
        )


def test_empirical_denoiser_ignores_the_order_of_training_images(rng):
    y = images(rng)
    x = noisy(rng, y, 0.5)
    shuffled = y[torch.from_numpy(rng.permutation(len(y)))]
    torch.testing.assert_close(
        EmpiricalDenoiser(y, tile=7)(x, 0.5), EmpiricalDenoiser(shuffled, tile=7)(x, 0.5)
    )


@pytest.mark.parametrize("form", [EmpiricalDenoiser, WienerDenoiser])
def test_closed_form_is_gradient_free_and_knows_every_noise_level(rng, form):
    denoiser = form(images(rng).float())
    out = denoiser(images(rng, 2).float(), 0.5)
    assert not out.requires_grad
    assert (denoiser.sigma_min, denoiser.sigma_max) == (0.0, math.inf)
    sigma = torch.tensor([0.1, 9.0])
    assert torch.equal(denoiser.round_sigma(sigma), sigma)


@pytest.mark.parametrize("form", [EmpiricalDenoiser, WienerDenoiser])
@pytest.mark.parametrize("shape", [(0, 1, 2, 2), (3, 4)])
def test_closed_form_refuses_what_is_not_a_set_of_images(form, shape):
    with pytest.raises(ValueError, match=r"expected \(N, C, H, W\) with N >= 1"):
        form(torch.zeros(shape))


@pytest.mark.parametrize("n", [7, 200])  # fewer and more images than the 18 dimensions
@pytest.mark.parametrize("sigma", [0.002, 0.1, 1.0, 80.0])
def test_wiener_denoiser_equals_the_dense_conditional_mean(rng, n, sigma):
    y = images(rng, n)
    x = noisy(rng, y, sigma)
    flat = y.flatten(1).numpy()
    mu, cov = flat.mean(0), np.cov(flat.T, bias=True)
    gain = np.linalg.solve(cov + sigma**2 * np.eye(18), cov).T
    expected = mu + (x.flatten(1).numpy() - mu) @ gain.T
    found = WienerDenoiser(y)(x, sigma).flatten(1).numpy()
    # 1e-5: the dense solve of a covariance of rank 6 at sigma 0.002 loses ten digits of sixteen.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_wiener_denoiser_is_the_limit_of_ridge_regression_on_many_noisy_copies(rng):
    y = images(rng, 12)
    sigma = 0.6
    clean = y.flatten(1).numpy().repeat(20_000, axis=0)
    x = clean + sigma * rng.standard_normal(clean.shape)
    ridge = Ridge(alpha=1e-6).fit(x, clean)
    probe = noisy(rng, y, sigma, b=50)
    expected = ridge.predict(probe.flatten(1).numpy())
    found = WienerDenoiser(y)(probe, sigma).flatten(1).numpy()
    assert np.abs(found - expected).max() < 0.02  # 240,000 rows: coefficients to about 2e-3


def test_wiener_denoiser_is_the_posterior_mean_of_gaussian_data(rng):
    # For y ~ N(mu, cov) no denoiser has a lower error; its error is trace(cov (cov + s^2)^-1) s^2.
    factor = rng.standard_normal((18, 18)) / 4
    y = rng.standard_normal((60_000, 18)) @ factor.T + 0.3
    sigma = 0.5
    x = y + sigma * rng.standard_normal(y.shape)
    fit = torch.from_numpy(y).reshape(-1, *SHAPE)
    found = WienerDenoiser(fit)(torch.from_numpy(x).reshape(-1, *SHAPE), sigma).flatten(1).numpy()
    cov = factor @ factor.T
    expected_error = sigma**2 * np.trace(np.linalg.solve(cov + sigma**2 * np.eye(18), cov))
    assert ((found - y) ** 2).sum(1).mean() == pytest.approx(expected_error, rel=0.02)
    # The error is orthogonal to the observation: nothing linear is left to learn.
    residual = (found - y).T @ (x - x.mean(0)) / len(x)
    assert np.abs(residual).max() < 0.01


def test_wiener_denoiser_leaves_training_images_alone_without_noise(rng):
    y = images(rng, 7)
    torch.testing.assert_close(WienerDenoiser(y)(y, 1e-7), y, rtol=0, atol=1e-9)


def test_wiener_denoiser_of_one_image_is_that_image(rng):
    y = images(rng, 1)
    torch.testing.assert_close(WienerDenoiser(y)(images(rng, 3), 0.5), y.expand(3, *SHAPE))
