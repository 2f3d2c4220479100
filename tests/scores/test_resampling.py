"""The jackknife against the closed form for means, and sets of equal size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from regimes.scores.resampling import equal_number, interval, jackknife_variance, random_groups


def test_groups_are_equal_up_to_one_and_depend_on_the_seed_alone():
    groups = random_groups(23, 5, seed=1)
    assert sorted(np.bincount(groups)) == [4, 4, 5, 5, 5]
    np.testing.assert_array_equal(groups, random_groups(23, 5, seed=1))
    assert (groups != random_groups(23, 5, seed=2)).any()


def test_jackknife_of_a_mean_without_single_items_is_the_variance_of_the_mean(rng):
    x = rng.standard_normal(40)
    left_out = [np.delete(x, i).mean() for i in range(40)]
    assert jackknife_variance(left_out) == pytest.approx(x.var(ddof=1) / 40, rel=1e-12)


def test_interval_of_a_mean_covers_the_truth_95_times_in_100(rng):
    hits, trials = 0, 1000
    for _ in range(trials):
        x = rng.standard_normal(60)
        groups = np.arange(60) % 10
        left_out = [x[groups != g].mean() for g in range(10)]
        low, high = interval(x.mean(), jackknife_variance(left_out), num_groups=10)
        hits += low < 0 < high
    # Exact by Student's t; 3 standard deviations of a binomial share of .95 are .021.
    assert hits / trials == pytest.approx(0.95, abs=0.021)


def test_interval_is_students():
    assert interval(2.0, 4.0, num_groups=10) == pytest.approx(
        (2 - 2 * t.ppf(0.975, 9), 2 + 2 * t.ppf(0.975, 9))
    )


def test_equal_number_takes_distinct_images_and_refuses_too_few(rng, make_features):
    heldout = make_features(rng.standard_normal((20, 3)))
    taken = equal_number(heldout, 12)
    assert len(set(taken.ids.tolist())) == 12
    np.testing.assert_array_equal(taken.values, heldout.values[taken.ids])
    np.testing.assert_array_equal(taken.ids, equal_number(heldout, 12).ids)
    assert len(equal_number(heldout, 20)) == 20
    with pytest.raises(ValueError, match=r"at least as many as samples \(21\), got 20"):
        equal_number(heldout, 21)


@pytest.mark.parametrize("groups", [1, 6])
def test_impossible_groups_are_refused(groups):
    with pytest.raises(ValueError, match="expected 2 to 5 groups"):
        random_groups(5, groups)
