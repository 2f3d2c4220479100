"""Nearest neighbours against brute force in float64 and scikit-learn."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from regimes.scores import neighbours
from regimes.scores.neighbours import (
    merge_top_k,
    most_similar,
    nearest,
    nearest_two_groups,
    similarities,
    squared_distances,
)
from regimes.scores.products import Products, squared_differences


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


def test_nearest_sees_differences_that_float32_products_cannot(rng):
    # |row|^2 is 3e8, where float32 is coarser than 16; every true distance is below 2.
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


@pytest.mark.parametrize(("block", "most"), [(4096, 2**22), (8, 2**22), (8, 0), (2, 50)])
def test_many_equal_rows_are_all_candidates_and_come_in_order(rng, monkeypatch, block, most):
    # Every product is within its error of every other; with few candidates held, they are measured
    # early, tile by tile.
    monkeypatch.setattr(neighbours, "BLOCK", block)
    monkeypatch.setattr(neighbours, "_MOST_CANDIDATES", most)
    base = rows(rng, 1, 9) + np.float32(100)
    q = base + np.float32(1e-5) * rng.integers(-2, 3, (30, 9)).astype(np.float32)
    r = base + np.float32(1e-5) * rng.integers(-2, 3, (41, 9)).astype(np.float32)
    squared = brute_force(q, r)
    assert len(np.unique(squared)) < squared.size / 5  # full of ties
    positions, distances = nearest(q, r, 7)
    np.testing.assert_array_equal(positions, squared.argsort(1, kind="stable")[:, :7])
    np.testing.assert_array_equal(distances, np.sort(squared, 1)[:, :7])


@pytest.mark.parametrize("shift", [0, 1, 100])
@pytest.mark.parametrize("width", [3, 64, 5000])
def test_products_are_off_by_less_than_their_slack(rng, width, shift):
    q, r = rows(rng, 40, width) + np.float32(shift), rows(rng, 50, width) + np.float32(shift)
    products = Products(torch.from_numpy(q), torch.from_numpy(r))
    tile = next(iter(products.tiles(slice(0, 40), 50)))[1].double().numpy()
    squared = 2 * (products.half_squares[:, None].double().numpy() - tile)
    scale = np.median(squared / brute_force(q, r))  # a power of two
    error = np.abs(squared - brute_force(q, r) * 2.0 ** round(np.log2(scale))).max(1) / 2
    slack = products.slack.numpy()
    assert (error < slack).all()
    assert slack.max() < 5e-4  # of squared lengths of at most 1: small enough to be of use


def test_slack_grows_where_torch_may_round_the_factors(rng):
    q = torch.from_numpy(rows(rng, 4))
    plain = Products(q, q).slack
    torch.set_float32_matmul_precision("high")
    try:
        loose = Products(q, q).slack
    finally:
        torch.set_float32_matmul_precision("highest")
    assert (loose > 20 * plain).all()
    assert torch.equal(Products(q, q).slack, plain)


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30])
def test_rows_of_any_size_have_neighbours(rng, scale):
    q, r = ((scale * rows(rng, n).astype(float)).astype(np.float32) for n in (20, 30))
    positions, distances = nearest(q, r, 2)
    squared = brute_force(q, r)
    np.testing.assert_array_equal(positions, squared.argsort(1, kind="stable")[:, :2])
    np.testing.assert_allclose(distances, np.sort(squared, 1)[:, :2], rtol=1e-12)


def test_rows_of_zeros_have_neighbours():
    zeros = np.zeros((3, 4), np.float32)
    positions, distances = nearest(zeros, zeros, 2)
    assert positions.tolist() == [[0, 1]] * 3
    assert not distances.any()


def test_rows_wider_than_one_product_are_searched_exactly(rng):
    q, r = rows(rng, 12, 2500), rows(rng, 15, 2500)
    positions, distances = nearest(q, r, 3)
    squared = brute_force(q, r)
    np.testing.assert_array_equal(positions, squared.argsort(1)[:, :3])
    np.testing.assert_allclose(distances, np.sort(squared, 1)[:, :3], rtol=1e-12)


def test_a_distance_has_the_same_bits_both_ways_and_in_any_company(rng):
    a, b = (torch.from_numpy(rows(rng, 200, 777)) for _ in range(2))
    every = torch.arange(200)
    both = squared_differences(a, b, every, every)
    assert torch.equal(both, squared_differences(b, a, every, every))
    one = torch.cat([squared_differences(a, b, i, i) for i in every[:20, None]])
    assert torch.equal(one, both[:20])


@pytest.mark.parametrize("block", [4, 4096])
def test_rows_of_the_same_id_are_not_neighbours(rng, monkeypatch, block):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    q, r = rows(rng, 12), rows(rng, 20)
    query_ids, reference_ids = rng.permutation(30)[:12], rng.permutation(30)[:20]
    squared = brute_force(q, r)
    same = query_ids[:, None] == reference_ids
    assert 3 < same.sum() < 12
    positions, _ = nearest(q, r, 4, query_ids=query_ids, reference_ids=reference_ids)
    expected = np.where(same, np.inf, squared).argsort(1)[:, :4]
    np.testing.assert_array_equal(positions, expected)
    found, _ = most_similar(q, r, 19, query_ids=query_ids, reference_ids=reference_ids)
    assert not np.take_along_axis(same, found, 1).any()


def test_repeated_reference_ids_are_refused(rng):
    q = rows(rng, 4)
    with pytest.raises(ValueError, match="expected distinct ids"):
        nearest(q, q, query_ids=np.arange(4), reference_ids=np.array([0, 1, 1, 2]))
    with pytest.raises(ValueError, match="expected ids of 4 queries, got 3"):
        nearest(q, q, query_ids=np.arange(3), reference_ids=np.arange(4))


@pytest.mark.parametrize("block", [5, 4096])
@pytest.mark.parametrize("k", [1, 6])
def test_most_similar_equals_brute_force_for_rows_of_any_length(rng, monkeypatch, block, k):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    q = rows(rng, 30) * rng.lognormal(0, 8, (30, 1)).astype(np.float32)
    r = rows(rng, 40) * rng.lognormal(0, 8, (40, 1)).astype(np.float32)
    unit = [x / np.linalg.norm(x.astype(float), axis=1, keepdims=True) for x in (q, r)]
    cosines = unit[0] @ unit[1].T
    positions, values = most_similar(q, r, k)
    np.testing.assert_array_equal(positions, (-cosines).argsort(1)[:, :k])
    np.testing.assert_allclose(values, -np.sort(-cosines, 1)[:, :k], atol=1e-14)


def test_a_row_of_zeros_is_similar_to_nothing(rng):
    r = np.concatenate([np.zeros((1, 6), np.float32), -np.abs(rows(rng, 3))])
    q = np.abs(rows(rng, 2))
    positions, values = most_similar(q, r, 4)
    assert positions[:, 0].tolist() == [0, 0]  # all others point away
    assert values[:, 0].tolist() == [0, 0]
    assert most_similar(0 * q, r)[1].tolist() == [[0], [0]]


@pytest.mark.parametrize("search", [nearest, most_similar])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_rows_that_are_not_finite_are_refused(rng, search, bad, side):
    sets = [rows(rng, 5), rows(rng, 5)]
    sets[side][3, 2] = bad
    with pytest.raises(ValueError, match="expected finite rows"):
        search(*sets)


def test_merging_shards_gives_the_neighbours_of_the_whole(rng):
    q, r = rows(rng, 25), rows(rng, 60)
    r[33] = r[2]
    cuts = [(0, 2), (2, 30), (30, 31), (31, 60)]
    parts = []
    for start, stop in cuts:
        positions, squared = nearest(q, r[start:stop], min(5, stop - start))
        parts.append((positions + start, squared))
    whole = nearest(q, r, 5)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        merged = merge_top_k([parts[i] for i in order], 5)
        np.testing.assert_array_equal(merged[0], whole[0])
        np.testing.assert_array_equal(merged[1], whole[1])
    left = merge_top_k([merge_top_k(parts[:2], 5), merge_top_k(parts[2:], 5)], 5)
    np.testing.assert_array_equal(left[0], whole[0])
    assert merge_top_k(parts[:1], 5)[0].shape == (25, 2)  # all there is


def test_the_two_nearest_groups_equal_brute_force(rng):
    q, r = rows(rng, 30), rows(rng, 20)
    groups = np.arange(20) // 2
    squared = brute_force(q, r).reshape(30, 10, 2).min(-1)
    positions, distances = nearest_two_groups(q, r, groups)
    np.testing.assert_array_equal(groups[positions], squared.argsort(1)[:, :2])
    np.testing.assert_allclose(distances, np.sort(squared, 1)[:, :2], rtol=1e-12)
    with pytest.raises(ValueError, match="at least 2 groups"):
        nearest_two_groups(q, r[:2], groups[:2])


def test_rows_that_cannot_be_written_or_are_not_contiguous_are_searched(rng):
    q, r = rows(rng, 9), rows(rng, 12)
    expected = nearest(q, r, 2)
    wide = np.repeat(r, 2, axis=1)[:, ::2]
    wide.flags.writeable = False
    found = nearest(q, wide, 2)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_the_search_does_not_need_faiss(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)  # importing it now fails
    assert nearest(np.eye(3, dtype="f"), np.eye(3, dtype="f"))[0].tolist() == [[0], [1], [2]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_bits(rng):
    q, r = rows(rng, 500, 300), rows(rng, 700, 300)
    for search in (nearest, most_similar):
        for cpu, gpu in zip(search(q, r, 3), search(q, r, 3, device="cuda"), strict=True):
            np.testing.assert_array_equal(cpu, gpu)
