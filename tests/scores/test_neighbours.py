"""Nearest neighbours and balls against brute force in float64 and scikit-learn."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from regimes.scores import neighbours
from regimes.scores.neighbours import inside_any_ball, nearest, similarities, squared_distances


def brute_force(queries, references):
    return ((queries[:, None].astype(float) - references[None].astype(float)) ** 2).sum(-1)


def rows(rng, n, d=6):
    return rng.standard_normal((n, d)).astype(np.float32)


@pytest.mark.parametrize("block", [1, 7, 4096])
@pytest.mark.parametrize("k", [1, 3, 40])
def test_nearest_equals_brute_force(rng, monkeypatch, block, k):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    q, r = rows(rng, 30), rows(rng, 40)
    squared = brute_force(q, r)
    positions, distances = nearest(q, r, k)
    np.testing.assert_array_equal(positions, squared.argsort(1, kind="stable")[:, :k])
    np.testing.assert_allclose(distances, np.sort(squared, 1)[:, :k], rtol=1e-12)


def test_nearest_equals_scikit_learn(rng):
    q, r = rows(rng, 200, 20), rows(rng, 300, 20)
    expected = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(r.astype(float))
    distances, positions = expected.kneighbors(q.astype(float))
    found = nearest(q, r, 5)
    np.testing.assert_array_equal(found[0], positions)
    np.testing.assert_allclose(np.sqrt(found[1]), distances, rtol=1e-9)


@pytest.mark.parametrize("block", [4, 4096])
def test_a_row_is_not_its_own_neighbour_but_its_duplicate_is(rng, monkeypatch, block):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    r = rows(rng, 30)
    r[17] = r[4]
    squared = brute_force(r, r)
    np.fill_diagonal(squared, np.inf)
    positions, distances = nearest(r, r, 2, exclude_self=True)
    np.testing.assert_array_equal(positions, squared.argsort(1, kind="stable")[:, :2])
    assert (positions[4, 0], distances[4, 0]) == (17, 0.0)
    assert (positions[17, 0], distances[17, 0]) == (4, 0.0)


@pytest.mark.parametrize("copies", [2, 9, 60])
def test_equal_distances_come_in_the_order_of_position(rng, copies):
    r = np.repeat(rows(rng, 3), copies, axis=0)[rng.permutation(3 * copies)]
    squared = brute_force(r, r)
    positions, distances = nearest(r, r, copies if copies < 9 else 3)
    k = positions.shape[1]
    np.testing.assert_array_equal(positions, squared.argsort(1, kind="stable")[:, :k])
    assert not distances[:, :1].any()


def test_excluding_self_among_many_duplicates_still_excludes_only_self(rng):
    r = np.repeat(rows(rng, 2), 40, axis=0)
    positions, distances = nearest(r, r, 3, exclude_self=True)
    assert not (positions == np.arange(80)[:, None]).any()
    assert not distances.any()


def test_distance_of_equal_rows_is_exactly_0_where_float32_products_are_not(rng):
    r = (1000 + rows(rng, 50, 300)).astype(np.float32)
    positions, distances = nearest(r, r)
    np.testing.assert_array_equal(positions[:, 0], np.arange(50))
    assert not distances.any()


def test_nearest_sees_differences_that_float32_products_cannot(rng, monkeypatch):
    # |row|^2 is 3e8, where float32 is coarser than 16; every true distance is below 2.
    # FAISS uses matrix products from some number of queries on, which differs between versions.
    monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", 1)
    base = np.float32(1000) + rows(rng, 1, 300)
    q = base + np.float32(0.02) * rows(rng, 30, 300)
    r = base + np.float32(0.05) * rows(rng, 8, 300)
    expected = brute_force(q, r)
    assert len(set(expected.argmin(1))) > 1
    positions, distances = nearest(q, r)
    np.testing.assert_array_equal(positions[:, 0], expected.argmin(1))
    np.testing.assert_allclose(distances[:, 0], expected.min(1), rtol=1e-12)


def test_nearest_ignores_the_order_of_references(rng):
    q, r = rows(rng, 20), rows(rng, 50)
    p = rng.permutation(50)
    first, second = nearest(q, r, 4), nearest(q, r[p], 4)
    np.testing.assert_array_equal(first[0], p[second[0]])
    np.testing.assert_array_equal(first[1], second[1])


def test_nearest_of_no_queries_is_empty(rng):
    positions, distances = nearest(rows(rng, 0), rows(rng, 5), 2)
    assert positions.shape == distances.shape == (0, 2)


def test_nearest_refuses_too_few_references_and_other_widths(rng):
    with pytest.raises(ValueError, match="at least 4 references of width 6, got 3 of width 6"):
        nearest(rows(rng, 2), rows(rng, 3), 4)
    with pytest.raises(ValueError, match="at least 3 references of width 6, got 2 of width 6"):
        nearest(rows(rng, 3), rows(rng, 3), 3, exclude_self=True)
    with pytest.raises(ValueError, match="references of width 6, got 3 of width 5"):
        nearest(rows(rng, 2), rows(rng, 3, 5))


def test_squared_distances_measure_the_listed_pairs(rng):
    q, r = rows(rng, 5), rows(rng, 9)
    positions = rng.integers(0, 9, (5, 4))
    expected = np.take_along_axis(brute_force(q, r), positions, axis=1)
    np.testing.assert_allclose(squared_distances(q, r, positions), expected, rtol=1e-12)


def test_similarities_are_the_dot_products_of_pairs(rng):
    a, b = rows(rng, 8), rows(rng, 8)
    expected = np.diag(a.astype(float) @ b.T.astype(float))
    np.testing.assert_allclose(similarities(a, b), expected, rtol=1e-12)


@pytest.mark.parametrize("block", [1, 9, 4096])
def test_balls_equal_brute_force(rng, monkeypatch, block):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    q, c = rows(rng, 60, 2), rows(rng, 20, 2)
    radii = rng.uniform(0, 0.3, 20)
    expected = (brute_force(q, c) <= radii).any(1)
    assert 10 < expected.sum() < 50
    np.testing.assert_array_equal(inside_any_ball(q, c, radii), expected)


def test_a_point_on_the_border_is_inside():
    c = np.zeros((1, 2), np.float32)
    q = np.array([[3, 4], [0, -5], [3, 4.001]], np.float32)
    assert inside_any_ball(q, c, np.array([25.0])).tolist() == [True, True, False]


def test_border_is_decided_exactly_even_far_from_the_origin():
    c = np.full((1, 3), 4096, np.float32)
    step = np.float32(2**-11)  # one float32 step at 4096
    q = np.repeat(c, 3, axis=0)
    q[:2, 0] += [step, 2 * step]
    radius = float(step) ** 2
    assert inside_any_ball(q, c, np.array([radius])).tolist() == [True, False, True]


def test_ball_of_radius_0_holds_its_centre_and_nothing_else(rng):
    c = rows(rng, 30, 50)
    q = np.concatenate([c, np.nextafter(c, np.float32(9))])
    assert inside_any_ball(q, c, np.zeros(30)).tolist() == [True] * 30 + [False] * 30
