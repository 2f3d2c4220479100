"""The laws of the three published losses, and the weighted error."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from regimes.denoisers.preconditioning import VP
from regimes.training.loss import EDMLoss, VELoss, VPLoss, edm_loss, weighted_error

NUM = 40_000


def draw(loss):
    return loss.draw_sigma(np.random.default_rng(5), NUM)


def test_edm_noise_levels_are_log_normal():
    ln = np.log(draw(EDMLoss()))
    # Four standard errors: 1.2 / sqrt(40000) of the mean, 1.2 / sqrt(80000) of the deviation.
    assert abs(ln.mean() + 1.2) < 4 * 1.2 / math.sqrt(NUM)
    assert abs(ln.std() - 1.2) < 4 * 1.2 / math.sqrt(2 * NUM)


def test_ve_noise_levels_are_log_uniform_between_the_published_limits():
    u = (np.log(draw(VELoss())) - math.log(0.02)) / math.log(100 / 0.02)
    assert 0 <= u.min() < 1e-3
    assert 1 - 1e-3 < u.max() <= 1
    # Kolmogorov-Smirnov distance to the uniform law; 1.95 / sqrt(n) has probability 0.001.
    distance = np.abs(np.sort(u) - (np.arange(NUM) + 0.5) / NUM).max()
    assert distance < 1.95 / math.sqrt(NUM)


def test_vp_noise_levels_are_those_of_uniform_times():
    sigma = draw(VPLoss())
    t = VP().time(torch.from_numpy(sigma)).numpy()
    assert 0 < t.min() < 1e-3
    assert 1 - 1e-3 < t.max() <= 1
    distance = np.abs(np.sort(t) - (np.arange(NUM) + 0.5) / NUM).max()
    assert distance < 1.95 / math.sqrt(NUM)


def test_vp_noise_level_follows_the_published_formula():
    class Fixed:
        def random(self, num):
            return np.array([0.0, 0.25, 1.0])[:num]

    t = np.array([1.0, 1 + 0.25 * (1e-5 - 1), 1e-5])
    expected = np.sqrt(np.exp(19.9 * t**2 / 2 + 0.1 * t) - 1)
    np.testing.assert_allclose(VPLoss().draw_sigma(Fixed(), 3), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        (EDMLoss(), lambda s: (s**2 + 0.25) / (0.5 * s) ** 2),
        (VPLoss(), lambda s: s**-2.0),
        (VELoss(), lambda s: s**-2.0),
    ],
)
def test_weights_are_the_published_ones(loss, formula):
    sigma = np.array([0.001, 0.02, 0.5, 3.0, 100.0])
    np.testing.assert_allclose(loss.weight(torch.from_numpy(sigma)), formula(sigma), rtol=1e-12)


@pytest.mark.parametrize("loss", [VPLoss(), VELoss()])
def test_a_denoiser_that_does_nothing_has_error_1_per_pixel_at_every_level(loss, torch_rng):
    y = torch.rand((4, 3, 8, 8), generator=torch_rng, dtype=torch.float64) * 2 - 1
    noise = torch.randn((4, 3, 8, 8), generator=torch_rng, dtype=torch.float64)
    sigma = torch.tensor([0.02, 0.3, 4.0, 90.0], dtype=torch.float64)
    error = weighted_error(lambda x, *_: x, loss, y, sigma, noise)
    torch.testing.assert_close(error, noise.square().sum((1, 2, 3)))


def test_weighted_error_sums_what_edm_loss_averages(torch_rng):
    y = torch.rand((4, 3, 6, 6), generator=torch_rng) * 2 - 1
    noise = torch.randn((4, 3, 6, 6), generator=torch_rng)
    sigma = torch.tensor([0.02, 0.3, 4.0, 70.0])
    summed = weighted_error(lambda x, *_: 0.3 * x, EDMLoss(), y, sigma, noise)
    mean = edm_loss(lambda x, _: 0.3 * x, y, sigma, noise, sigma_data=0.5)
    torch.testing.assert_close(summed, mean * 3 * 6 * 6)


def test_labels_reach_the_denoiser(torch_rng):
    y, sigma = torch.zeros((2, 1, 4, 4)), torch.ones(2)
    seen = []

    def denoiser(x, sigma, class_labels, augment_labels):
        seen.append((class_labels, augment_labels))
        return x

    classes, conditions = torch.eye(2), torch.rand((2, 9), generator=torch_rng)
    weighted_error(denoiser, VELoss(), y, sigma, y, class_labels=classes, augment_labels=conditions)
    assert seen == [(classes, conditions)]
