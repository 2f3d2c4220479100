"""Groups of duplicates: planted ones, chains, and what the ratio test makes of a collapsed set."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from regimes.scores import neighbours
from regimes.scores.duplicates import find_duplicates
from regimes.scores.generalization import ratio_test


def test_planted_duplicates_are_found_and_nothing_else(rng, make_features):
    values = rng.standard_normal((30, 5))
    values[[4, 9, 20]] = values[4]
    values[11] = values[2]
    features = make_features(values, ids=np.arange(100, 130), unit=False)
    found = find_duplicates(features)
    assert [g.tolist() for g in found.groups()] == [[104, 109, 120], [102, 111]]
    assert found.num_repeated == 3
    kept = found.collapse(features)
    assert kept.ids.tolist() == [i for i in range(100, 130) if i not in (109, 120, 111)]
    assert found.first[[4, 9, 20, 2, 11, 5]].tolist() == [4, 4, 4, 2, 2, 5]


def test_rows_of_zeros_of_either_sign_are_equal(make_features):
    found = find_duplicates(make_features([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]], unit=False))
    assert found.first.tolist() == [0, 0, 2]


@pytest.mark.parametrize("block", [4, 4096])
@pytest.mark.parametrize("distance", [0.3, 0.6, 1.0, 3.0])
def test_groups_are_the_components_of_all_links(rng, make_features, monkeypatch, block, distance):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    values = rng.standard_normal((60, 3))
    values[40:50] = values[:10]  # exact ones among them
    features = make_features(values, unit=False)
    x = features.values.astype(float)
    links = np.linalg.norm(x[:, None] - x[None], axis=2) <= distance
    _, labels = connected_components(links, directed=False)
    expected = [np.flatnonzero(labels == label)[0] for label in labels]
    assert find_duplicates(features, distance=distance).first.tolist() == expected


def test_a_chain_of_near_neighbours_is_one_group(make_features):
    points = make_features(np.arange(10.0)[:, None], unit=False)
    assert find_duplicates(points, distance=1.0).groups()[0].tolist() == list(range(10))
    assert find_duplicates(points, distance=0.999).groups() == []


def test_groups_do_not_depend_on_the_order_of_images(rng, make_features):
    values = np.repeat(rng.standard_normal((8, 4)), 3, axis=0) + 1e-3 * rng.standard_normal((24, 4))
    p = rng.permutation(24)
    plain = find_duplicates(make_features(values, unit=False), distance=0.1)
    mixed = find_duplicates(make_features(values[p], p, unit=False), distance=0.1)
    assert {frozenset(g.tolist()) for g in plain.groups()} == {
        frozenset(g.tolist()) for g in mixed.groups()
    }
    assert len(plain.groups()) == 8


def test_collapsing_near_duplicates_lets_the_ratio_test_see_their_copies(rng, make_features):
    train = rng.standard_normal((20, 30))
    train[7] = train[3] + 1e-3 * rng.standard_normal(30)
    sets = [make_features(v, unit=False) for v in (train[[3, 3]] + 1e-3, train, train)]
    assert ratio_test(*sets).value == 0.0  # its twin is as near as the image itself
    groups = find_duplicates(sets[1], distance=0.1)
    assert ratio_test(sets[0], groups.collapse(sets[1]), sets[2]).value == 1.0


@pytest.mark.parametrize("distance", [-1.0, float("nan")])
def test_impossible_distances_are_refused(make_features, distance):
    with pytest.raises(ValueError, match="distance: expected a number of at least 0"):
        find_duplicates(make_features(np.eye(3)), distance=distance)


def test_features_of_other_images_are_not_collapsed(make_features):
    found = find_duplicates(make_features(np.eye(3)))
    with pytest.raises(ValueError, match="the same images"):
        found.collapse(make_features(np.eye(3), ids=[2, 1, 0]))
