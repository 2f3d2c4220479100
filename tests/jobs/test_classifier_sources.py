"""The sets of an experiment with classifiers: disjoint, stratified, of the same classes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from regimes.errors import ConfigError, RegimesError
from regimes.images.sources import load_images
from regimes.jobs.support.classifier.experiment import PRESETS, ClassifierExperiment
from regimes.jobs.support.classifier.plan import make_plan
from regimes.jobs.support.classifier.sources import (
    ClosedFormSource,
    groups_of,
    labels_of,
    open_sources,
)

RNG = np.random.default_rng(0)


def write(folder, counts, *, names=("NORMAL", "PNEUMONIA"), pattern="{c}-{i}.png", size=8):
    for name, count in zip(names, counts):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image = RNG.integers(0, 256, (size, size), np.uint8)
            Image.fromarray(image).save(folder / name / pattern.format(c=name, i=i))
    return str(folder)


@pytest.fixture
def dataset(tmp_path):
    """As the chest X-ray set: many training images, a tiny validation set."""
    root = tmp_path / "xray"
    write(root / "train", (14, 30))
    write(root / "val", (2, 2))
    write(root / "test", (6, 9))
    return root


@pytest.fixture
def generated(tmp_path):
    return write(tmp_path / "generated", (12, 11))


def experiment(dataset, made, /, **changes):
    basic = ClassifierExperiment(
        real=str(dataset),
        generated=str(made),
        image_size=None,
        validation_per_class=4,
        network="shufflenet_v2_x0_5",
    )
    return dataclasses.replace(basic, **changes)


def pixels(source):
    return {image.tobytes() for image in load_images(source)[1]}


def counts(source):
    return np.bincount(labels_of(source)).tolist()


def test_a_validation_set_that_is_too_small_joins_the_training_images(dataset, generated):
    found = open_sources(experiment(dataset, generated))
    assert found.classes == ("NORMAL", "PNEUMONIA")
    assert counts(found.validation) == [4, 4]
    assert counts(found.parts["real"]) == [14 + 2 - 4, 30 + 2 - 4]
    assert counts(found.test) == [6, 9]
    sets = [pixels(s) for s in (found.parts["real"], found.validation, found.test)]
    assert len(set.union(*sets)) == sum(map(len, sets)) == 63  # no image is in two sets


def test_labels_follow_the_images_through_joining_and_splitting(dataset, generated):
    truth = {
        np.asarray(Image.open(path)).tobytes(): int(path.parent.name == "PNEUMONIA")
        for path in dataset.rglob("*.png")
    }
    found = open_sources(experiment(dataset, generated))
    for source in (found.parts["real"], found.validation, found.test):
        _, images, _ = load_images(source)
        labels = [truth[image.tobytes()] for image in images]
        assert labels == labels_of(source).tolist()


def test_a_validation_set_that_is_large_enough_is_taken(dataset, generated):
    found = open_sources(experiment(dataset, generated, validation_per_class=2))
    assert counts(found.validation) == [2, 2]
    assert counts(found.parts["real"]) == [14, 30]


def test_the_larger_of_number_and_share_is_held_out(dataset, generated):
    found = open_sources(experiment(dataset, generated, validation_fraction=0.25))
    assert counts(found.validation) == [4, 8]


def test_images_of_one_patient_stay_together(tmp_path, generated):
    root = tmp_path / "patients"
    for person in range(20):
        pattern = f"person{person}_bacteria_{{i}}.png"
        write(root / "train", (0, 3) if person % 2 else (3, 0), pattern=pattern)
    write(root / "test", (3, 3))
    found = open_sources(experiment(root, generated, group=r"person\d+"))
    people = [
        {i.rsplit("/", 1)[-1].split("_")[0] for i in s.ids}
        for s in (found.parts["real"], found.validation)
    ]
    assert not people[0] & people[1]
    assert len(people[0] | people[1]) == 20
    assert counts(found.validation) == [6, 6]  # two patients each: at least four images


def test_names_without_a_group_are_alone():
    assert groups_of(["a/person1_x.png", "b/person1_y.png", "c.png", "d.png"], r"person\d+") == [
        "found person1",
        "found person1",
        "alone c.png",
        "alone d.png",
    ]


def test_any_images_with_classes_are_split_in_three():
    found = open_sources(PRESETS["digits"])
    assert found.classes == tuple("0123456789")
    sets = [set(s.ids) for s in (found.parts["real"], found.validation, found.test)]
    assert len(set.union(*sets)) == sum(map(len, sets)) == 1797
    assert min(counts(found.test)) >= 0.7 * 174 - 1  # of the rarest digit there are 174
    assert counts(found.validation) == [30] * 10


def test_the_split_depends_on_its_seed_alone(dataset, generated):
    a, b, c = (
        open_sources(experiment(dataset, generated, **options)).validation.ids
        for options in ({}, {"first_seed": 5}, {"split_seed": 1})
    )
    assert a == b
    assert a != c


def test_samples_of_the_perfect_memorizer_are_copies_and_those_of_the_gaussian_are_not():
    found = open_sources(PRESETS["digits"])
    real, copies, new = (load_images(found.parts[p])[1] for p in ("real", "generated", "diverse"))
    labels = labels_of(found.parts["real"])
    for label in range(10):
        own = {image.tobytes() for image in real[labels == label]}
        made = copies[labels_of(found.parts["generated"]) == label]
        assert {image.tobytes() for image in made} <= own
    assert not {image.tobytes() for image in new} & {image.tobytes() for image in real}
    assert counts(found.parts["diverse"]) == counts(found.parts["real"])


def test_closed_forms_are_identified_without_being_computed():
    real = open_sources(PRESETS["digits"]).parts["real"]
    a, b, c = (
        ClosedFormSource(f, real, s) for f, s in (("wiener", 0), ("wiener", 1), ("empirical", 0))
    )
    assert len({a.fingerprint, b.fingerprint, c.fingerprint}) == 3
    assert "_samples" not in vars(a)
    assert not np.array_equal(a.read(0), b.read(0))


def test_unreadable_images_are_named_or_left_out_before_anything_is_counted(
    dataset, generated, capsys
):
    (dataset / "train" / "NORMAL" / "NORMAL-3.png").write_bytes(b"not an image")
    found = open_sources(experiment(dataset, generated, skip_bad_images=True))
    assert counts(found.parts["real"]) == [13 + 2 - 4, 28]
    error = capsys.readouterr().err
    assert "NORMAL-3.png" in error
    assert len(error.splitlines()) == 1


def test_all_arms_of_a_plan_take_equal_steps_on_equal_numbers(dataset, generated):
    e = experiment(dataset, generated, diverse="wiener", num_seeds=2, image_size=32)
    plan = make_plan(e, open_sources(e))
    assert plan.counts == (12, 11)  # of NORMAL there are 12 real ones, of PNEUMONIA 11 generated
    assert len(plan.trials) == 10
    assert {t.num_steps for t in plan.trials} == {e.training.num_steps(2 * 23)}
    assert len({t.address for t in plan.trials}) == 10
    assert "46 images" in plan.training


def test_an_arm_is_not_trained_again_because_another_set_was_added(dataset, generated):
    plans = [
        make_plan(e, open_sources(e))
        for e in (
            experiment(dataset, generated, per_class=5),
            experiment(dataset, generated, per_class=5, diverse="empirical"),
        )
    ]
    first, second = ({t.address for t in plan.trials} for plan in plans)
    assert first < second


BAD = [
    ({"real": "NO"}, "no such file or folder"),
    ({"generated": "NO"}, "no such file or folder"),
    ({"per_class": 20}, "expected at least 20 of each class, got 12"),
    ({"validation_per_class": 16}, "leaves none of 16"),
    ({"mixed": "replaced", "per_class": 1}, "expected at least 2"),
    ({"network": "resnet51"}, "did you mean"),
    ({"group": "("}, "not a regular expression"),
    ({"repeat": True}, "--repeat: pass --per-class"),
    ({"test_fraction": 0.0}, "--test-fraction"),
    ({"num_seeds": 0}, "--num-seeds: expected at least 1"),
    ({"generated": None, "diverse": "wiener"}, "--diverse: pass --generated too"),
    ({"weights": "NO"}, "--weights NO: cannot be read"),
]


@pytest.mark.parametrize(("changes", "words"), BAD)
def test_what_cannot_be_run_is_one_line(dataset, generated, changes, words):
    def plan():
        e = experiment(dataset, generated, **changes)
        e.require()
        make_plan(e, open_sources(e))

    with pytest.raises(RegimesError) as caught:
        plan()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_parts_and_strange_classes_are_named(tmp_path, dataset, generated):
    def message(**changes):
        with pytest.raises(RegimesError) as caught:
            open_sources(experiment(dataset, generated, **changes))
        return str(caught.value)

    other = write(tmp_path / "other", (3, 3), names=("CAT", "DOG"))
    assert "expected the class folders NORMAL, PNEUMONIA" in message(generated=other)
    one = write(tmp_path / "one", (3,))
    assert "the class of each image is not known" in message(generated=one)
    np.savez(tmp_path / "many.npz", images=np.zeros((3, 8, 8), np.uint8), labels=[0, 1, 2])
    assert "expected classes 0 to 1" in message(generated=str(tmp_path / "many.npz"))
    np.savez(tmp_path / "few.npz", images=np.zeros((2, 8, 8), np.uint8), labels=[0, 0])
    assert "found none of PNEUMONIA" in message(generated=str(tmp_path / "few.npz"))
    for name in ("train", "test"):
        half = tmp_path / f"only-{name}"
        write(half / name, (3, 3))
        assert "beside" in message(real=str(half))


def test_labels_of_arrays_match_folders_by_number(tmp_path, dataset, generated):
    np.savez(tmp_path / "g.npz", images=np.zeros((6, 8, 8), np.uint8), labels=[0, 1] * 3)
    found = open_sources(experiment(dataset, generated, diverse=str(tmp_path / "g.npz")))
    assert counts(found.parts["diverse"]) == [3, 3]


def test_images_too_large_for_a_closed_form_are_refused(tmp_path):
    root = tmp_path / "large"
    write(root / "train", (9, 9), size=64)
    write(root / "test", (3, 3), size=64)
    found = open_sources(experiment(root, "wiener"))
    with pytest.raises(RegimesError, match="too large for a closed form"):
        found.parts["generated"].read(0)


def test_presets_can_be_run_and_unknown_ones_cannot():
    from regimes.jobs.support.classifier.experiment import read_command

    assert read_command([], "")[0] == "digits"
    name, e, _ = read_command(["--real", "a", "--generated", "b"], "")
    assert (name, e.network, e.diverse, e.image_size) == ("images", "resnet50", None, 224)
    for preset in PRESETS.values():
        if preset.real is not None:
            preset.require()
    with pytest.raises(ConfigError, match="--preset x: no such preset"):
        read_command(["--preset", "x"], "")
    with pytest.raises(ConfigError, match="--real: expected images"):
        PRESETS["images"].require()
