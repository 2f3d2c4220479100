"""The way back from noise: steps as their definitions say, both samplers from one posterior mean."""

from __future__ import annotations

import numpy as np
import pytest

from regimes.noise import keyed_generator
from regimes.toys.diffusion import Diffusion, backwards, last, path


def halve(x, t):
    """Some posterior mean."""
    return x / (1 + t)


def diffusion(**changes):
    return Diffusion(**({"variance": 4.0, "num_steps": 5} | changes))


FIRST = keyed_generator("first").standard_normal((7, 2))


def test_ddim_steps_are_those_of_sigma():
    """x_s = x_t + (sigma_t - sigma_s)/sigma_t (D - x_t), sigma_t = sigma_q sqrt(t)."""
    states = path(backwards(halve, FIRST, diffusion(), "ddim"))
    assert states.shape == (6, 7, 2)
    sigma = 2 * np.sqrt(np.linspace(1, 0, 6))
    for i in range(5):
        x, t = states[i], 1 - i / 5
        share = (sigma[i] - sigma[i + 1]) / sigma[i]
        np.testing.assert_allclose(states[i + 1], x + share * (halve(x, t) - x), rtol=1e-12)


def test_ddim_is_half_way_of_ddpm_in_the_limit_of_small_steps():
    """DDIM moves sqrt(t)/(sqrt(t) + sqrt(s)) as far as DDPM's mean."""
    first = path(backwards(halve, FIRST, diffusion(), "ddim"))[:2]
    t, s = 1.0, 0.8
    mean = 0.2 * halve(FIRST, 1.0) + 0.8 * FIRST
    share = np.sqrt(t) / (np.sqrt(t) + np.sqrt(s))
    np.testing.assert_allclose(first[1], FIRST + share * (mean - FIRST), rtol=1e-12)


@pytest.mark.parametrize("noise", ["published", "posterior"])
def test_ddpm_adds_the_noise_it_says(noise):
    many = np.zeros((200_000, 1))
    states = path(backwards(halve, many, diffusion(noise=noise), "ddpm", keyed_generator("a")))
    process = diffusion(noise=noise)
    for i, step in enumerate(range(5, 0, -1)):
        t, x = step / 5, states[i]
        added = states[i + 1] - (halve(x, t) / step + (1 - 1 / step) * x)
        expected = 4.0 / 5 * (1 if noise == "published" else (step - 1) / step)
        assert process.step_variance(step) == pytest.approx(expected, rel=1e-12)
        # Four standard errors of a variance of 200,000 normal values.
        assert added.var() == pytest.approx(expected, rel=4 * (2 / 200_000) ** 0.5, abs=1e-12)


def test_variance_of_the_clean_point_is_added_to_the_posterior_noise_only():
    def variance(x, t):
        return np.full_like(x, 3.0)

    first = np.zeros((200_000, 1))
    for noise, extra in (("published", 0.0), ("posterior", 3.0)):
        one = Diffusion(variance=4.0, num_steps=1, noise=noise)
        steps = backwards(
            halve, first, one, "ddpm", keyed_generator("b"), posterior_variance=variance
        )
        expected = one.step_variance(1) + extra
        assert last(steps).var() == pytest.approx(expected, rel=4 * (2 / 200_000) ** 0.5)


def test_starts_have_the_law_they_are_named_after():
    data = np.full((100_000, 1), 7.0)
    for start, mean in (("published", 0.0), ("exact", 7.0)):
        first = diffusion(start=start).first(data, keyed_generator("c"))
        assert first.mean() == pytest.approx(mean, abs=4 * 2 / 100_000**0.5)
        assert first.var() == pytest.approx(4.0, rel=4 * (2 / 100_000) ** 0.5)


def test_equal_seeds_give_equal_samples():
    draws = [
        last(backwards(halve, FIRST, diffusion(), "ddpm", keyed_generator("d", k)))
        for k in (0, 0, 1)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_what_cannot_run_is_refused():
    with pytest.raises(ValueError, match="generator"):
        last(backwards(halve, FIRST, diffusion(), "ddpm"))
    for bad in ({"variance": 0.0}, {"num_steps": 0}):
        with pytest.raises(ValueError, match="variance > 0 and num_steps >= 1"):
            diffusion(**bad)
