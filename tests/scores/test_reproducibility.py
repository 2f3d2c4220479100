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
