"""The small network: its size, what it is before training, and that training is a function of its seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from regimes.noise import keyed_generator
from regimes.threads import torch_threads
from regimes.toys.predictor import Predictor, PredictorConfig, train

SHORT = PredictorConfig(width=32, steps=300, batch_size=128)
POINT = np.array([[0.3, -0.2]])


def predictor(config=SHORT, seed=0):
    return Predictor(2, data_variance=0.18, noise_variance=1.0, config=config, seed=seed)


def one_of_two(count, rng):
    """Two points, so that the posterior mean is a tanh."""
    return np.where(rng.random((count, 1)) < 0.5, 0.6, -0.6) * np.array([[1.0, 0.0]])


def test_the_published_network_has_its_size():
    network = predictor(PredictorConfig())
    assert sum(p.numel() for p in network.parameters()) == 33_794


def test_at_small_noise_an_untrained_network_returns_its_input():
    x = keyed_generator("x").standard_normal((100, 2))
    for t in (1e-6, 1e-4):
        off = np.abs(predictor().posterior_mean(x, t) - x).max()
        assert 0 < off < 10 * t**0.5


def test_training_finds_the_posterior_mean():
    config = dataclasses.replace(SHORT, steps=1500)
    network = train(predictor(config), one_of_two, seed=0)
    x = np.stack([np.linspace(-1, 1, 41), np.zeros(41)], axis=1)
    for t in (0.1, 0.5):
        exact = 0.6 * np.tanh(0.6 * x[:, 0] / t)
        found = network.posterior_mean(x, t)
        assert np.abs(found[:, 0] - exact).mean() < 0.05
        assert np.abs(predictor(config).posterior_mean(x, t)[:, 0] - exact).mean() > 0.1


def test_equal_seeds_give_equal_networks():
    found = [
        train(predictor(seed=s), one_of_two, seed=s).posterior_mean(POINT, 0.3) for s in (0, 0, 1)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_no_step_changes_nothing_and_every_step_is_counted():
    untrained = dataclasses.replace(SHORT, steps=0)
    network = train(predictor(untrained), one_of_two, seed=0)
    before = predictor(untrained).posterior_mean(POINT, 0.3)
    np.testing.assert_array_equal(network.posterior_mean(POINT, 0.3), before)
    counted = []
    train(
        predictor(dataclasses.replace(SHORT, steps=7)),
        one_of_two,
        seed=0,
        on_step=lambda: counted.append(1),
    )
    assert len(counted) == 7


def test_threads_are_given_back_whatever_happens():
    before, inside = torch.get_num_threads(), []

    def fail():
        with torch_threads(before + 1):
            inside.append(torch.get_num_threads())
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert (inside, torch.get_num_threads()) == ([before + 1], before)
