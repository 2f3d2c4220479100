"""Guided sampling: the plain sampler in its limits, and what guidance must and must not do."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from regimes.denoisers.closed_form import WienerDenoiser
from regimes.denoisers.preconditioning import EDM, Denoiser
from regimes.denoisers.residual_mlp import ResidualMLP
from regimes.errors import ConfigError
from regimes.guidance.config import GuidanceConfig
from regimes.guidance.kernels import dissimilarities, potential
from regimes.guidance.sampler import guided_sample, guided_sample_seeds
from regimes.guidance.targets import MixtureDenoiser, jumps, ring
from regimes.samplers.edm import SamplerConfig, sample, sample_seeds

SHAPE = (1, 4, 4)
SOLVERS = [
    SamplerConfig(num_steps=6, solver="euler"),
    SamplerConfig(num_steps=6, solver="heun"),
    SamplerConfig(num_steps=6, solver="heun", s_churn=3.0),
]


def network():
    net = ResidualMLP(SHAPE, 16, blocks=1)
    net.init_member(0, torch.Generator().manual_seed(1))
    with torch.no_grad():  # the last layer starts at 0, and the network would be a constant
        net.output.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(2))
    return Denoiser(net, EDM()).requires_grad_(False)


def mixture():
    centres = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(3))
    return MixtureDenoiser(centres, 0.1)


DENOISERS = {"network": network, "closed form": mixture}


def unit_features(x):
    return torch.stack([x.mean((1, 2, 3)), x[:, 0, 0, 0] * x[:, 0, 1, 1]], 1)


@pytest.mark.parametrize("config", SOLVERS)
@pytest.mark.parametrize("denoiser", DENOISERS)
@pytest.mark.parametrize(
    "guidance", [{"factor": 0.0, "group_size": 4}, {"factor": 9.0, "group_size": 1}]
)
def test_without_factor_or_company_samples_are_those_of_the_plain_sampler_bit_for_bit(
    guidance, denoiser, config
):
    model, seeds = DENOISERS[denoiser](), range(8)
    plain = sample_seeds(model, seeds, SHAPE, config=config)
    for options in ({}, {"on_step": lambda *_: None}):  # by the plain code, and step by step
        guided = guided_sample_seeds(
            model, seeds, SHAPE, config=config, guidance=GuidanceConfig(**guidance), **options
        )
        assert torch.equal(guided, plain)


@pytest.mark.parametrize("config", SOLVERS)
def test_outside_the_window_samples_are_those_of_the_plain_sampler_bit_for_bit(config):
    guidance = GuidanceConfig(factor=5.0, group_size=4, lowest=1e4)
    guided = guided_sample_seeds(mixture(), range(8), SHAPE, config=config, guidance=guidance)
    assert torch.equal(guided, sample_seeds(mixture(), range(8), SHAPE, config=config))


@pytest.mark.parametrize("factor", [0.0, 3.0])
def test_guidance_draws_no_random_numbers(factor):
    calls = []
    generator = torch.Generator().manual_seed(0)

    def noise():
        calls.append(1)
        return torch.randn(8, *SHAPE, generator=generator, dtype=torch.float64)

    latents = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    guided_sample(
        mixture(),
        latents,
        config=SOLVERS[2],
        guidance=GuidanceConfig(factor=factor, group_size=4),
        step_noise=noise,
    )
    assert len(calls) == SOLVERS[2].num_steps
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kernel", ["rbf", "iou", "cosine", "angular"])
def test_permuting_particles_permutes_samples(kernel):
    latents = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(1))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    guidance = GuidanceConfig(factor=2.0, group_size=6, kernel=kernel)
    straight = guided_sample(mixture(), latents, config=SOLVERS[1], guidance=guidance)
    mixed = guided_sample(mixture(), latents[order], config=SOLVERS[1], guidance=guidance)
    # Sums over particles are taken in another order: rounding of float64, amplified by 6 steps.
    torch.testing.assert_close(mixed, straight[order], rtol=1e-7, atol=1e-9)


def test_groups_do_not_depend_on_the_batch_they_are_in():
    guidance = GuidanceConfig(factor=2.0, group_size=4)
    options = {"config": SOLVERS[2], "guidance": guidance}
    whole = guided_sample_seeds(mixture(), range(12), SHAPE, **options)
    parts = guided_sample_seeds(mixture(), range(12), SHAPE, groups_per_batch=1, **options)
    alone = guided_sample_seeds(mixture(), range(8, 12), SHAPE, **options)
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(alone, whole[8:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", ["rbf", "iou", "cosine", "angular"])
@pytest.mark.parametrize("strength", ["constant", "linear", "cosine", "relative"])
def test_two_particles_move_apart(kernel, strength):
    """One small step with guidance, beside the same step without; far below overshooting."""
    latents = torch.randn(
        2, *SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    wiener = WienerDenoiser(torch.randn(50, *SHAPE, generator=torch.Generator().manual_seed(2)))
    config = SamplerConfig(num_steps=1, sigma_min=0.5, sigma_max=0.5, solver="euler")
    guidance = GuidanceConfig(factor=1e-3, group_size=2, kernel=kernel, strength=strength)
    plain = sample(wiener, latents, config=config)
    guided = guided_sample(wiener, latents, config=config, guidance=guidance)
    start = wiener(0.5 * latents, 0.5)  # a step of euler to 0 ends at D, plus guidance
    torch.testing.assert_close(plain, start, rtol=1e-9, atol=1e-12)
    apart = [
        float(dissimilarities(x.reshape(1, 2, -1), guidance)[0, 0, 1]) for x in (plain, guided)
    ]
    assert apart[1] > apart[0] * (1 + 1e-7)


def test_identical_particles_stay_together_and_finite():
    latents = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1)).expand(4, *SHAPE)
    guidance = GuidanceConfig(factor=10.0, group_size=4)
    found = guided_sample(mixture(), latents, config=SOLVERS[1], guidance=guidance)
    assert torch.equal(found, sample(mixture(), latents, config=SOLVERS[1]))


@pytest.mark.parametrize("space", ["denoised", "features"])
def test_exact_jacobian_gives_the_gradient_of_the_potential_in_x(space):
    """One Euler step from sigma to 0 is D + sigma^2 F, so F can be read off it."""
    model, sigma, size = mixture(), 0.8, 4
    x = torch.randn(size, *SHAPE, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    config = SamplerConfig(num_steps=1, sigma_min=sigma, sigma_max=sigma, solver="euler")
    g = GuidanceConfig(
        factor=1.0, group_size=size, space=space, jacobian="exact", bandwidth="fixed"
    )
    features = unit_features if space == "features" else None
    moved = guided_sample(model, x / sigma, config=config, guidance=g, features=features)
    force = (moved - model(x, sigma)) / sigma**2
    h = torch.ones(1, 1, 1, dtype=torch.float64)

    def energy(state):
        z = model(state, sigma)
        z = z if features is None else features(z)
        return float(potential(z.reshape(1, size, -1), g, h))

    step = 1e-5
    for place in [(0, 0, 0, 0), (2, 0, 1, 3), (3, 0, 3, 1)]:
        up, down = x.clone(), x.clone()
        up[place] += step
        down[place] -= step
        slope = (energy(up) - energy(down)) / (2 * step)
        assert float(force[place]) == pytest.approx(-slope, abs=1e-6)
    assert float(force.abs().max()) > 1e-4


def test_features_pull_back_by_a_vector_jacobian_product():
    """With D for its features, space features is space denoised."""
    latents = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))
    common = {"factor": 2.0, "group_size": 4}
    direct = guided_sample(mixture(), latents, config=SOLVERS[1], guidance=GuidanceConfig(**common))
    through = guided_sample(
        mixture(),
        latents,
        config=SOLVERS[1],
        guidance=GuidanceConfig(space="features", **common),
        features=lambda D: D.flatten(1),
    )
    torch.testing.assert_close(through, direct)


def test_custom_kernel_that_is_the_squared_distance_is_rbf():
    latents = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))
    common = {"factor": 2.0, "group_size": 4}

    def squared(z):
        return (z[:, :, None] - z[:, None]).square().sum(-1)

    rbf = guided_sample(mixture(), latents, config=SOLVERS[1], guidance=GuidanceConfig(**common))
    custom = guided_sample(
        mixture(),
        latents,
        config=SOLVERS[1],
        guidance=GuidanceConfig(kernel="custom", **common),
        dissimilarity=squared,
    )
    torch.testing.assert_close(custom, rbf, rtol=1e-7, atol=1e-9)


def shifts(guidance, sigma=2.0):
    """How far guidance moves particles in one Euler step from sigma to 0, beside the slope."""
    latents = torch.randn(
        4, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    config = SamplerConfig(num_steps=1, sigma_min=sigma, sigma_max=sigma, solver="euler")
    plain = sample(mixture(), latents, config=config)
    moved = guided_sample(mixture(), latents, config=config, guidance=guidance) - plain
    slope = sigma * latents - plain
    return float(moved.norm()), float(slope.norm())


def test_relative_strength_is_a_share_of_the_slope_and_a_cap_limits_it():
    group = {"group_size": 4}
    length, slope = shifts(GuidanceConfig(factor=0.3, strength="relative", **group))
    assert length == pytest.approx(0.3 * slope, rel=1e-9)
    length, slope = shifts(GuidanceConfig(factor=1e5, cap=0.2, **group))
    assert length == pytest.approx(0.2 * slope, rel=1e-9)
    weak = GuidanceConfig(factor=1e-3, **group)
    assert shifts(dataclasses.replace(weak, cap=0.2)) == pytest.approx(shifts(weak), rel=1e-12)


def test_strengths_are_what_their_names_say():
    constant = GuidanceConfig(factor=3.0, strength="constant")
    linear = GuidanceConfig(factor=3.0, strength="linear")
    cosine = GuidanceConfig(factor=3.0, strength="cosine")
    assert constant.schedule(5.0, 0.5) == 3
    assert linear.schedule(5.0, 0.5) == 15
    assert [cosine.schedule(5.0, p) for p in (0, 0.5, 1)] == pytest.approx([15, 7.5, 0])


def test_guiding_the_predictor_alone_moves_as_far_to_first_order():
    """The guidance of a step is not halved by Heun's mean with an unguided corrector."""
    config = SamplerConfig(num_steps=40)
    latents = torch.randn(
        4, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    plain = sample(mixture(), latents, config=config)
    moved = []
    for corrector in (True, False):
        guidance = GuidanceConfig(factor=1e-4, group_size=4, corrector=corrector)
        x = guided_sample(mixture(), latents, config=config, guidance=guidance)
        moved.append(float((x - plain).norm()))
    assert moved[0] != moved[1]
    assert moved[1] == pytest.approx(moved[0], rel=0.3)


def test_ddim_with_noise_forgets_the_latents_and_samples_the_same_distribution():
    model = MixtureDenoiser(torch.zeros(1, 1, 1, 2), 0.5)
    latents = torch.randn(4000, 1, 1, 2, generator=torch.Generator().manual_seed(1))
    config = SamplerConfig(num_steps=200, solver="euler", sigma_max=20.0)
    generator = torch.Generator().manual_seed(2)

    def noise():
        return torch.randn(latents.shape, generator=generator, dtype=torch.float64)

    x = guided_sample(
        model,
        latents,
        config=config,
        guidance=GuidanceConfig(eta=1.0, group_size=4),
        step_noise=noise,
    )
    # 8000 draws: the standard error of their deviation is 0.8%; 200 steps add a bias of about 2%.
    assert float(x.std()) == pytest.approx(0.5, rel=0.045)
    correlation = float((x.flatten() * latents.flatten()).mean() / x.std() / latents.std())
    assert abs(correlation) < 0.1  # the ODE would keep a correlation of 1


def test_angular_guidance_in_x_turns_particles_and_keeps_their_radius():
    model = ring()
    config = SamplerConfig(num_steps=1, sigma_min=0.3, sigma_max=0.3, solver="euler")
    latents = torch.randn(
        2, 1, 1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    guidance = GuidanceConfig(
        factor=50.0, group_size=2, space="x", kernel="angular", bandwidth="fixed"
    )
    plain = sample(model, latents, config=config)
    shift = guided_sample(model, latents, config=config, guidance=guidance) - plain
    turned = 0.3 * latents + shift
    torch.testing.assert_close(
        turned.flatten(1).norm(dim=1), 0.3 * latents.flatten(1).norm(dim=1), rtol=1e-12, atol=0
    )
    assert float(shift.norm()) > 0.01


def test_trajectories_hold_every_step():
    seen = []
    guidance = GuidanceConfig(factor=1.0, group_size=4)
    guided_sample_seeds(
        mixture(),
        range(4),
        SHAPE,
        config=SOLVERS[1],
        guidance=guidance,
        on_step=lambda sigma, x, D: seen.append((sigma, x.shape, D.shape)),
    )
    assert [s[0] for s in seen] == [float(s) for s in SOLVERS[1].sigmas(mixture())[:-1]]
    assert {s[1:] for s in seen} == {((4, *SHAPE), (4, *SHAPE))}


@pytest.mark.parametrize(
    ("config", "guidance", "message"),
    [
        ({"solver": "dpmpp2m"}, {}, "solver: guidance steps by euler or heun, got dpmpp2m"),
        ({"scaling": "vp", "schedule": "vp"}, {}, "expected linear and none, got vp and vp"),
        ({"solver": "heun"}, {"eta": 1.0}, "eta: is DDIM's noise; expected solver euler"),
    ],
)
def test_samplers_that_cannot_be_guided_are_refused(config, guidance, message):
    with pytest.raises(ConfigError, match=message):
        guided_sample(
            mixture(),
            torch.zeros(10, *SHAPE),
            config=SamplerConfig(**config),
            guidance=GuidanceConfig(**guidance),
        )


@pytest.mark.parametrize(
    ("rows", "guidance", "message"),
    [
        (6, {"group_size": 4}, "expected whole groups of 4 particles, got 6 rows"),
        (4, {"group_size": 4, "eta": 1.0}, "need step_noise"),
        (4, {"group_size": 4, "factor": 1.0, "space": "features"}, "features: expected in space"),
        (4, {"group_size": 4, "factor": 1.0, "kernel": "custom"}, "dissimilarity: expected with"),
    ],
)
def test_what_is_missing_is_named(rows, guidance, message):
    with pytest.raises(ValueError, match=message):
        guided_sample(
            mixture(),
            torch.zeros(rows, *SHAPE),
            config=SamplerConfig(solver="euler"),
            guidance=GuidanceConfig(**guidance),
        )


def test_a_diffusers_like_denoiser_of_few_levels_is_guided_at_its_levels():
    """Levels are rounded to those that the model knows, also by churn."""

    class Levels(MixtureDenoiser):
        asked: list[float]
        sigma_min, sigma_max = 0.1, 10.0

        def round_sigma(self, sigma):
            return (sigma * 10).round().clamp(1, 100) / 10

        def __call__(self, x, sigma, class_labels=None):
            self.asked.append(float(sigma))
            return super().__call__(x, sigma, class_labels)

    model = Levels(mixture().centres, 0.1)
    model.asked = []
    guided_sample_seeds(
        model, range(4), SHAPE, config=SOLVERS[2], guidance=GuidanceConfig(factor=1.0, group_size=4)
    )
    assert len(model.asked) == SOLVERS[2].num_evaluations
    assert all(abs(s * 10 - round(s * 10)) < 1e-9 for s in model.asked)


def test_jumps_are_eight_different_images_in_range():
    centres = jumps().centres
    assert centres.shape == (8, 1, 32, 32)
    assert float(centres.min()) == -1
    assert 0.9 < float(centres.max()) <= 1
    distances = torch.pdist(centres.flatten(1))
    assert float(distances.min()) > 5
