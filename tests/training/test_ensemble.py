"""Training: the loss, the schedules, independence of members and bit-exact resume."""

from __future__ import annotations

import math

import numpy as np
import pytest
import safetensors.torch
import torch

from regimes.denoisers.preconditioning import EDM, Denoiser
from regimes.denoisers.residual_mlp import ResidualMLP
from regimes.errors import ConfigError
from regimes.noise import keyed_generator
from regimes.training.ensemble import EnsembleTrainer, TrainingConfig
from regimes.training.loss import edm_loss

SHAPE = (1, 3, 3)
CONFIG = TrainingConfig(batch_size=8, warmup_steps=5)


def training_sets(sizes=(4, 9)):
    generator = torch.Generator().manual_seed(1)
    return [2 * torch.rand((n, *SHAPE), generator=generator) - 1 for n in sizes]


def trainer(keys=("a", "b"), images=None, *, steps=30, seed=0, config=CONFIG, blocks=2):
    return EnsembleTrainer(
        keys,
        training_sets() if images is None else images,
        width=12,
        blocks=blocks,
        steps=steps,
        sigma_data=0.5,
        seed=seed,
        config=config,
    )


def run(t, steps):
    losses = [t.step() for _ in range(steps)]
    return torch.stack(losses) if losses else torch.empty(0)


def assert_same_bytes(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].numpy().tobytes() == second[name].numpy().tobytes(), name


@pytest.mark.parametrize("stop", [0, 1, 7, 29])
@pytest.mark.parametrize("through_file", [False, True])
def test_resumed_run_repeats_the_uninterrupted_one_bit_for_bit(stop, through_file):
    whole = trainer()
    losses = run(whole, 30)
    first = trainer()
    run(first, stop)
    state = first.state()
    if through_file:
        state = safetensors.torch.load(safetensors.torch.save(state))
    resumed = trainer()
    run(resumed, 3)  # whatever it did before is forgotten
    resumed.load_state(state)
    assert torch.equal(run(resumed, 30 - stop), losses[stop:])
    assert_same_bytes(resumed.state(), whole.state())
    for e in range(2):
        assert_same_bytes(resumed.member_weights(e), whole.member_weights(e))


def test_state_is_a_snapshot_that_later_steps_do_not_touch():
    t = trainer()
    run(t, 2)
    state = t.state()
    before = {name: value.clone() for name, value in state.items()}
    run(t, 2)
    assert_same_bytes(state, before)


def test_state_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"weights\.\d+: .* expected, .* found"):
        trainer(keys=("a",), images=training_sets()[:1]).load_state(trainer().state())
    with pytest.raises(KeyError, match="weights"):
        trainer(blocks=2).load_state({"step_count": torch.tensor(1)})


def reference_batch(key, images, *, seed, step, config=CONFIG):
    """The draws of one member at one step, straight from its keyed generator."""
    rng = keyed_generator("train", seed, key, step)
    index = rng.integers(0, len(images), config.batch_size)
    ln_sigma = config.p_mean + config.p_std * rng.standard_normal(config.batch_size, np.float32)
    noise = rng.standard_normal((config.batch_size, *SHAPE), np.float32)
    return images.numpy()[index].astype(np.float64), np.exp(ln_sigma.astype(np.float64)), noise


def reference_loss(weights, y, sigma, noise, sigma_data=0.5):
    """EDM loss of one member in float64, from the formula."""
    network = ResidualMLP(SHAPE, 12, blocks=2).double()
    network.load_state_dict({name: value.double() for name, value in weights.items()})
    s = sigma[:, None, None, None]
    x = y + s * noise
    root = np.sqrt(s**2 + sigma_data**2)
    with torch.no_grad():
        F = network(torch.from_numpy(x / root), torch.from_numpy(np.log(sigma) / 4)).numpy()
    D = sigma_data**2 / root**2 * x + s * sigma_data / root * F
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    return (weight * ((D - y) ** 2).mean((1, 2, 3))).mean()


def test_reported_loss_equals_an_independent_computation_in_float64():
    t = trainer()
    run(t, 12)
    images = training_sets()
    for _ in range(2):
        raw = {n: p.detach().clone() for n, p in t.network.named_parameters()}
        step = t.step_count
        losses = t.step()
        for e, key in enumerate("ab"):
            batch = reference_batch(key, images[e], seed=0, step=step)
            expected = reference_loss({n: p[e : e + 1] for n, p in raw.items()}, *batch)
            assert float(losses[e]) == pytest.approx(expected, rel=1e-4)


def test_loss_of_an_untrained_network_is_about_1(rng):
    y = torch.from_numpy(0.5 * rng.standard_normal((400, 1, 4, 4))).float()
    noise = torch.from_numpy(rng.standard_normal(y.shape)).float()
    zero = ResidualMLP((1, 4, 4), 8)
    with torch.no_grad():
        for p in zero.parameters():
            p.zero_()
    for sigma in (0.02, 0.5, 20.0):
        level = torch.full((400,), sigma)
        loss = edm_loss(Denoiser(zero, EDM()), y, level, noise, sigma_data=0.5).mean()
        assert float(loss.detach()) == pytest.approx(1, abs=0.1)  # 6,400 squares: 5 s.e. are 0.09


def test_loss_of_the_exact_answer_is_0(torch_rng):
    y = torch.randn((3, *SHAPE), generator=torch_rng)
    loss = edm_loss(lambda x, sigma: y, y, torch.ones(3), torch.randn_like(y), sigma_data=0.5)
    assert loss.tolist() == [0.0, 0.0, 0.0]


def test_batches_of_a_member_do_not_depend_on_its_neighbours():
    images = training_sets((4, 9, 6))
    together = trainer(("a", "b", "c"), images)
    reordered = trainer(("c", "b"), [images[2], images[1]])
    for step in (0, 3, 1000):
        for x, y in zip(together._batch(step), reordered._batch(step), strict=True):
            assert torch.equal(x[1], y[1])
            assert torch.equal(x[2], y[0])
            assert not torch.equal(x[0], x[1])


def test_a_member_trains_as_it_would_alone():
    images = training_sets()
    together, alone = trainer(), trainer(("b",), images[1:])
    torch.testing.assert_close(run(together, 10)[:, 1], run(alone, 10)[:, 0], rtol=1e-4, atol=1e-6)
    for name, value in alone.member_weights(0).items():
        torch.testing.assert_close(together.member_weights(1)[name], value, rtol=1e-3, atol=1e-5)


def test_batches_hold_every_image_of_the_member_and_no_other():
    t = trainer(images=[torch.full((3, *SHAPE), 0.1), training_sets((5,))[0]])
    y = torch.cat([t._batch(step)[0] for step in range(20)], dim=1)
    assert bool((y[0] == 0.1).all())
    seen = {tuple(row.flatten().tolist()) for row in y[1]}
    assert seen == {tuple(row.flatten().tolist()) for row in training_sets((5,))[0]}


def test_noise_levels_and_noise_have_the_configured_law():
    config = TrainingConfig(batch_size=5000, p_mean=-0.7, p_std=0.9)
    _, sigma, noise = trainer(config=config)._batch(0)
    assert sigma.log().mean(1).tolist() == pytest.approx([-0.7] * 2, abs=5 * 0.9 / 70)
    assert sigma.log().std(1).tolist() == pytest.approx([0.9] * 2, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.std()) == pytest.approx(1, abs=0.02)


def test_different_seeds_and_keys_start_from_different_weights():
    weights = [
        trainer(seed=0).network.input.weight,
        trainer(seed=1).network.input.weight,
        trainer(keys=("a", "c")).network.input.weight,
    ]
    assert not torch.equal(weights[0][0], weights[1][0])
    assert not torch.equal(weights[0][0], weights[0][1])
    assert not torch.equal(weights[0][1], weights[2][1])
    assert torch.equal(weights[0][0], weights[2][0])


def test_loss_falls_and_the_average_denoises_better_than_the_start():
    config = TrainingConfig(batch_size=32, warmup_steps=20)
    t = trainer(("a",), training_sets((3,)), steps=400, config=config)
    clean, sigma, noise = (part[0] for part in t._batch(10_000))

    def loss_of_average():
        network = ResidualMLP(SHAPE, 12, blocks=2)
        network.load_state_dict(t.member_weights(0))
        with torch.no_grad():
            return float(
                edm_loss(Denoiser(network, EDM()), clean, sigma, noise, sigma_data=0.5).mean()
            )

    start = loss_of_average()
    losses = run(t, 400)[:, 0]
    assert float(losses[-50:].mean()) < 0.75 * float(losses[:20].mean())
    assert loss_of_average() < 0.75 * start


def test_member_weights_load_into_a_network_of_one_member_and_are_the_average():
    config = TrainingConfig(batch_size=4, ema=0.0)
    t = trainer(steps=10, config=config)
    run(t, 10)
    for e in range(2):  # without averaging they are the weights themselves
        network = ResidualMLP(SHAPE, 12, blocks=2)
        network.load_state_dict(t.member_weights(e))
        for p, q in zip(network.parameters(), t.network.parameters(), strict=True):
            assert torch.equal(p[0], q[e])


def test_average_follows_its_recursion():
    t = trainer(steps=1000)
    average = t.network.input.weight.detach().double().clone()
    for step in range(20):
        t.step()
        decay = (1 + step) / (10 + step)
        average = decay * average + (1 - decay) * t.network.input.weight.detach().double()
    name = "input.weight"
    torch.testing.assert_close(
        t.member_weights(1)[name][0].double(), average[1], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("step", "steps", "decay"),
    [
        (0, 6000, 0.1),
        (8, 6000, 0.5),
        (6000, 6000, 1 - 10 / 6000),
        (5999, 2000, 0.995),
        (50_000, 100_000, 0.999),
        (99, 5, 0.0),
    ],
)
def test_ema_decay_is_bounded_by_the_run_length_and_ramps_up(step, steps, decay):
    assert TrainingConfig().ema_decay(step, steps) == pytest.approx(decay, rel=1e-12)


def test_learning_rate_warms_up_linearly_and_ends_as_a_cosine():
    config = TrainingConfig(learning_rate=2e-3, warmup_steps=100)
    assert config.learning_rate_at(0, 6000) == pytest.approx(2e-5, rel=1e-12)
    half_way = 2e-3 * 0.5 * (1 + math.cos(math.pi * 49 / 6000)) / 2
    assert config.learning_rate_at(49, 6000) == pytest.approx(half_way, rel=1e-12)
    assert config.learning_rate_at(3000, 6000) == pytest.approx(1e-3, rel=1e-12)
    assert config.learning_rate_at(6000, 6000) == pytest.approx(0, abs=1e-18)
    assert TrainingConfig(warmup_steps=0).learning_rate_at(0, 10) == pytest.approx(2e-3)


def test_optimizer_uses_the_scheduled_rate():
    t = trainer(steps=30)
    before = t.network.output.bias.detach().clone()
    t.step()
    # AdamW's first step moves every weight with a gradient by the rate itself.
    moved = (t.network.output.bias.detach() - before).abs().max()
    assert float(moved) == pytest.approx(CONFIG.learning_rate_at(0, 30), rel=1e-3)


def test_impossible_ensembles_are_refused():
    with pytest.raises(ValueError, match="one set of images per distinct key"):
        trainer(("a", "a"))
    with pytest.raises(ValueError, match="one set of images per distinct key"):
        trainer(("a", "b", "c"))
    with pytest.raises(ValueError, match="at least one image per member"):
        trainer(images=[training_sets()[0], torch.empty((0, *SHAPE))])


def test_training_config_refuses_what_could_not_train():
    with pytest.raises(ConfigError, match="batch_size: expected at least 1, got 0"):
        TrainingConfig(batch_size=0)
    with pytest.raises(ConfigError, match=r"ema: expected a decay in \[0, 1\), got 1.0"):
        TrainingConfig(ema=1.0)
