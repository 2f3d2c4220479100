"""The study of arms: planted help and harm are found, nothing is found where nothing is, all is named."""

from __future__ import annotations

import math

import numpy as np
import pytest
from classified import CLASSES, GOOD, planted, planted_arms
from scipy.stats import binom, t

from regimes.classifiers import scores
from regimes.classifiers.scores import Predictions
from regimes.errors import IdMismatch
from regimes.studies.classification import answer, difference, learned, pairs_of, study


def test_planted_effects_are_found_with_their_direction():
    found = study(planted_arms(GOOD), CLASSES)
    effects = {(c.arm, c.base): c.effect for c in found.comparisons}
    assert effects == {
        ("generated", "real"): "hurts",
        ("diverse", "real"): "hurts",
        ("real+generated", "real"): "no measurable difference",
        ("real+diverse", "real"): "helps",
        ("diverse", "generated"): "no measurable difference",
        ("real+diverse", "real+generated"): "helps",
    }
    c = found.comparison("real+diverse")
    assert c.main.value == pytest.approx((0.3 + 0.15) / 2, abs=0.02)
    assert c.p_adjusted < 0.01
    assert found.comparison("real+generated").p_adjusted == 1


def test_equal_arms_are_rarely_called_different():
    """30 studies of equal classifiers: at most 5% differ, plus three standard errors, 17%."""
    called = 0
    for i in range(30):
        predictions = {
            (arm, s): planted((0.7, 0.8), seed=1000 * i + 10 * s + a)
            for a, arm in enumerate(("real", "real+generated"))
            for s in range(4)
        }
        rng = np.random.default_rng(i)
        for key, p in predictions.items():  # recalls vary by chance too
            keep = rng.permutation(160) < 130
            predictions[key] = Predictions(
                ids=p.ids,
                labels=p.labels,
                probabilities=np.where(keep[:, None], p.probabilities, p.probabilities[:, ::-1]),
            )
        found = study(predictions, CLASSES)
        called += found.comparison("real+generated").effect != "no measurable difference"
    assert called / 30 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 30)


def independent(per_class, accuracy, rng, seeds=3):
    """What classifiers say that are right on the same images every time, and on others than any other's."""
    labels = np.arange(2).repeat(per_class)
    right = rng.random(2 * per_class) < accuracy
    p = Predictions(
        ids=np.arange(len(labels)),
        labels=labels,
        probabilities=np.eye(2, dtype=np.float32)[np.where(right, labels, 1 - labels)],
    )
    return [p] * seeds


def test_few_test_images_of_a_class_give_wide_intervals():
    """Three images per class, as good as each other: by the normal quantile 17% differed."""
    rng, called = np.random.default_rng(0), 0
    for _ in range(300):
        e = difference(independent(3, 0.5, rng), independent(3, 0.5, rng))
        called += not e.low <= 0 <= e.high
        assert 2 <= e.freedom <= 4
    assert called <= binom.ppf(0.999, 300, 0.05)
    many = difference(independent(200, 0.5, rng), independent(200, 0.5, rng))
    assert many.freedom > 300


def called_right(right, per_class, seeds=3):
    labels = np.arange(2).repeat(per_class)
    calls = np.where(right, labels, 1 - labels)
    probabilities = np.eye(2, dtype=np.float32)[calls]
    return [
        Predictions(ids=np.arange(len(labels)), labels=labels, probabilities=probabilities)
    ] * seeds


@pytest.mark.parametrize(("per_class", "effect"), [(2, "no measurable difference"), (20, "helps")])
def test_test_images_that_agree_are_not_certain(per_class, effect):
    """One class gained, one unchanged: of two images each, a tenth of equal arms did so and 'helped'."""
    all_wrong, half_right = np.zeros(2 * per_class, bool), np.arange(2 * per_class) < per_class
    trials = {"real": all_wrong, "real+generated": half_right}
    found = study(
        {(a, s): called_right(r, per_class)[s] for a, r in trials.items() for s in range(3)},
        CLASSES,
    )
    assert found.comparisons[0].main.value == 0.5
    assert found.comparisons[0].effect == effect
    same = difference(called_right(half_right, per_class), called_right(half_right, per_class))
    assert (same.low, same.value, same.high) == (0, 0, 0)


@pytest.mark.parametrize("per_class", [6, 7, 8, 14, 27])
def test_equal_terms_are_equal_however_they_round(per_class):
    """The variance of seven equal numbers was 1e-34, and the interval a point."""
    half_right = np.arange(2 * per_class) < per_class
    a, b = (
        called_right(half_right, per_class),
        called_right(np.zeros(2 * per_class, bool), per_class),
    )
    found = difference(a, b)
    assert found.freedom == 2 * (per_class - 1)
    assert found.high - found.value == pytest.approx(
        t.ppf(0.975, found.freedom) * math.sqrt(2) / (2 * per_class)
    )


def test_a_recall_rests_on_the_images_of_its_class():
    half_right = np.arange(10) < 5
    a, b = called_right(half_right, 5), called_right(np.zeros(10, bool), 5)
    found = difference(a, b, "recall", 0)
    assert (found.value, found.freedom) == (1, 4)
    assert found.low == pytest.approx(1 - t.ppf(0.975, 4) / 5)


def test_effects_hold_for_all_arms_together():
    """Five arms as good as the real images: each for itself, some arm differed in a fifth of studies."""
    rng, called = np.random.default_rng(0), 0
    arms = ("real", "generated", "diverse", "real+generated", "real+diverse")
    for _ in range(40):
        trials = {arm: independent(50, 0.7, rng) for arm in arms}
        found = study({(a, s): t[s] for a, t in trials.items() for s in range(3)}, CLASSES)
        called += any(c.effect != "no measurable difference" for c in found.comparisons)
        c = found.comparisons[0]
        assert c.among == 6
        low, high = c.main.among(6)
        assert low < c.main.low < c.main.high < high
        assert c.main.among(1) == pytest.approx((c.main.low, c.main.high), abs=1e-9)
    assert called <= binom.ppf(0.999, 40, 0.05)
    assert "for all 6 comparisons]" in answer(found)[0]


def test_interval_of_an_arm_covers_both_of_its_parts():
    found = study(planted_arms(GOOD, spread=0.05), CLASSES)
    for arm in found.arms:
        for e in found.estimates[arm]:
            for low, high in (e.seeds, e.images):
                assert e.low <= low + 1e-12
                assert e.high >= high - 1e-12
            assert e.value == pytest.approx(np.mean(e.by_seed))
            assert 0 <= e.low <= e.high <= 1


def test_arms_are_paired_by_seed():
    """A spread that both arms share cancels in their difference."""
    found = study(planted_arms(GOOD, spread=0.06), CLASSES)
    c = found.comparison("real+generated")
    assert c.main.by_seed == (0, 0, 0, 0)
    assert found.of("real").seeds[1] - found.of("real").seeds[0] > 0.1


def test_nulls_are_those_of_calls_that_ignore_the_images():
    p = planted_arms({"real": (0.6, 0.8), "generated": (0.1, 1.0)}, spread=0)
    found = study(p, CLASSES)
    assert found.of("real").null == 0.5
    assert found.of("real", "auc").null == 0.5
    assert found.of("real", "accuracy").null == 100 / 160  # the largest class
    called = (36 + 20) / 160  # of 60 NORMAL 36 are found, and 20 of 100 others are called so
    assert found.of("real", "recall", 0).null == pytest.approx(called)
    shuffled = np.random.default_rng(0).permutation(p["real", 0].predicted)
    by_chance = (shuffled[p["real", 0].labels == 0] == 0).mean()
    assert by_chance == pytest.approx(called, abs=0.15)  # 60 images: 0.06 is a standard error
    assert all(e.null == 0 for c in found.comparisons for e in c.differences)


def test_one_seed_gives_values_but_no_verdict():
    found = study(planted_arms(GOOD, seeds=1), CLASSES)
    assert {c.effect for c in found.comparisons} == {"one seed, no verdict"}
    assert math.isnan(found.of("real").low)
    assert found.records()[0]["low"] is None
    assert "one seed" in answer(found)[0]
    assert learned(found)


def test_records_hold_every_score_of_every_arm_and_comparison():
    found = study(planted_arms(GOOD), CLASSES)
    records = found.records()
    metrics = len(scores.METRICS) + len(CLASSES)
    assert len(records) == metrics * (len(GOOD) + len(found.comparisons))
    row = next(r for r in records if (r["arm"], r["minus"], r["class"]) == ("real", None, "NORMAL"))
    assert row["value"] == pytest.approx(found.of("real", "recall", 0).value)
    assert len({(r["arm"], r["minus"], r["score"], r["class"]) for r in records}) == len(records)


def test_what_is_compared_follows_from_the_arms():
    assert pairs_of(["real", "generated", "real+generated"]) == [
        ("generated", "real"),
        ("real+generated", "real"),
    ]
    assert ("real+diverse", "real+generated") in pairs_of(list(GOOD))


def test_the_answer_says_what_was_found():
    diverse, alone = answer(study(planted_arms(GOOD), CLASSES))[1:]
    assert diverse.startswith("Diverse images beside real ones help the classifier: ")
    assert "over 4 seeds and 160 test images" in diverse
    assert "(generated)" in alone
    assert "(diverse)" in alone
    worse = {"real": (0.9, 0.9), "generated": (0.5, 0.5), "real+generated": (0.6, 0.7)}
    assert "hurt the classifier" in answer(study(planted_arms(worse), CLASSES))[0]


def test_classifiers_at_chance_are_no_basis():
    weak = {"real": (0.5, 0.5), "generated": (0.5, 0.5), "real+generated": (0.9, 0.9)}
    found = study(planted_arms(weak), CLASSES)
    assert not learned(found)
    assert answer(found)[-1].endswith("nothing follows from the comparison; train for longer.")
    assert learned(study(planted_arms(GOOD), CLASSES))


def test_predictions_of_other_images_are_refused():
    predictions = planted_arms(GOOD)
    p = predictions["generated", 2]
    swapped = Predictions(ids=p.ids[::-1], labels=p.labels, probabilities=p.probabilities)
    predictions["generated", 2] = swapped
    with pytest.raises(IdMismatch, match="predictions of generated, seed 2"):
        study(predictions, CLASSES)


def test_an_arm_without_a_seed_is_refused():
    predictions = planted_arms(GOOD)
    del predictions["diverse", 1]
    with pytest.raises(IdMismatch, match="diverse of seed 1 is missing"):
        study(predictions, CLASSES)
    with pytest.raises(IdMismatch, match="real is missing"):
        study(planted_arms({"generated": (0.5, 0.5)}), CLASSES)
