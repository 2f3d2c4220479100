"""Two-layer classifiers: what they can learn, and what they depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regimes.classifiers.ridge import fit_ridge
from regimes.classifiers.two_layer import TwoLayerConfig, train_two_layers
from regimes.errors import ConfigError


def exclusive_or(n, seed):
    """Two classes that no line separates."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, 2))
    return torch.from_numpy(x.astype(np.float32)), (x[:, 0] * x[:, 1] > 0).astype(np.int64)


X, Y = exclusive_or(200, 0)
ROWS = np.stack([np.arange(120), np.arange(120)[::-1], np.arange(80, 200)])


def trained(rows=ROWS, seeds=(0, 1, 2), x=X, **options):
    labels = Y[rows]
    return train_two_layers(x, rows, labels, 2, seeds=seeds, config=TwoLayerConfig(**options))


def test_they_learn_what_no_linear_classifier_can():
    x, y = exclusive_or(400, 1)
    scores = trained().scores(x)
    assert scores.shape == (3, 400, 2)
    np.testing.assert_allclose(scores.sum(2), 1, rtol=1e-5)
    assert ((scores.argmax(2) == y).mean(1) > 0.9).all()
    linear = fit_ridge(X, torch.from_numpy(Y), 2).scores(x)
    assert (linear.argmax(1) == y).mean() < 0.65


def test_members_depend_on_their_seed_and_images_alone():
    together = trained(steps=50).scores(X)
    np.testing.assert_array_equal(trained(steps=50).scores(X), together)
    alone = [trained(ROWS[i : i + 1], (i,), steps=50).scores(X)[0] for i in range(3)]
    np.testing.assert_allclose(np.stack(alone), together, atol=1e-4)
    other = trained(ROWS[:1], (7,), steps=50).scores(X)[0]
    assert np.abs(other - together[0]).max() > 1e-3


def test_scale_and_place_of_the_images_do_not_matter():
    moved = trained(x=100 * X + 50, steps=50).scores(100 * X + 50)
    np.testing.assert_allclose(moved, trained(steps=50).scores(X), atol=1e-3)


def test_labels_are_those_of_the_listed_rows():
    """Flipped labels of the same images give the mirrored classifier: the other class has its scores."""
    rows = ROWS[:1]
    usual = train_two_layers(X, rows, Y[rows], 2, seeds=(0,)).scores(X)
    flipped = train_two_layers(X, rows, 1 - Y[rows], 2, seeds=(0,)).scores(X)
    np.testing.assert_allclose(flipped[..., ::-1], usual, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps: expected at least 1"),
        ({"hidden": 0}, "hidden: expected at least 1"),
        ({"learning_rate": 0.0}, "learning_rate: expected above 0"),
        ({"weight_decay": -1.0}, "weight_decay: expected 0 or more"),
    ],
)
def test_options_without_sense_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        TwoLayerConfig(**options)
