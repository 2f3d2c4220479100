"""Fréchet distance against closed forms, torch-fidelity and numpy's moments."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch_fidelity import metric_fid

from regimes.errors import ConfigError, DescriptorMismatch
from regimes.scores import frechet
from regimes.scores.frechet import Moments, frechet_distance, frechet_infinity, frechet_score


def rows(rng, n, d=6, scale=1.0, shift=0.0):
    return (scale * rng.standard_normal((n, d)) + shift).astype(np.float32)


@pytest.mark.parametrize("block", [7, 4096])
def test_moments_are_those_of_numpy_and_add_up(rng, monkeypatch, block):
    monkeypatch.setattr(frechet, "_BLOCK", block)
    x = rows(rng, 50, shift=1000)
    parts = [Moments.of(x[:20]), Moments.of(x[20:])]
    for found in (Moments.of(x), parts[0].plus(parts[1]), parts[1].plus(parts[0])):
        np.testing.assert_allclose(found.mean, x.astype(float).mean(0), rtol=1e-13)
        np.testing.assert_allclose(found.covariance, np.cov(x.astype(float).T), atol=1e-9)
    left = Moments.of(x).plus(parts[0], -1)
    assert left.count == 30
    np.testing.assert_allclose(left.covariance, np.cov(x[20:].astype(float).T), atol=1e-9)


def test_distance_of_gaussians_along_the_axes_is_known():
    # Covariances diag(a), diag(b): |m|^2 + sum (sqrt a - sqrt b)^2.
    corners = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
    first, second = corners * [1, 3] + [5, 0], corners * [2, 1]
    found = frechet_distance(Moments.of(first.astype("f")), Moments.of(second.astype("f")))
    variance = 2 / 3  # of a coordinate of the corners
    assert found == pytest.approx(25 + variance * ((1 - 2) ** 2 + (3 - 1) ** 2), abs=1e-12)


def test_equals_torch_fidelity_and_the_root_of_a_matrix(rng):
    mix = rng.standard_normal((12, 12))
    x, y = rows(rng, 400, 12) @ mix, 1.3 * rows(rng, 300, 12) + 0.2
    x, y = x.astype(np.float32), y.astype(np.float32)
    found = frechet_distance(Moments.of(x), Moments.of(y))
    statistics = [
        metric_fid.fid_features_to_statistics(torch.from_numpy(v.astype(float))) for v in (x, y)
    ]
    expected = metric_fid.fid_statistics_to_metric(*statistics, False)
    assert found == pytest.approx(expected["frechet_inception_distance"], rel=1e-9)
    s1, s2 = (np.cov(v.astype(float).T) for v in (x, y))
    mean = ((x.astype(float).mean(0) - y.astype(float).mean(0)) ** 2).sum()
    assert found == pytest.approx(mean + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real), rel=1e-9)


@pytest.mark.parametrize("n", [5, 40])
def test_a_set_is_at_distance_0_from_itself_even_with_fewer_rows_than_columns(rng, n):
    x = Moments.of(rows(rng, n, 20, shift=3))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-12)


def test_is_symmetric_and_does_not_change_when_both_are_rotated(rng):
    x, y = rows(rng, 60, 5), rows(rng, 50, 5, 2)
    q = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    plain, back, turned = (
        frechet_distance(Moments.of(a.astype("f")), Moments.of(b.astype("f")))
        for a, b in ((x, y), (y, x), (x @ q, y @ q))
    )
    assert plain == pytest.approx(back, rel=1e-12)
    assert plain == pytest.approx(turned, rel=1e-5)  # the rotated rows are float32


def test_grows_with_a_planted_shift_and_stays_at_the_null_without(rng, make_features):
    sets = [make_features(rng.standard_normal((300, 4)), unit=False) for _ in range(3)]
    generated, reference, heldout = sets
    found = frechet_score(generated, reference, heldout)
    # Both are distances of 300 images of one law; they scatter by their own size.
    assert 0.2 < found.value / found.null < 5
    shifted = make_features(generated.values + np.array([2, 0, 0, 0]), unit=False)
    far = frechet_score(shifted, reference, heldout)
    assert far.value == pytest.approx(4, abs=1)
    assert far.low > 10 * far.null
    assert far.low < far.value < far.high


def test_heldout_images_in_place_of_samples_score_the_null(rng, make_features):
    heldout, reference = (make_features(rng.standard_normal((40, 3)), unit=False) for _ in range(2))
    found = frechet_score(heldout, reference, heldout)
    assert found.value == pytest.approx(found.null, rel=1e-9)
    assert found.null > 0
    assert not found.higher_is_better


def test_the_packages_own_arithmetic_gives_the_same_by_name(rng, make_features):
    sets = [make_features(rng.standard_normal((80, 5)), unit=False) for _ in range(3)]
    ours, theirs = (frechet_score(*sets, by=by) for by in ("regimes", "torch-fidelity"))
    assert ours.value == pytest.approx(theirs.value, rel=1e-6)
    assert ours.null == pytest.approx(theirs.null, rel=1e-6)
    assert (ours.low, ours.high) != (ours.value, ours.value)


def test_interval_covers_the_spread_of_the_score(rng, make_features):
    reference, heldout = (
        make_features(rng.standard_normal((200, 3)), unit=False) for _ in range(2)
    )
    found = [
        frechet_score(
            make_features(rng.standard_normal((100, 3)) + 0.5, unit=False), reference, heldout
        )
        for _ in range(60)
    ]
    values = np.array([f.value for f in found])
    widths = np.array([f.high - f.low for f in found])
    # Student's 2.26 for 1.96, and both spreads are estimates: within a factor of 1.6.
    assert 2 * 1.96 * values.std() / 1.6 < np.median(widths) < 2 * 1.96 * values.std() * 1.6


def test_ignores_the_order_of_samples(rng, make_features):
    x, r = rng.standard_normal((50, 4)), make_features(rng.standard_normal((60, 4)), unit=False)
    first, second = (
        frechet_score(make_features(v, unit=False), r, r).value for v in (x, x[rng.permutation(50)])
    )
    assert first == pytest.approx(second, rel=1e-10)


def test_extrapolation_takes_most_of_the_bias_away(rng, make_features):
    reference = make_features(rng.standard_normal((20000, 8)), unit=False)
    found, biased = [], []
    for _ in range(6):
        generated = make_features(rng.standard_normal((400, 8)), unit=False)
        value, low, high = frechet_infinity(generated, reference, num_sizes=12, smallest=60)
        assert low < value < high
        found.append(value)
        biased.append(frechet_distance(Moments.of(generated.values), Moments.of(reference.values)))
    assert np.mean(biased) > 0.05
    assert abs(np.mean(found)) < np.mean(biased) / 3


def test_errors_say_what_is_missing(rng, make_features, monkeypatch):
    few, other = (
        make_features(rng.standard_normal((n, 3)), descriptor=d) for n, d in ((12, "a"), (12, "b"))
    )
    with pytest.raises(DescriptorMismatch):
        frechet_score(few, other, other)
    with pytest.raises(ValueError, match="expected at least as many"):
        frechet_score(few, few, few.take(np.arange(5)))
    with pytest.raises(ValueError, match="expected 2 to 12 groups"):
        frechet_score(few, few, few, num_groups=13)
    with pytest.raises(ValueError, match="expected 2 rows or more"):
        frechet_distance(Moments.of(few.values[:1]), Moments.of(few.values))
    with pytest.raises(ValueError, match="at least 3 sizes"):
        frechet_infinity(few, few, smallest=11)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ConfigError, match="pip install torch-fidelity"):
        frechet_score(few, few, few, by="torch-fidelity")
