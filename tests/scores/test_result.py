"""The interval of a proportion, and the shape of a result."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from regimes.scores.result import proportion, wilson_interval


@pytest.mark.parametrize(
    ("k", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (3, 1000), (0, 1), (1, 1)]
)
def test_wilson_interval_equals_scipy(k, n):
    for confidence in (0.8, 0.95, 0.99):
        expected = binomtest(k, n).proportion_ci(confidence, method="wilson")
        assert wilson_interval(k, n, confidence=confidence) == pytest.approx(expected, abs=1e-12)


def test_wilson_interval_is_exact_at_both_ends():
    assert wilson_interval(0, 17)[0] == 0.0
    assert wilson_interval(17, 17)[1] == 1.0


def test_wilson_interval_is_symmetric():
    low, high = wilson_interval(3, 20)
    assert (1 - high, 1 - low) == pytest.approx(wilson_interval(17, 20), abs=1e-12)


def test_wilson_interval_covers_the_truth_as_often_as_it_says():
    n, p = 200, 0.1
    weights = binom.pmf(np.arange(n + 1), n, p)
    inside = [low <= p <= high for low, high in (wilson_interval(k, n) for k in range(n + 1))]
    assert float(weights @ inside) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (0, 0)])
def test_wilson_interval_refuses_impossible_counts(k, n):
    with pytest.raises(ValueError, match="0 <= successes <= trials and trials >= 1"):
        wilson_interval(k, n)


def score(hits, **options):
    settings = {"null": 0.2, "threshold": 0.6, "num_train": 3, "descriptor": "d"}
    return proportion("s", np.array(hits), higher_is_better=True, **(settings | options))


def test_proportion_is_the_fraction_with_its_interval():
    found = score([True, False, False, True, True], per_item={"id": np.arange(5)})
    assert found.value == pytest.approx(0.6, abs=1e-15)
    assert (found.low, found.high) == wilson_interval(3, 5)
    assert (found.name, found.null, found.threshold) == ("s", 0.2, 0.6)
    assert (found.num_generated, found.num_train, found.descriptor) == (5, 3, "d")
    assert found.higher_is_better is True
    np.testing.assert_array_equal(found.per_item["id"], np.arange(5))


def test_proportion_of_nothing_is_refused():
    with (
        pytest.raises(ValueError, match="trials >= 1"),
    ):
        score(np.empty(0, bool))


def test_score_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        score([True]).value = 1.0
