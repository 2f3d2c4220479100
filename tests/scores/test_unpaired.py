"""Unpaired couples: all of them, or a choice that favours none."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from regimes.scores.unpaired import (
    Blocks,
    blocks_of,
    off_diagonal,
    unpaired_errors,
    unpaired_products,
)


def couples(blocks):
    return [(i, j) for rows in blocks for i, j in itertools.permutations(rows.tolist(), 2)]


def test_one_block_holds_every_couple_once():
    blocks = blocks_of(7, 1000)
    assert blocks.exact
    assert sorted(couples(blocks)) == sorted(itertools.permutations(range(7), 2))
    assert blocks.num_couples == 42


@pytest.mark.parametrize(("items", "most"), [(10, 20), (100, 1000), (101, 350), (5, 1), (1000, 10)])
def test_blocks_are_of_equal_size_and_disjoint_and_near_the_number_asked_for(items, most):
    blocks = blocks_of(items, most)
    found = couples(blocks)
    assert len(found) == len(set(found)) == blocks.num_couples
    assert all(i != j for i, j in found)
    assert {len(rows) for rows in blocks} == {blocks.size}
    assert len(found) <= max(most + items, items)


def test_a_shuffle_makes_every_couple_equally_likely(monkeypatch):
    """Over 2,000 shuffles of 6 seeds in blocks of 2, each of the 30 couples is taken 400 times.

    Binomial with p = 1/5: standard deviation 18; five of them for 30 comparisons.
    """
    from regimes.scores import unpaired

    counts = np.zeros((6, 6), int)
    for seed in range(2000):
        monkeypatch.setattr(
            unpaired, "keyed_generator", lambda *_, seed=seed: np.random.default_rng(seed)
        )
        for i, j in couples(Blocks(num_items=6, size=2)):
            counts[i, j] += 1
    assert np.abs(off_diagonal(counts) - 400).max() < 90
    assert np.diag(counts).sum() == 0


def test_the_choice_depends_on_the_number_of_seeds_alone():
    np.testing.assert_array_equal(blocks_of(50, 100).order, blocks_of(50, 100).order)


def test_estimates_over_blocks_approach_the_exact_mean(rng):
    """Blocks of 20 of 2,000 seeds: 38,000 couples; the mean of a fixed table within 5 of its errors."""
    a, b = rng.standard_normal((2, 2000, 3))
    exact = off_diagonal(a @ b.T > 1).mean()
    blocks = Blocks(num_items=2000, size=20)
    taken = np.concatenate([unpaired_products(a[rows], b[rows]) for rows in blocks])
    error = np.sqrt(exact * (1 - exact) / 2000)  # no better than as many independent rows
    assert abs((taken > 1).mean() - exact) < 5 * error
    assert 0.1 < exact < 0.5


def test_products_and_errors_of_a_block_equal_double_loops(rng):
    x, y = rng.integers(0, 256, (2, 6, 3, 4, 2), np.uint8)
    expected = [
        np.abs(x[i].astype(int) - y[j]).mean() for i in range(6) for j in range(6) if i != j
    ]
    np.testing.assert_array_equal(unpaired_errors(x, y), expected)
    a, b = rng.standard_normal((2, 6, 5))
    expected = [a[i] @ b[j] for i in range(6) for j in range(6) if i != j]
    np.testing.assert_allclose(unpaired_products(a, b), expected, rtol=1e-12)
