"""Denoisers that need no training because the answer is known.

* ``EmpiricalDenoiser``: E[y | x] when y is one of N training images. It is what a network of
  unlimited capacity would learn, and sampling from it returns training images: a perfect memorizer.
* ``WienerDenoiser``: E[y | x] when y is Gaussian with the mean and covariance of the training
  images, hence the best *linear* denoiser. A model that only matches it has learned nothing more
  than second-order statistics.

Both are called like any denoiser, ``D(x, sigma)``, and work with every solver.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class _ClosedForm:
    """A denoiser valid at every noise level, float64 inside."""

    sigma_min = 0.0
    sigma_max = math.inf

    def __init__(self, images: Tensor) -> None:
        if images.ndim != 4 or len(images) == 0:
            raise ValueError(
                f"images: expected (N, C, H, W) with N >= 1, got {tuple(images.shape)}"
            )
        self.y = images.flatten(1).to(torch.float64)  # (N, D)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Every noise level is known."""
        return sigma

    @staticmethod
    def _flat(x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) and (B,) or () -> (B, D) and (B, 1), float64."""
        level = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).reshape(-1, 1)
        return x.flatten(1).to(torch.float64), level.expand(len(x), 1)


class WeightsSummary(NamedTuple):
    """How many training images the empirical denoiser averages; each (B,) float64."""

    effective_sample_size: Tensor
    """1 / sum_i w_i^2, from 1 (one image) to N (all alike)."""
    entropy: Tensor
    """-sum_i w_i ln w_i in nats, from 0 to ln N."""


class EmpiricalDenoiser(_ClosedForm):
    """The optimal denoiser of a finite training set.

        D(x; sigma) = sum_i w_i y_i,   w = softmax_i( -||x - y_i||^2 / (2 sigma^2) )

    The exponent is evaluated as (x . y_i - ||y_i||^2 / 2) / sigma^2 (||x||^2 cancels in the
    softmax), so that the cost is two matrix products; a running log-sum-exp over tiles of the
    training set keeps memory at B x tile. All in float64: at sigma = 0.002 the exponents reach 1e9.
    At low noise nearly all weights are exactly 0, and the second product leaves those images out.

    Args:
        images: (N, C, H, W), training images in [-1, 1]; they stay resident on their device.
        tile: training images per tile.

    Cost: O(B N D) time per call, O(B tile + N D) memory.
    Source: Karras et al. 2022, appendix B.3 (the ideal denoiser of a finite set).
    """

    def __init__(self, images: Tensor, *, tile: int = 4096) -> None:
        super().__init__(images)
        self.tile = tile
        self._half_norms = self.y.square().sum(1) / 2  # (N,)

    def __call__(
        self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W) noisy images, (B,) or () sigma -> (B, C, H, W) float64."""
        flat, level = self._flat(x, sigma)
        total, mean = flat.new_zeros((len(flat), 1)), torch.zeros_like(flat)
        for y, weights, carry in self._tiles(flat, level):
            total = total * carry + weights.sum(1, keepdim=True)
            mean = mean * carry + _sparse_product(weights, y)
        return (mean / total).reshape(x.shape)

    def weights_summary(self, x: Tensor, sigma: Tensor | float) -> WeightsSummary:
        """How concentrated the weights are: does the denoiser average, or copy one image?

        An image that occurs k times in the training set counts as k images with equal weights.

        Args:
            x: (B, C, H, W), noisy images.
            sigma: (B,) or (), positive noise levels.

        Returns:
            Effective sample size and entropy. Cost: half of a call, and as little memory.
        """
        flat, level = self._flat(x, sigma)
        total, squares, logs = (flat.new_zeros((len(flat), 1)) for _ in range(3))
        for _, weights, carry in self._tiles(flat, level):
            # logs is sum_i w_i ln w_i; with all weights multiplied by c, it gains total c ln c.
            logs = logs * carry + total * torch.special.xlogy(carry, carry)
            logs = logs + torch.special.xlogy(weights, weights).sum(1, keepdim=True)
            squares = squares * carry**2 + weights.square().sum(1, keepdim=True)
            total = total * carry + weights.sum(1, keepdim=True)
        entropy = total.log() - logs / total
        return WeightsSummary((total**2 / squares)[:, 0], entropy[:, 0])

    def _tiles(self, flat: Tensor, level: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Tiles of the training set with their weights, relative to the largest weight so far.

        Yields:
            y (tile, D); weights (B, tile) in [0, 1]; carry (B, 1), the factor by which what was
            summed over earlier tiles has to be multiplied because a larger weight was met.
        """
        shift = flat.new_full((len(flat), 1), -math.inf)
        for start in range(0, len(self.y), self.tile):
            y = self.y[start : start + self.tile]
            logits = (flat @ y.T - self._half_norms[start : start + self.tile]) / level**2
            shift_new = torch.maximum(shift, logits.amax(1, keepdim=True))
            yield y, (logits - shift_new).exp(), (shift - shift_new).exp()
            shift = shift_new


def _sparse_product(weights: Tensor, y: Tensor) -> Tensor:
    """``weights @ y`` without the rows of y that no weight reaches; they would add exact zeros."""
    used = (weights > 0).any(0).nonzero()[:, 0]
    if 2 * len(used) > len(y):  # gathering rows costs as much as it saves
        return weights @ y
    return weights[:, used] @ y[used]


class WienerDenoiser(_ClosedForm):
    """The optimal denoiser of a Gaussian: the best linear one for given second moments.

        D(x; sigma) = mu + U diag(l / (l + sigma^2)) U^T (x - mu),   cov = U diag(l) U^T

    Args:
        images: (N, C, H, W), training images in [-1, 1]; mean and covariance (1/N) are fitted here.

    Cost: O(N D min(N, D)) once, O(B D min(N, D)) per call.
    Source: the Wiener filter; for diffusion models, Li et al. 2024 (arXiv 2410.24060).
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__(images)
        self.mu = self.y.mean(0)
        _, singular, Vh = torch.linalg.svd(self.y - self.mu, full_matrices=False)
        self.basis = Vh  # (R, D) rows are principal directions
        self.variances = singular**2 / len(self.y)  # (R,)

    def __call__(
        self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W) noisy images, (B,) or () sigma -> (B, C, H, W) float64."""
        flat, level = self._flat(x, sigma)
        coordinates = (flat - self.mu) @ self.basis.T
        shrunk = coordinates * self.variances / (self.variances + level**2)
        return (self.mu + shrunk @ self.basis).reshape(x.shape)
