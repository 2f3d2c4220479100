"""Model artifacts: complete, resumable with identical bytes, and loadable."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ingesting import ingest_source

from regimes.denoisers.closed_form import EmpiricalDenoiser, WienerDenoiser
from regimes.errors import BrokenArtifact
from regimes.images.pixels import to_float
from regimes.images.sources import ArraySource
from regimes.images.split import Split
from regimes.storage import models, pace
from regimes.storage.artifacts import Store
from regimes.storage.denoisers import ClosedFormRecipe, load_denoiser
from regimes.storage.images import ImagesRecipe, Subset, read_subset
from regimes.storage.models import ModelRecipe, read_curve, train_ensemble
from regimes.training.ensemble import EnsembleTrainer, TrainingConfig

STEPS = 210  # a curve point every 2 steps, a checkpoint every 10


def recipes_in(store, steps=STEPS):
    """An ensemble of two cells over twelve stored images."""
    rng = np.random.default_rng(0)
    source = ArraySource("mine", rng.integers(0, 256, (12, 3, 3, 1), dtype=np.uint8))
    images = ImagesRecipe(
        fingerprint=source.fingerprint, image_size=None, channels=None, skip_bad=False
    )
    ingest_source(store, source, images)
    split = Split(num_images=12, seed=0)
    return [
        ModelRecipe(
            train=Subset(images=images, split=split, half=half, size=4),
            width=8,
            blocks=1,
            steps=steps,
            sigma_data=0.5,
            training=TrainingConfig(batch_size=4, warmup_steps=10),
            seed=3,
            ensemble=("w8-n4-A", "w8-n4-B"),
        )
        for half in ("A", "B")
    ]


def contents(store, recipes):
    return [
        {e.name: store.artifact(r).read(e.name) for e in store.artifact(r).files} for r in recipes
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Bytes of all files of a run without interruption, and its store."""
    store = Store(str(tmp_path_factory.mktemp("whole")))
    recipes = recipes_in(store)
    train_ensemble(store, recipes)
    return store, recipes, contents(store, recipes)


class Killed(Exception):
    pass


@pytest.mark.parametrize(("killed_at", "resumed_at"), [(4, 0), (57, 50), (110, 100), (210, 200)])
def test_resumed_training_ends_with_the_bytes_of_an_uninterrupted_run(
    store, uninterrupted, monkeypatch, killed_at, resumed_at
):
    recipes = recipes_in(store)

    def die(step, losses):
        if step >= killed_at:
            raise Killed

    with pytest.raises(Killed):
        train_ensemble(store, recipes, die)
    steps = []
    step = EnsembleTrainer.step
    monkeypatch.setattr(EnsembleTrainer, "step", lambda t: (steps.append(t.step_count), step(t))[1])
    train_ensemble(store, recipes)
    assert steps == list(range(resumed_at, STEPS))
    assert contents(store, recipes) == uninterrupted[2]


def test_slow_steps_are_lost_for_a_minute_only(store, uninterrupted, monkeypatch):
    now, steps, step = SimpleNamespace(s=0.0), [], EnsembleTrainer.step
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: now.s))

    def slow(trainer):
        now.s += 31.0
        steps.append(trainer.step_count)
        return step(trainer)

    def die(at, losses):
        if at == 48:
            raise Killed

    monkeypatch.setattr(EnsembleTrainer, "step", slow)
    with pytest.raises(Killed):
        train_ensemble(store, recipes_in(store), die)
    del steps[:]
    train_ensemble(store, recipes_in(store))
    assert steps == list(range(46, STEPS))  # by the number of steps alone: from 40 on
    assert contents(store, recipes_in(store)) == uninterrupted[2]


def test_checkpoint_is_removed_after_training(uninterrupted):
    store, recipes, _ = uninterrupted
    assert models.checkpoint_location(store, recipes).sizes() == {}


def test_complete_models_are_not_trained_again(uninterrupted, monkeypatch):
    store, recipes, _ = uninterrupted

    def forbidden(self):
        raise AssertionError("trained again")

    monkeypatch.setattr(EnsembleTrainer, "step", forbidden)
    train_ensemble(store, recipes)


def test_only_the_missing_model_of_an_ensemble_is_written_again(store, uninterrupted):
    recipes = recipes_in(store)
    train_ensemble(store, recipes)
    store.artifact(recipes[1]).remove()
    kept = store.artifact(recipes[0])
    kept.location.write("witness", b"untouched")
    train_ensemble(store, recipes)
    assert contents(store, recipes) == uninterrupted[2]
    assert kept.location.read("witness") == b"untouched"


def test_broken_checkpoint_is_named_with_the_remedy(store):
    recipes = recipes_in(store)
    models.checkpoint_location(store, recipes).write(models._STATE, b"cut short")
    with pytest.raises(BrokenArtifact, match=r"state\.safetensors: not a readable .*; delete it"):
        train_ensemble(store, recipes)


def test_curve_is_the_mean_loss_between_points(uninterrupted):
    store, recipes, _ = uninterrupted
    trainer = models._trainer(store, recipes)
    losses = torch.stack([trainer.step() for _ in range(STEPS)])
    for member, recipe in enumerate(recipes):
        steps, curve = read_curve(store, recipe)
        assert steps.tolist() == list(range(2, STEPS + 1, 2))
        expected = losses[:, member].reshape(-1, 2).mean(1).numpy()
        np.testing.assert_allclose(curve, expected, rtol=1e-6)


def test_progress_reports_every_point_of_the_curve(store):
    recipes = recipes_in(store, steps=5)
    reports = []
    train_ensemble(store, recipes, lambda step, losses: reports.append((step, losses.copy())))
    assert [step for step, _ in reports] == [1, 2, 3, 4, 5]
    for member, recipe in enumerate(recipes):
        assert read_curve(store, recipe)[1].tolist() == [loss[member] for _, loss in reports]


def test_loaded_denoiser_is_the_averaged_member(uninterrupted, torch_rng):
    store, recipes, _ = uninterrupted
    trainer = models._trainer(store, recipes)
    for _ in range(STEPS):
        trainer.step()
    for member, recipe in enumerate(recipes):
        loaded = load_denoiser(store, recipe)
        denoiser, shape = loaded.denoiser, loaded.image_shape
        assert shape == (1, 3, 3)
        assert loaded.num_classes == 0
        for name, value in trainer.member_weights(member).items():
            assert torch.equal(denoiser.network.state_dict()[name], value), name
        assert not denoiser.training
        x = torch.randn((2, *shape), generator=torch_rng)
        assert denoiser(x, 0.5).shape == x.shape


def test_members_of_different_halves_learn_different_weights(uninterrupted):
    first, second = uninterrupted[2]
    assert first["weights.safetensors"] != second["weights.safetensors"]
    assert first["network.json"] == second["network.json"]


@pytest.mark.parametrize(
    ("form", "cls"), [("empirical", EmpiricalDenoiser), ("wiener", WienerDenoiser)]
)
def test_closed_form_denoiser_is_computed_from_its_subset(store, torch_rng, form, cls):
    train = recipes_in(store)[0].train
    loaded = load_denoiser(store, ClosedFormRecipe(form=form, train=train))
    expected = cls(to_float(read_subset(store, train)[1]))
    x = torch.randn((2, *loaded.image_shape), generator=torch_rng)
    assert type(loaded.denoiser) is cls
    assert torch.equal(loaded.denoiser(x, 0.3), expected(x, 0.3))


def test_damaged_weights_are_refused(store):
    recipes = recipes_in(store, steps=2)
    train_ensemble(store, recipes)
    artifact = store.artifact(recipes[0])
    data = bytearray(artifact.read("weights.safetensors"))
    data[-1] ^= 1
    artifact.location.write("weights.safetensors", bytes(data))
    with pytest.raises(BrokenArtifact, match=r"weights\.safetensors: its checksum differs"):
        load_denoiser(store, recipes[0])


def test_labels_name_the_cell(store):
    recipe = recipes_in(store)[1]
    assert recipe.label == "w8-n4-B"
    assert ClosedFormRecipe(form="wiener", train=recipe.train).label == "wiener-n4-B"
    assert dataclasses.replace(recipe, width=128).label == "w128-n4-B"
