"""Training on points: the same every time, and the low-rank model finds its subspaces."""

from __future__ import annotations

import pytest
import torch

from regimes.denoisers.molrg import MoLRGDenoiser, recovery_error
from regimes.errors import ConfigError
from regimes.images.molrg import MoLRG
from regimes.training.ensemble import TrainingConfig
from regimes.training.points import (
    KINDS,
    PointModel,
    build_point_model,
    train_point_model,
    train_points,
)

DATA = MoLRG(dim=3)


def trained(kind="low-rank", *, seed=0, name="a", steps=30, **options):
    model = PointModel(kind=kind, width=8, steps=steps, **options)
    return train_point_model(model, DATA, DATA.draw(20)[0], batch_size=16, seed=seed, name=name)


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_determined_by_seed_and_name(kind):
    torch.manual_seed(1)
    one, loss = trained(kind, steps=4)
    torch.manual_seed(2)
    other, again = trained(kind, steps=4)
    assert loss == again
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert trained(kind, steps=4, seed=1)[1] != loss
    assert trained(kind, steps=4, name="b")[1] != loss


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss(kind):
    denoiser = build_point_model(PointModel(kind=kind, width=16), DATA, seed=0, name="a")
    losses = []
    config = TrainingConfig(batch_size=64, warmup_steps=5, learning_rate=0.01)
    train_points(
        denoiser,
        DATA.draw(20)[0],
        config,
        steps=300,
        std=DATA.std,
        seed=0,
        name="a",
        progress=lambda step, loss: losses.append((step, loss)),
    )
    assert [step for step, _ in losses] == list(range(15, 301, 15))
    assert losses[-1][1] < 0.9 * losses[0][1]
    assert not denoiser.training
    assert not any(p.requires_grad for p in denoiser.parameters())


def test_enough_points_give_the_subspaces_and_the_exact_denoiser():
    model = PointModel(kind="low-rank", steps=500, learning_rate=0.05, restarts=3)
    points = DATA.draw(60)[0]
    found, _ = train_point_model(model, DATA, points, batch_size=64, seed=0, name="a")
    assert recovery_error(found.bases(), DATA.bases()) < 0.01
    x = DATA.draw(8, "heldout")[0]
    exact = MoLRGDenoiser(DATA.bases(), DATA.image_shape)
    for sigma in (0.1, 1.0, 10.0):
        error = (found(x, sigma) - exact(x, sigma)).norm() / exact(x, sigma).norm()
        assert float(error) < 0.1


def test_fewer_points_than_dimensions_cannot_give_them():
    model = PointModel(kind="low-rank", steps=300, learning_rate=0.05, restarts=2)
    points = DATA.draw(1)[0]
    found, _ = train_point_model(model, DATA, points, batch_size=64, seed=0, name="a")
    # One point spans a third of its subspace; the rest is found by chance, 3 of 48.
    assert recovery_error(found.bases(), DATA.bases()) > 0.5


def test_the_restart_of_least_loss_is_kept():
    losses = []
    for restarts in (1, 2, 3, 4):
        losses.append(trained(restarts=restarts, learning_rate=0.05, steps=60)[1])
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_what_could_not_run_is_refused():
    with pytest.raises(ConfigError, match="restarts: expected at least 1, got 0"):
        PointModel(kind="mlp", restarts=0)
    with pytest.raises(ConfigError, match="low-rank, mlp, unet, got 'gan'"):
        PointModel(kind="gan")
