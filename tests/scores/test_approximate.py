"""The inverted file: exact when it looks everywhere, and honest about recall when it does not."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from regimes.errors import ConfigError
from regimes.scores.approximate import ApproximateSearch, nearest_approximate
from regimes.scores.neighbours import nearest, squared_distances


def rows(rng, n, d=8):
    return rng.standard_normal((n, d)).astype(np.float32)


def test_searching_all_lists_is_exact(rng):
    q, r = rows(rng, 60), rows(rng, 800)
    found = nearest_approximate(q, r, 3, num_lists=10, num_probes=10)
    positions, squared = nearest(q, r, 3)
    np.testing.assert_array_equal(found.positions, positions)
    np.testing.assert_array_equal(found.squared, squared)
    assert (found.recall, found.num_sampled) == (1.0, 60)
    assert found.low < 1 == found.high


def test_recall_of_a_sample_is_that_of_the_whole_within_its_interval(rng):
    q, r = rows(rng, 1500), rows(rng, 1600)
    found = nearest_approximate(q, r, num_lists=40, num_probes=2, num_sampled=400)
    true = (found.positions == nearest(q, r)[0]).mean()
    assert 0.2 < true < 0.95
    assert found.low < true < found.high
    assert found.num_sampled == 400
    np.testing.assert_array_equal(found.squared, squared_distances(q, r, found.positions))


def test_more_probes_find_more(rng):
    q, r = rows(rng, 300), rows(rng, 1200)
    recalls = [nearest_approximate(q, r, num_lists=30, num_probes=p).recall for p in (1, 4, 30)]
    assert recalls[0] < recalls[1] < recalls[2] == 1.0


def test_every_query_gets_k_neighbours_even_from_short_lists(rng):
    q, r = rows(rng, 40), rows(rng, 120)
    found = nearest_approximate(q, r, 50, num_lists=3, num_probes=1)
    assert (found.positions >= 0).all()
    assert np.isfinite(found.squared).all()
    assert all(len(set(p)) == 50 for p in found.positions.tolist())


def test_the_same_seed_finds_the_same(rng):
    q, r = rows(rng, 100), rows(rng, 900)
    first, second = (nearest_approximate(q, r, num_probes=1, num_sampled=30) for _ in range(2))
    np.testing.assert_array_equal(first.positions, second.positions)
    assert first.recall == second.recall


def test_errors_say_what_is_missing(rng, monkeypatch):
    q, r = rows(rng, 5), rows(rng, 6)
    with pytest.raises(ValueError, match="at least 7 references, got 5, 6"):
        nearest_approximate(q, r, 7)
    with pytest.raises(ValueError, match="expected a query"):
        nearest_approximate(q[:0], r)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match="pip install faiss-cpu"):
        nearest_approximate(q, r)


def test_a_search_remembers_its_worst_recall(rng):
    queries, references = (rng.standard_normal((n, 8)).astype(np.float32) for n in (60, 4000))
    search = ApproximateSearch()
    for k in (1, 5):
        positions, squared = search(queries, references, k)
        found = nearest_approximate(queries, references, k)
        np.testing.assert_array_equal(positions, found.positions)
        np.testing.assert_array_equal(squared, found.squared)
    worst = min(call.recall for call in search.calls)
    assert len(search.calls) == 2
    assert f"of 60 images {100 * worst:.2f}%" in search.words
