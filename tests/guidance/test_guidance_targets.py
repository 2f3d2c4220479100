"""Known answers: guidance on distributions whose modes are counted exactly.

Values of the ring are those of an independent implementation with Euler-Maruyama steps (1000 groups,
standard error .03): 6.57, 7.46, 8.44 and 8.63 distinct modes at factors 0, 10, 100 and 1000.
"""

from __future__ import annotations

import functools
import math

import pytest
import torch

from regimes.guidance.config import GuidanceConfig
from regimes.guidance.published import published_gradient, sample_as_published
from regimes.guidance.sampler import guided_sample
from regimes.guidance.targets import MixtureDenoiser, jumps, ring
from regimes.samplers.edm import SamplerConfig
from regimes.scores.modes import REJECTED, expected_distinct, mode_scores

RING_STEPS = SamplerConfig(
    num_steps=201, sigma_min=0.001**0.5, sigma_max=1.0, discretization="ve", solver="euler"
)
LAST = 0.0317  # the last step, to 0, is thirty times longer in sigma^2 than the others


def scored(target, x, size):
    modes, distances = target.nearest(x)
    near = distances <= 4 * target.std if target.std else torch.ones_like(distances, dtype=bool)
    groups = torch.where(near, modes, REJECTED).reshape(-1, size).numpy()
    return mode_scores(groups, distances.reshape(-1, size).numpy(), target.weights.tolist())


def drawn(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=generator, dtype=torch.float64)


@functools.cache
def ring_scores(factor, groups, *, weights=None, size=10, **options):
    target = ring(10 if weights is None else len(weights), weights=weights)
    noise = drawn((groups * size, 1, 1, 2), 11)
    guidance = GuidanceConfig(
        **{"factor": factor, "group_size": size, "space": "x", "bandwidth": "sigma"},
        **{"average": True, "eta": 1.0, "lowest": LAST} | options,
    )
    latents = target.latents(noise(), 1.0, torch.Generator().manual_seed(12))
    x = guided_sample(target, latents, config=RING_STEPS, guidance=guidance, step_noise=noise)
    return scored(target, x, size)


@functools.cache
def jump_scores(*, groups=40, published=False, **options):
    target = jumps()
    latents = drawn((groups * 8, 1, 32, 32), 2)()
    config = SamplerConfig(num_steps=22)
    if published:
        x = sample_as_published(target, latents, config=config, group_size=8, **options)
    else:
        guidance = GuidanceConfig(group_size=8, **options)
        x = guided_sample(target, latents, config=config, guidance=guidance)
    return scored(target, x, 8)


def test_unguided_ring_covers_what_independent_samples_do():
    found = ring_scores(0.0, 300)
    assert found.independent[0] == pytest.approx(6.513, abs=5e-4)
    assert abs(found.distinct.value - 6.513) < 3 * found.distinct.error
    assert found.distinct.error == pytest.approx(found.independent[1] / 300**0.5, rel=0.15)


@pytest.mark.parametrize(("factor", "expected"), [(10, 7.46), (100, 8.44), (1000, 8.63)])
def test_guided_ring_covers_what_the_independent_implementation_does(factor, expected):
    """300 groups: three standard errors of both, .15; the slow test has .1."""
    assert ring_scores(float(factor), 300).distinct.value == pytest.approx(expected, abs=0.18)


def test_stopping_early_keeps_most_modes_and_restores_quality():
    whole, stopped = ring_scores(100.0, 300), ring_scores(100.0, 300, lowest=0.05**0.5)
    assert stopped.distinct.value > 7.8  # three standard errors below 7.97
    assert stopped.inliers.value > 0.99
    assert stopped.quality.value < whole.quality.value - 0.01


def test_kernel_that_knows_the_geometry_covers_all_modes():
    options = {"kernel": "angular", "width": math.pi}
    assert ring_scores(1000.0, 200, **options).distinct.value >= 9.9
    assert ring_scores(316.0, 200, **options).distinct.value >= 9.8


def test_guidance_pulls_unequal_modes_towards_equal_ones_and_total_variation_shows_it():
    """Two modes of .9 and .1, B = 2: independent samples cover 1.180."""
    options = {"weights": (0.9, 0.1), "size": 2}
    plain, guided = (ring_scores(g, 2000, **options) for g in (0.0, 30.0))
    assert plain.independent[0] == pytest.approx(1.18)
    assert abs(plain.distinct.value - 1.18) < 3 * plain.distinct.error + 0.02
    assert guided.distinct.value > plain.distinct.value + 0.05
    assert guided.marginal[1] > plain.marginal[1] + 0.02
    assert guided.total_variation > 3 * guided.total_variation_null


@pytest.mark.parametrize(
    "options", [{"factor": 0.3}, {"factor": 3.0, "kernel": "iou", "groups": 20}]
)
def test_images_of_eight_jumps_gain_a_mode_at_unchanged_quality(options):
    plain, guided = jump_scores(factor=0.0), jump_scores(**options)
    assert abs(plain.distinct.value - 5.251) < 3 * plain.distinct.error
    assert guided.distinct.value >= plain.distinct.value + 1.0
    assert guided.quality.value <= plain.quality.value + 1e-3  # of images 32 x 32 in [-1, 1]


def test_guidance_as_published_does_not_gain_modes():
    plain = jump_scores(factor=0.0)
    for factor in (0.1, 10.0):
        found = jump_scores(published=True, factor=factor, groups=24)
        assert found.distinct.value < plain.distinct.value


def test_published_bandwidth_gradient_turns_the_force_of_a_pair_around():
    """With two particles the derivative of exp(-d/h), h = d^2 / ln 2, is +(k / h) along d."""
    D = torch.zeros(2, 1, 1, 2, dtype=torch.float64)
    D[1, 0, 0, 0] = 0.6  # 0.3 apart in [0, 1]
    h = 0.3**2 / math.log(2)
    k = math.exp(-0.3 / h)
    found = published_gradient(D, 2).flatten(1)
    expected = torch.tensor([[-k / h, 0.0], [k / h, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    assert torch.equal(published_gradient(D * 0, 2), D * 0)  # NaN: not guided


class White:
    """The denoiser of white noise, on any device."""

    sigma_min, sigma_max = 0.0, math.inf

    def round_sigma(self, sigma):
        return sigma

    def __call__(self, x, sigma, class_labels=None):
        return x / (1 + sigma**2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_published_method_adds_its_noise_on_a_gpu():
    config = SamplerConfig(num_steps=4, s_churn=1.0)
    ends = [
        sample_as_published(
            White(),
            drawn((4, 1, 3, 3), 1)().to(device),
            config=config,
            factor=0.1,
            group_size=2,
            step_noise=drawn((4, 1, 3, 3), 2),  # on the CPU, as seeds draw it
        ).cpu()
        for device in ("cpu", "cuda")
    ]
    torch.testing.assert_close(ends[1], ends[0])


def test_mixture_is_the_posterior_mean():
    """Beside a Monte Carlo estimate of E[y | x] with importance weights."""
    target = ring(3, weights=(0.5, 0.3, 0.2))
    y = target.draw(200_000, torch.Generator().manual_seed(1))
    x, sigma = torch.tensor([0.4, 0.1], dtype=torch.float64).reshape(1, 1, 1, 2), 0.6
    weights = (-(y - x).square().sum((1, 2, 3)) / (2 * sigma**2)).softmax(0)
    estimate = (weights[:, None, None, None] * y).sum(0, keepdim=True)
    # Effective sample size of about 1e5: standard error of about .002.
    torch.testing.assert_close(target(x, sigma), estimate, rtol=0, atol=0.01)


@pytest.mark.parametrize("weights", [(0.5, 0.6), (1.0,), (1.0, 0.0)])
def test_weights_that_are_no_distribution_are_refused(weights):
    with pytest.raises(ValueError, match="weights: expected"):
        MixtureDenoiser(torch.zeros(2, 1, 1, 2), 0.1, weights)


@pytest.mark.slow
def test_table_of_the_ring_in_full():
    plain = ring_scores(0.0, 1000)
    assert abs(plain.distinct.value - 6.513) < 3 * plain.distinct.error
    for factor, expected in ((10.0, 7.46), (100.0, 8.44), (1000.0, 8.63)):
        assert ring_scores(factor, 1000).distinct.value == pytest.approx(expected, abs=0.1)
    stopped = ring_scores(100.0, 1000, lowest=0.05**0.5)
    assert stopped.distinct.value >= 7.9
    assert stopped.inliers.value > 0.99
    radial = ring_scores(1000.0, 1000, kernel="angular", width=math.pi)
    assert radial.distinct.value >= 9.8


@pytest.mark.slow
def test_independent_samples_of_the_image_target_in_full():
    plain = jump_scores(groups=200, factor=0.0)
    assert (
        abs(plain.distinct.value - expected_distinct([1 / 8] * 8, 8)[0]) < 3 * plain.distinct.error
    )
