"""GL score and ratio test: planted copies, the held-out null, duplicates and ties."""

from __future__ import annotations

import numpy as np
import pytest

from regimes.errors import DescriptorMismatch, IdMismatch
from regimes.scores import neighbours
from regimes.scores.generalization import generalization_score, ratio_test
from regimes.scores.result import wilson_interval

D = 48  # wide enough that two random rows are never similar


@pytest.fixture(params=[5, 4096])
def block(request, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", request.param)


def planted(rng, copies, m=40, n=30, noise=0.0):
    """Samples of which the first ``copies`` are training images, and the training images."""
    train, generated = rng.standard_normal((n, D)), rng.standard_normal((m, D))
    chosen = rng.integers(0, n, copies)
    generated[:copies] = train[chosen] + noise * rng.standard_normal((copies, D))
    return generated, train, chosen


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("copies", [0, 1, 13, 40])
def test_gl_of_k_planted_copies_is_one_minus_k_over_n(rng, make_features, block, copies, noise):
    generated, train, chosen = planted(rng, copies, noise=noise)
    heldout = make_features(rng.standard_normal((20, D)))
    found = generalization_score(
        make_features(generated), make_features(train), heldout, threshold=0.9
    )
    assert found.value == (40 - copies) / 40
    assert (found.low, found.high) == wilson_interval(40 - copies, 40)
    assert found.null == 1.0
    assert found.num_train == 30
    assert found.higher_is_better
    np.testing.assert_array_equal(found.per_item["nearest_id"][:copies], chosen)


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("copies", [0, 1, 13, 40])
def test_ratio_test_finds_exactly_the_planted_copies(rng, make_features, block, copies, noise):
    generated, train, chosen = planted(rng, copies, noise=noise)
    heldout = make_features(rng.standard_normal((20, D)), unit=False)
    found = ratio_test(
        make_features(generated, unit=False), make_features(train, unit=False), heldout
    )
    assert found.value == copies / 40
    assert found.null == 0.0
    assert found.threshold == 1 / 3
    assert not found.higher_is_better
    np.testing.assert_array_equal(found.per_item["nearest_id"][:copies], chosen)


def test_gl_equals_brute_force(rng, make_features, block):
    sets = [make_features(rng.standard_normal((n, 4))) for n in (60, 25, 35)]
    tables = [s.values.astype(float) @ sets[1].values.T.astype(float) for s in sets]
    found = generalization_score(*sets, threshold=0.8)
    assert found.value == pytest.approx((tables[0].max(1) <= 0.8).mean(), abs=1e-15)
    assert found.null == pytest.approx((tables[2].max(1) <= 0.8).mean(), abs=1e-15)
    assert 0.1 < found.value < 0.9
    np.testing.assert_allclose(found.per_item["similarity"], tables[0].max(1), rtol=1e-12)
    np.testing.assert_array_equal(found.per_item["nearest_id"], tables[0].argmax(1))


def test_ratio_test_equals_brute_force(rng, make_features, block):
    generated, train, heldout = (rng.standard_normal((n, 2)) for n in (60, 25, 35))
    sets = [make_features(v, unit=False) for v in (generated, train, heldout)]
    distances = [
        np.sort(np.linalg.norm(s.values[:, None].astype(float) - sets[1].values, axis=2), axis=1)
        for s in sets
    ]
    found = ratio_test(*sets, threshold=0.5)
    expected = [d[:, 0] / d[:, 1] for d in distances]
    np.testing.assert_allclose(found.per_item["ratio"], expected[0], rtol=1e-9)
    np.testing.assert_allclose(found.per_item["d1"], distances[0][:, 0], rtol=1e-9)
    np.testing.assert_allclose(found.per_item["d2"], distances[0][:, 1], rtol=1e-9)
    assert found.value == pytest.approx((expected[0] < 0.5).mean(), abs=1e-15)
    assert found.null == pytest.approx((expected[2] < 0.5).mean(), abs=1e-15)
    assert 0.1 < found.value < 0.9


@pytest.mark.parametrize("score", [generalization_score, ratio_test])
def test_heldout_images_in_place_of_samples_score_the_null(rng, make_features, score):
    heldout = make_features(rng.standard_normal((50, 3)))
    train = make_features(rng.standard_normal((30, 3)))
    found = score(heldout, train, heldout, threshold=0.6)
    assert found.value == found.null
    assert 0 < found.null < 1


@pytest.mark.parametrize("score", [generalization_score, ratio_test])
def test_score_ignores_the_order_of_samples_and_training_images(rng, make_features, score):
    generated, train, heldout = (rng.standard_normal((n, 3)) for n in (40, 30, 20))
    p, q = rng.permutation(40), rng.permutation(30)
    held = make_features(heldout)
    first = score(make_features(generated), make_features(train), held, threshold=0.6)
    second = score(make_features(generated[p], p), make_features(train[q], q), held, threshold=0.6)
    assert (first.value, first.null) == (second.value, second.null)
    for name, values in first.per_item.items():
        np.testing.assert_array_equal(values[p], second.per_item[name], err_msg=name)


def test_similarity_equal_to_the_threshold_is_not_a_copy(make_features):
    axes = make_features(np.eye(2))
    assert generalization_score(axes, axes, axes, threshold=1.0).value == 1.0
    assert generalization_score(axes, axes, axes, threshold=np.nextafter(1, 0)).value == 0.0


def test_ratio_equal_to_the_threshold_is_not_a_copy(make_features):
    train = make_features([[0.0], [3.0]], unit=False)
    generated = make_features([[1.0], [0.99]], unit=False)
    found = ratio_test(generated, train, generated, threshold=0.5)
    assert found.per_item["ratio"][0] == 0.5
    np.testing.assert_array_equal(found.per_item["ratio"] < 0.5, np.array([False, True]))
    assert found.value == 0.5


def test_copies_of_a_duplicated_training_image_are_found(rng, make_features):
    train = rng.standard_normal((10, D))
    train[[3, 6, 9]] = train[3]
    sets = [
        make_features(v, unit=False) for v in (train[[9, 9]], train, rng.standard_normal((5, D)))
    ]
    found = ratio_test(*sets)
    assert found.value == 1.0
    assert found.num_train == 8
    assert found.per_item["nearest_id"].tolist() == [3, 3]  # the first of the duplicates
    assert found.per_item["d1"].tolist() == [0.0, 0.0]


def test_ratio_test_needs_two_distinct_training_images(make_features):
    same = make_features(np.ones((4, 3)))
    with pytest.raises(ValueError, match="expected 2 distinct training images, got 1"):
        ratio_test(same, same, same)


@pytest.mark.parametrize("score", [generalization_score, ratio_test])
@pytest.mark.parametrize("odd_one", [0, 2])
def test_different_descriptors_are_refused(make_features, score, odd_one):
    sets = [make_features(np.eye(3), descriptor="x" if i == odd_one else "d") for i in range(3)]
    with pytest.raises(DescriptorMismatch, match="same descriptor"):
        score(*sets, threshold=0.5)


def test_names_of_the_results_can_be_chosen(make_features):
    axes = make_features(np.eye(3))
    assert generalization_score(axes, axes, axes, threshold=0.5).name == "gl"
    assert ratio_test(axes, axes, axes, name="ratio_wiener").name == "ratio_wiener"


def flipped(values):
    """Reverse every row: a flip of one-line images."""
    return np.ascontiguousarray(values[:, ::-1])


def test_flips_count_as_copies_when_asked_for(rng, make_features):
    train, heldout = rng.standard_normal((12, D)), rng.standard_normal((30, D))
    generated = np.concatenate([flipped(train[[3, 7]]), train[[5]], rng.standard_normal((3, D))])
    sets = [make_features(v) for v in (generated, train, heldout)]
    mirrored = make_features(flipped(train))
    plain = generalization_score(*sets, threshold=0.95)
    both = generalization_score(*sets, threshold=0.95, mirrored=mirrored)
    assert (plain.value, both.value) == (5 / 6, 3 / 6)
    assert both.per_item["nearest_id"][:3].tolist() == [3, 7, 5]
    assert both.null <= plain.null
    ratio = [ratio_test(*sets, mirrored=m) for m in (None, mirrored)]
    assert (ratio[0].value, ratio[1].value) == (1 / 6, 3 / 6)
    assert ratio[1].per_item["nearest_id"][:3].tolist() == [3, 7, 5]
    np.testing.assert_array_equal(ratio[1].per_item["d1"][:3], 0.0)


def test_scores_with_flips_equal_brute_force(rng, make_features):
    values = [rng.standard_normal((n, 4)) for n in (40, 20, 15)]
    values[1][7] = values[1][2]  # a duplicate, and an image that is the flip of another
    values[1][9] = values[1][4][::-1]
    generated, train, heldout = (make_features(v, unit=False) for v in values)
    mirrored = make_features(flipped(values[1]), unit=False)

    def brute_force(items):
        pairs = [
            np.linalg.norm(items.values[:, None] - t.values, axis=2) for t in (train, mirrored)
        ]
        distances = np.delete(np.minimum(*pairs).astype(float), [7, 9], axis=1)
        return np.sort(distances, axis=1)

    found = ratio_test(generated, train, heldout, threshold=0.7, mirrored=mirrored)
    expected = brute_force(generated)
    np.testing.assert_allclose(found.per_item["d1"], expected[:, 0], rtol=1e-6)
    np.testing.assert_allclose(found.per_item["d2"], expected[:, 1], rtol=1e-6)
    nulls = brute_force(heldout)
    assert found.null == pytest.approx((nulls[:, 0] < 0.7 * nulls[:, 1]).mean(), abs=1e-15)
    assert found.num_train == 18
    assert 0 < found.value < 1

    unit = [make_features(v) for v in (*values, flipped(values[1]))]
    tables = [unit[0].values.astype(float) @ t.values.T.astype(float) for t in (unit[1], unit[3])]
    gl = generalization_score(*unit[:3], threshold=0.9, mirrored=unit[3])
    best = np.maximum(*tables).max(1)
    np.testing.assert_allclose(gl.per_item["similarity"], best, rtol=1e-6)
    assert gl.value == pytest.approx((best <= 0.9).mean(), abs=1e-15)
    assert 0 < gl.value < 1


@pytest.mark.parametrize("score", [generalization_score, ratio_test])
def test_flips_of_other_images_are_refused(rng, make_features, score):
    sets = [make_features(rng.standard_normal((4, 3))) for _ in range(3)]
    strange = make_features(rng.standard_normal((4, 3)), ids=[3, 2, 1, 0])
    with pytest.raises(IdMismatch, match="ids of the training images"):
        score(*sets, threshold=0.5, mirrored=strange)
