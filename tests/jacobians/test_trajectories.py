"""The points of a Jacobian study: states of the sampler, and images plus keyed noise."""

from __future__ import annotations

import pytest
import torch

from regimes.denoisers.closed_form import EmpiricalDenoiser
from regimes.denoisers.preconditioning import VE, Denoiser
from regimes.denoisers.residual_mlp import ResidualMLP
from regimes.errors import ConfigError
from regimes.jacobians.trajectories import known_levels, noise_of, trajectory
from regimes.samplers.edm import SamplerConfig, sample


def model():
    return EmpiricalDenoiser(torch.randn(6, 1, 3, 3, generator=torch.Generator().manual_seed(0)))


def latents(count=4):
    return torch.randn(count, 1, 3, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("solver", ["heun", "euler"])
def test_states_are_those_that_the_sampler_passes(solver):
    config = SamplerConfig(num_steps=6, solver=solver)
    levels, states = trajectory(model(), latents(), config=config)
    sigmas = config.sigmas(model())
    assert torch.equal(levels, sigmas[:-1])
    assert torch.equal(states[0], latents().double() * sigmas[0])
    # From each state, the rest of the way leads to the same sample.
    x = sample(model(), latents(), config=config)
    denoiser, state = model(), states[-2]
    for sigma, following in ((sigmas[-3], sigmas[-2]), (sigmas[-2], sigmas[-1])):
        d = (state - denoiser(state, sigma)) / sigma
        moved = state + (following - sigma) * d
        if solver == "heun" and following > 0:
            later = (moved - denoiser(moved, following)) / following
            moved = state + (following - sigma) * (d + later) / 2
            torch.testing.assert_close(moved, states[-1], rtol=0, atol=1e-12)
        state = moved
    torch.testing.assert_close(state, x, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{"s_churn": 1.0}, {"solver": "dpmpp2m"}, {"schedule": "vp", "discretization": "vp"}],
)
def test_other_samplers_are_refused(options):
    with pytest.raises(ConfigError, match="trajectory: expected solver heun or euler"):
        trajectory(model(), latents(), config=SamplerConfig(num_steps=3, **options))


def test_noise_belongs_to_an_image_and_a_seed():
    one = noise_of([("3", 0), ("4", 0), ("3", 1)], (1, 3, 3))
    other = noise_of([("3", 1), ("3", 0)], (1, 3, 3))
    assert torch.equal(one[0], other[1])
    assert torch.equal(one[2], other[0])
    assert len({float(v) for v in one.flatten()}) == 27


def test_levels_are_rounded_to_what_the_model_knows_and_refused_outside():
    denoiser = Denoiser(ResidualMLP((1, 3, 3), 4), VE())
    assert known_levels(denoiser, [50.0, 0.02]).tolist() == [50.0, 0.02]
    with pytest.raises(ConfigError, match=r"from 0\.02 to 100, got 0\.002"):
        known_levels(denoiser, [1.0, 0.002])
