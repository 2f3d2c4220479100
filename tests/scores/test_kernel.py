"""Kernel distance against a double loop, torch-fidelity and its expectation."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch_fidelity import metric_kid

from regimes.errors import ConfigError, DescriptorMismatch
from regimes.scores import kernel
from regimes.scores.kernel import kernel_distance, kernel_score, polynomial_kernel


def rows(rng, n, d=5, shift=0.0):
    return (rng.standard_normal((n, d)) + shift).astype(np.float32)


@pytest.fixture(params=[3, 2048])
def block(request, monkeypatch):
    monkeypatch.setattr(kernel, "BLOCK", request.param)


def double_loop(x, y, degree=3):
    k = lambda a, b: (float(a.astype(float) @ b.astype(float)) / len(a) + 1) ** degree  # noqa: E731
    xx = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    return xx + yy - 2 * np.mean([k(a, b) for a in x for b in y])


@pytest.mark.parametrize("degree", [1, 3])
def test_equals_a_double_loop_for_sets_of_different_size(rng, block, degree):
    x, y = rows(rng, 9), rows(rng, 14, shift=0.5)
    expected = double_loop(x, y, degree)
    assert kernel_distance(x, y, degree=degree) == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_equals_torch_fidelity_on_all_items(rng, block):
    # A subset of all items is a permutation, which changes nothing.
    x, y = rows(rng, 40), rows(rng, 40, shift=0.3)
    expected = metric_kid.kid_features_to_metric(
        *(torch.from_numpy(v.astype(float)) for v in (x, y)),
        kid_subsets=1,
        kid_subset_size=40,
        verbose=False,
    )
    assert kernel_distance(x, y) == pytest.approx(
        expected["kernel_inception_distance_mean"], rel=1e-9
    )


def test_of_degree_1_is_known_from_means(rng):
    # E k is <m, m> / D + 1, without the diagonal: the squared distance of means less their noise.
    x, y = rows(rng, 30), rows(rng, 50, shift=1)
    x64, y64 = x.astype(float), y.astype(float)
    mean = ((x64.mean(0) - y64.mean(0)) ** 2).sum()
    noise = sum(v.var(0, ddof=1).sum() / len(v) for v in (x64, y64))
    assert kernel_distance(x, y, degree=1) == pytest.approx((mean - noise) / 5, rel=1e-9)


def test_expectation_is_0_for_one_law_and_the_interval_holds_it(rng, make_features):
    values, hits = [], 0
    for _ in range(80):
        a, b = (make_features(rows(rng, 40, 3), unit=False) for _ in range(2))
        found = kernel_score(a, b, b, num_groups=10)
        values.append(found.value)
        hits += found.low < 0 < found.high
    mean, spread = np.mean(values), np.std(values) / np.sqrt(80)
    assert abs(mean) < 3 * spread  # unbiased, three standard errors
    assert min(values) < 0
    assert hits >= 68  # nominally 76; jackknife intervals of degenerate statistics vary


def test_heldout_images_in_place_of_samples_score_the_null(rng, make_features, block):
    a, b = (make_features(rows(rng, 30), unit=False) for _ in range(2))
    found = kernel_score(a, b, a, num_groups=5)
    assert found.value == pytest.approx(found.null, rel=1e-12)
    assert not found.higher_is_better


def test_a_planted_shift_is_found(rng, make_features):
    sets = [make_features(rows(rng, 60, shift=s), unit=False) for s in (1, 0, 0)]
    found = kernel_score(*sets)
    assert found.low > max(0, found.null)


def test_distances_without_a_group_are_those_of_the_rest(rng):
    sets = [rows(rng, 20).astype(float), rows(rng, 30).astype(float)]
    groups = [np.arange(len(s)) % 4 for s in sets]
    sums = kernel._Sums(sets, groups, 3)
    x, y = (s.astype(np.float64) for s in sets)
    assert sums.distance() == pytest.approx(kernel_distance(x, y), rel=1e-10)
    assert sums.distance(without_x=2) == pytest.approx(
        kernel_distance(x[groups[0] != 2], y), rel=1e-10
    )
    assert sums.distance(without_y=1) == pytest.approx(
        kernel_distance(x, y[groups[1] != 1]), rel=1e-10
    )


def test_subsets_agree_with_the_whole_on_average(rng, make_features):
    sets = [make_features(rows(rng, 60, 3, shift=s), unit=False) for s in (0.5, 0, 0)]
    whole, parts = kernel_score(*sets), kernel_score(*sets, subset_size=20, num_subsets=400)
    assert parts.value == pytest.approx(whole.value, rel=0.15)
    full = kernel_score(*sets, subset_size=60, num_subsets=1)
    assert full.value == pytest.approx(whole.value, rel=1e-10)


def test_the_published_subsets_are_drawn_by_name(rng, make_features):
    sets = [make_features(rows(rng, 50, 3, shift=s), unit=False) for s in (0.5, 0, 0)]
    found = kernel_score(*sets, by="torch-fidelity", subset_size=20, num_subsets=7)
    expected = metric_kid.kid_features_to_metric(
        *(torch.from_numpy(s.values.astype(float)) for s in sets[:2]),
        kid_subsets=7,
        kid_subset_size=20,
        verbose=False,
    )
    assert found.value == expected["kernel_inception_distance_mean"]
    with pytest.raises(ValueError, match="expected 2 to 50 items, got 1000"):
        kernel_score(*sets, by="torch-fidelity")


def test_ignores_the_order_of_items(rng, block):
    x, y = rows(rng, 20), rows(rng, 25)
    mixed = kernel_distance(x[rng.permutation(20)], y[rng.permutation(25)])
    assert kernel_distance(x, y) == pytest.approx(mixed, rel=1e-10)


def test_kernel_of_orthogonal_rows_is_1():
    np.testing.assert_array_equal(polynomial_kernel(np.eye(2), np.eye(2)), [[3.375, 1], [1, 3.375]])


def test_errors_say_what_is_missing(rng, make_features, monkeypatch):
    few, other = (make_features(rows(rng, 12), descriptor=d) for d in "ab")
    with pytest.raises(DescriptorMismatch):
        kernel_score(few, other, other)
    with pytest.raises(ValueError, match="expected 2 to 12 groups"):
        kernel_score(few, few, few)
    with pytest.raises(ValueError, match="expected 2 to 12 items, got 13"):
        kernel_score(few, few, few, num_groups=3, subset_size=13)
    with pytest.raises(ValueError, match="expected 2 rows or more"):
        kernel_distance(few.values[:1], few.values)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ConfigError, match="pip install torch-fidelity"):
        kernel_score(few, few, few, num_groups=3, by="torch-fidelity", subset_size=5)
