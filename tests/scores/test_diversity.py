"""Diverse samples: the calibrated rule's null rate, planted novelty, gates, and balls."""

from __future__ import annotations

import numpy as np
import pytest
from audited_sets import smooth_images

from regimes.descriptors.pixels import WhitenedPixels
from regimes.errors import DescriptorMismatch
from regimes.scores import neighbours
from regimes.scores.diversity import Gates, calibrated, jaccard, outside_balls
from regimes.scores.features import Features
from regimes.scores.fidelity import precision, realism


def draw(rng, make_features, n, d=3, shift=0.0):
    return make_features(rng.standard_normal((n, d)) + shift, unit=False)


@pytest.mark.parametrize("with_heldout", [False, True])
@pytest.mark.parametrize("quantile", [0.8, 0.95])
def test_rate_of_exchangeable_samples_is_exact_over_repetitions(
    rng, make_features, quantile, with_heldout
):
    rates = []
    for _ in range(250):
        real, generated, heldout = (draw(rng, make_features, n, 2) for n in (39, 30, 39))
        found = calibrated(
            generated, real, quantile=quantile, heldout=heldout if with_heldout else None
        )
        rates.append(found.value)
        assert found.null == pytest.approx(1 - quantile)  # 40 (1 - q) is whole
    error = np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) == pytest.approx(1 - quantile, abs=3 * error)
    assert error < 0.012


def test_calibration_of_few_images_never_selects_more_than_it_says(rng, make_features):
    # 25 images and q = .95: m = 1, so the rate is 1 / 26 and not .05.
    rates = []
    for _ in range(300):
        real, generated = (draw(rng, make_features, 25, 2) for _ in range(2))
        found = calibrated(generated, real)
        rates.append(found.value)
    assert found.null == 1 / 26
    assert np.mean(rates) == pytest.approx(1 / 26, abs=3 * np.std(rates) / np.sqrt(300))


@pytest.mark.parametrize("block", [5, 4096])
@pytest.mark.parametrize("planted", [0, 7, 30])
def test_planted_novel_samples_are_selected_and_copies_are_not(
    rng, make_features, monkeypatch, block, planted
):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    real = draw(rng, make_features, 60)
    values = real.values[:30] + 1e-3
    values[:planted] += 50
    found = calibrated(make_features(values, unit=False), real)
    assert found.per_item["selected"].tolist() == [True] * planted + [False] * (30 - planted)
    assert found.value == planted / 30


def test_threshold_is_the_order_statistic_of_leave_one_out_distances(rng, make_features):
    real, generated = draw(rng, make_features, 99), draw(rng, make_features, 50)
    x = real.values.astype(float)
    distances = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    found = calibrated(generated, real, quantile=0.9)
    assert found.threshold == pytest.approx(np.sort(distances.min(1))[-10], rel=1e-12)
    assert found.null == 0.1
    np.testing.assert_array_equal(
        found.per_item["far"], found.per_item["distance"] > found.threshold
    )


def test_gates_keep_broken_samples_and_copies_out(rng, make_features):
    real = make_features(rng.standard_normal((200, 2)), unit=False)
    outlier = make_features(np.concatenate([real.values, [[30.0, 0]]]), unit=False)
    # Broken, novel but plausible, and nearer to the outlier than to anything else.
    border = np.abs(real.values[:, 0]).argmax()
    novel = real.values[border] * 1.15
    generated = make_features([[500.0, 0], novel, [32.0, 0]], unit=False)
    plain = calibrated(generated, outlier)
    assert plain.per_item["selected"].tolist() == [True, True, True]
    gated = calibrated(generated, outlier, gates=Gates(looseness=3.0))
    assert gated.per_item["plausible"].tolist() == [False, True, True]
    assert gated.per_item["copy"].tolist() == [False, False, True]
    assert gated.per_item["selected"].tolist() == [False, True, False]
    named = calibrated(generated, outlier, copies=np.array([False, True, False]))
    assert named.per_item["selected"].tolist() == [True, False, True]


def test_gates_are_precision_realism_and_the_ratio_test(rng, make_features):
    real, items = draw(rng, make_features, 40), draw(rng, make_features, 60)
    inside = precision(items, real, items, k=5).per_item["inside"]
    np.testing.assert_array_equal(Gates(looseness=1.0).plausible(items, real), inside)
    found = Gates(looseness=None, least_realism=0.8).plausible(items, real)
    np.testing.assert_array_equal(found, realism(items, real, k=5) >= 0.8)
    assert 0 < found.mean() < 1
    assert Gates(looseness=None).plausible(items, real).all()
    assert not Gates(copy_ratio=None).copies(real, real).any()
    assert Gates().copies(real, real).all()


def test_null_with_gates_is_measured_on_held_out_images(rng, make_features):
    real, heldout = draw(rng, make_features, 60), draw(rng, make_features, 80)
    gates = Gates(looseness=1.0, k=3)
    found = calibrated(heldout, real, quantile=0.7, heldout=heldout, gates=gates)
    assert found.null == pytest.approx((80 * found.value + 1) / 81)
    assert 1 / 81 < found.null < calibrated(heldout, real, quantile=0.7, heldout=heldout).value


def test_outside_balls_is_one_minus_precision(rng, make_features):
    real, generated = draw(rng, make_features, 50), draw(rng, make_features, 70)
    expected = 1 - precision(generated, real, generated, k=3).value
    assert outside_balls(generated, real, k=3).value == pytest.approx(expected)


def test_null_of_outside_balls_is_the_rate_of_exchangeable_samples(rng, make_features):
    found = []
    for _ in range(120):
        real, generated = draw(rng, make_features, 60), draw(rng, make_features, 40)
        score = outside_balls(generated, real)
        found.append((score.value, score.null))
    difference = np.subtract(*np.transpose(found))
    assert abs(difference.mean()) < 3 * difference.std() / np.sqrt(120) + 0.002  # N - 1 for N
    assert np.mean(found) > 0.01


def test_held_out_images_are_the_null_that_holds_where_a_descriptor_was_fitted_to_the_real_ones():
    """Whitening fitted to 40 images of 16 pixels moves them apart from one another."""
    rates = []
    for seed in range(20):
        images = smooth_images(200, seed, side=4)
        describe = WhitenedPixels.fit(images[:40], ridge=0.1)
        real, generated, heldout = (
            Features(np.arange(len(x)), describe(x), "t") for x in np.split(images, [40, 120])
        )
        score = outside_balls(generated, real, k=1, heldout=heldout)
        rates.append((score.value, score.null, outside_balls(generated, real, k=1).null))
    value, null, alone = np.transpose(rates)
    assert abs((value - null).mean()) < 3 * (value - null).std() / np.sqrt(20)
    assert (alone - value).mean() > 5 * (alone - value).std() / np.sqrt(20)


def test_images_that_no_other_ball_holds_are_the_null(make_features):
    real = make_features([[0.0], [1.0], [2.0], [9.0]], unit=False)  # k = 1: 9 is nobody's nearest
    assert outside_balls(real, real, k=1).null == 0.25


def test_scores_ignore_the_order_of_items(rng, make_features):
    a, b = rng.standard_normal((40, 3)), rng.standard_normal((50, 3))
    p, q = rng.permutation(40), rng.permutation(50)
    for score in (calibrated, outside_balls):
        first = score(make_features(a, unit=False), make_features(b, unit=False))
        second = score(make_features(a[p], unit=False), make_features(b[q], unit=False))
        assert (first.value, first.null) == (second.value, second.null)


def test_overlap_of_selections():
    masks = [np.array(m, bool) for m in ([1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0])]
    expected = [[1, 1 / 3, 0, 0], [1 / 3, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    np.testing.assert_allclose(jaccard(masks), expected)


def test_errors_say_what_is_wrong(rng, make_features):
    a, b = (make_features(rng.standard_normal((9, 3)), descriptor=d) for d in "ab")
    for score in (calibrated, outside_balls):
        with pytest.raises(DescriptorMismatch):
            score(a, b)
    with pytest.raises(ValueError, match=r"inside \(0, 1\), got 1"):
        calibrated(a, a, quantile=1)
    with pytest.raises(ValueError, match="expected at least 19 images to calibrate with, got 9"):
        calibrated(a, a)
    with pytest.raises(ValueError, match="looseness: expected a number above 0"):
        Gates(looseness=0)
    with pytest.raises(ValueError, match="at least 9 references"):
        outside_balls(a, a, k=9)
