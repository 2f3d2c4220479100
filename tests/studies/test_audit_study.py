"""The audit finds what is planted, does not alarm where nothing is, and knows what it rests on."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from audited_sets import (
    PLANTED,
    RULES,
    audit_sets,
    audited,
    described,
    planted,
    smooth_images,
)
from scipy.stats import binom

from regimes.descriptors.pixels import WhitenedPixels, unit_rows
from regimes.errors import ConfigError, DescriptorMismatch
from regimes.scores.calibration import calibrate_threshold
from regimes.scores.features import Features
from regimes.scores.generalization import ratio_test
from regimes.scores.result import wilson_interval
from regimes.studies.audit import AuditSets, counts, find_copies
from regimes.studies.audit_metrics import (
    NUM_METRIC_STEPS,
    Limits,
    all_scores,
    copy_scores,
    duplicate_groups,
)
from regimes.studies.audit_words import answer, beware, finding, null_range, share

TRAIN, HELDOUT = smooth_images(1000, 1), smooth_images(500, 2)
GENERATED = planted(TRAIN, 1000)


@pytest.fixture(scope="module")
def plain():
    return audited(TRAIN, GENERATED, HELDOUT)


@pytest.fixture(scope="module")
def flips():
    return audited(TRAIN, GENERATED, HELDOUT, flips=True)


def rates(flags):
    return {name: float(flags[rows].mean()) for name, rows in PLANTED.items()}


def test_each_planted_group_is_found_at_its_rate(plain, flips):
    """All copies, no novel image, and 5% of ordinary ones (the Wilson interval of 800 covers it)."""
    found = rates(plain.is_copy)
    assert (found["exact"], found["noisy"]) == (1, 1)
    assert found["flipped"] < 0.2  # like new ones: flips do not count here
    for copies in (plain, flips):
        low, high = wilson_interval(int(copies.is_copy[PLANTED["ordinary"]].sum()), 800)
        assert low < 1 - RULES.quantile < high
    with_flips = rates(flips.is_copy)
    assert found["novel"] == with_flips["novel"] == 0
    assert [with_flips[name] for name in ("exact", "noisy", "flipped")] == [1, 1, 1]


def test_identical_and_flipped_copies_are_told_from_noisy_ones(plain, flips):
    none = dict.fromkeys(PLANTED, 0)
    assert rates(plain.identical) == none | {"exact": 1}
    assert rates(flips.identical) == none | {"exact": 1, "flipped": 1}
    found = rates(flips.is_flip)
    assert (found["exact"], found["noisy"], found["flipped"]) == (0, 0, 1)
    assert not plain.is_flip.any()


def test_matches_name_the_right_training_image(flips):
    np.testing.assert_array_equal(flips.generated.nearest[:150], np.arange(150))
    assert flips.generated.flipped[100:150].all()
    table = described(GENERATED, "g").values @ described(TRAIN, "t").values.T
    np.testing.assert_allclose(flips.generated.unflipped, table.max(1), atol=1e-5)


def test_threshold_and_ratio_are_those_of_the_library(plain):
    sets = audit_sets(TRAIN, GENERATED, HELDOUT)
    known = calibrate_threshold(sets.heldout, sets.train, quantile=0.95)
    assert plain.threshold == known
    score = ratio_test(sets.generated, sets.train, sets.heldout)
    assert plain.is_ratio.mean() == score.value
    np.testing.assert_allclose(plain.generated.d2, score.per_item["d2"], rtol=1e-12)


def test_flips_change_nothing_that_published_thresholds_count(plain, flips):
    for level in RULES.published:
        np.testing.assert_array_equal(plain.is_published(level), flips.is_published(level))


def test_duplicates_of_a_copied_image_do_not_hide_it():
    twice = np.concatenate([TRAIN, TRAIN[:50]])
    naive = audited(twice, GENERATED, HELDOUT)
    assert not naive.is_ratio[:50].any()  # d1 = d2
    same = duplicate_groups(described(twice, "train"), None, 1e-3)
    assert same.num_repeated == 50
    found = audited(twice, GENERATED, HELDOUT, groups=same.first)
    assert found.is_ratio[:50].all()
    np.testing.assert_array_equal(found.generated.nearest[:50], np.arange(50))


def test_an_image_and_its_flip_are_one_training_image_where_flips_count():
    both = np.concatenate([TRAIN[:200], TRAIN[:200, :, ::-1]])
    rows, flipped = described(both, "t"), described(both[:, :, ::-1], "t")
    same = duplicate_groups(rows, flipped, 1e-3)
    np.testing.assert_array_equal(same.first, np.tile(np.arange(200), 2))
    assert duplicate_groups(rows, None, 1e-3).num_repeated == 0
    found = audited(both, TRAIN[:100], HELDOUT, flips=True, groups=same.first)
    assert found.is_ratio.all()


def test_copies_of_any_of_several_near_duplicates_are_identical():
    """Ten training images have a second version, one level apart in one pixel; copies of either count."""
    second = TRAIN[:10].copy()
    second[:, 0, 0] ^= 1
    train = np.concatenate([TRAIN[:200], second])
    same = duplicate_groups(described(train, "t"), None, 2e-2)
    assert same.num_repeated == 10
    copies = np.concatenate([TRAIN[:5], second[5:], smooth_images(20, 91)])
    found = audited(train, copies, HELDOUT, groups=same.first)
    assert found.identical.tolist() == [True] * 10 + [False] * 20
    assert found.generated.nearest[:10].tolist() == [*range(5), *range(205, 210)]
    mirrored = audited(train, second[:, :, ::-1], HELDOUT, flips=True, groups=same.first)
    assert mirrored.identical.all()
    assert mirrored.is_flip.all()


def test_the_null_has_the_spread_of_few_reference_images():
    """Of 100 sets that are like their 60 reference images, 95% of counts lie in the range."""
    images, inside = described(smooth_images(760, 5), "all"), 0
    for seed in range(100):
        rows = images.take(np.random.default_rng(seed).permutation(760))
        train, held, made = (
            rows.take(np.arange(*ends)) for ends in ((0, 100), (100, 160), (160, 760))
        )
        sets = AuditSets(train=train, generated=made, heldout=held)
        copies = find_copies(sets, RULES, np.arange(100), no_lookalikes)
        score = next(s for s in copy_scores(copies, sets) if s.name == "memorized_published_0.75")
        low, high = null_range(copies, score)
        inside += low <= score.value <= high
    assert inside >= 88  # binomial(100, 0.95) is below that once in 400


def test_images_without_contrast_are_no_duplicates_and_no_copies():
    train = TRAIN.copy()
    train[:3], generated = 9, GENERATED.copy()
    generated[-1] = 9
    same = duplicate_groups(described(train, "t"), None, 1e-3)
    assert same.num_repeated == 0
    found = audited(train, generated, HELDOUT, groups=same.first)
    assert found.generated.similarity[-1] == 0
    assert not found.is_copy[-1]


def no_lookalikes(*_):
    raise AssertionError("no two of these images are alike")


def test_real_images_are_flagged_at_their_rate_over_100_repetitions():
    """Splits of one set: the mean rate is 5% to three standard errors, and 1 / H by the sample quantile."""
    images = smooth_images(900, 3)
    rows, found = described(images, "all"), []
    for seed in range(100):
        order = np.random.default_rng(seed).permutation(900)
        parts = [rows.take(order[i : i + 300]) for i in (0, 300, 600)]
        sets = AuditSets(train=parts[0], generated=parts[1], heldout=parts[2])
        copies = find_copies(sets, RULES, np.arange(300), no_lookalikes)
        found.append(float(copies.is_copy.mean()))
    error = np.std(found, ddof=1) / 10
    assert abs(np.mean(found) - 0.05) < 3 * error + 1 / 300


def test_without_heldout_images_the_threshold_leaves_one_out():
    found = audited(TRAIN, GENERATED)
    rows = described(TRAIN, "t").values.astype(np.float64)
    table = rows @ rows.T
    np.fill_diagonal(table, -1)
    assert found.threshold.value == pytest.approx(np.quantile(table.max(1), 0.95), abs=1e-6)
    assert found.reference == "train"
    assert rates(found.is_copy)["noisy"] == 1
    assert not found.identical_real.any()


def test_training_images_compared_with_one_another_accuse_nobody():
    """The two closest have one similarity: new images are beyond with chance 2 / (N + 1), not 1 / (N + 1).

    200 times 12 training and 500 new images of one law. By N independent similarities 17% of them copied.
    """
    accused, beyond, rng = 0, [], np.random.default_rng(0)
    for _ in range(200):
        train, new = (
            Features(np.arange(n), unit_rows(rng.standard_normal((n, 8))), "d") for n in (12, 500)
        )
        copies = find_copies(
            AuditSets(train=train, generated=new),
            RULES,
            np.arange(12),
            lambda *a: np.zeros(1, bool),
        )
        accused += "so the generator copies" in " ".join(answer(copies))
        beyond.append(float(copies.is_beyond.mean()))
        assert copies.p_value.min() >= 2 / 13
        np.testing.assert_array_equal(copies.is_beyond, copies.p_value < 2.5 / 13)
    assert accused <= binom.ppf(0.999, 200, 0.05)
    assert np.mean(beyond) == pytest.approx(2 / 13, abs=4 * np.std(beyond) / 200**0.5)
    null = next(
        s
        for s in copy_scores(copies, AuditSets(train=train, generated=new))
        if s.name == "beyond_real"
    )
    assert null.null == pytest.approx(2 / 13)


def test_leave_one_out_does_not_see_an_images_own_flip():
    symmetric = np.maximum(TRAIN, TRAIN[:, :, ::-1])
    found = audited(symmetric, GENERATED, flips=True)
    assert found.real.similarity.max() < 1 - 1e-6


def test_heldout_images_that_are_training_images_are_found_and_left_out():
    leaked = HELDOUT.copy()
    leaked[:60] = TRAIN[:60]
    found = audited(TRAIN, GENERATED, leaked)
    assert found.identical_real.sum() == 60
    assert found.threshold.num_heldout == 440
    assert found.is_beyond[:50].all()
    assert "60 held-out images equal a training image" in " ".join(beware(found, []))
    with pytest.raises(ConfigError, match="--heldout: 500 of 500 images are training images"):
        audited(TRAIN, GENERATED, TRAIN[:500])


def test_p_values_are_valid_and_least_for_copies(plain):
    """Super-uniform for new images: P[p <= t] <= t, here within three standard errors."""
    assert (plain.p_value[:50] == 1 / 501).all()
    for t in (0.05, 0.2, 0.5):
        error = math.sqrt(t * (1 - t) * (1 / 850 + 1 / 500))
        assert (plain.p_value[150:] <= t).mean() < t + 3 * error


def test_order_does_not_matter(plain):
    order = np.random.default_rng(0).permutation(1000)
    again = audited(TRAIN[order], GENERATED[::-1].copy(), HELDOUT)
    np.testing.assert_array_equal(again.is_copy[::-1], plain.is_copy)
    np.testing.assert_array_equal(order[again.generated.nearest][::-1], plain.generated.nearest)
    np.testing.assert_allclose(again.generated.d1[::-1], plain.generated.d1, atol=1e-12)


@pytest.fixture(scope="module")
def scores():
    sets = audit_sets(TRAIN, GENERATED, HELDOUT, flips=True)
    copies = audited(TRAIN, GENERATED, HELDOUT, flips=True)
    same = duplicate_groups(sets.train, sets.mirrored, 1e-3)
    again = duplicate_groups(sets.generated, None, 1e-3)
    limits, steps = Limits(manifold=300), []
    found = all_scores(copies, sets, {}, (same, again), limits, lambda: steps.append(1))
    assert len(steps) == NUM_METRIC_STEPS - 4  # of the duplicates, and of find_copies
    return {s.name: s for s in found}


def test_every_metric_has_an_interval_around_it_and_a_null(scores):
    for name, score in scores.items():
        assert score.low <= score.value <= score.high, name
        without = {"frechet", "duplicates_train", "duplicates_generated"}
        assert math.isnan(score.null) == (name in without), name


def test_copy_metrics_exceed_their_null_and_authenticity_falls_below(scores):
    for name in ("memorized", "beyond_real", "identical", "flips", "ratio"):
        assert scores[name].low > scores[name].null, name
    assert scores["authentic"].high < scores["authentic"].null
    assert scores["identical"].value == 0.1  # 50 copies and 50 flips of 1000
    assert scores["c_t"].value < 0  # the novel images, farther than any, weigh against the copies


def test_metrics_of_few_images_say_how_many(scores):
    assert scores["precision"].num_generated == scores["vendi"].num_generated == 300
    assert (scores["frechet"].num_generated, scores["frechet_matched"].num_generated) == (1000, 500)


def test_raw_features_give_fid_and_kid():
    sets = audit_sets(TRAIN[:60], GENERATED[:50], HELDOUT[:50])
    copies = audited(TRAIN[:60], GENERATED[:50], HELDOUT[:50])
    rng = np.random.default_rng(0)
    raw = {
        name: Features(np.arange(n), rng.standard_normal((n, 4)).astype(np.float32), "raw")
        for name, n in (("train", 60), ("generated", 50), ("heldout", 50))
    }
    same = duplicate_groups(sets.train, None, 0), duplicate_groups(sets.generated, None, 0)
    pytest.importorskip("torch_fidelity")
    found = {s.name: s for s in all_scores(copies, sets, raw, same, Limits(manifold=100))}
    assert {"fid", "kid"} <= found.keys()
    assert not {"frechet", "kernel"} & found.keys()
    assert found["fid"].descriptor == "raw"


def test_without_heldout_images_nulls_are_missing_and_that_is_said():
    sets = audit_sets(TRAIN[:300], GENERATED[:300])
    copies = audited(TRAIN[:300], GENERATED[:300])
    same = duplicate_groups(sets.train, None, 0), duplicate_groups(sets.generated, None, 0)
    found = {s.name: s for s in all_scores(copies, sets, {}, same, Limits(manifold=100))}
    assert "c_t" not in found
    for name in ("precision", "recall", "authentic", "vendi", "frechet", "kernel", "identical"):
        assert math.isnan(found[name].null), name
    assert "Pass --heldout" in " ".join(beware(copies, list(found.values())))
    assert "no held-out images" in answer(copies)[1]


def of_new_images(count, side, *, is_fitted):
    """What an audit by a whitening of the training images says of 100 images that copy nothing."""
    images = smooth_images(count + 100, 3, side=side)
    whitened = WhitenedPixels.fit(images[:count])
    train, made = (
        Features(np.arange(len(part)), whitened(part), "whitened")
        for part in (images[:count], images[count:])
    )
    sets = AuditSets(train=train, generated=made, is_fitted=is_fitted)
    copies = find_copies(sets, RULES, np.arange(count), no_lookalikes)
    return " ".join([*answer(copies), finding(copies)])


def test_a_descriptor_fitted_to_few_training_images_accuses_nobody():
    assert "so the generator copies" in of_new_images(60, 24, is_fitted=False)  # it would
    said = of_new_images(60, 24, is_fitted=True)
    assert said.startswith("None equals a training image in every pixel. ")
    assert "which says nothing" in said
    assert said.endswith("for more, held-out images are needed")
    assert "copies" not in said


def test_a_descriptor_fitted_to_both_sets_accuses_nobody_and_finds_copies():
    """40 times 60 training and 100 new images of 256 pixels; then six copies: noisy, brighter, equal."""
    accused, beyond, missed = 0, [], 0
    for seed in range(40):
        images = smooth_images(160, seed, side=16)
        train, new = images[:60], images[60:]
        copies = of_both(train, new)
        accused += "so the generator copies" in " ".join(answer(copies))
        beyond.append(float(copies.is_beyond.mean()))
        changed = train[:6].astype(float)
        changed[:2] += np.random.default_rng(seed).normal(0, 8, changed[:2].shape)
        changed[2:4] += 12
        some = np.concatenate([np.clip(changed, 0, 255).astype(np.uint8), new[6:]])
        missed += int((~of_both(train, some).is_beyond[:6]).sum())
    assert accused <= 3
    assert np.mean(beyond) == pytest.approx(2 / 61, abs=4 * np.std(beyond) / 40**0.5)
    assert missed == 0


def of_both(train, made):
    whitened = WhitenedPixels.fit(np.concatenate([train, made]))
    sets = AuditSets(
        train=Features(np.arange(len(train)), whitened(train), "whitened"),
        generated=Features(np.arange(len(made)), whitened(made), "whitened"),
    )
    return find_copies(sets, RULES, np.arange(len(train)), lambda *_: np.zeros(1, bool))


def test_a_descriptor_fitted_to_many_training_images_judges():
    said = of_new_images(600, 6, is_fitted=True)
    assert "not measurably more or fewer than among the training images" in said


def test_the_answer_counts_and_compares_with_real_images(flips):
    certain, counted = answer(flips)
    assert counted.startswith(f"{flips.is_copy.sum()} of 1,000 generated images")
    assert "the threshold that 5% of held-out images reach" in counted
    assert "more than among unseen real images, so the generator copies" in counted
    assert certain.startswith(
        "100 of 1,000 generated images equal a training image or its flip in every pixel, "
    )
    assert f"{counts(flips)['flip']} copy a flipped one (50 exactly)" in certain
    assert "any of 500 held-out images" in certain
    assert f"{flips.is_copy.sum()} of 1,000" in finding(flips)
    assert "are above the threshold, 100 equal a training image; of" in finding(flips)


def test_the_headline_does_not_reassure_where_images_are_copied_exactly():
    """3 of 400 is fewer than the 5% that pass the threshold, and yet 3 copies."""
    generated = smooth_images(400, 11, sigma=0.4)
    generated[:3] = TRAIN[:3]
    first, second = answer(audited(TRAIN, generated, HELDOUT))
    assert first.startswith("3 of 400 generated images equal a training image in every pixel, and ")
    assert "fewer than among unseen real images; the exact ones are copies all the same" in second


def test_the_answer_does_not_alarm_where_nothing_is():
    first, second = answer(audited(TRAIN, smooth_images(400, 11), HELDOUT))
    assert "not measurably more or fewer than among unseen real images" in first
    assert "copies" not in first.replace("copies:", "")
    assert second.startswith("None equals a training image")


def test_published_thresholds_that_real_images_pass_are_called_so(scores, flips):
    easy = dataclasses.replace(
        scores["memorized_published_0.5"], threshold=0.1, null=0.97, name="memorized_published_0.1"
    )
    text = " ".join(beware(flips, [easy]))
    assert "At the published threshold of 0.1, 97.0% of real images" in text
    assert "At the published" not in " ".join(beware(flips, [dataclasses.replace(easy, null=0.01)]))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0%"),
        (1, "100%"),
        (0.00074, "0.074%"),
        (0.05, "5.0%"),
        (0.372, "37.2%"),
        (0.999, "99.9%"),
    ],
)
def test_shares_keep_the_digits_that_say_something(value, text):
    assert share(value) == text


def test_sets_that_cannot_be_compared_are_refused():
    few = described(TRAIN[:5], "few")
    train = described(TRAIN, "train")
    with pytest.raises(ConfigError, match="--generated: expected at least 8 images, got 5"):
        AuditSets(train=train, generated=few)
    other = Features(train.ids, train.values, "another")
    with pytest.raises(DescriptorMismatch, match="another"):
        AuditSets(train=train, generated=other)
    with pytest.raises(ConfigError, match="--train: expected 3 images or more that differ"):
        audited(TRAIN[:1].repeat(20, 0), GENERATED, HELDOUT, groups=np.zeros(20, np.int64))
