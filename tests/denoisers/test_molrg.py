"""A mixture of low-rank Gaussians: the data, the exact denoiser, and the model that can learn it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regimes.denoisers.molrg import LowRankMixture, MoLRGDenoiser, recovery_error
from regimes.errors import ConfigError
from regimes.images.molrg import MoLRG
from regimes.jacobians.linearization import Linearization, full_jacobian
from regimes.jacobians.ranks import numerical_rank
from regimes.jacobians.spectra import full_spectra

PUBLISHED = MoLRG(num_classes=2, dim=6, side=4, channels=3)


def test_subspaces_are_orthonormal_and_mutually_orthogonal():
    config = MoLRG(num_classes=3, dim=5, side=4, channels=3, seed=4)
    columns = config.bases().permute(1, 0, 2).reshape(48, 15)
    torch.testing.assert_close(columns.T @ columns, torch.eye(15).double(), rtol=0, atol=1e-12)
    assert not torch.allclose(config.bases(), MoLRG(num_classes=3, dim=5, seed=5).bases())


def test_points_lie_in_the_subspace_of_their_class_with_unit_variance():
    x, labels = PUBLISHED.draw(4000)
    codes = torch.einsum("bn,knd->kbd", x.flatten(1).double(), PUBLISHED.bases())
    for k in range(2):
        own = codes[k][labels == k]
        # 4000 draws: the covariance is known to 4 / sqrt(4000).
        torch.testing.assert_close(own.T @ own / 4000, torch.eye(6).double(), rtol=0, atol=0.07)
        assert float(codes[k][labels != k].abs().max()) < 1e-6
        assert (
            float((own.square().sum(1) - x[labels == k].flatten(1).square().sum(1)).abs().max())
            < 1e-4
        )
    assert float(x.std()) == pytest.approx(PUBLISHED.std, rel=0.03)


def test_a_seed_fixes_points_and_a_shorter_draw_is_the_beginning_of_a_longer_one():
    x, labels = PUBLISHED.draw(30)
    short, short_labels = PUBLISHED.draw(10)
    assert torch.equal(short, x[:20])
    assert torch.equal(short_labels, labels[:20])
    assert not torch.equal(PUBLISHED.draw(30, "heldout")[0], x)


def test_subspaces_that_do_not_fit_are_refused():
    MoLRG(num_classes=8, dim=6)  # 48 = 4 x 4 x 3
    with pytest.raises(ConfigError, match=r"9 orthogonal subspaces of 6 dimensions.*48"):
        MoLRG(num_classes=9, dim=6)


def by_gaussians(config, x, sigma):
    """The posterior mean of a mixture of Gaussians, by inverting each covariance."""
    bases, n = config.bases(), config.size
    means, logs = [], []
    for U in bases:
        cov = U @ U.T + sigma**2 * torch.eye(n).double()
        means.append(U @ U.T @ torch.linalg.solve(cov, x))
        logs.append(-x @ torch.linalg.solve(cov, x) / 2 - torch.logdet(cov) / 2)
    weights = torch.stack(logs).softmax(0)
    return weights @ torch.stack(means)


@pytest.mark.parametrize("sigma", [0.05, 0.4, 1.0, 5.0])
def test_the_exact_denoiser_is_the_posterior_mean(sigma):
    x = torch.randn(5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = MoLRGDenoiser(PUBLISHED.bases(), PUBLISHED.image_shape)(x, sigma)
    expected = torch.stack([by_gaussians(PUBLISHED, v, sigma) for v in x.flatten(1)])
    # Solving with a covariance of condition 1 / sigma^2 loses three digits at 0.05.
    torch.testing.assert_close(found.flatten(1), expected, rtol=0, atol=1e-9)


def test_the_exact_denoiser_of_a_known_class_is_linear():
    denoiser = MoLRGDenoiser(PUBLISHED.bases(), PUBLISHED.image_shape)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    U = PUBLISHED.bases()[1]
    expected = x.flatten(1) @ U @ U.T / (1 + 0.49)
    found = denoiser(x, 0.7, torch.eye(2)[[1, 1]])
    torch.testing.assert_close(found.flatten(1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("sigma", "rank"), [(0.002, 6), (0.02, 6), (0.1, 6), (10.0, 12), (100.0, 12)]
)
def test_its_rank_is_d_at_low_noise_and_k_d_at_high_noise(sigma, rank):
    x, _ = PUBLISHED.draw(4)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    denoiser = MoLRGDenoiser(PUBLISHED.bases(), PUBLISHED.image_shape)
    local = Linearization(denoiser, x + sigma * noise, sigma)
    spectra = full_spectra(full_jacobian(local, local.value))
    assert [numerical_rank(s, "energy").value for s in spectra] == [rank] * 8
    assert rank / 48 in (0.125, 0.25)


def test_the_learned_mixture_with_the_true_subspaces_is_the_exact_denoiser():
    model = LowRankMixture(PUBLISHED.image_shape, 2, 6)
    turned = PUBLISHED.bases() @ torch.linalg.qr(torch.randn(2, 6, 6).double()).Q
    with torch.no_grad():
        model.theta.copy_(turned.flip(0))  # neither order nor basis of a subspace matters
    x = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    exact = MoLRGDenoiser(PUBLISHED.bases(), PUBLISHED.image_shape)(x, 0.4)
    torch.testing.assert_close(model(x, 0.4).double(), exact, rtol=0, atol=1e-5)
    assert recovery_error(model.bases().detach(), PUBLISHED.bases()) < 1e-6


def test_recovery_error_is_the_missed_share_of_the_subspaces():
    bases = MoLRG(num_classes=4, dim=6).bases()
    assert recovery_error(bases[[1, 0]], bases[:2]) == 0
    assert recovery_error(bases[2:], bases[:2]) == 1
    half = torch.cat([bases[:2, :, :3], bases[2:, :, :3]], dim=2)
    assert recovery_error(half, bases[:2]) == pytest.approx(0.5)


def test_random_subspaces_miss_what_chance_says():
    generator = torch.Generator().manual_seed(0)
    bases = PUBLISHED.bases()[:1]
    errors = [
        recovery_error(LowRankMixture((3, 4, 4), 1, 6, generator).bases().detach(), bases)
        for _ in range(100)
    ]
    assert np.mean(errors) == pytest.approx(1 - 6 / 48, abs=0.02)  # standard error 0.005


def test_bases_that_are_not_orthonormal_are_refused():
    with pytest.raises(ValueError, match="orthonormal"):
        MoLRGDenoiser(2 * PUBLISHED.bases(), PUBLISHED.image_shape)
    with pytest.raises(ValueError, match=r"expected \(K, 48, d\)"):
        MoLRGDenoiser(PUBLISHED.bases()[:, :40], PUBLISHED.image_shape)
