"""The linear classifier: that of scikit-learn, and of leaving out every image in turn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV

from regimes.classifiers.ridge import PENALTIES, fit_ridge


def data(n, d, k=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    x = rng.standard_normal((n, d)) + 0.7 * rng.standard_normal((k, d))[labels] + 3
    return torch.from_numpy(x), torch.from_numpy(labels)


def tried(x):
    return np.array(PENALTIES) * float((x - x.mean(0)).square().sum()) / min(x.shape)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (30, 30), (24, 200)])
def test_weights_and_penalty_are_those_of_scikit_learn(n, d):
    x, labels = data(n, d)
    ours = fit_ridge(x, labels, 3)
    y = np.eye(3)[labels]
    theirs = RidgeCV(alphas=tried(x)).fit(x.numpy(), y)  # leaves out each image in turn
    assert ours.penalty == pytest.approx(theirs.alpha_)
    if n > d:  # neither end of what is tried
        assert tried(x)[0] < ours.penalty < tried(x)[-1]
    np.testing.assert_allclose(ours.weights.T, theirs.coef_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ours.scores(x), theirs.predict(x.numpy()), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("n", "d"), [(20, 4), (15, 40)])
def test_the_penalty_has_the_least_error_of_images_left_out_one_by_one(n, d):
    """By fitting n times, without the closed form."""
    x, labels = data(n, d, seed=1)
    y = np.eye(3)[labels]

    def left_out(penalty):
        errors = []
        for i in range(n):
            rest = np.arange(n) != i
            fit = Ridge(penalty).fit(x.numpy()[rest], y[rest])
            errors.append(((fit.predict(x.numpy()[i : i + 1])[0] - y[i]) ** 2).mean())
        return np.mean(errors)

    penalties = tried(x)
    best = penalties[np.argmin([left_out(p) for p in penalties])]
    assert fit_ridge(x, labels, 3).penalty == pytest.approx(best)


def test_scores_do_not_depend_on_scale_place_or_order():
    x, labels = data(40, 6)
    usual = fit_ridge(x, labels, 3).scores(x)
    order = torch.arange(39, -1, -1)
    moved = fit_ridge(1e3 * x[order] - 7e4, labels[order], 3).scores(1e3 * x - 7e4)
    np.testing.assert_allclose(moved, usual, rtol=1e-6, atol=1e-8)


def test_images_that_are_all_equal_give_the_shares_of_the_classes():
    scores = fit_ridge(torch.ones(4, 5), torch.tensor([0, 0, 0, 1]), 2).scores(torch.zeros(2, 5))
    np.testing.assert_allclose(scores, [[0.75, 0.25]] * 2)
