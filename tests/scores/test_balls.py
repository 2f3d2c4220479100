"""Balls against brute force in float64: borders are decided exactly."""

from __future__ import annotations

import numpy as np
import pytest

from regimes.scores import neighbours
from regimes.scores.balls import count_balls, inside_any_ball, pairs_inside


def brute_force(queries, references):
    return ((queries[:, None].astype(float) - references[None].astype(float)) ** 2).sum(-1)


def rows(rng, n, d=6):
    return rng.standard_normal((n, d)).astype(np.float32)


@pytest.mark.parametrize("block", [1, 9, 4096])
def test_balls_equal_brute_force(rng, monkeypatch, block):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    q, c = rows(rng, 60, 2), rows(rng, 20, 2)
    radii = rng.uniform(0, 0.3, 20)
    expected = (brute_force(q, c) <= radii).any(1)
    assert 10 < expected.sum() < 50
    np.testing.assert_array_equal(inside_any_ball(q, c, radii), expected)
    table = brute_force(q, c) <= radii
    np.testing.assert_array_equal(count_balls(q, c, radii), table.sum(1))
    found = np.zeros_like(table)
    for i, j in pairs_inside(q, c, radii):
        assert not found[i, j].any()
        found[i, j] = True
    np.testing.assert_array_equal(found, table)


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


def test_every_pair_is_measured_where_products_settle_none(rng):
    # All points within 1e-4 of each other, around 100: products in float32 cannot tell any apart.
    c = np.float32(100) + np.float32(1e-5) * rng.integers(-3, 4, (60, 5)).astype(np.float32)
    squared = brute_force(c, c)
    radii = np.quantile(squared, 0.4, axis=0, method="lower")  # equal to some distances
    np.testing.assert_array_equal(count_balls(c, c, radii), (squared <= radii).sum(1))
    small = np.sort(squared, 0)[1]  # the nearest other point, or a duplicate
    np.testing.assert_array_equal(
        inside_any_ball(c[:30], c[30:], small[30:]), (squared[:30, 30:] <= small[30:]).any(1)
    )


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e15])
def test_balls_of_any_size(rng, scale):
    c = (scale * rows(rng, 20).astype(float)).astype(np.float32)
    radii = brute_force(c, c)[0] * np.resize([0, 1e-6, 1.001, 1e6, 1e30], 20)
    expected = (brute_force(c, c) <= radii).sum(1)
    assert expected.max() > expected.min()
    np.testing.assert_array_equal(count_balls(c, c, radii), expected)


def test_no_queries_are_in_no_ball(rng):
    assert inside_any_ball(rows(rng, 0), rows(rng, 3), np.ones(3)).shape == (0,)


def test_rows_that_are_not_finite_are_refused(rng):
    bad = rows(rng, 3)
    bad[1, 1] = np.nan
    with pytest.raises(ValueError, match="expected finite rows"):
        count_balls(bad, rows(rng, 3), np.ones(3))
