"""RP score: planted agreement, its chance level, and joining by seed."""

from __future__ import annotations

import numpy as np
import pytest

from regimes.errors import DescriptorMismatch, IdMismatch
from regimes.scores import neighbours
from regimes.scores import reproducibility as module
from regimes.scores.reproducibility import reproducibility
from regimes.scores.result import wilson_interval


@pytest.fixture(params=[3, 4096])
def block(request, monkeypatch):
    for where in (neighbours, module):
        monkeypatch.setattr(where, "BLOCK", request.param)


def brute_force(a, b, threshold):
    table = a.values.astype(float) @ b.values.T.astype(float) > threshold
    n = len(a)
    off_diagonal = table[~np.eye(n, dtype=bool)]
    return np.diag(table).mean(), off_diagonal.mean()


@pytest.mark.parametrize("k", [0, 7, 30])
def test_k_seeds_with_equal_images_give_k_over_n(rng, make_features, block, k):
    a, b = rng.standard_normal((30, 40)), rng.standard_normal((30, 40))
    same = rng.permutation(30)[:k]
    b[same] = a[same]
    found = reproducibility(make_features(a), make_features(b), threshold=0.95)
    assert found.value == k / 30
    assert (found.low, found.high) == wilson_interval(k, 30)
    assert found.null == 0.0
    np.testing.assert_array_equal(np.nonzero(found.per_item["similarity"] > 0.95)[0], np.sort(same))


def test_value_and_chance_equal_brute_force(rng, make_features, block):
    a = rng.standard_normal((40, 3))
    b = a + rng.standard_normal((40, 3))
    first, second = make_features(a), make_features(b)
    value, chance = brute_force(first, second, 0.5)
    found = reproducibility(first, second, threshold=0.5)
    assert found.value == pytest.approx(value, abs=1e-15)
    assert found.null == pytest.approx(chance, abs=1e-15)
    assert 0.05 < chance < value < 1  # neither is trivial here


def test_chance_is_the_value_where_pairing_means_nothing(rng, make_features):
    a, b = rng.standard_normal((2000, 3)), rng.standard_normal((2000, 3))
    found = reproducibility(make_features(a), make_features(b), threshold=0.5)
    assert found.null == pytest.approx(0.25, abs=0.01)  # a cap of a sphere: (1 - 0.5) / 2
    assert found.low < found.null < found.high


def test_seeds_are_paired_by_id_and_not_by_order(rng, make_features, block):
    values, p = rng.standard_normal((25, 30)), rng.permutation(25)
    found = reproducibility(make_features(values), make_features(values[p], p), threshold=0.99)
    assert found.value == 1.0
    np.testing.assert_array_equal(found.per_item["id"], np.arange(25))


def test_score_is_symmetric(rng, make_features):
    a, b = make_features(rng.standard_normal((40, 3))), make_features(rng.standard_normal((40, 3)))
    forward, backward = (reproducibility(x, y, threshold=0.3) for x, y in ((a, b), (b, a)))
    assert (forward.value, forward.null) == pytest.approx((backward.value, backward.null))


def test_similarity_equal_to_the_threshold_does_not_count(make_features):
    a = make_features([[1, 0], [0, 1.0]])
    assert reproducibility(a, a, threshold=1.0).value == 0.0
    assert reproducibility(a, a, threshold=np.nextafter(1.0, 0)).value == 1.0


def test_one_seed_has_no_chance_level(make_features):
    found = reproducibility(make_features([[1.0, 0]]), make_features([[1.0, 0]]), threshold=0.5)
    assert found.value == 1.0
    assert np.isnan(found.null)


def test_missing_seeds_are_an_error_or_a_reported_count(make_features):
    a, b = make_features(np.eye(4)), make_features(np.eye(4)[:3])
    with pytest.raises(IdMismatch, match=r"1 ids are in one set only \(3\), 3 in both"):
        reproducibility(a, b, threshold=0.5)
    found = reproducibility(a, b, threshold=0.5, allow_partial=True)
    assert (found.num_generated, found.value) == (3, 1.0)


def test_different_descriptors_are_refused(make_features):
    with pytest.raises(DescriptorMismatch, match="same descriptor"):
        reproducibility(
            make_features(np.eye(2)), make_features(np.eye(2), descriptor="x"), threshold=0.5
        )


# ---- pixels ----


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (20, 5, 4, 3), np.uint8)


def shifted(images, by):
    """Images whose mean absolute difference from the given ones is exactly ``by``."""
    up = images <= 127
    return np.where(up, images + np.uint8(by), images - np.uint8(by)).astype(np.uint8)


def test_absolute_errors_are_those_of_signed_arithmetic(rng, images):
    other = rng.integers(0, 256, images.shape, np.uint8)
    expected = np.abs(images.astype(int) - other).reshape(20, -1).mean(1)
    np.testing.assert_array_equal(module.absolute_errors(images, other), expected)


def test_mae_of_copies_and_of_slightly_noisy_copies_is_one(images):
    ids = np.arange(20)
    for other in (images, shifted(images, 14)):
        assert module.mae_score(images, ids, other, ids).value == 1.0


def test_mae_equal_to_the_threshold_does_not_count(images):
    ids = np.arange(20)
    assert module.mae_score(images, ids, shifted(images, 15), ids).value == 0.0
    assert module.mae_score(images, ids, shifted(images, 15), ids, threshold=15.01).value == 1.0


@pytest.mark.parametrize("k", [0, 7, 20])
def test_mae_of_k_planted_copies_is_k_over_n(rng, images, k):
    other = rng.integers(0, 256, images.shape, np.uint8)
    same = rng.permutation(20)[:k]
    other[same] = shifted(images[same], 5)
    found = module.mae_score(images, np.arange(20), other, np.arange(20))
    assert found.value == k / 20
    assert (found.low, found.high) == wilson_interval(k, 20)


def test_mae_and_its_chance_equal_brute_force(rng, images):
    other = np.clip(images.astype(int) + rng.integers(-160, 161, images.shape), 0, 255)
    other = other.astype(np.uint8)
    table = np.array([[np.abs(a.astype(int) - b).mean() for b in other] for a in images]) < 80
    off_diagonal = table[~np.eye(20, dtype=bool)]
    found = module.mae_score(images, np.arange(20), other, np.arange(20), threshold=80)
    assert found.value == np.diag(table).mean()
    assert found.null == pytest.approx(off_diagonal.mean(), abs=1e-15)
    assert 0 < off_diagonal.mean() < 1  # not trivial here


def test_images_are_paired_by_id_and_not_by_order(rng, images):
    p = rng.permutation(20)
    found = module.mae_score(images, np.arange(20), images[p], p, threshold=1.0)
    assert found.value == 1.0
    np.testing.assert_array_equal(found.per_item["id"], np.arange(20))


def test_mae_refuses_repeated_ids_missing_ids_and_other_shapes(images):
    ids = np.arange(20)
    with pytest.raises(IdMismatch, match="repeat: 3"):
        module.mae_score(images, np.where(ids == 4, 3, ids), images, ids)
    with pytest.raises(IdMismatch, match="19 ids for values of shape"):
        module.mae_score(images, ids[1:], images, ids)
    with pytest.raises(IdMismatch, match="1 ids are in one set only"):
        module.mae_score(images[1:], ids[1:], images, ids)
    partial = module.mae_score(images[1:], ids[1:], images, ids, allow_partial=True)
    assert (partial.num_generated, partial.value) == (19, 1.0)
    with pytest.raises(ValueError, match="equal shape"):
        module.mae_score(images, ids, images[..., :1], ids)


# ---- distance ----


def test_flow_distance_is_zero_on_copies_and_root_two_on_orthogonal_features(make_features):
    a, b = make_features(np.eye(8)[:4]), make_features(np.eye(8)[4:], ids=range(4))
    assert module.flow_distance(a, a).value == 0.0
    found = module.flow_distance(a, b)
    assert (found.value, found.null) == pytest.approx((np.sqrt(2), np.sqrt(2)), abs=1e-12)


def test_flow_distance_and_its_chance_equal_brute_force(rng, make_features):
    a = rng.standard_normal((40, 5))
    first, second = make_features(a), make_features(a + rng.standard_normal((40, 5)))
    x, y = first.values.astype(float), second.values.astype(float)
    squared = ((x[:, None] - y[None]) ** 2).sum(-1)
    found = module.flow_distance(first, second)
    assert found.value == pytest.approx(np.sqrt(np.diag(squared).mean()), rel=1e-12)
    assert found.null == pytest.approx(np.sqrt(squared[~np.eye(40, dtype=bool)].mean()), rel=1e-9)
    assert found.low < found.value < found.high < found.null


def test_flow_distance_interval_covers_the_truth_as_often_as_it_says(rng, make_features):
    """95% of 200 intervals, within three standard errors (1.5% each)."""
    truth, covered = np.sqrt(2), 0  # independent directions: E |a - b|^2 = 2
    for _ in range(200):
        a, b = (make_features(rng.standard_normal((100, 6))) for _ in range(2))
        found = module.flow_distance(a, b)
        covered += found.low <= truth <= found.high
    assert abs(covered / 200 - 0.95) < 0.046
