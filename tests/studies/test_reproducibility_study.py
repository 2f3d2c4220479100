"""The reproducibility study: sets are aligned by id, and every pair gets six scores with nulls."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from compared_models import RULES, compared, planted_sets

from regimes.descriptors.pixels import Pixels
from regimes.errors import BadSource, IdMismatch
from regimes.scores.agreement import compare
from regimes.scores.result import wilson_interval
from regimes.studies.reproducibility import SCORES, SampleSet, align, answer, any_agree, study

SHARES = (0.9, 0.3)


def sample_set(name, ids, images=None):
    images = np.zeros((len(ids), 2, 2, 1), np.uint8) if images is None else images
    return SampleSet(name=name, ids=np.array(ids), images=images)


# ---- alignment ----


def test_aligned_sets_have_the_same_ids_and_each_image_keeps_its_own(rng):
    images = rng.integers(0, 256, (3, 10, 2, 2, 1), np.uint8)
    orders = [rng.permutation(10) for _ in range(3)]
    aligned = align([sample_set(f"s{k}", p, images[k][p]) for k, p in enumerate(orders)])
    for k, one in enumerate(aligned):
        np.testing.assert_array_equal(one.ids, np.arange(10))
        np.testing.assert_array_equal(one.images, images[k])


def test_missing_ids_are_listed_by_set():
    sets = [sample_set("a", [1, 2, 3, 4]), sample_set("b", [2, 3, 4, 9])]
    with pytest.raises(
        IdMismatch, match=r"a lacks 1 \(9\); b lacks 1 \(1\); 3 are in all sets; .*--allow"
    ):
        align(sets)
    partial = align(sets, allow_partial=True)
    assert [one.ids.tolist() for one in partial] == [[2, 3, 4], [2, 3, 4]]


@pytest.mark.parametrize("allow_partial", [False, True])
def test_fewer_than_two_shared_ids_cannot_be_compared(allow_partial):
    sets = [sample_set("a", ["x.png", "y.png"]), sample_set("b", ["y.png", "z.png"])]
    with pytest.raises(IdMismatch, match="1 are in all sets; compare at least two"):
        align(sets, allow_partial=allow_partial)


def test_images_of_different_size_are_refused_with_the_remedy():
    large = sample_set("large", [1, 2], np.zeros((2, 3, 3, 3), np.uint8))
    with pytest.raises(
        BadSource, match=r"a has images of 2x2 gray, large of 3x3 RGB; .*--image-size"
    ):
        align([sample_set("a", [1, 2]), large])


def test_a_set_with_repeated_ids_is_refused_by_name():
    with pytest.raises(IdMismatch, match="twice: ids repeat: 5"):
        sample_set("twice", [5, 5])


# ---- scores ----


def test_planted_shares_are_the_scores():
    found = compared(SHARES)
    for name in ("rp", "mae_score"):
        values = {pair: s.value for pair, s in found.of(name).items()}
        assert values == {
            ("model 0", "model 1"): 0.9,
            ("model 0", "model 2"): 0.3,
            ("model 1", "model 2"): 0.3,
        }
    score = found.of("rp")["model 0", "model 1"]
    assert (score.low, score.high) == wilson_interval(90, 100)
    assert score.null < 0.001


def test_every_pair_has_every_score_with_interval_and_null():
    rows = compared(SHARES).rows
    assert len(rows) == 3 * len(SCORES)
    for row in rows:
        record = row.record()
        assert record["low"] <= record["value"] <= record["high"], record
        assert record["null"] is not None
        assert record["n"] == 100
    json.dumps([row.record() for row in rows], allow_nan=False)


def test_calibrated_threshold_is_exceeded_by_as_many_unpaired_couples_as_it_says():
    found = compared(SHARES)
    unpaired = np.concatenate([a.unpaired_similarity for a in found.agreements.values()])
    above = (unpaired > found.calibrated).mean()
    assert above <= 0.05 < above + 4 / len(unpaired)  # planted copies make couples tie
    assert found.chance("rp_calibrated") == pytest.approx(above, abs=1e-12)


def test_a_set_agrees_with_itself_and_the_matrix_is_symmetric():
    found = compared(SHARES)
    for name, own in {"rp": 1.0, "mae_score": 1.0, "flow_distance": 0.0}.items():
        values = np.array(found.values(name))
        np.testing.assert_array_equal(values, values.T)
        np.testing.assert_array_equal(np.diag(values), own)
    assert found.matrix("rp")[1][1] is None  # not a finding


def test_images_without_contrast_show_on_the_diagonal():
    sets = planted_sets(SHARES)
    sets[1][:7] = 128
    found = study("abc", compare(sets, Pixels()), descriptor="pixels", rules=RULES)
    assert found.diagonal["rp"] == (1.0, 0.93, 1.0)


def test_order_of_seeds_does_not_matter(rng):
    sets, p = planted_sets(SHARES), rng.permutation(100)
    one, other = (
        study("abc", compare(chosen, Pixels()), descriptor="pixels", rules=RULES)
        for chosen in (sets, [s[p] for s in sets])
    )
    assert one.calibrated == pytest.approx(other.calibrated, abs=1e-12)
    for a, b in zip(one.rows, other.rows):
        left, right = (dataclasses.astuple(r.score)[1:5] for r in (a, b))
        assert left == pytest.approx(right, abs=1e-9)


# ---- answer ----


def test_answer_names_the_least_and_the_most_agreeing_pair_and_chance():
    first, second = answer(compared((0.9, 0.2), names=["EDM", "CT", "UViT"]))
    assert "20% (EDM, UViT) to 90% (EDM, CT) of 100 seeds" in first
    assert "images of different seeds are as similar in 0% of cases" in first
    assert "exceeded by 5.0% of images of different seeds" in second


def test_answer_about_two_models_names_both_and_one_number():
    first, _ = answer(compared((0.9,), names=["EDM", "CT"]))
    assert first.startswith(
        "EDM and CT make the same image from the same noise for 90% of 100 seeds"
    )


def test_answer_does_not_claim_agreement_at_chance_level():
    first, _ = answer(compared((0.0,), names=["EDM", "CT"]))
    assert first.startswith("EDM and CT do not agree more often than chance: 0% of 100 seeds")


def test_chance_among_many_pairs_is_no_agreement():
    """Ten models that each make one of ten images at random: 45 pairs, of which some exceed 95% intervals."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 256, (10, 8, 8, 1), np.uint8)
    sets = [kinds[rng.integers(0, 10, 100)] for _ in range(10)]
    found = study("abcdefghij", compare(sets, Pixels()), descriptor="pixels", rules=RULES)
    scores = found.of("rp").values()
    assert any(score.low > score.null for score in scores)
    assert not any_agree(scores)
    assert answer(found)[0].startswith("No two models agree more often than chance")


def test_two_seeds_that_agree_may_be_matched_by_chance_and_six_may_not():
    for count, expected in ((2, False), (6, True)):
        found = compared((1.0,), count=count)
        assert any_agree(found.of("rp").values()) is expected


def test_nothing_is_nan():
    for row in compared(SHARES).rows:
        assert not math.isnan(row.score.value + row.score.low + row.score.high + row.score.null)
