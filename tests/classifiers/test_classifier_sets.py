"""Training sets: equal sizes, no replacement, shared real images, splits that share nothing."""

from __future__ import annotations

import numpy as np
import pytest

from regimes.classifiers.sets import (
    arm_name,
    arms_of,
    class_counts,
    compose,
    draw,
    hold_out,
    num_listed,
)
from regimes.errors import ConfigError

LABELS = {
    "real": np.array([0] * 9 + [1] * 20),
    "generated": np.array([1] * 12 + [0] * 15),
    "diverse": np.array([0, 1] * 11),
}
ARMS = arms_of(list(LABELS))


def test_arms_are_every_part_alone_and_real_with_each_other():
    assert [arm_name(a) for a in ARMS] == [
        "real",
        "generated",
        "diverse",
        "real+generated",
        "real+diverse",
    ]


def test_counts_are_those_of_the_smallest_part():
    assert class_counts(LABELS, 2) == (9, 11)
    assert class_counts(LABELS, 2, per_class=5) == (5, 5)


@pytest.mark.parametrize("mixing", ["added", "replaced"])
@pytest.mark.parametrize("counts", [(5, 7), (6, 6), (2, 3)])
def test_all_arms_list_equally_many_images_of_each_class(mixing, counts):
    for arm in ARMS:
        chosen = compose(LABELS, arm, counts, mixing=mixing, seed=3)
        labels = np.concatenate([LABELS[part][i] for part, i in chosen.items()])
        factor = 2 if mixing == "added" else 1
        assert np.bincount(labels).tolist() == [factor * n for n in counts]
        assert len(labels) == num_listed(counts, mixing)


def test_added_lists_one_part_twice_and_two_parts_once():
    alone = compose(LABELS, ("real",), (5, 7), mixing="added", seed=0)["real"]
    both = compose(LABELS, ("real", "generated"), (5, 7), mixing="added", seed=0)
    assert set(np.unique(alone, return_counts=True)[1]) == {2}
    assert len(set(both["generated"].tolist())) == len(both["generated"]) == 12
    assert set(both["real"].tolist()) == set(alone.tolist())  # arms of one seed share real images


def test_replaced_lists_different_images_only_and_a_part_of_the_same_real_ones():
    alone = compose(LABELS, ("real",), (5, 7), mixing="replaced", seed=0)["real"]
    both = compose(LABELS, ("real", "generated"), (5, 7), mixing="replaced", seed=0)
    assert len(set(alone.tolist())) == 12
    assert {p: len(set(i.tolist())) for p, i in both.items()} == {"real": 7, "generated": 5}
    assert set(both["real"].tolist()) < set(alone.tolist())


def test_draws_depend_on_the_seed_and_are_nested():
    few, many = (draw(LABELS["real"], n, part="real", seed=1) for n in ((3, 4), (6, 9)))
    other = draw(LABELS["real"], (6, 9), part="real", seed=2)
    for a, b, c in zip(few, many, other):
        assert a.tolist() == b[: len(a)].tolist()
        assert b.tolist() != c.tolist()


def test_a_part_that_is_too_small_is_refused_or_repeated_evenly():
    with pytest.raises(
        ConfigError, match="the real images: expected at least 12 of each class, got 9"
    ):
        class_counts(LABELS, 2, per_class=12)
    counts = class_counts(LABELS, 2, per_class=20, repeat=True)
    zeros, _ = draw(LABELS["real"], counts, part="real", seed=0)
    assert sorted(np.unique(zeros, return_counts=True)[1].tolist()) == [2] * 7 + [3] * 2


def test_a_part_without_a_class_is_refused_even_if_it_may_repeat():
    with pytest.raises(ConfigError, match=r"the diverse images: .* got 0 of class number 2"):
        class_counts({"diverse": np.array([0, 1])}, 3, per_class=1, repeat=True)


def test_hold_out_takes_the_number_of_each_class_and_depends_on_the_seed():
    labels = np.array([0] * 50 + [1] * 30)
    held = hold_out(labels, (10, 7), name="test", seed=0)
    assert np.bincount(labels[held]).tolist() == [10, 7]
    assert not np.array_equal(held, hold_out(labels, (10, 7), name="test", seed=1))
    assert not np.array_equal(held, hold_out(labels, (10, 7), name="validation", seed=0))


def test_hold_out_never_cuts_a_group():
    rng = np.random.default_rng(0)
    patient = rng.integers(0, 40, 200)
    labels = (patient >= 25).astype(int)
    held = hold_out(labels, (20, 15), name="v", seed=0, groups=[f"person{p}" for p in patient])
    assert not set(patient[held]) & set(patient[~held])
    counts = np.bincount(labels[held])
    largest = np.bincount(patient).max()
    assert all(want <= got < want + largest for want, got in zip((20, 15), counts))


def test_a_group_of_two_classes_counts_for_both():
    labels, groups = np.array([0, 1, 0, 1, 0, 1]), ["a", "a", "b", "b", "c", "c"]
    held = hold_out(labels, (1, 1), name="v", seed=0, groups=groups)
    assert np.bincount(labels[held]).tolist() == [1, 1]


def test_holding_out_everything_is_refused():
    with pytest.raises(
        ConfigError, match=r"validation: holding out 3 .* class number 1 leaves none of 3"
    ):
        hold_out(np.array([0] * 9 + [1] * 3), (2, 3), name="validation", seed=0)
