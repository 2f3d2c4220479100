"""Network artifacts: complete, resumable with identical bytes, and loadable."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ingesting import ingest_source

from regimes.checkpoints import load_safetensors
from regimes.errors import BrokenArtifact, ConfigError, StorageFailure
from regimes.images.sources import ArraySource
from regimes.images.split import Split
from regimes.storage import networks, pace
from regimes.storage.artifacts import Store
from regimes.storage.images import Decoded, ImagesRecipe, Subset, ingest, read_subset
from regimes.storage.networks import (
    Execution,
    NetworkRecipe,
    StoppedElsewhere,
    load_network,
    make_trainer,
    network_checkpoint,
    read_network_curve,
    train_network,
)
from regimes.training.architectures import NetworkConfig
from regimes.training.network import EDMTrainingConfig, NetworkTrainer

STEPS = 24
NETWORK = NetworkConfig(width=8, channel_mult=(1,), num_blocks=1, attn_resolutions=())
TRAINING = EDMTrainingConfig(
    batch_size=4, duration_kimg=4 * STEPS / 1000, lr_rampup_kimg=0.02, ema_halflife_kimg=0.02
)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), dtype=np.uint8)
EVERY_FOURTH = Execution(checkpoint_kimg=0.016)


def recipe_in(store, **changes):
    """A network over ten of twelve stored images."""
    source = ArraySource("mine", IMAGES)
    images = ImagesRecipe(
        fingerprint=source.fingerprint, image_size=None, channels=None, skip_bad=False
    )
    ingest_source(store, source, images)
    recipe = NetworkRecipe(
        train=Subset(
            images=images,
            split=Split(num_images=12, seed=None, parts=1),
            half="A",
            size=10,
        ),
        network=NETWORK,
        training=TRAINING,
        seed=3,
    )
    return dataclasses.replace(recipe, **changes)


def contents(store, recipe):
    artifact = store.artifact(recipe)
    return {e.name: artifact.read(e.name) for e in artifact.files}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Store, recipe and bytes of a run without interruption or checkpoint."""
    store = Store(str(tmp_path_factory.mktemp("whole")))
    recipe = recipe_in(store)
    train_network(store, recipe, execution=Execution(checkpoint_kimg=1e9))
    return store, recipe, contents(store, recipe)


class Killed(Exception):
    pass


def killed_at(limit):
    def progress(step, loss):
        if step >= limit:
            raise Killed

    return progress


@pytest.mark.parametrize(("killed", "resumed"), [(3, 0), (6, 4), (16, 12), (24, 20)])
def test_resumed_training_ends_with_the_bytes_of_an_uninterrupted_run(
    store, uninterrupted, monkeypatch, killed, resumed
):
    recipe = recipe_in(store)
    with pytest.raises(Killed):
        train_network(store, recipe, execution=EVERY_FOURTH, progress=killed_at(killed))
    steps = []
    step = NetworkTrainer.step
    monkeypatch.setattr(NetworkTrainer, "step", lambda t: (steps.append(t.step_count), step(t))[1])
    train_network(store, recipe, execution=EVERY_FOURTH)
    assert steps == list(range(resumed, STEPS))
    assert contents(store, recipe) == uninterrupted[2]
    assert network_checkpoint(store, recipe).sizes() == {}


def test_twenty_checkpoints_are_written_if_nothing_else_is_asked(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    training = dataclasses.replace(TRAINING, duration_kimg=4 * 40 / 1000)
    recipe = recipe_in(store, training=training)
    saved = []
    save = networks._save
    monkeypatch.setattr(
        networks, "_save", lambda t, *rest: (saved.append(t.step_count), save(t, *rest))
    )
    train_network(store, recipe)
    assert saved == list(range(2, 40, 2))


@pytest.mark.parametrize(
    ("execution", "expected"),
    [(Execution(), list(range(3, STEPS, 3))), (Execution(checkpoint_kimg=1e9), [])],
)
def test_slow_steps_are_written_down_by_the_clock_unless_images_count(
    store, monkeypatch, execution, expected
):
    now, step, saved = SimpleNamespace(s=0.0), NetworkTrainer.step, []
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: now.s))

    def slow(trainer):
        now.s += 25.0
        return step(trainer)

    monkeypatch.setattr(NetworkTrainer, "step", slow)
    monkeypatch.setattr(networks, "CHECKPOINTS", 1)
    monkeypatch.setattr(networks, "_save", lambda trainer, *_: saved.append(trainer.step_count))
    train_network(store, recipe_in(store), execution=execution)
    assert saved == expected


def test_complete_network_is_not_trained_again(uninterrupted, monkeypatch):
    store, recipe, _ = uninterrupted

    def forbidden(self):
        raise AssertionError("trained again")

    monkeypatch.setattr(NetworkTrainer, "step", forbidden)
    train_network(store, recipe)


def test_broken_checkpoint_is_named_with_the_remedy(store):
    recipe = recipe_in(store)
    network_checkpoint(store, recipe).write(networks._STATE, b"cut short")
    with pytest.raises(BrokenArtifact, match=r"state\.safetensors: not a readable .*; delete it"):
        train_network(store, recipe)


def test_loaded_network_has_the_averaged_weights(uninterrupted, torch_rng):
    store, recipe, _ = uninterrupted
    trainer = make_trainer(store, recipe)
    for _ in range(STEPS):
        trainer.step()
    network = load_network(store, recipe)
    assert not network.training
    assert network.image_shape == (1, 4, 4)
    expected = trainer.averaged_state()
    found = network.checkpoint_state()
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    raw = trainer.denoiser.checkpoint_state()
    assert any(not torch.equal(raw[name], expected[name]) for name in expected)
    x = torch.randn((2, 1, 4, 4), generator=torch_rng)
    assert torch.equal(network(x, 0.5), network(x, 0.5))  # no dropout
    assert network.config["dropout"] == 0.13  # though the network was trained with it


def test_weights_are_a_file_that_the_checkpoint_reader_reads(uninterrupted, tmp_path, torch_rng):
    store, recipe, files = uninterrupted
    (tmp_path / "model.safetensors").write_bytes(files["weights.safetensors"])
    x = torch.randn((2, 1, 4, 4), generator=torch_rng)
    loaded = load_safetensors(tmp_path / "model.safetensors")
    assert torch.equal(loaded(x, 0.7), load_network(store, recipe)(x, 0.7))


def test_curve_and_progress_are_the_losses_of_the_steps(store):
    recipe = recipe_in(store)
    reports = []
    train_network(store, recipe, progress=lambda step, loss: reports.append((step, loss)))
    trainer = make_trainer(store, recipe)
    losses = [float(trainer.step()) for _ in range(STEPS)]
    assert reports == [(i + 1, loss) for i, loss in enumerate(losses)]
    steps, curve = read_network_curve(store, recipe)
    assert steps.tolist() == list(range(1, STEPS + 1))
    assert curve.tolist() == losses


def test_long_runs_have_a_point_for_many_steps(store, monkeypatch):
    monkeypatch.setattr(networks, "CURVE_POINTS", 5)
    recipe = recipe_in(store)
    train_network(store, recipe)
    trainer = make_trainer(store, recipe)
    losses = torch.stack([trainer.step() for _ in range(STEPS)]).numpy()
    steps, curve = read_network_curve(store, recipe)
    assert steps.tolist() == [4, 8, 12, 16, 20, 24]
    np.testing.assert_allclose(curve, losses.reshape(6, 4).mean(1), rtol=1e-6)


def test_execution_changes_results_by_rounding_only(store, uninterrupted):
    recipe = recipe_in(store)
    train_network(store, recipe, execution=Execution(microbatch=3))
    whole, cut = read_network_curve(*uninterrupted[:2])[1], read_network_curve(store, recipe)[1]
    np.testing.assert_allclose(cut, whole, rtol=1e-3)  # Adam enlarges rounding over 24 steps
    assert np.abs(cut[:2] - whole[:2]).max() < 1e-5


def test_two_ways_to_ask_for_a_network_are_one_artifact(store):
    by_default = recipe_in(store, network=NetworkConfig())
    by_number = NetworkConfig(width=128, channel_mult=(2, 2, 2), num_blocks=4)
    assert by_default.address == dataclasses.replace(by_default, network=by_number).address
    assert by_default.address != recipe_in(store).address
    assert by_default.width == 128
    assert by_default.label == "w128-n10-A"


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"training": dataclasses.replace(TRAINING, precision="bf16")},
        {"network": dataclasses.replace(NETWORK, precond="vp")},
    ],
)
def test_whatever_changes_the_result_changes_the_address(store, change):
    assert recipe_in(store).address != recipe_in(store, **change).address


def test_damaged_weights_are_refused(store):
    recipe = recipe_in(
        store, training=dataclasses.replace(TRAINING, duration_kimg=TRAINING.batch_size / 1000)
    )
    train_network(store, recipe)
    artifact = store.artifact(recipe)
    data = bytearray(artifact.read("weights.safetensors"))
    data[-1] ^= 1
    artifact.location.write("weights.safetensors", bytes(data))
    with pytest.raises(BrokenArtifact, match=r"weights\.safetensors: its checksum differs"):
        load_network(store, recipe)


def test_conditional_network_knows_all_classes_of_the_source(store):
    labels = np.arange(12) % 4
    labels[10:] = 6  # classes that the ten training images lack
    images = ImagesRecipe(fingerprint="mine", image_size=None, channels=None, skip_bad=False)
    ingest(store, images, Decoded([str(i) for i in range(12)], IMAGES, labels, []))
    plain = recipe_in(store)
    recipe = dataclasses.replace(
        plain,
        train=dataclasses.replace(plain.train, images=images),
        network=dataclasses.replace(NETWORK, conditional=True),
    )
    trainer = make_trainer(store, recipe)
    assert trainer.denoiser.label_dim == 7
    batch, order = trainer.batches.batch(0), trainer.batches.order(0, 4)
    assert batch.class_labels.argmax(1).tolist() == labels[order].tolist()
    assert np.array_equal(trainer.batches.images, read_subset(store, recipe.train)[1])


def test_conditional_network_without_classes_is_refused(store):
    recipe = recipe_in(store, network=dataclasses.replace(NETWORK, conditional=True))
    with pytest.raises(BrokenArtifact, match="label"):
        train_network(store, recipe)


class Other:
    """The second of two workers; it says of itself whether it failed."""

    rank, count = 1, 2

    def __init__(self, fails):
        self.fails = fails

    def add(self, value):
        value += self.fails  # what the first worker adds


def test_a_worker_stops_when_another_one_cannot_go_on(store):
    with pytest.raises(StoppedElsewhere):
        train_network(store, recipe_in(store), workers=Other(fails=1.0))


def test_a_worker_that_fails_says_why(store):
    recipe = recipe_in(store, network=dataclasses.replace(NETWORK, channel_mult=(1, 1, 1, 1)))
    with pytest.raises(ConfigError, match="img_resolution: expected a multiple of 8"):
        train_network(store, recipe, workers=Other(fails=0.0))


def test_only_the_first_worker_writes(store):
    recipe = recipe_in(store)
    train_network(store, recipe, workers=Other(fails=0.0), execution=EVERY_FOURTH)
    assert not store.artifact(recipe).is_complete()
    assert network_checkpoint(store, recipe).sizes() == {}


def test_checkpoint_that_cannot_be_written_stops_training(store, monkeypatch):
    recipe = recipe_in(store)

    def full(*_):
        raise StorageFailure("disk full")

    monkeypatch.setattr(networks, "_save", full)
    with pytest.raises(StorageFailure, match="disk full"):
        train_network(store, recipe, execution=EVERY_FOURTH)
