"""The training loop: the published formulas, exact resume, any cut of a batch."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from small_networks import CONFIG, NETWORK, make, some_images

from regimes.errors import ConfigError
from regimes.training.architectures import NetworkConfig
from regimes.training.batches import Batch
from regimes.training.network import EDMTrainingConfig
from regimes.training.workers import share


def largest_difference(first, second):
    """Of two trainers: the largest difference of averaged weights, relative to their largest."""
    a, b = first.averaged_state(), second.averaged_state()
    assert a.keys() == b.keys()
    return max(float((a[n] - b[n]).abs().max() / a[n].abs().max().clip(1e-3)) for n in a)


# ---- the published formulas, in float64 and from scratch ----------------------------------------


class Reference:
    """Loss, Adam, ramp and average as published (Karras et al. 2022), in float64, by hand."""

    def __init__(self, trainer, precond):
        self.config, self.precond = trainer.config, precond
        self.network = trainer.denoiser.network
        # The network hands its augmentation layer float32, whatever its own type is.
        self.network.map_augment.register_forward_pre_hook(lambda _, args: args[0].double())
        self.theta = [p.detach().double() for p in self.network.parameters()]
        self.names = [n for n, _ in self.network.named_parameters()]
        self.m = [torch.zeros_like(p) for p in self.theta]
        self.v = [torch.zeros_like(p) for p in self.theta]
        self.ema = [p.clone() for p in self.theta]
        self.t = 0

    def scales(self, s):
        """c_skip, c_out, c_in, c_noise and lambda of table 1."""
        one = torch.ones_like(s)
        if self.precond == "edm":
            total = s**2 + 0.25
            return (
                0.25 / total,
                s * 0.5 / total.sqrt(),
                total**-0.5,
                s.log() / 4,
                total / (s / 2) ** 2,
            )
        if self.precond == "vp":
            time = ((0.1**2 + 2 * 19.9 * (1 + s**2).log()).sqrt() - 0.1) / 19.9
            return one, -s, (1 + s**2) ** -0.5, 999 * time, s**-2
        return one, s, one, (s / 2).log(), s**-2

    def loss(self, theta, batch):
        y, n = batch.y.double(), batch.noise.double()
        s = batch.sigma.double()
        c_skip, c_out, c_in, c_noise, weight = (c[:, None, None, None] for c in self.scales(s))
        x = y + s[:, None, None, None] * n
        inputs = (c_in * x, c_noise.flatten(), None, batch.conditions.double())
        weights = dict(zip(self.names, theta)) | dict(self.network.double().named_buffers())
        F = torch.func.functional_call(self.network, weights, inputs)
        return (weight * (c_skip * x + c_out * F - y) ** 2).sum() / len(y)

    def step(self, batch):
        c = self.config
        seen = self.t * c.batch_size
        theta = [p.requires_grad_() for p in self.theta]
        loss = self.loss(theta, batch)
        gradients = torch.autograd.grad(loss, theta)
        rate = c.learning_rate * min(seen / (c.lr_rampup_kimg * 1000), 1)
        half_life = min(c.ema_halflife_kimg * 1000, c.ema_rampup_ratio * seen)
        beta = 0.5 ** (c.batch_size / half_life) if half_life else 0.0
        self.t += 1
        for i, g in enumerate(gradients):
            self.m[i] = 0.9 * self.m[i] + 0.1 * g
            self.v[i] = 0.999 * self.v[i] + 0.001 * g**2
            m_hat = self.m[i] / (1 - 0.9**self.t)
            v_hat = self.v[i] / (1 - 0.999**self.t)
            self.theta[i] = (theta[i] - rate * m_hat / (v_hat.sqrt() + 1e-8)).detach()
            self.ema[i] = beta * self.ema[i] + (1 - beta) * self.theta[i]
        return float(loss.detach()) / batch.y[0].numel()


@pytest.mark.parametrize("precond", ["edm", "vp", "ve"])
def test_training_follows_the_published_formulas(precond):
    """Relative difference below 1e-4, at the start and after 200 steps on one batch.

    Measured: 3e-7. Size and rate are such that training is not chaotic: with two levels, runs in
    float64 whose first weights differ by 1e-7 end further apart than the tolerance, whatever the code.
    """
    config = dataclasses.replace(CONFIG, batch_size=6, learning_rate=1e-4, lr_rampup_kimg=0.6)
    network = NetworkConfig(
        precond=precond, width=8, channel_mult=(1,), num_blocks=1, attn_resolutions=(), dropout=0.0
    )
    trainer = make(config, network)
    reference = Reference(make(config, network), precond)
    batch = trainer.batches.batch(0)
    found = [float(trainer.train_on(batch)) for _ in range(200)]
    expected = [reference.step(batch) for _ in range(200)]
    assert expected[-1] < 0.75 * expected[0]  # it learned
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
    assert found[-1] == pytest.approx(expected[-1], rel=1e-4)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    state = trainer.averaged_state()
    averaged = [state[f"model.{name}"].double() for name in reference.names]
    # Not the weights themselves: where the gradient is 0, Adam follows its rounding.
    of_average, of_expected = (float(reference.loss(w, batch)) for w in (averaged, reference.ema))
    assert of_average == pytest.approx(of_expected, rel=1e-4)
    assert of_expected > 1.02 * expected[-1] * batch.y[0].numel()  # the average lags behind


def test_untrained_edm_network_has_loss_near_the_contribution_of_each_level():
    """A network whose output is 0 leaves c_skip x - y: weight times its square, pixel by pixel."""
    trainer = make(dataclasses.replace(CONFIG, batch_size=320, augment=0.0))
    batch = trainer.batches.batch(0)
    s = batch.sigma.double()[:, None, None, None]
    y, n = batch.y.double(), batch.noise.double()
    error = 0.25 / (s**2 + 0.25) * (y + s * n) - y
    expected = ((s**2 + 0.25) / (0.5 * s) ** 2 * error**2).mean()
    assert float(trainer.step()) == pytest.approx(float(expected), rel=1e-3)


def test_first_step_has_rate_0_and_the_average_follows_it():
    trainer = make()
    before = trainer.state()
    trainer.step()
    after = trainer.state()
    for name in before:
        if name.startswith(("weights.", "ema.")):
            assert torch.equal(before[name], after[name]), name
    trainer.step()
    moved = trainer.state()
    assert any(not torch.equal(after[n], moved[n]) for n in after if n.startswith("weights."))


def test_schedules_are_those_of_the_published_loop():
    config = EDMTrainingConfig()
    assert config.steps == 390_625
    assert EDMTrainingConfig(batch_size=128, duration_kimg=50_000).steps == 390_625
    assert [config.learning_rate_at(n) for n in (0, 5_000_000, 10_000_000, 10**8)] == [
        0.0,
        5e-4,
        1e-3,
        1e-3,
    ]
    assert config.ema_decay(0) == 0.0
    assert config.ema_decay(1_000_000) == pytest.approx(0.5 ** (512 / 50_000))
    assert config.ema_decay(10**8) == pytest.approx(0.5 ** (512 / 500_000))
    unramped = EDMTrainingConfig(ema_rampup_ratio=None)
    assert unramped.ema_decay(0) == pytest.approx(0.5 ** (512 / 500_000))


def test_duration_rounds_up_to_whole_steps():
    assert EDMTrainingConfig(batch_size=300, duration_kimg=1).steps == 4
    assert EDMTrainingConfig(batch_size=512, duration_kimg=0.001).steps == 1


# ---- what may not change the result -------------------------------------------------------------


def test_resumed_run_is_equal_to_the_last_bit():
    whole, first, second = make(), make(), make()
    for _ in range(6):
        whole.step()
    for _ in range(3):
        first.step()
    second.load_state(first.state())
    losses = [second.step() for _ in range(3)]
    assert torch.isfinite(torch.stack(losses)).all()
    expected, found = whole.state(), second.state()
    assert expected.keys() == found.keys()
    assert {n.split(".")[0] for n in expected} == {"step_count", "weights", "ema", "adam"}
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert whole.denoiser.network.config.dropout > 0
    assert whole.config.augment > 0


def test_state_before_the_first_step_can_be_loaded():
    first, second = make(), make(seed=2)
    second.load_state(first.state())
    assert largest_difference(first, second) == 0


def test_state_of_another_network_is_refused():
    other = make(network=dataclasses.replace(NETWORK, width=16))
    with pytest.raises(ValueError, match=r"weights\..*expected"):
        make().load_state(other.state())


LARGE = dataclasses.replace(CONFIG, batch_size=48, learning_rate=1e-4)


@pytest.mark.parametrize("microbatch", [5, 16, 47])
def test_microbatches_change_results_by_rounding_only(microbatch):
    whole, cut = make(LARGE), make(LARGE, microbatch=microbatch)
    losses = [(float(whole.step()), float(cut.step())) for _ in range(3)]
    assert losses[-1][0] == pytest.approx(losses[-1][1], rel=1e-5)
    # Adam turns rounding of a vanishing gradient into a step of up to the rate, 1e-4.
    assert largest_difference(whole, cut) < 1e-3


class Recorded:
    """A worker whose sums are made by the test, in lockstep."""

    def __init__(self, rank, count):
        self.rank, self.count = rank, count
        self.total = None

    def add(self, value):
        self.total = value


@pytest.mark.parametrize("count", [2, 3, 5])
def test_shares_of_a_batch_add_up_to_the_whole(count):
    """Gradients of all workers, summed, are those of one worker; so are the losses."""
    alone = make(LARGE)
    loss = alone.step()
    workers = [Recorded(rank, count) for rank in range(count)]
    for worker in workers:
        make(LARGE, workers=worker).step()
    total = torch.stack([w.total for w in workers]).sum(0)
    gradients = torch.cat([p.grad.flatten() for p in alone.denoiser.network.parameters()])
    torch.testing.assert_close(total[:-1], gradients, atol=1e-4 * gradients.abs().max(), rtol=1e-4)
    assert float(total[-1] / 48) == pytest.approx(float(loss), rel=1e-5)


def test_shares_cover_a_batch_once():
    for count in (1, 3, 7, 10):
        bounds = [share(Recorded(rank, count), 10) for rank in range(count)]
        assert bounds[0][0] == 0
        assert bounds[-1][1] == 10
        assert all(a[1] == b[0] for a, b in itertools.pairwise(bounds))


def test_seed_determines_the_initial_weights():
    before = torch.get_rng_state()
    assert largest_difference(make(seed=1), make(seed=1)) == 0
    assert largest_difference(make(seed=1), make(seed=2)) > 0.1
    assert torch.equal(torch.get_rng_state(), before)


# ---- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_is_near_float32(precision):
    exact, mixed = make(), make(dataclasses.replace(CONFIG, precision=precision))
    losses = [(float(exact.step()), float(mixed.step())) for _ in range(5)]
    assert any(one != other for one, other in losses)  # a single pair may round to one value
    assert losses[-1][0] == pytest.approx(losses[-1][1], rel=0.01)


def test_loss_scale_scales_the_gradient_and_not_the_report():
    plain, scaled = make(), make(dataclasses.replace(CONFIG, loss_scale=8.0))
    assert float(plain.step()) == float(scaled.step())
    for p, q in zip(plain.denoiser.network.parameters(), scaled.denoiser.network.parameters()):
        torch.testing.assert_close(8 * p.grad, q.grad, rtol=1e-5, atol=1e-6)


def test_gradients_that_are_not_finite_are_replaced():
    trainer = make(dataclasses.replace(CONFIG, augment=0.0))
    batch = trainer.batches.batch(0)
    broken = Batch(batch.y, batch.sigma, batch.noise.clone())
    broken.noise[0, 0, 0, 0] = float("nan")
    for _ in range(3):
        trainer.train_on(broken)
    gradients = [p.grad for p in trainer.denoiser.network.parameters()]
    assert all(float(g.abs().max()) == 0 for g in gradients)
    assert all(bool(torch.isfinite(v).all()) for v in trainer.averaged_state().values())


def test_network_knows_augmentation_only_where_there_is_one():
    assert make().denoiser.network.config.augment_dim == 9
    trainer = make(dataclasses.replace(CONFIG, augment=0.0))
    assert trainer.denoiser.network.config.augment_dim == 0
    trainer.step()


def test_mirroring_can_be_switched_off():
    """With tiny probability only mirroring changes images."""
    for xflip, expected in ((True, True), (False, False)):
        config = dataclasses.replace(CONFIG, augment=1e-9, xflip=xflip)
        batch = make(config).batches.batch(0)
        assert bool(batch.conditions.any()) is expected


def test_conditional_network_learns_from_labels():
    labels = np.arange(20) % 3
    network = dataclasses.replace(NETWORK, conditional=True)
    trainer = make(network=network, labels=labels, num_classes=4)
    assert trainer.denoiser.label_dim == 4
    for _ in range(3):
        trainer.step()
    gradient = trainer.denoiser.network.map_label.weight.grad
    assert (gradient.abs().sum(0) > 0).tolist() == [True, True, True, False]


def test_labels_are_not_used_by_an_unconditional_network():
    trainer = make(labels=np.arange(20) % 3)
    assert trainer.denoiser.label_dim == 0
    assert trainer.batches.batch(0).class_labels is None


@pytest.mark.parametrize("arch", ["ncsnpp", "adm"])
def test_other_architectures_train(arch):
    network = dataclasses.replace(NETWORK, arch=arch, width=64 if arch == "adm" else 8)
    trainer = make(network=network)
    losses = [float(trainer.step()) for _ in range(3)]
    assert np.isfinite(losses).all()


def test_training_memorizes_a_single_image():
    """120 steps bring the loss to less than a third."""
    images = some_images(1).repeat(4, axis=0)
    config = dataclasses.replace(
        CONFIG, augment=0.0, learning_rate=4e-3, lr_rampup_kimg=0, ema_halflife_kimg=0.2
    )
    network = dataclasses.replace(NETWORK, dropout=0.0, channel_mult=(1,), attn_resolutions=())
    trainer = make(config, network, images=images)
    first = float(trainer.step())
    for _ in range(120):
        last = float(trainer.step())
    assert last < 0.3 * first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a number above 0, got 0"),
        ({"duration_kimg": 0}, "duration_kimg: expected a number above 0, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a number above 0, got nan"),
        ({"ema_halflife_kimg": -1}, "ema_halflife_kimg: expected 0 or more, got -1"),
        ({"augment": 1.5}, r"augment: expected a probability in \[0, 1\], got 1.5"),
        ({"precision": "tf32"}, "precision: expected float32, bf16 or fp16, got 'tf32'"),
    ],
)
def test_options_that_cannot_train_are_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        EDMTrainingConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": some_images()[:, :, :7]}, "images: expected square ones, got 20 of 8x7"),
        ({"microbatch": 0}, "microbatch: expected at least 1, got 0"),
        (
            {"workers": Recorded(0, 13)},
            r"workers: expected at most one per image of a batch \(12\)",
        ),
        (
            {"network": dataclasses.replace(NETWORK, conditional=True)},
            "conditional: expected images with class labels, found none",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)
