"""A null that was measured on one set holds for others within its range, and seldom beyond."""

from __future__ import annotations

import numpy as np
import pytest

from regimes.scores.coverage import coverage, density
from regimes.scores.fidelity import precision, recall
from regimes.scores.resampling import mean_range, reach_range, reached, share_range

SCORES = (precision, recall, density, coverage)


def sets(make_features, seed, spread=1.0):
    rng = np.random.default_rng(seed)
    real, made, heldout = (rng.standard_normal((100, 8)) for _ in range(3))
    return [make_features(x, unit=False) for x in (spread * made, real, heldout)]


@pytest.mark.parametrize("metric", SCORES)
def test_sets_like_the_real_images_are_seldom_outside_of_the_range(make_features, metric):
    """Binomial(60, 0.05) exceeds 9 once in 1,000; the null is outside of the interval in 8 to 20."""
    outside, missed = 0, 0
    for seed in range(60):
        score = metric(*sets(make_features, seed), k=5)
        low, high = score.null_range
        assert low <= score.null <= high
        outside += not low <= score.value <= high
        missed += not score.low <= score.null <= score.high
    assert outside <= 9
    assert missed >= 8


def test_sets_that_are_wider_are_outside(make_features):
    for metric in (precision, density, coverage):
        score = metric(*sets(make_features, 0, spread=1.4), k=5)
        assert score.value < score.null_range[0]


def test_what_only_one_item_reaches_is_lost_without_it():
    pairs = [(np.array([0, 1]), np.array([0, 0])), (np.array([1, 2]), np.array([1, 2]))]
    times, alone = reached(pairs, 4, 3)
    assert times.tolist() == [1, 2, 1, 0]
    assert alone.tolist() == [1, 0, 1]
    low, high = reach_range(times, alone, 3)
    assert 0 <= low < 0.75 < high <= 1
    assert reach_range(np.ones(5, np.int64), np.array([5]), 1) == (0.0, 1.0)


def test_ranges_narrow_to_intervals_where_the_others_are_many(rng):
    x = rng.standard_normal(50)
    low, high = mean_range(x, 10**9)
    assert high - low == pytest.approx(2 * 2.0096 * x.std(ddof=1) / 50**0.5, rel=1e-3)
    assert mean_range(x, 50)[1] - x.mean() == pytest.approx((high - x.mean()) * 2**0.5, rel=1e-6)
    assert np.isnan(mean_range(x[:1], 50)).all()
    few, many = share_range(5, 100, 20), share_range(5, 100, 2000)
    assert few[0] == 0
    assert 0 < many[0] < 0.05 < many[1] < few[1] <= 0.25
