"""Scores of classifiers: against scikit-learn, closed forms, simulation, and their null."""

from __future__ import annotations

import math

import numpy as np
import pytest
from classified import planted
from scipy import stats
from sklearn import metrics

from regimes.classifiers import scores
from regimes.classifiers.scores import Predictions
from regimes.errors import BadSource


def random_predictions(k, n=120, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(k).repeat(3), rng.integers(0, k, n - 3 * k)])
    p = rng.dirichlet(np.ones(k), n) + 0.5 * np.eye(k)[labels]
    p = np.round(p, 1) if ties else p
    p = p / p.sum(1, keepdims=True)
    return Predictions(ids=np.arange(n), labels=labels, probabilities=p.astype(np.float32))


@pytest.mark.parametrize("k", [2, 3, 7])
def test_scores_are_those_of_scikit_learn(k):
    p = random_predictions(k)
    y, called = p.labels, p.predicted
    np.testing.assert_allclose(scores.recalls(p), metrics.recall_score(y, called, average=None))
    assert scores.accuracy(p) == pytest.approx(metrics.accuracy_score(y, called))
    expected = metrics.balanced_accuracy_score(y, called)
    assert scores.balanced_accuracy(p) == pytest.approx(expected)
    each = [metrics.roc_auc_score(y == c, p.probabilities[:, c]) for c in range(k)]
    assert scores.auc(p) == pytest.approx(np.mean(each))


@pytest.mark.parametrize("k", [2, 4])
def test_auc_counts_ties_one_half(k):
    p = random_predictions(k, ties=True)
    expected = np.mean(
        [metrics.roc_auc_score(p.labels == c, p.probabilities[:, c]) for c in range(k)]
    )
    assert scores.auc(p) == pytest.approx(expected)


def test_placements_are_counts_of_pairs():
    p = random_predictions(3, n=40, ties=True)
    s = p.probabilities[:, 1].astype(float)
    own, others = s[p.labels == 1], s[p.labels != 1]
    won = (own[:, None] > others) + 0.5 * (own[:, None] == others)
    above, below = scores.placements(p, 1)
    np.testing.assert_allclose(above, won.mean(1))
    np.testing.assert_allclose(below, won.mean(0))


def test_error_of_the_auc_of_two_classes_is_that_of_delong():
    """Var = S10 / m + S01 / n (DeLong et al. 1988), with one score per image."""
    p = random_predictions(2, n=90)
    s = p.probabilities[:, 1].astype(float)
    own, others = s[p.labels == 1], s[p.labels == 0]
    won = (own[:, None] > others).astype(float)
    expected = won.mean(1).var(ddof=1) / len(own) + won.mean(0).var(ddof=1) / len(others)
    found = scores.image_error(scores.image_terms(p, "auc"), p.labels)
    assert found**2 == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "recall"])
def test_terms_add_up_to_their_score(metric):
    p = random_predictions(3)
    label = 2 if metric == "recall" else None
    terms = scores.image_terms(p, metric, label)
    assert terms.sum() == pytest.approx(scores.value(p, metric, label))


def test_error_over_images_of_one_recall_is_binomial():
    p = random_predictions(3)
    n, share = int(p.counts[1]), scores.recalls(p)[1]
    found = scores.image_error(scores.image_terms(p, "recall", 1), p.labels)
    assert found**2 == pytest.approx(share * (1 - share) / (n - 1))  # unbiased: n - 1


@pytest.mark.parametrize("metric", scores.METRICS)
def test_image_interval_covers_the_truth_about_as_often_as_it_says(metric):
    """300 test sets of known rates; 95% within four binomial standard errors, 0.90 to 1."""
    rng = np.random.default_rng(0)
    counts, rates, hits = (40, 60), (0.7, 0.9), 0
    labels = np.repeat([0, 1], counts)
    truth = {"accuracy": 0.82, "balanced_accuracy": 0.8, "auc": stats.norm.cdf(1 / math.sqrt(2))}
    for _ in range(300):
        if metric == "auc":  # the scores of the classes are normal, one standard deviation apart
            s = 1 / (1 + np.exp(-rng.normal(labels, 1)))
        else:
            right = rng.random(100) < np.take(rates, labels)
            s = np.where(right == (labels == 1), 0.9, 0.1)
        p = Predictions(ids=np.arange(100), labels=labels, probabilities=np.stack([1 - s, s], 1))
        low, high = scores.image_interval([p], metric)
        hits += low <= truth[metric] <= high
    assert 0.90 <= hits / 300 <= 1


def test_intervals_of_perfect_calls_leave_doubt():
    p = planted((1.0, 1.0))
    for metric in ("accuracy", "balanced_accuracy"):
        low, high = scores.image_interval([p], metric)
        assert (low < 0.99, high) == (True, 1.0)


def test_balanced_interval_of_one_weight_is_between_its_recalls():
    """MOVER with equal Wilson halves h in both classes has half-width h / sqrt 2."""
    p = planted((0.5, 0.5), counts=(50, 50))
    low, high = scores.image_interval([p], "balanced_accuracy")
    own = scores.image_interval([p], "recall", 0)
    assert high - low == pytest.approx((own[1] - own[0]) / math.sqrt(2))


def test_seed_interval_is_that_of_student():
    values = [0.8, 0.83, 0.79, 0.85]
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert scores.seed_interval(values) == pytest.approx(expected)
    assert all(map(math.isnan, scores.seed_interval([0.8])))


def test_two_sources_of_error_add_in_quadrature():
    assert scores.both(0.5, (0.2, 0.9), (0.1, 0.8)) == pytest.approx((0.0, 1.0))
    assert scores.both(0.5, (0.5, 0.5), (0.4, 0.7)) == pytest.approx((0.4, 0.7))


def test_mcnemar_counts_who_is_right_alone_and_its_p_is_exact():
    def calls(right):
        s = np.where(right, 0.9, 0.1)
        labels = np.array([1] * 10 + [0] * 10)
        s = np.where(labels == 1, s, 1 - s)
        return Predictions(ids=np.arange(20), labels=labels, probabilities=np.stack([1 - s, s], 1))

    first, second = np.ones(20, bool), np.ones(20, bool)
    second[:7], first[12] = False, False
    found = scores.mcnemar(calls(first), calls(second))
    assert (found.only_first, found.only_second) == (7, 1)
    # P(X <= 1 or X >= 7) of 8 coins: 2 (1 + 8) / 256
    assert found.p_value == pytest.approx(18 / 256)
    assert scores.mcnemar(calls(first), calls(first)).p_value == 1


def test_mcnemar_is_rarely_significant_between_equals():
    """Exact tests of discrete data keep their level: at most 5%, plus three standard errors of 300."""
    found = [
        scores.mcnemar(planted((0.8, 0.8), seed=2 * i), planted((0.8, 0.8), seed=2 * i + 1)).p_value
        for i in range(300)
    ]
    assert np.mean(np.array(found) < 0.05) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_p_values_of_seeds_become_twice_their_median():
    assert scores.combined_p([0.01, 0.5, 0.03]) == pytest.approx(0.06)
    assert scores.combined_p([0.04]) == 0.04
    assert scores.combined_p([0.9, 0.8]) == 1
    assert scores.combined_p([0.01, 0.02, 0.03, 0.9]) == pytest.approx(0.06)


def test_holm_is_the_published_step_down():
    assert scores.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert scores.holm([0.9, 0.8]) == [1.0, 1.0]


def test_scores_do_not_depend_on_the_order_of_images():
    p = random_predictions(3)
    order = np.random.default_rng(1).permutation(len(p.labels))
    q = Predictions(ids=p.ids[order], labels=p.labels[order], probabilities=p.probabilities[order])
    for metric in scores.METRICS:
        assert scores.value(p, metric) == pytest.approx(scores.value(q, metric), abs=1e-12)
        assert scores.image_interval([p], metric) == pytest.approx(
            scores.image_interval([q], metric)
        )


def test_a_class_with_one_test_image_is_refused():
    with pytest.raises(
        BadSource, match="at least two of each of 2 classes, got 1 of class number 1"
    ):
        Predictions(
            ids=np.arange(4), labels=np.array([0, 0, 0, 1]), probabilities=np.ones((4, 2)) / 2
        )
