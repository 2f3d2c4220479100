"""Density and coverage against the prdc package, and their expectations."""

from __future__ import annotations

import numpy as np
import pytest
from prdc import compute_prdc

from regimes.errors import DescriptorMismatch
from regimes.scores import neighbours
from regimes.scores.coverage import coverage, density, expected_coverage


@pytest.mark.parametrize("block", [16, 4096])
@pytest.mark.parametrize("k", [1, 5])
def test_density_and_coverage_equal_the_prdc_package(rng, make_features, monkeypatch, block, k):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    real, fake = rng.standard_normal((80, 4)), 0.8 * rng.standard_normal((60, 4)) + 0.5
    r, f = make_features(real, unit=False), make_features(fake, unit=False)
    expected = compute_prdc(r.values.astype(float), f.values.astype(float), nearest_k=k)
    assert density(f, r, k=k).value == pytest.approx(expected["density"], abs=1e-12)
    assert coverage(f, r, k=k).value == pytest.approx(expected["coverage"], abs=1e-12)
    assert 0 < expected["coverage"] < 1


def test_a_point_on_the_border_is_inside(make_features):
    reference = make_features([[0.0], [1.0], [10.0]], unit=False)  # radii for k = 1: 1, 1, 9
    generated = make_features([[2.0], [19.5]], unit=False)
    assert density(generated, reference, k=1).per_item["balls"].tolist() == [2, 0]
    assert coverage(generated, reference, k=1).per_item["covered"].tolist() == [False, True, True]


def test_expectations_under_exchangeability_are_1_and_the_closed_form(rng, make_features):
    found = []
    for _ in range(150):
        a, b = (make_features(rng.standard_normal((n, 2)), unit=False) for n in (25, 40))
        found.append((density(a, b, k=3).value, coverage(a, b, k=3).value))
    mean, error = np.mean(found, 0), np.std(found, 0) / np.sqrt(150)
    expected = expected_coverage(25, 40, 3)
    assert abs(mean[0] - 1) < 3 * error[0]
    assert abs(mean[1] - expected) < 3 * error[1]
    assert coverage(a, b, k=3).null == expected
    assert density(a, b, k=3).null == 1.0


def test_expected_coverage_of_one_neighbour_is_the_share_of_generated_ones():
    # The nearest of the N - 1 + M others is generated with probability M / (N + M - 1).
    assert expected_coverage(30, 70, 1) == pytest.approx(30 / 99)


def test_heldout_images_in_place_of_samples_score_the_null(rng, make_features):
    heldout, reference = (make_features(rng.standard_normal((30, 3)), unit=False) for _ in range(2))
    for score in (density, coverage):
        found = score(heldout, reference, heldout)
        assert found.value == found.null


def test_one_mode_of_two_is_half_covered_and_dense(rng, make_features):
    mode = rng.standard_normal((40, 3))
    reference = make_features(np.concatenate([mode, mode + 100]), unit=False)
    samples = make_features(mode, unit=False)
    assert coverage(samples, reference).value == 0.5
    assert density(samples, reference).value > 1


def test_planted_outliers_lower_density_to_their_share(rng, make_features):
    reference = make_features(rng.standard_normal((50, 3)), unit=False)
    values = reference.values.copy()
    before = density(reference, reference).per_item["balls"]
    values[:20] += 1000
    found = density(make_features(values, unit=False), reference)
    assert found.value == pytest.approx(before[20:].sum() / 5 / 50)
    assert found.low < found.value < found.high


def test_scores_ignore_the_order_of_items(rng, make_features):
    a, b = rng.standard_normal((40, 3)), rng.standard_normal((50, 3))
    p, q = rng.permutation(40), rng.permutation(50)
    for score in (density, coverage):
        first = score(make_features(a, unit=False), make_features(b, unit=False))
        second = score(make_features(a[p], unit=False), make_features(b[q], unit=False))
        assert first.value == pytest.approx(second.value, rel=1e-12)


@pytest.mark.parametrize("score", [density, coverage])
def test_errors_say_what_is_wrong(rng, make_features, score):
    a, b = (make_features(rng.standard_normal((9, 3)), descriptor=d) for d in "ab")
    with pytest.raises(DescriptorMismatch):
        score(a, b)
    with pytest.raises(DescriptorMismatch):
        score(a, a, b)
    with pytest.raises(ValueError, match="at least 9 references"):
        score(a, a, k=9)


def test_coverage_needs_as_many_held_out_images_as_samples(rng, make_features):
    a = make_features(rng.standard_normal((9, 3)))
    with pytest.raises(ValueError, match=r"as many held-out images as samples \(9\), got 7"):
        coverage(a, a, a.take(np.arange(7)))
