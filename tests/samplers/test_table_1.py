"""The general sampler against plain loops in numpy, written from table 1 of Karras et al. 2022.

Nothing of the library is used on the reference side: sigma(t) and s(t) are the formulas of the
table, their derivatives are central differences, inverses are found by bisection, and the denoiser
is the posterior mean of a mixture of two Gaussians, which is not linear in x.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import softmax

from regimes.denoisers.preconditioning import IDDPM
from regimes.errors import ConfigError
from regimes.samplers.edm import SamplerConfig, sample
from regimes.samplers.general import sample_general
from regimes.samplers.levels import noise_levels
from regimes.samplers.schedules import (
    Linear,
    VarianceExploding,
    VariancePreserving,
    make_schedule,
)

MEANS, SPREAD = np.array([-0.6, 0.5]), 0.2
SHAPE = (3, 1, 2, 2)


def mixture_mean(x, sigma):
    """E[y | x] of an even mixture of N(-0.6, 0.2^2) and N(0.5, 0.2^2), elementwise."""
    total = SPREAD**2 + sigma**2
    weights = softmax(-((x[..., None] - MEANS) ** 2) / (2 * total), axis=-1)
    return (weights * (MEANS * sigma**2 + x[..., None] * SPREAD**2) / total).sum(-1)


class Mixture:
    """The same as a denoiser, with a range."""

    def __init__(self, sigma_min=0.0, sigma_max=math.inf):
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def round_sigma(self, sigma):
        return sigma

    def __call__(self, x, sigma, class_labels=None):
        return torch.from_numpy(mixture_mean(x.numpy(), float(sigma)))


def betas(sigma_min, sigma_max):
    """beta_d and beta_min with sigma(1e-3) = sigma_min and sigma(1) = sigma_max."""
    times = np.array([1e-3, 1.0])
    rows = np.stack([times**2 / 2, times], axis=1)
    return np.linalg.solve(rows, np.log(1 + np.array([sigma_min, sigma_max]) ** 2))


def sigma_of(schedule, sigma_min, sigma_max):
    beta_d, beta_min = betas(sigma_min, sigma_max)
    return {
        "vp": lambda t: math.sqrt(math.expm1(beta_d * t**2 / 2 + beta_min * t)),
        "ve": math.sqrt,
        "linear": lambda t: t,
    }[schedule]


def table_levels(discretization, n, sigma_min, sigma_max):
    i = np.arange(n) / (n - 1)
    if discretization == "vp":
        sigma = sigma_of("vp", sigma_min, sigma_max)
        return np.array([sigma(t) for t in 1 + i * (1e-3 - 1)])
    if discretization == "ve":
        return np.sqrt(sigma_max**2 * (sigma_min**2 / sigma_max**2) ** i)
    if discretization == "edm":
        return (sigma_max ** (1 / 7) + i * (sigma_min ** (1 / 7) - sigma_max ** (1 / 7))) ** 7
    u = [0.0]
    for j in range(1000, 0, -1):
        # EDM computes alpha_bar of an integer tensor, hence in float32, and all else in float64.
        above, below = (
            torch.sin(0.5 * math.pi * torch.tensor(k) / 1000 / 1.008) ** 2 for k in (j - 1, j)
        )
        assert above.dtype == torch.float32
        u.append(math.sqrt((u[-1] ** 2 + 1) / max(float(above / below), 0.001) - 1))
    kept = [v for v in u[::-1] if sigma_min <= v <= sigma_max]
    return np.array([kept[round(float(f) * (len(kept) - 1))] for f in i])


def reference(z, noise, *, n, solver, discretization, schedule, scaling, low, high, churn=0.0):
    """Algorithm 1 with churn; x = s (y + sigma n)."""
    sigma_at = sigma_of(schedule, low, high)

    def time_of(sigma):
        upper = 2 * max(high, high**2, 1.0) if schedule != "vp" else 1.2
        return brentq(lambda t: sigma_at(t) - sigma, 1e-9, upper, xtol=1e-18, rtol=1e-15)

    def scale_at(t):
        return 1 / math.sqrt(1 + sigma_at(t) ** 2) if scaling == "vp" else 1.0

    def derivative(f, t):
        h = 1e-4 * t  # the error, of order h^4, is far below the tolerance
        return (8 * (f(t + h) - f(t - h)) - (f(t + 2 * h) - f(t - 2 * h))) / (12 * h)

    def slope(x, t):
        s, sigma = scale_at(t), sigma_at(t)
        log_sigma, log_s = derivative(sigma_at, t) / sigma, derivative(scale_at, t) / s
        return (log_sigma + log_s) * x - s * log_sigma * mixture_mean(x / s, sigma)

    times = [time_of(v) for v in table_levels(discretization, n, low, high)] + [0.0]
    x = z * sigma_at(times[0]) * scale_at(times[0])
    for i in range(n):
        t, t_next = times[i], times[i + 1]
        gamma = min(churn / n, math.sqrt(2) - 1)
        t_hat = time_of(sigma_at(t) * (1 + gamma)) if gamma else t
        added = math.sqrt(max(sigma_at(t_hat) ** 2 - sigma_at(t) ** 2, 0.0)) * scale_at(t_hat)
        x = scale_at(t_hat) / scale_at(t) * x + added * noise[i]
        d = slope(x, t_hat)
        end = x + (t_next - t_hat) * d
        if solver == "heun" and t_next > 0:
            end = x + (t_next - t_hat) * (d + slope(end, t_next)) / 2
        x = end
    return x


COMBINATIONS = [
    ("heun", "vp", "vp", "vp", 0.0),
    ("heun", "ve", "ve", "none", 0.0),
    ("heun", "iddpm", "linear", "none", 0.0),
    ("heun", "edm", "linear", "vp", 0.0),
    ("euler", "iddpm", "ve", "vp", 0.0),
    ("heun", "iddpm", "ve", "vp", 4.0),
    ("euler", "edm", "vp", "none", 0.0),
    ("heun", "ve", "vp", "vp", 3.0),
    ("heun", "edm", "ve", "vp", 2.0),
    ("euler", "edm", "linear", "none", 4.0),
]


@pytest.mark.parametrize(
    ("solver", "discretization", "schedule", "scaling", "churn"),
    COMBINATIONS,
    ids=lambda v: str(v),
)
def test_sampler_equals_plain_loops_from_table_1(
    rng, solver, discretization, schedule, scaling, churn
):
    n, low, high = 11, 0.012, 30.0
    z, noise = rng.standard_normal(SHAPE), rng.standard_normal((n, *SHAPE))
    options = {"solver": solver, "discretization": discretization}
    options |= {"schedule": schedule, "scaling": scaling}
    config = SamplerConfig(num_steps=n, sigma_min=low, sigma_max=high, s_churn=churn, **options)
    draws = iter(torch.from_numpy(noise))
    found = sample(Mixture(), torch.from_numpy(z), config=config, step_noise=draws.__next__)
    expected = reference(z, noise, n=n, low=low, high=high, churn=churn, **options)
    # Bisection and differences are good to about 1e-10; the samples lie within [-1.5, 1.5].
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


def test_limits_of_the_network_shape_the_vp_schedule(rng):
    z = rng.standard_normal(SHAPE)
    options = {"solver": "heun", "discretization": "vp", "schedule": "vp", "scaling": "vp"}
    config = SamplerConfig(num_steps=6, **options)
    found = sample(Mixture(0.02, 9.0), torch.from_numpy(z), config=config)
    expected = reference(z, np.zeros((6, *SHAPE)), n=6, low=0.02, high=9.0, **options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("churn", [0.0, 4.0])
@pytest.mark.parametrize("discretization", ["vp", "ve", "iddpm", "edm"])
def test_general_sampler_in_linear_time_and_scale_1_is_algorithm_2(
    rng, solver, churn, discretization
):
    z, noise = rng.standard_normal(SHAPE), torch.from_numpy(rng.standard_normal((9, *SHAPE)))
    config = SamplerConfig(
        num_steps=9, solver=solver, s_churn=churn, s_max=40.0, discretization=discretization
    )
    x = torch.from_numpy(z)
    plain = sample(Mixture(), x, config=config, step_noise=iter(noise).__next__)
    general = sample_general(Mixture(), x, config=config, step_noise=iter(noise).__next__)
    torch.testing.assert_close(general, plain, rtol=1e-11, atol=1e-12)  # rounding only


@pytest.mark.parametrize(
    ("discretization", "low", "high"),
    [("edm", 0.002, 80.0), ("ve", 0.02, 100.0), ("vp", 0.010488, 152.167), ("iddpm", 0.0064, 80.2)],
)
def test_default_levels_are_those_of_the_table(discretization, low, high):
    sigmas = SamplerConfig(discretization=discretization).sigmas(Mixture())
    if discretization == "vp":
        published = [math.sqrt(math.expm1(9.95 * t**2 + 0.1 * t)) for t in (1e-3, 1.0)]
    else:
        published = (0.002, 81.0) if discretization == "iddpm" else (low, high)
    expected = table_levels(discretization, 18, *published)
    np.testing.assert_allclose(sigmas[:-1], expected, rtol=1e-9)
    assert sigmas[-1] == 0
    # iddpm visits levels of its own: none lies below 0.0064, and 80.2 is the last one below 81.
    assert (float(sigmas[-2]), float(sigmas[0])) == pytest.approx((low, high), rel=0.005)


def test_ve_levels_are_a_geometric_sequence():
    sigmas = noise_levels("ve", 5, sigma_min=0.01, sigma_max=100.0)
    assert sigmas.tolist() == pytest.approx([100, 10, 1, 0.1, 0.01, 0], rel=1e-12)


@pytest.mark.parametrize("discretization", ["vp", "ve", "iddpm", "edm"])
def test_levels_are_rounded_to_those_of_the_network(discretization):
    u = IDDPM().u
    sigmas = noise_levels(
        discretization, 9, sigma_min=0.01, sigma_max=50.0, round_sigma=IDDPM().round_sigma
    )
    assert all(bool((u == s).any()) for s in sigmas[:-1])


@pytest.mark.parametrize("discretization", ["vp", "ve", "edm"])
def test_one_level_is_sigma_max(discretization):
    sigmas = noise_levels(discretization, 1, sigma_min=0.01, sigma_max=7.0)
    assert sigmas.tolist() == pytest.approx([7.0, 0.0], rel=1e-9)


@pytest.mark.parametrize("limits", [(0.002, 80.0), (0.0104933, 152.167), (0.02, 1.0), (0.05, 5.0)])
def test_vp_schedule_runs_through_both_ends_increases_and_has_its_slope(limits):
    schedule = VariancePreserving.through(*limits)
    t = torch.linspace(1e-3, 1, 400, dtype=torch.float64)
    sigma = schedule.sigma(t)
    assert (float(sigma[0]), float(sigma[-1])) == pytest.approx(limits, rel=1e-9)
    assert bool((sigma.diff() > 0).all())
    torch.testing.assert_close(schedule.time(sigma), t, rtol=1e-8, atol=0)


def test_vp_schedule_of_the_published_range_has_the_published_betas():
    low, high = SamplerConfig(discretization="vp").sigma_range
    schedule = VariancePreserving.through(low, high)
    assert (schedule.beta_d, schedule.beta_min) == pytest.approx((19.9, 0.1), rel=1e-9)


@pytest.mark.parametrize(
    "schedule", [Linear(), VarianceExploding(), VariancePreserving(), make_schedule("vp", 0.08, 10)]
)
def test_slopes_are_derivatives_and_times_are_inverses(schedule):
    t = torch.linspace(0.01, 1.3, 50, dtype=torch.float64).requires_grad_()
    sigma = schedule.sigma(t)
    (derivative,) = torch.autograd.grad(sigma.sum(), t)
    torch.testing.assert_close(schedule.slope(t.detach()), derivative, rtol=1e-10, atol=0)
    torch.testing.assert_close(schedule.time(sigma.detach()), t.detach(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("schedule", ["vp", "ve", "linear"])
def test_time_0_is_noise_level_0(schedule):
    zero = torch.zeros((), dtype=torch.float64)
    for low in (0.01, 0.002):  # the lower one gives the vp schedule a negative beta_min
        made = make_schedule(schedule, low, 80.0)
        assert (float(made.time(zero)), float(made.sigma(zero))) == (0.0, 0.0)


def test_last_step_removes_all_noise_in_linear_time_and_about_half_in_vp_and_ve_time():
    # sigma grows like sqrt(t) near 0: the tangent there is half as steep as the chord.
    t = torch.tensor(1e-3, dtype=torch.float64)
    left = {
        name: float(1 - t * schedule.slope(t) / schedule.sigma(t))
        for name, schedule in (
            ("linear", Linear()),
            ("ve", VarianceExploding()),
            ("vp", VariancePreserving()),
        )
    }
    assert left == pytest.approx({"linear": 0, "ve": 0.5, "vp": 0.455}, abs=1e-3)


def test_one_step_in_ve_time_leaves_half_of_the_latent():
    class Zero(Mixture):
        def __call__(self, x, sigma, class_labels=None):
            return torch.zeros_like(x)

    z = torch.ones((1, 1, 1, 1), dtype=torch.float64)
    config = SamplerConfig(num_steps=1, sigma_max=3.0, schedule="ve")
    assert float(sample(Zero(), z, config=config)) == pytest.approx(1.5, rel=1e-12)


def test_too_many_steps_for_the_levels_of_iddpm_are_refused():
    config = SamplerConfig(num_steps=500, discretization="iddpm", sigma_min=1.0, sigma_max=2.0)
    with pytest.raises(ConfigError, match=r"iddpm has \d+ levels from 1.0 to 2.0, got 500 steps"):
        config.sigmas(Mixture())


def test_range_that_no_vp_schedule_spans_is_refused():
    for option in ({"discretization": "vp"}, {"schedule": "vp"}):
        config = SamplerConfig(sigma_min=1.0, sigma_max=2.0, **option)
        with pytest.raises(ConfigError, match=r"no vp schedule runs from 1\.0"):
            sample(Mixture(), torch.ones(SHAPE), config=config)
