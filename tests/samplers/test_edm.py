"""The sampler against exact solutions of its differential equation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from regimes.denoisers.closed_form import EmpiricalDenoiser, WienerDenoiser
from regimes.denoisers.preconditioning import EDM, IDDPM, VP, Denoiser
from regimes.denoisers.residual_mlp import ResidualMLP
from regimes.errors import ConfigError
from regimes.noise import SeedNoise
from regimes.samplers.edm import SamplerConfig, sample, sample_seeds

SHAPE = (1, 2, 2)


class Gaussian:
    """The exact denoiser of N(0, s^2), which counts its calls and records its noise levels."""

    def __init__(self, s=0.5, sigma_min=0.0, sigma_max=math.inf):
        self.s, self.sigma_min, self.sigma_max = s, sigma_min, sigma_max
        self.levels = []

    def round_sigma(self, sigma):
        return sigma

    def __call__(self, x, sigma, class_labels=None):
        self.levels.append(float(sigma))
        self.labels = class_labels
        return x * self.s**2 / (self.s**2 + sigma**2)


def latents(torch_rng, b=5):
    return torch.randn((b, *SHAPE), generator=torch_rng, dtype=torch.float64)


def ode_error(solver, num_steps, s=0.5, sigma_max=10.0, sigma_min=0.01):
    """Relative error of the solution x(0) = x(T) s / sqrt(s^2 + T^2), where x(T) = T z.

    The step from sigma_min to 0 is an Euler step whose length does not depend on num_steps. Its
    error, a factor s / sqrt(s^2 + sigma_min^2), is divided out.
    """
    config = SamplerConfig(
        num_steps=num_steps, solver=solver, sigma_max=sigma_max, sigma_min=sigma_min
    )
    z = torch.ones((1, 1, 1, 1), dtype=torch.float64)
    exact = sigma_max * s / math.sqrt(s**2 + sigma_max**2) * s / math.sqrt(s**2 + sigma_min**2)
    return abs(float(sample(Gaussian(s), z, config=config)) / exact - 1)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_error_falls_with_the_order_of_the_solver(solver, order):
    errors = [ode_error(solver, n) for n in (64, 128, 256)]
    observed = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert observed == pytest.approx([order, order], abs=0.1)


def test_heun_beats_euler_at_equal_evaluations():
    assert ode_error("heun", 32) < ode_error("euler", 63) / 4


def test_sampler_with_paper_settings_solves_the_gaussian_to_one_percent(torch_rng):
    z = latents(torch_rng)
    exact = z * 80 * 0.5 / math.sqrt(0.5**2 + 80**2)
    found = sample(Gaussian(0.5), z, config=SamplerConfig(num_steps=40))
    torch.testing.assert_close(found, exact, rtol=0.01, atol=0)


@pytest.mark.parametrize(("solver", "evaluations"), [("heun", 2 * 7 - 1), ("euler", 7)])
def test_number_of_evaluations_is_as_declared(torch_rng, solver, evaluations):
    config = SamplerConfig(num_steps=7, solver=solver)
    denoiser = Gaussian()
    sample(denoiser, latents(torch_rng), config=config)
    assert len(denoiser.levels) == config.num_evaluations == evaluations


def test_one_step_is_one_evaluation_and_returns_the_denoised_latent(torch_rng):
    z = latents(torch_rng)
    denoiser = Gaussian()
    found = sample(denoiser, z, config=SamplerConfig(num_steps=1))
    torch.testing.assert_close(found, denoiser(80 * z, torch.tensor(80.0)), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_point_mass_is_reached_exactly(torch_rng, solver):
    point = torch.tensor([0.25, -0.5, 1.0, 0.0], dtype=torch.float64).reshape(1, *SHAPE)
    config = SamplerConfig(num_steps=6, solver=solver)
    found = sample(EmpiricalDenoiser(point), latents(torch_rng), config=config)
    torch.testing.assert_close(found, point.expand(5, *SHAPE), rtol=0, atol=1e-12)


def test_sampling_with_the_empirical_denoiser_returns_training_images(rng):
    y = torch.from_numpy(rng.uniform(-1, 1, (20, 1, 4, 4)))
    found = sample_seeds(EmpiricalDenoiser(y), range(60), (1, 4, 4), config=SamplerConfig())
    distances = (found[:, None] - y[None]).flatten(2).norm(dim=2)
    assert float(distances.amin(1).max()) < 1e-9
    assert len(set(distances.argmin(1).tolist())) > 10  # and not always the same one


def test_sampling_with_the_wiener_denoiser_gives_the_data_covariance(rng):
    factor = rng.standard_normal((4, 4)) / 3
    y = torch.from_numpy(rng.standard_normal((500, 4)) @ factor.T + 0.2).reshape(-1, *SHAPE)
    found = sample_seeds(
        WienerDenoiser(y), range(4000), SHAPE, config=SamplerConfig(num_steps=30)
    ).flatten(1)
    flat = y.flatten(1)
    torch.testing.assert_close(found.mean(0), flat.mean(0), rtol=0, atol=0.06)
    torch.testing.assert_close(found.T.cov(), flat.T.cov(correction=0), rtol=0.12, atol=0.03)


def test_without_churn_nothing_is_drawn(torch_rng):
    def forbidden():
        raise AssertionError("noise was drawn")

    sample(Gaussian(), latents(torch_rng), config=SamplerConfig(), step_noise=forbidden)


def test_with_churn_one_draw_is_made_per_step(torch_rng):
    draws = []

    def step_noise():
        draws.append(1)
        return torch.randn((5, *SHAPE), dtype=torch.float64, generator=torch_rng)

    config = SamplerConfig(num_steps=9, s_churn=5.0, s_min=1.0, s_max=2.0)
    sample(Gaussian(), latents(torch_rng), config=config, step_noise=step_noise)
    assert len(draws) == 9  # also outside [s_min, s_max], so that a seed's stream is fixed


def test_churn_keeps_the_variance_of_samples_right(torch_rng):
    config = SamplerConfig(num_steps=60, s_churn=20.0, sigma_max=10.0)
    z = torch.randn((20_000, 1, 1, 1), generator=torch_rng, dtype=torch.float64)

    def step_noise():
        return torch.randn(z.shape, generator=torch_rng, dtype=torch.float64)

    found = sample(Gaussian(0.5), z, config=config, step_noise=step_noise)
    # Standard error of a variance from 20,000 draws is 1%; the solver's own error is below 1%.
    assert float(found.var()) == pytest.approx(0.25, rel=0.05)
    # Churn did happen: samples are no longer a function of the latent alone.
    plain = sample(Gaussian(0.5), z, config=SamplerConfig(num_steps=60, sigma_max=10.0))
    correlation = np.corrcoef(found.flatten(), plain.flatten())[0, 1]
    assert abs(correlation) < 0.9


def test_churn_follows_lines_5_and_6_of_algorithm_2(torch_rng):
    config = SamplerConfig(num_steps=2, solver="euler", s_churn=0.4, s_noise=1.1, s_max=10.0)
    z, noise = latents(torch_rng), [latents(torch_rng), latents(torch_rng)]
    found = sample(Gaussian(), z, config=config, step_noise=iter(noise).__next__)
    x = 80 * z  # 80 > s_max: no churn in the first step
    x = x + (0.002 - 80) * (x - Gaussian()(x, torch.tensor(80.0))) / 80
    hat = 0.002 * (1 + 0.2)
    x = x + math.sqrt(hat**2 - 0.002**2) * 1.1 * noise[1]
    x = Gaussian()(x, torch.tensor(hat, dtype=torch.float64))
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-12)


def test_churn_is_bounded_by_sqrt_2_minus_1(torch_rng):
    denoiser = Gaussian()
    config = SamplerConfig(num_steps=3, solver="euler", s_churn=1e9)
    sample(denoiser, latents(torch_rng), config=config, step_noise=lambda: latents(torch_rng))
    torch.testing.assert_close(
        torch.tensor(denoiser.levels, dtype=torch.float64),
        config.sigmas(denoiser)[:-1] * math.sqrt(2),
    )


def test_churn_without_noise_is_refused(torch_rng):
    with pytest.raises(ValueError, match="s_churn > 0 needs step_noise"):
        sample(Gaussian(), latents(torch_rng), config=SamplerConfig(s_churn=1.0))


def test_grid_stays_inside_what_the_denoiser_knows():
    sigmas = SamplerConfig(num_steps=5).sigmas(Gaussian(sigma_min=0.1, sigma_max=9.0))
    assert float(sigmas[0]) == pytest.approx(9.0, rel=1e-12)
    assert float(sigmas[-2]) == pytest.approx(0.1, rel=1e-12)
    network = ResidualMLP(SHAPE, 4)
    iddpm = Denoiser(network, IDDPM())
    assert all(float(s) in IDDPM().u.tolist() for s in SamplerConfig().sigmas(iddpm))
    vp = SamplerConfig(sigma_max=500.0).sigmas(Denoiser(network, VP()))
    assert float(vp[0]) == pytest.approx(VP().sigma_max, rel=1e-9)


def network_denoiser(seed=0):
    network = ResidualMLP((1, 4, 4), 16, blocks=2)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return Denoiser(network, EDM()).eval()


def test_batch_size_changes_samples_by_rounding_only():
    config = SamplerConfig(num_steps=8, s_churn=4.0)
    denoiser = network_denoiser()
    whole = sample_seeds(denoiser, range(10), (1, 4, 4), config=config)
    for size in (1, 3):
        parts = sample_seeds(denoiser, range(10), (1, 4, 4), config=config, batch_size=size)
        assert float((parts - whole).abs().max()) <= 1e-5 * float(whole.abs().max())


def test_samples_follow_the_order_of_seeds():
    denoiser, config = network_denoiser(), SamplerConfig(num_steps=4)
    forward = sample_seeds(denoiser, [4, 9, 2], (1, 4, 4), config=config)
    backward = sample_seeds(denoiser, [2, 9, 4], (1, 4, 4), config=config)
    torch.testing.assert_close(forward, backward.flip(0), rtol=1e-5, atol=1e-6)


def test_samples_of_seeds_are_those_of_their_own_noise():
    config = SamplerConfig(num_steps=5, s_churn=2.0)
    noise = SeedNoise([11, 12], SHAPE)
    z = noise.latents()
    expected = sample(Gaussian(), z, config=config, step_noise=noise.step)
    assert torch.equal(sample_seeds(Gaussian(), [11, 12], SHAPE, config=config), expected)


def test_conditional_sampling_draws_the_label_between_latent_and_steps():
    noise = SeedNoise([3, 4], SHAPE)
    noise.latents()
    denoiser = Gaussian()
    sample_seeds(denoiser, [3, 4], SHAPE, config=SamplerConfig(num_steps=2), num_classes=10)
    assert torch.equal(denoiser.labels, noise.class_labels(10))


def test_class_index_replaces_the_drawn_class_and_leaves_later_noise_alone():
    config = SamplerConfig(num_steps=3, s_churn=1.0)
    denoiser = Gaussian()
    drawn = sample_seeds(denoiser, [3, 4], SHAPE, config=config, num_classes=10)
    chosen = sample_seeds(denoiser, [3, 4], SHAPE, config=config, num_classes=10, class_index=7)
    assert torch.equal(denoiser.labels, torch.eye(10)[[7, 7]])
    # This denoiser ignores its labels, so equal samples mean equal noise in every step.
    assert torch.equal(chosen, drawn)
    assert not torch.equal(chosen, sample_seeds(denoiser, [3, 4], SHAPE, config=config))


@pytest.mark.parametrize(
    ("num_classes", "class_index", "message"),
    [
        (10, 10, "class_index: expected 0 to 9, got 10"),
        (10, -1, "class_index: expected 0 to 9, got -1"),
        (0, 0, "class_index: the model is unconditional, got 0"),
    ],
)
def test_class_that_the_model_does_not_know_is_refused(num_classes, class_index, message):
    with pytest.raises(ConfigError, match=message):
        sample_seeds(
            Gaussian(),
            [1],
            SHAPE,
            config=SamplerConfig(),
            num_classes=num_classes,
            class_index=class_index,
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_noise_of_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="noise_device: this machine has no CUDA device"):
        sample_seeds(Gaussian(), [1], SHAPE, config=SamplerConfig(), noise_device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_noise_of_a_gpu_is_that_of_its_own_generator():
    generator = torch.Generator("cuda").manual_seed(5)
    expected = torch.randn(SHAPE, generator=generator, device="cuda")
    assert torch.equal(SeedNoise([5], SHAPE, device="cuda").latents()[0], expected)
    found = sample_seeds(
        Gaussian(), [5], SHAPE, config=SamplerConfig(), noise_device="cuda", device="cuda"
    )
    direct = sample(Gaussian(), expected[None], config=SamplerConfig())
    torch.testing.assert_close(found, direct.cpu(), rtol=1e-12, atol=1e-12)


def test_range_outside_that_of_the_network_is_refused():
    config = SamplerConfig(sigma_min=3.0, sigma_max=4.0)
    with pytest.raises(ConfigError, match=r"network knows noise levels from 0\.0 to 2\.0, got 3"):
        config.sigmas(Gaussian(sigma_max=2.0))


def test_default_range_is_the_published_one_written_out():
    z = torch.ones((1, 1, 1, 1), dtype=torch.float64)
    written = SamplerConfig(sigma_min=0.002, sigma_max=80.0)
    assert torch.equal(
        sample(Gaussian(), z, config=SamplerConfig()), sample(Gaussian(), z, config=written)
    )


def test_no_seeds_give_no_samples():
    assert sample_seeds(Gaussian(), [], SHAPE, config=SamplerConfig()).shape == (0, *SHAPE)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"num_steps": 0}, "num_steps: expected at least 1, got 0"),
        ({"sigma_min": 0.0}, "expected 0 < sigma_min <= sigma_max, got 0.0 and 80.0"),
        ({"sigma_min": 90.0}, "expected 0 < sigma_min <= sigma_max, got 90.0 and 80.0"),
        ({"s_churn": -1.0}, "s_churn: expected 0 or more, got -1.0"),
        ({"rho": 0.0}, "rho: expected a number above 0, got 0.0"),
        ({"rho": math.nan}, "rho: expected a number above 0, got nan"),
        ({"sigma_max": math.inf}, "expected 0 < sigma_min <= sigma_max"),
        ({"s_noise": -1.0}, "s_noise: expected 0 or more, got -1.0"),
        ({"s_min": 2.0, "s_max": 1.0}, "s_min, s_max: expected s_min <= s_max, got 2.0 and 1.0"),
        ({"solver": "rk4"}, "solver: expected one of euler, heun, dpmpp2m, got 'rk4'"),
        ({"discretization": "x"}, "discretization: expected one of vp, ve, iddpm, edm, got 'x'"),
        ({"schedule": "iddpm"}, "schedule: expected one of vp, ve, linear, got 'iddpm'"),
        ({"scaling": "ve"}, "scaling: expected one of vp, none, got 've'"),
        ({"discretization": "ve", "rho": 5.0}, "rho: spaces the levels of discretization edm only"),
        ({"solver": "dpmpp2m", "s_churn": 1.0}, "s_churn: solver dpmpp2m is deterministic"),
        (
            {"discretization": "ve", "sigma_min": 200.0},
            "expected 0 < sigma_min <= sigma_max, got 200.0 and 100.0",
        ),
    ],
)
def test_sampler_config_refuses_what_could_not_run(option, message):
    with pytest.raises(ConfigError, match=message):
        SamplerConfig(**option)
