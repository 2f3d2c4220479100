"""Vendi score against closed forms and the vendi-score package."""

from __future__ import annotations

import numpy as np
import pytest
from vendi_score import vendi

from regimes.errors import DescriptorMismatch
from regimes.scores.vendi import vendi_number, vendi_score


def unit(rng, n, d):
    x = rng.standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("q", [0, 0.5, 1, 2, 10, np.inf])
def test_equal_items_count_once_and_orthogonal_ones_each(q):
    assert vendi_number(np.eye(7, dtype=np.float32)[[3] * 9], q=q) == pytest.approx(1, abs=1e-12)
    assert vendi_number(np.eye(7, dtype=np.float32), q=q) == pytest.approx(7, abs=1e-12)
    assert vendi_number(np.eye(7, dtype=np.float32)[[0, 0, 1, 1]], q=q) == pytest.approx(2)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (6, 40), (20, 20)])
@pytest.mark.parametrize("q", [0.5, 1, 2, 5, "inf"])
def test_equals_the_vendi_score_package(rng, n, d, q):
    # score_K takes every order; the package's score_X and score_dual do not use theirs.
    x = unit(rng, n, d).astype(float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    expected = vendi.score_K(x @ x.T, q=q)
    found = vendi_number(x.astype(np.float32), q=float(q))
    assert found == pytest.approx(expected, rel=1e-6)  # rows are stored as float32
    assert 1 < found < min(n, d)


def test_equals_the_dual_form_of_the_package(rng):
    x = unit(rng, 200, 16)
    expected = vendi.score_dual(x.astype(float), normalize=True)
    assert vendi_number(x) == pytest.approx(expected, rel=1e-9)


def test_of_shares_is_the_exponential_of_their_entropy():
    rows = np.eye(3, dtype=np.float32)[[0] * 5 + [1] * 3 + [2] * 2]
    p = np.array([0.5, 0.3, 0.2])
    assert vendi_number(rows) == pytest.approx(np.exp(-(p * np.log(p)).sum()), abs=1e-12)
    assert vendi_number(rows, q=2) == pytest.approx(1 / (p**2).sum(), abs=1e-12)
    assert vendi_number(rows, q=np.inf) == pytest.approx(2, abs=1e-12)


def test_order_1_is_the_limit_of_the_others(rng):
    x = unit(rng, 30, 8)
    assert vendi_number(x, q=1 + 1e-6) == pytest.approx(vendi_number(x), rel=1e-5)


def test_collapsed_samples_score_below_the_null_and_real_ones_at_it(rng, make_features):
    heldout = make_features(rng.standard_normal((400, 10)))
    real = make_features(rng.standard_normal((200, 10)))
    collapsed = make_features(np.repeat(rng.standard_normal((5, 10)), 40, axis=0))
    found, low = vendi_score(real, heldout), vendi_score(collapsed, heldout)
    # Two draws of 200 from one law; the spread between draws is of the interval's size.
    assert found.value == pytest.approx(found.null, abs=2 * (found.high - found.low))
    assert found.low < found.value < found.high
    assert low.high < low.null
    assert low.value < 5 + 1e-9


def test_null_is_that_of_as_many_heldout_images(rng, make_features):
    generated = make_features(rng.standard_normal((30, 40)))
    heldout = make_features(rng.standard_normal((90, 40)))
    null = vendi_score(generated, heldout).null
    assert null < 30  # the whole would be above 30
    assert vendi_number(heldout.values) > 30
    same = vendi_score(heldout, heldout)
    assert same.value == pytest.approx(same.null, rel=1e-9)


def test_ignores_the_order_of_samples(rng, make_features):
    x = rng.standard_normal((50, 6))
    first, second = (make_features(v) for v in (x, x[rng.permutation(50)]))
    assert vendi_number(first.values) == pytest.approx(vendi_number(second.values), rel=1e-12)


def test_interval_covers_the_spread_of_the_score(rng, make_features):
    scale = [3, 2, 1, 1, 0.5]  # with equal scales the score is at its maximum, flat to first order

    def draw():
        return make_features(rng.standard_normal((100, 5)) * scale)

    heldout = draw()
    found = [vendi_score(draw(), heldout) for _ in range(60)]
    values = np.array([f.value for f in found])
    widths = np.array([f.high - f.low for f in found])
    # +-1.96 standard deviations, estimated from 60 values: within a factor of 1.5.
    assert 2 * 1.96 * values.std() / 1.5 < np.median(widths) < 2 * 1.96 * values.std() * 1.5


def test_rows_that_are_not_of_length_1_and_other_orders_are_refused(rng, make_features):
    rows = unit(rng, 5, 3)
    rows[2] = 0
    with pytest.raises(ValueError, match="rows of length 1, got 1 others of 5"):
        vendi_number(rows)
    with pytest.raises(ValueError, match="from 0 to inf, got -1"):
        vendi_number(np.eye(3, dtype=np.float32), q=-1)
    sets = [make_features(rng.standard_normal((40, 3)), descriptor=d) for d in "ab"]
    with pytest.raises(DescriptorMismatch):
        vendi_score(*sets)
    with pytest.raises(ValueError, match="expected at least as many"):
        vendi_score(sets[0], sets[0].take(np.arange(30)))
