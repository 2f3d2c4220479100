"""Counting modes: closed forms beside enumeration, and the scores that go with a count."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from regimes.scores.modes import (
    REJECTED,
    Mean,
    distinct_modes,
    expected_distinct,
    marginal,
    marginal_errors,
    mode_scores,
    total_variation,
    total_variation_null,
)


@pytest.mark.parametrize(
    ("modes", "count", "mean", "sd"),
    [(10, 8, 5.695, 0.935), (10, 10, 6.513, 0.996), (10, 16, 8.147, 0.976), (8, 8, 5.251, 0.894),
     (8, 32, 7.889, 0.324), (4, 4, 2.734, 0.643), (2, 2, 1.5, 0.5)],
)  # fmt: skip
def test_expected_modes_of_independent_samples_are_the_tabulated_ones(modes, count, mean, sd):
    found = expected_distinct([1 / modes] * modes, count)
    assert found == pytest.approx((mean, sd), abs=6e-4)


def test_expected_modes_agree_with_enumeration_for_unequal_modes_and_a_rejected_rest():
    p, count = (0.5, 0.2, 0.1), 4  # the remaining 0.2 is rejected
    outcomes = [(*p, 0.2)[k] for k in range(4)]
    total, square = 0.0, 0.0
    for draw in itertools.product(range(4), repeat=count):
        weight = np.prod([outcomes[k] for k in draw])
        distinct = len({k for k in draw if k < 3})
        total += weight * distinct
        square += weight * distinct**2
    assert expected_distinct(p, count) == pytest.approx((total, (square - total**2) ** 0.5))


def test_no_sample_covers_no_mode():
    assert expected_distinct([0.5, 0.5], 0) == (0.0, 0.0)


def test_rejected_samples_are_no_mode():
    modes = np.array([[0, 0, 1], [2, REJECTED, REJECTED], [REJECTED] * 3, [0, 1, 2]])
    assert distinct_modes(modes, 3).tolist() == [2, 1, 0, 3]
    assert marginal(modes, 3) == pytest.approx([3 / 7, 2 / 7, 2 / 7])
    assert marginal(modes[2:3], 3).tolist() == [0, 0, 0]


def test_total_variation_and_what_chance_gives(rng):
    p = np.array([0.7, 0.2, 0.1])
    assert total_variation(np.array([0.2, 0.7, 0.1]), p) == pytest.approx(0.5)
    draws = [total_variation(rng.multinomial(400, p) / 400, p) for _ in range(2000)]
    assert total_variation_null(p.tolist(), 400) == pytest.approx(np.mean(draws), rel=0.03)


def test_mean_has_the_error_of_its_groups():
    found = Mean.of(np.array([1.0, 3.0, 5.0, 7.0]))
    assert found.value == 4
    assert found.error == pytest.approx(np.std([1, 3, 5, 7], ddof=1) / 2)
    assert found.interval(2.0) == pytest.approx((4 - 2 * found.error, 4 + 2 * found.error))
    assert Mean.of(np.array([2.0])).error == float("inf")


def test_scores_say_what_modes_cost():
    modes = np.array([[0, 1], [0, REJECTED]])
    found = mode_scores(modes, np.array([[1.0, 2.0], [3.0, 10.0]]), [0.9, 0.1])
    assert found.distinct.value == 1.5
    assert found.independent[0] == pytest.approx(1.18)
    assert found.inliers.value == 0.75
    assert found.quality.value == 4
    assert found.marginal == pytest.approx([2 / 3, 1 / 3])
    assert found.total_variation == pytest.approx(0.9 - 2 / 3)


def test_shares_have_the_error_of_their_scatter_between_groups(rng):
    """Beside the scatter of whole studies: independent particles, and groups that all agree."""
    p = np.array([0.6, 0.3, 0.1])
    alone = [rng.choice(3, (200, 4), p=p) for _ in range(300)]
    errors = np.mean([marginal_errors(m, 3) for m in alone], axis=0)
    np.testing.assert_allclose(errors, np.sqrt(p * (1 - p) / 800), rtol=0.05)
    np.testing.assert_allclose(np.std([marginal(m, 3) for m in alone], axis=0), errors, rtol=0.15)
    together = [np.repeat(rng.choice(3, (200, 1), p=p), 4, axis=1) for _ in range(300)]
    errors = np.mean([marginal_errors(m, 3) for m in together], axis=0)
    np.testing.assert_allclose(errors, np.sqrt(p * (1 - p) / 200), rtol=0.05)


def test_errors_of_shares_count_accepted_samples_and_are_unknown_without_any(rng):
    modes = rng.choice(2, (60, 5))
    some = np.where(rng.random((60, 5)) < 0.7, REJECTED, modes)
    assert (marginal_errors(some, 2) > marginal_errors(modes, 2)).all()
    order = rng.permutation(60)
    np.testing.assert_allclose(marginal_errors(some[order], 2), marginal_errors(some, 2))
    assert np.isinf(marginal_errors(np.full((60, 5), REJECTED), 2)).all()
    assert np.isinf(marginal_errors(modes[:1], 2)).all()
