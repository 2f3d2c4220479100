"""The denoisers of a mixture of low-rank Gaussians: the exact one, and the model that can learn it.

For x = U_k a + sigma n with K classes of equal weight and U_k (n, d) orthonormal, integrating over
the class and over a gives

    D(x; sigma) = 1 / (1 + sigma^2)  sum_k w_k U_k U_k^T x
    w = softmax_k( ||U_k^T x||^2 / (2 sigma^2 (1 + sigma^2)) )

because x given class k is Gaussian with covariance U_k U_k^T + sigma^2 I: its determinant is the
same for all k, and its inverse is (I - U_k U_k^T / (1 + sigma^2)) / sigma^2. At low noise one class
wins and the Jacobian has rank d; at high noise all do, and it has rank K d.

``LowRankMixture`` is the same function of bases that are learned: the parametric model of Wang et
al. 2024 (arXiv 2409.02426), orthonormal by construction, with nothing to learn but subspaces.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def mixture_mean(
    x: Tensor, sigma: Tensor, bases: Tensor, class_labels: Tensor | None = None
) -> Tensor:
    """D(x; sigma) for given subspaces.

    Args:
        x: (B, n).
        sigma: (B, 1), positive.
        bases: (K, n, d), orthonormal columns.
        class_labels: (B, K) weights of the classes, where they are known; None infers them.

    Returns:
        (B, n) in the dtype of ``x``. Cost: O(B K n d).
    """
    codes = torch.einsum("bn,knd->bkd", x, bases)
    variance = sigma**2
    logits = codes.square().sum(-1) / (2 * variance * (1 + variance))  # (B, K)
    weights = logits.softmax(1) if class_labels is None else class_labels.to(x)
    return torch.einsum("bk,bkd,knd->bn", weights, codes, bases) / (1 + variance)


class MoLRGDenoiser:
    """The exact posterior mean of a mixture, float64.

    Args:
        bases: (K, n, d), orthonormal columns.
        image_shape: (C, H, W) with n values.

    Raises:
        ValueError: if the bases are not orthonormal or do not fit the images.
    """

    sigma_min = 0.0
    sigma_max = math.inf

    def __init__(self, bases: Tensor, image_shape: tuple[int, int, int]) -> None:
        self.bases, self.image_shape = bases.to(torch.float64), image_shape
        if bases.ndim != 3 or bases.shape[1] != math.prod(image_shape):
            raise ValueError(f"bases: expected (K, {math.prod(image_shape)}, d), got {bases.shape}")
        gram = self.bases.mT @ self.bases
        if not torch.allclose(gram, torch.eye(bases.shape[2]).to(gram), atol=1e-6):
            raise ValueError("bases: expected orthonormal columns")

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Every noise level is known."""
        return sigma

    def __call__(
        self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W) noisy points, (B,) or () sigma -> (B, C, H, W) float64."""
        flat = x.flatten(1).to(torch.float64)
        return _call(flat, sigma, self.bases, class_labels).reshape(x.shape)


class LowRankMixture(nn.Module):
    """The low-rank parametric model: K learned subspaces of d dimensions.

    Args:
        image_shape: (C, H, W).
        num_classes: K.
        dim: d; K d need not fit into n, since learned subspaces may overlap.
        generator: of the initial subspaces.

    The parameter ``theta`` (K, n, d) is free; its bases are the Q of its QR decomposition.
    """

    sigma_min = 0.0
    sigma_max = math.inf

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        dim: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        n = math.prod(image_shape)
        if dim > n:
            raise ValueError(f"dim: expected at most {n}, got {dim}")
        self.image_shape = image_shape
        self.theta = nn.Parameter(torch.randn(num_classes, n, dim, generator=generator) / n**0.5)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Every noise level is known."""
        return sigma

    def bases(self) -> Tensor:
        """(K, n, d), orthonormal columns."""
        return torch.linalg.qr(self.theta).Q

    def forward(
        self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W) noisy points, (B,) or () sigma -> (B, C, H, W) float32."""
        flat = x.flatten(1).to(self.theta.dtype)
        return _call(flat, sigma, self.bases(), class_labels).reshape(x.shape)


def _call(
    flat: Tensor, sigma: Tensor | float, bases: Tensor, class_labels: Tensor | None
) -> Tensor:
    level = torch.as_tensor(sigma, dtype=flat.dtype, device=flat.device).reshape(-1, 1)
    return mixture_mean(flat, level.expand(len(flat), 1), bases.to(flat.device), class_labels)


def recovery_error(found: Tensor, bases: Tensor) -> float:
    """How far K subspaces are from the true ones, in [0, 1], whatever their order.

        min over orders  mean_k  1 - ||U_k^T V_k||_F^2 / d

    0 if every subspace is found; 1 - d / n for random ones, on average and in one order.

    Args:
        found: (K, n, d), orthonormal columns.
        bases: (K, n, d), the true ones, orthonormal columns.
    """
    from scipy.optimize import linear_sum_assignment

    overlap = torch.einsum("knd,lne->klde", found.double(), bases.double()).square().sum((-2, -1))
    cost = 1 - overlap.numpy() / bases.shape[2]
    rows, columns = linear_sum_assignment(cost)
    return float(max(0.0, cost[rows, columns].mean()))
