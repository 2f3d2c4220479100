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


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"augment": 0.5}])
def test_dropout_and_augmentation_are_the_same_every_time_and_change_the_training(options):
    plain = trained("unet", steps=3)[1]
    torch.manual_seed(1)
    one, loss = trained("unet", steps=3, **options)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    other, again = trained("unet", steps=3, **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert loss == again != plain
    x = DATA.draw(4, "heldout")[0]
    assert torch.equal(one(x, 0.5), other(x, 0.5))  # and drops nothing any more


def test_augmented_points_leave_their_subspaces_and_the_network_is_told(monkeypatch):
    seen = []

    class Asked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x, sigma, augment_labels):
            seen.append(augment_labels)
            return self.scale * x

    def missed(y):
        codes = torch.einsum("bn,knd->bkd", y.flatten(1).double(), DATA.bases())
        return y.square().sum((1, 2, 3)) - codes.square().sum((1, 2)).float()

    points = DATA.draw(40)[0]
    clean = []
    monkeypatch.setattr(
        "regimes.training.points.edm_loss",
        lambda told, y, sigma, noise, **o: clean.append(y) or told(y, sigma).square().sum(),
    )
    config, how = TrainingConfig(batch_size=64), {"steps": 1, "std": 1.0, "seed": 0, "name": "a"}
    train_points(Asked(), points, config, augment=0.12, **how)
    done = (seen[0] != 0).any(1)
    assert 0 < int((~done).sum()) < 32
    outside = missed(clean[0]) > 1e-3
    assert not outside[~done].any()
    assert int(outside.sum()) > 32


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss(kind):
    denoiser = build_point_model(PointModel(kind=kind, width=16), DATA, seed=0, name="a")
    losses = []
    config = TrainingConfig(batch_size=64, warmup_steps=5, learning_rate=0.01)
    train_points(
        denoiser,
        DATA.draw(20)[0],
        config,
        steps=100,
        std=DATA.std,
        seed=0,
        name="a",
        progress=lambda step, loss: losses.append((step, loss)),
    )
    assert [step for step, _ in losses] == list(range(5, 101, 5))
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
    with pytest.raises(
        ConfigError, match="mlp: dropout: expected a probability, and 0 for all but"
    ):
        PointModel(kind="mlp", dropout=0.1)
    with pytest.raises(ConfigError, match="unet: augment: expected a probability"):
        PointModel(kind="unet", augment=1.5)
