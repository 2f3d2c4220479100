"""The judge of digits: right for real images, and not taken in by broken ones."""

from __future__ import annotations

import functools

import numpy as np
import torch

from regimes.guidance.judge import fit_judge, nearest_distances
from regimes.images.pixels import to_float
from regimes.images.sources import load_images, load_labels, open_source
from regimes.scores.modes import REJECTED


@functools.cache
def digits():
    source = open_source("digits")
    ids, images, _ = load_images(source, image_size=None, channels=None, skip_bad=False)
    order = np.random.default_rng(0).permutation(len(ids))
    return to_float(images[order]), load_labels(source, ids)[order]


@functools.cache
def judge():
    images, labels = digits()
    return fit_judge(images[:1300], labels[:1300], images[1300:1600], labels[1300:1600], seed=0)


def test_real_images_that_no_one_saw_are_told_apart_and_accepted():
    images, labels = digits()
    modes, _ = judge()(images[1600:])
    accepted = modes != REJECTED
    # 197 images, of which 95% or more are accepted by construction: less 3 standard errors.
    assert accepted.mean() > 0.90
    assert (modes[accepted] == labels[1600:][accepted]).mean() > 0.95
    assert judge().accuracy > 0.95
    assert 0.94 < judge().accepted < 1
    assert judge().num_modes == 10


def test_noise_and_blank_images_are_rejected():
    noise = torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for broken in (noise, -torch.ones(5, 1, 8, 8), torch.ones(5, 1, 8, 8)):
        assert (judge()(broken)[0] == REJECTED).all()


def test_averages_of_two_digits_are_rejected_far_more_often_than_digits():
    images, labels = digits()
    mixed = [(a + b) / 2 for a, b, k, m in zip(images[1600:1690], images[1690:1780],
             labels[1600:1690], labels[1690:1780]) if k != m]  # fmt: skip
    modes, distances = judge()(torch.stack(mixed))
    real_modes, real_distances = judge()(images[1600:])
    assert (modes == REJECTED).mean() > 0.6  # found: 0.8
    assert (real_modes == REJECTED).mean() < 0.1
    assert distances.mean() > 1.2 * real_distances.mean()


def test_equal_seeds_give_equal_judges_and_global_generators_are_left_alone():
    images, labels = digits()
    parts = images[:200], labels[:200], images[200:300], labels[200:300]
    before = torch.get_rng_state()
    first, second, other = (fit_judge(*parts, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first.weights[k], second.weights[k]) for k in first.weights)
    assert not torch.equal(first.weights["out"], other.weights["out"])


def test_distance_is_the_root_mean_square_to_the_nearest():
    reference = torch.tensor([[0.0, 0, 0, 0], [1, 1, 1, 1]])
    found = nearest_distances(torch.tensor([[0.0, 0, 0, 1], [1, 1, 1, 1]]), reference)
    torch.testing.assert_close(found, torch.tensor([0.5, 0.0]))
