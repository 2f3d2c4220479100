"""The three rank rules on spectra whose ranks are known, whole and in part."""

from __future__ import annotations

import numpy as np
import pytest

from regimes.jacobians.ranks import RULES, Spectrum, numerical_rank


def spectrum(values, **more):
    values = np.sort(np.asarray(values, float))[::-1]
    return Spectrum(values=values, size=more.pop("size", len(values)), **more)


@pytest.mark.parametrize(("count", "rank"), [(7, 7), (60, 59), (100, 99), (1000, 981)])
def test_the_published_rule_takes_roots_of_energies(count, rank):
    found = numerical_rank(spectrum(np.r_[np.ones(count), np.zeros(50)]), "energy")
    assert found == (rank, rank, rank)


@pytest.mark.parametrize("rule", ["effective", "stable"])
@pytest.mark.parametrize("count", [1, 6, 48])
def test_equal_values_have_the_rank_that_they_are_many(rule, count):
    found = numerical_rank(spectrum(np.r_[np.full(count, 0.3), np.zeros(48 - count)]), rule)
    assert found == pytest.approx((count,) * 3, abs=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_ranks_ignore_scale_and_are_at_most_n(rule, rng):
    for _ in range(20):
        values = rng.exponential(size=30) ** 3
        one, other = (numerical_rank(spectrum(c * values), rule) for c in (1, 1e-5))
        assert one == pytest.approx(other, rel=1e-9)
        assert 1 <= one.value <= 30


@pytest.mark.parametrize("rule", RULES)
def test_nothing_has_rank_0(rule):
    assert numerical_rank(spectrum(np.zeros(5)), rule) == (0, 0, 0)
    assert numerical_rank(spectrum(np.full(5, 1e-10)), rule) == (0, 0, 0)
    assert numerical_rank(spectrum(np.full(5, 1e-8)), rule).value == pytest.approx(5)


@pytest.mark.parametrize("rule", RULES)
def test_bounds_of_a_part_hold_the_rank_of_the_whole(rule, rng):
    for _ in range(20):
        values = np.sort(rng.exponential(size=60) ** 4)[::-1]
        whole = numerical_rank(spectrum(values), rule)
        rest = float((values[25:] ** 2).sum())
        part = numerical_rank(spectrum(values[:25], size=60, rest=rest, rest_error=rest / 10), rule)
        assert part.low - 1e-9 <= whole.value <= part.high + 1e-9
        assert part.low <= part.value <= part.high


def test_an_energy_rank_out_of_reach_is_open_above():
    found = numerical_rank(spectrum(np.ones(10), size=100, rest=90.0), "energy")
    assert found == (10, 9, 100)  # 9, if all that is missed belongs to them


def test_values_that_are_too_small_leave_the_rank_of_the_whole_within_bounds(rng):
    """A projection that mixes directions lowers every value; the energy it misses says how far off."""
    for _ in range(20):
        matrix = rng.standard_normal((40, 40)) * 0.8 ** np.arange(40)
        Q = np.linalg.qr(matrix @ rng.standard_normal((40, 15)))[0]
        held = np.linalg.svd(Q.T @ matrix, compute_uv=False)
        rest = float((matrix**2).sum() - (held**2).sum())
        low, high = numerical_rank(spectrum(held, size=40, rest=rest), "energy")[1:]
        whole = numerical_rank(spectrum(np.linalg.svd(matrix, compute_uv=False)), "energy").value
        assert low <= whole <= high


@pytest.mark.parametrize("values", [[1.0, 2.0], [-1.0], [np.nan], []])
def test_what_is_not_a_spectrum_is_refused(values):
    with pytest.raises(ValueError, match="values"):
        Spectrum(values=np.array(values), size=5)


def test_a_largest_value_that_is_too_small_leaves_the_stable_rank_within_bounds():
    part = spectrum([1.0, 1.0], size=4, rest=2.0, value_error=0.25)
    assert numerical_rank(part, "stable") == pytest.approx((4, 4 / 1.25**2, 4))
    assert numerical_rank(spectrum([1.0], size=4, value_error=0.5), "stable") == (1, 1, 1)
    assert numerical_rank(spectrum([1.0, 1.0], size=4, rest=5.0), "stable") == (4, 4, 4)
