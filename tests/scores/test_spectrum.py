"""Distances of spectra: closed forms, the null, planted differences, equal numbers only."""

import numpy as np
import pytest

from regimes.scores.spectrum import (
    SpectralComparison,
    spectral_distance,
    split_half_floor,
)
from regimes.spectra.matrix import eigenvalues
from regimes.spectra.rows import Rows


def of(values):
    return eigenvalues(Rows(values=values))


def rows(count, width, seed):
    scales = np.geomspace(1, 0.1, width)
    return np.random.default_rng(seed).standard_normal((count, width)) * scales


def test_a_scaled_set_is_shifted_by_the_square_of_its_scale():
    x = rows(60, 30, 0)
    found = spectral_distance(of(10 * x), of(x), spikes=2)
    assert found.w1 == pytest.approx(2)
    assert found.shift == pytest.approx(2)
    np.testing.assert_allclose(found.spikes, [2, 2])
    same = spectral_distance(of(x), of(x.copy()))
    assert (same.ks, same.shift) == (0, 0)
    assert same.w1 == 0


def test_spikes_are_left_out_of_the_bulk():
    x = rows(400, 20, 0)
    y = x.copy()
    y[:, 0] *= 30  # one direction more than all others
    together, apart = (spectral_distance(of(y), of(x), spikes=k) for k in (0, 1))
    assert apart.spikes[0] == pytest.approx(2 * np.log10(30), abs=0.1)
    assert apart.w1 < 0.05 < together.w1


def test_unequal_numbers_and_too_few_eigenvalues_are_refused():
    x = rows(40, 10, 0)
    with pytest.raises(ValueError, match="equal numbers of rows"):
        spectral_distance(of(x), of(x[:30]))
    with pytest.raises(ValueError, match="one normalisation"):
        spectral_distance(of(x), eigenvalues(Rows(values=x), "raw"))
    with pytest.raises(ValueError, match="at least 11 eigenvalues"):
        spectral_distance(of(x), of(x), spikes=9)
    with pytest.raises(ValueError, match="at least 42 for two parts"):
        split_half_floor(Rows(values=x), 21, "covariance")


COUNT, WIDTH = 150, 300


@pytest.fixture(scope="module")
def floor():
    return split_half_floor(Rows(values=rows(2 * COUNT, WIDTH, 1)), COUNT, "covariance", splits=40)


def compared(draw, floor):
    reference = of(rows(COUNT, WIDTH, 2))
    draws = [spectral_distance(of(draw(seed)), reference) for seed in range(3)]
    return SpectralComparison(name="set", num_rows=COUNT, draws=draws, floor=floor)


def laplace(seed):
    scales = np.geomspace(1, 0.1, WIDTH)
    return np.random.default_rng([3, seed]).laplace(size=(COUNT, WIDTH)) / 2**0.5 * scales


def scale_mixture(seed):
    radius = np.random.default_rng([4, seed]).exponential(size=(COUNT, 1)) ** 0.5
    return rows(COUNT, WIDTH, [5, seed]) * radius


def test_another_law_of_equal_covariance_is_inside_the_floor_if_it_is_concentrated(floor):
    found = compared(laplace, floor)
    assert not found.differs
    assert found.value("ks") < found.null("ks")[1]


def test_a_scale_mixture_of_equal_covariance_is_flagged(floor):
    found = compared(scale_mixture, floor)
    assert found.differs
    assert found.p_value("ks") == pytest.approx(1 / 41)
    assert found.value("ks") > 3 * found.null("ks")[1]
    row = found.record()
    assert row["differs"] is True
    assert row["ks_low"] <= row["ks"] <= row["ks_high"]


def test_sets_like_the_real_one_are_seldom_called_different():
    wrong = 0
    for trial in range(20):
        real = np.random.default_rng([6, trial]).standard_normal((120, 25)) * np.geomspace(
            1, 0.1, 25
        )
        other = np.random.default_rng([7, trial]).standard_normal((60, 25)) * np.geomspace(
            1, 0.1, 25
        )
        floor = split_half_floor(Rows(values=real), 60, "covariance", splits=40, seed=trial)
        draw = spectral_distance(of(other), of(real[:60]))
        wrong += SpectralComparison(name="", num_rows=60, draws=[draw], floor=floor).differs
    assert wrong <= 4  # 1 expected at 5%; 5 or more have chance .003
