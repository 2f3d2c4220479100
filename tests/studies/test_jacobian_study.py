"""Ranks by noise level: means, intervals over what is independent, and what is said of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, t

from regimes.jacobians.ranks import Spectrum
from regimes.studies.jacobian import ModelSpectra, answer, rank_rows, study


def flat(rank, size=100):
    """A spectrum of ``rank`` equal values."""
    return Spectrum(values=np.r_[np.ones(rank), np.zeros(size - rank)], size=size)


def model(ranks, groups=None, name="m", sigmas=(1.0,)):
    """Ranks (P, T) as spectra."""
    spectra = [[flat(r) for r in point] for point in ranks]
    groups = np.arange(len(ranks)) if groups is None else np.array(groups)
    return ModelSpectra(name=name, groups=groups, sigmas=np.array(sigmas), spectra=spectra)


def test_the_mean_has_students_interval_over_points():
    (row,) = rank_rows(model([[10], [20], [30], [40]]), "stable")
    half = t.ppf(0.975, 3) * np.std([0.1, 0.2, 0.3, 0.4], ddof=1) / 2
    assert row.ratio == pytest.approx(0.25)
    assert (row.low, row.high) == pytest.approx((max(0, 0.25 - half), 0.25 + half))
    assert (row.rank, row.num_points, row.num_groups) == (pytest.approx(25), 4, 4)


def test_several_noises_of_one_image_count_as_one():
    (many,) = rank_rows(model([[10], [20], [30], [40]], groups=[0, 0, 1, 1]), "stable")
    half = t.ppf(0.975, 1) * np.std([0.15, 0.35], ddof=1) / 2**0.5
    assert many.num_groups == 2
    assert (many.low, many.high) == pytest.approx((0, min(1, 0.25 + half)))
    (alone,) = rank_rows(model([[10], [20]], groups=[3, 3]), "stable")
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)


def test_the_null_is_a_denoiser_that_keeps_everything():
    assert rank_rows(model([[10]]), "energy")[0].null == 0.99  # 98.01% of 100 equal values
    assert rank_rows(model([[10]]), "effective")[0].null == pytest.approx(1)


def test_estimated_spectra_carry_their_bounds():
    part = Spectrum(values=np.ones(10), size=100, rest=20.0, rest_error=1.0)
    one = ModelSpectra(name="m", groups=np.arange(1), sigmas=np.array([1.0]), spectra=[[part]])
    (row,) = rank_rows(one, "energy")
    assert (row.least, row.most) == (0.1, 1.0)
    assert "uncertain by more than 10% at sigma 1" in answer(study([one], "energy"))[-1]


def test_rows_run_from_high_noise_to_low_and_the_answer_names_the_least():
    ranks = [[50, 5, 90], [52, 7, 90], [51, 6, 90], [47, 2, 90]]
    found = study([model(ranks, sigmas=(80.0, 0.5, 0.002), name="EDM")], "stable")
    assert [row.sigma for row in found.rows["EDM"]] == [80.0, 0.5, 0.002]
    (sentence,) = answer(found)
    assert sentence == (
        "EDM: of 100 directions the denoiser follows 90.0 (90%) at the lowest noise (sigma 0.002), "
        "50.0 (50%) at the highest (sigma 80), and fewer between, as at sigma 0.5: 5.0 (5.0%)."
    )
    (short,) = answer(study([model([[5, 50]] * 4, sigmas=(80.0, 0.5))], "stable"))
    assert "few" not in short
    (alone,) = answer(study([model([[50, 5, 90]], sigmas=(80.0, 0.5, 0.002))], "stable"))
    assert "few" not in alone  # one trajectory does not tell how much others differ


def test_the_least_of_many_levels_is_no_finding():
    """Ranks that scatter alike at 12 levels: 43 to 93% of such studies named one with the fewest."""
    rng, named = np.random.default_rng(0), {0: 0, 10: 0}
    for planted in named:
        for _ in range(60):
            ranks = np.round(rng.normal(40, 3, (8, 12))).astype(int)
            ranks[:, 5] -= planted
            found = study([model(ranks, sigmas=np.geomspace(80, 0.002, 12))], "stable")
            named[planted] += "few" in answer(found)[0]
    assert named[0] <= binom.ppf(0.999, 60, 0.05)
    assert named[10] >= 57


def test_levels_that_differ_by_rounding_are_equal():
    rng = np.random.default_rng(0)
    same = [
        [Spectrum(values=np.full(64, 1 + 1e-9 * rng.random()), size=64) for _ in range(9)]
        for _ in range(16)
    ]
    for point in same:  # less by rounding, in every one
        point[4] = Spectrum(values=np.r_[np.ones(63), 1 - 1e-6], size=64)
    made = ModelSpectra(
        name="m", groups=np.arange(16), sigmas=np.geomspace(80, 0.002, 9), spectra=same
    )
    found = study([made], "effective")
    rows = found.rows["m"]
    assert min(rows, key=lambda row: row.ratio) is rows[4]
    assert "few" not in answer(found)[0]


def test_every_rule_is_counted_and_the_chosen_one_comes_first():
    found = study([model([[50, 5]], sigmas=(80.0, 0.5))], "stable")
    assert list(found.by_rule) == ["stable", "energy", "effective"]
    assert [row.rule for row in found.every_row] == ["stable"] * 2
    assert [(row.rule, row.rank) for row in found.table] == [
        ("stable", pytest.approx(50)),
        ("stable", pytest.approx(5)),
        ("energy", 50),  # more than 98.01% of 50 takes all
        ("energy", 5),
        ("effective", pytest.approx(50)),
        ("effective", pytest.approx(5)),
    ]


def test_the_reference_is_ranked_by_the_same_rule():
    found = study([model([[50]])], "stable", reference={2.0: flat(7), 9.0: flat(3)})
    assert found.reference == [(9.0, pytest.approx(0.03)), (2.0, pytest.approx(0.07))]
