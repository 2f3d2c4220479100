"""Classifier artifacts: exact resume, best by validation, test images once, and planted truth."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision import models

from regimes.classifiers.scores import accuracy, balanced_accuracy
from regimes.classifiers.sets import arm_name, arms_of
from regimes.classifiers.training import ClassifierTrainingConfig
from regimes.errors import BadCheckpoint, BrokenArtifact
from regimes.images.sources import open_source
from regimes.storage import classifiers
from regimes.storage.artifacts import Store
from regimes.storage.classifiers import (
    ClassifierRecipe,
    classifier_checkpoint,
    import_pretrained,
    read_classifier_curve,
    read_predictions,
    read_state_dict,
    read_training_set,
    train_classifier,
)
from regimes.storage.images import Decoded, ImagesRecipe, ingest, read_images
from regimes.studies.classification import study

DIGITS = open_source("digits")
PIXELS = np.stack([DIGITS.read(i) for i in range(len(DIGITS.ids))])
LABELS = np.array(DIGITS.labels)
NAME = "shufflenet_v2_x0_5"


def small_network(name, num_classes, *, seed, pretrained=None):
    """Stands in for a torchvision network where a test needs to learn in a second."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(384, num_classes),
        )  # fmt: skip


@pytest.fixture
def store(tmp_path):
    """One kind of location: training takes seconds, and other tests hold stores to all kinds."""
    return Store(str(tmp_path / "store"))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(classifiers, "build_classifier", small_network)


def put(store, name, index, labels=None, pixels=PIXELS):
    """Some digits as an images artifact."""
    recipe = ImagesRecipe(fingerprint=name, image_size=None, channels=None, skip_bad=False)
    labels = LABELS[index] if labels is None else labels
    ids = [f"{name}-{i}" for i in index]
    ingest(store, recipe, Decoded(ids, pixels[index], np.asarray(labels), []))
    return recipe


def of_each(count, start=0):
    """Positions of ``count`` digits of each class, after the first ``start``."""
    return np.concatenate([np.flatnonzero(c == LABELS)[start : start + count] for c in range(10)])


@pytest.fixture
def sets(store):
    return put_sets(store)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A store, and its sets, for the tests that train the arm real alike: it is trained once."""
    store = Store(str(tmp_path_factory.mktemp("kept") / "store"))
    return store, put_sets(store)


def put_sets(store):
    return {
        "real": put(store, "real", of_each(8)),
        "heldout": put(store, "heldout", of_each(30, 60)),
        "validation": put(store, "validation", of_each(20, 10)),
        "test": put(store, "test", of_each(70, 100)),
    }


TRAINING = ClassifierTrainingConfig(learning_rate=3e-3, batch_size=32, epochs=15, evaluations=6)


def recipe_of(sets, arm=("real",), seed=0, per_class=8, **changes):
    basic = ClassifierRecipe(
        arm=arm,
        sets=tuple(sets[part] for part in arm),
        counts=(per_class,) * 10,
        mixing="added",
        validation=sets["validation"],
        test=sets["test"],
        network="small",
        pretrained=None,
        training=TRAINING,
        seed=seed,
    )
    return dataclasses.replace(basic, **changes)


def files_of(store, recipe):
    return {e.name: e.sha256 for e in store.artifact(recipe).files}


class Stop(Exception):
    """A kill."""


def stop_at(step):
    def progress(reached, _):
        if reached >= step:
            raise Stop

    return progress


def test_a_killed_run_continues_and_ends_with_the_same_bytes(quick, store, sets):
    recipe = recipe_of(sets)
    train_classifier(store, recipe)
    expected = files_of(store, recipe)
    store.artifact(recipe).remove()
    steps = recipe.training.evaluation_steps(160)
    with pytest.raises(Stop):
        train_classifier(store, recipe, progress=stop_at(steps[3]), checkpoint_s=0)
    assert store.missing([recipe])
    seen = []
    train_classifier(store, recipe, progress=lambda step, _: seen.append(step), checkpoint_s=0)
    assert seen == steps[3:]
    assert files_of(store, recipe) == expected
    with pytest.raises(FileNotFoundError):
        classifier_checkpoint(store, recipe).read("state.safetensors")


def test_a_complete_classifier_is_left_as_it_is(quick, store, sets):
    recipe = recipe_of(sets)
    train_classifier(store, recipe)
    train_classifier(store, recipe, progress=stop_at(0))


def test_a_damaged_checkpoint_is_named(quick, store, sets):
    recipe = recipe_of(sets)
    classifier_checkpoint(store, recipe).write("state.safetensors", b"torn")
    with pytest.raises(BrokenArtifact, match="not a readable checkpoint"):
        train_classifier(store, recipe)


def test_weights_are_those_of_the_best_evaluation_and_the_test_images_are_judged_by_them(
    quick, store, sets
):
    recipe = recipe_of(sets, training=dataclasses.replace(TRAINING, learning_rate=0.02))
    train_classifier(store, recipe)
    curve = read_classifier_curve(store, recipe)
    assert len(curve["step"]) == 6
    best = curve["val_balanced_accuracy"].max()
    weights = safetensors.torch.load(store.artifact(recipe).read("weights.safetensors"))
    network = small_network("", 10, seed=0)
    network.load_state_dict(weights)

    def called(images_recipe):
        from regimes.classifiers.training import network_input

        with torch.inference_mode():
            return (
                network.eval()(network_input(read_images(store, images_recipe)[1]))
                .argmax(1)
                .numpy()
            )

    labels = LABELS[of_each(20, 10)]
    assert (called(sets["validation"]) == labels).mean() == pytest.approx(best)  # classes are equal
    p = read_predictions(store, recipe)
    assert p.predicted.tolist() == called(sets["test"]).tolist()
    assert p.ids.tolist() == read_images(store, sets["test"])[0].tolist()
    assert p.labels.tolist() == LABELS[of_each(70, 100)].tolist()


def test_an_earlier_evaluation_wins_if_it_was_better(quick, store, sets, monkeypatch):
    """Validation scores are planted: the second of six is the best."""
    planted = iter([0.2, 0.9, 0.3, 0.9, 0.1, 0.5])
    monkeypatch.setattr(classifiers, "balanced_accuracy", lambda p: next(planted))
    losses = []
    recipe = recipe_of(sets, training=dataclasses.replace(TRAINING, learning_rate=1e-3))
    kept = {}
    finish = classifiers._Run.finish

    def finish_and_keep(run):
        kept["best"], kept["last"] = dict(run.best), run.trainer.weights()
        finish(run)

    monkeypatch.setattr(classifiers._Run, "finish", finish_and_keep)
    train_classifier(store, recipe, progress=lambda s, point: losses.append(point["val_loss"]))
    assert losses[3] < losses[1]  # of equal scores, the lower loss: the fourth evaluation
    written = safetensors.torch.load(store.artifact(recipe).read("weights.safetensors"))
    assert all(torch.equal(written[k], kept["best"][k]) for k in written)
    assert not torch.equal(written["0.weight"], kept["last"]["0.weight"])


def test_the_test_images_are_not_read_before_training_is_over(quick, store, sets):
    missing = ImagesRecipe(fingerprint="absent", image_size=None, channels=None, skip_bad=False)
    recipe, seen = recipe_of(sets, test=missing), []
    with pytest.raises(BrokenArtifact, match="not complete yet"):
        train_classifier(store, recipe, progress=lambda step, _: seen.append(step))
    assert seen == recipe.training.evaluation_steps(160)


def test_the_training_set_is_what_the_arm_lists(store, sets):
    sets = {**sets, "generated": put(store, "generated", of_each(9, 40))}
    both = read_training_set(store, recipe_of(sets, ("real", "generated"), per_class=5))
    assert np.bincount(both.labels[both.listed]).tolist() == [10] * 10
    real = {image.tobytes() for image in PIXELS[of_each(8)]}
    assert sum(image.tobytes() in real for image in both.images[both.listed]) == 50
    label_of = {p.tobytes(): c for p, c in zip(PIXELS, LABELS)}
    assert all(label_of[i.tobytes()] == c for i, c in zip(both.images, both.labels))
    alone = read_training_set(store, recipe_of(sets, per_class=5))
    assert (len(alone.images), len(alone.listed)) == (50, 100)


def planted_study(kept, generated, arms=(("real",), ("real", "generated")), seeds=4):
    """Train arms, and judge them."""
    store, sets = kept
    sets = {**sets, "generated": generated}
    found = {}
    for arm in arms:
        for seed in range(seeds):
            recipe = recipe_of(sets, arm, seed)
            train_classifier(store, recipe)
            found[arm_name(arm), seed] = read_predictions(store, recipe)
    return study(found, [str(c) for c in range(10)])


def test_copies_of_real_images_are_worth_nothing(quick, kept):
    """At best: the arm sees the same 8 images of each class twice as often, like the arm real."""
    found = planted_study(kept, put(kept[0], "copies", of_each(8)))
    c = found.comparison("real+generated")
    assert c.effect == "no measurable difference"
    assert abs(c.main.value) < 0.02
    assert found.of("real").value > 0.7


def test_new_real_images_help(quick, kept):
    found = planted_study(kept, put(kept[0], "new", of_each(8, 60)))
    c = found.comparison("real+generated")
    assert c.effect == "helps"
    assert c.main.value > 0.03
    assert c.p_adjusted < 0.05


def test_images_of_wrong_classes_hurt(quick, kept):
    index = of_each(8, 60)
    wrong = put(kept[0], "wrong", index, labels=(LABELS[index] + 1) % 10)
    found = planted_study(kept, wrong, arms_of(["real", "generated"]))
    assert found.comparison("real+generated").effect == "hurts"
    assert found.comparison("generated").effect == "hurts"
    assert found.of("generated").value < 0.1  # sure, and wrong


def test_a_torchvision_network_is_trained_from_the_users_weights(store, tmp_path, sets):
    state = models.get_model(NAME, weights=None, num_classes=7).state_dict()
    torch.save(state, tmp_path / "w.pth")
    start = import_pretrained(store, tmp_path / "w.pth")
    large = PIXELS.repeat(4, 1).repeat(4, 2)
    tiny = {
        n: put(store, f"large-{n}", of_each(2, 3 * i), pixels=large)
        for i, n in enumerate(("real", "validation", "test"))
    }
    made = recipe_of(
        tiny,
        per_class=2,
        network=NAME,
        pretrained=start,
        training=ClassifierTrainingConfig(
            learning_rate=1e-9, batch_size=4, epochs=0.1, evaluations=1
        ),
    )
    train_classifier(store, made)
    weights = safetensors.torch.load(store.artifact(made).read("weights.safetensors"))
    torch.testing.assert_close(
        weights["conv1.0.weight"], state["conv1.0.weight"], atol=1e-6, rtol=0
    )
    assert weights["fc.weight"].shape[0] == 10
    assert 0 <= accuracy(read_predictions(store, made)) <= 1


@pytest.mark.parametrize("legacy", [False, True])
def test_state_dicts_are_read_without_executing_them(tmp_path, legacy):
    state = models.get_model(NAME, weights=None).state_dict()
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        found = read_state_dict(tmp_path / name)
        assert all(torch.equal(found[k], state[k]) for k in state)


class Evil:
    def __reduce__(self):
        return hashlib.sha256, (b"executed",)


def test_a_file_that_would_run_code_is_refused(store, tmp_path):
    torch.save({"w": torch.zeros(1), "x": Evil()}, tmp_path / "w.pth")
    with pytest.raises(BadCheckpoint):
        import_pretrained(store, tmp_path / "w.pth")
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "n.pth")
    with pytest.raises(BadCheckpoint, match="expected a state dict"):
        import_pretrained(store, tmp_path / "n.pth")
    with pytest.raises(BadCheckpoint, match=r"--weights .* cannot be read"):
        import_pretrained(store, tmp_path / "absent.pth")


def test_the_same_store_serves_both_kinds_of_location(quick, tmp_path):
    """The address does not depend on where the store is."""
    stores = [Store(str(tmp_path / name)) for name in "ab"]
    made = []
    for store in stores:
        sets = {
            n: put(store, n, of_each(4, 5 * i))
            for i, n in enumerate(("real", "validation", "test"))
        }
        recipe = recipe_of(sets, per_class=4)
        train_classifier(store, recipe)
        made.append((recipe.address, files_of(store, recipe)))
        assert balanced_accuracy(read_predictions(store, recipe)) > 0.1
    assert made[0] == made[1]
