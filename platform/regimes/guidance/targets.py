"""Distributions whose denoiser and modes are known exactly: the test bench of guided sampling.

A mixture of K isotropic Gaussians, sum_k w_k N(c_k, s^2 I), has the denoiser

    D(x; sigma) = (s^2 x + sigma^2 sum_k r_k c_k) / (s^2 + sigma^2),
    r = softmax_k( ln w_k - |x - c_k|^2 / (2 (s^2 + sigma^2)) )

``ring`` puts K of them on the unit circle, as the experiment of Corso et al. 2024 does; ``jumps`` are
images of a glyph moved in eight directions, as the frames of the circle-jumping data set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

RING_STD = math.sqrt(0.005)
JUMP_DIRECTIONS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
"""(dx, dy), y downward: left, down-left, down, down-right, right, up-right, up, up-left."""
_JUMP, _SIDE, _GLYPH = 4, 32, 16


class MixtureDenoiser:
    """The exact denoiser of a mixture of isotropic Gaussians, float64.

    Args:
        centres: (K, C, H, W).
        std: s, of every component; 0 for points.
        weights: K positive numbers that add up to 1; None for equal ones.
    """

    sigma_min = 0.0
    sigma_max = math.inf

    def __init__(self, centres: Tensor, std: float, weights: Sequence[float] | None = None) -> None:
        count = len(centres)
        probabilities = [1 / count] * count if weights is None else list(weights)
        if len(probabilities) != count or min(probabilities) <= 0:
            raise ValueError(f"weights: expected {count} positive numbers, got {weights}")
        if not math.isclose(sum(probabilities), 1, rel_tol=1e-9):
            raise ValueError(f"weights: expected a sum of 1, got {sum(probabilities)}")
        self.centres, self.std = centres.to(torch.float64), std
        self.weights = torch.tensor(probabilities, dtype=torch.float64)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a sample."""
        channels, height, width = self.centres.shape[1:]
        return channels, height, width

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Every noise level is known."""
        return sigma

    def __call__(
        self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W) noisy images, (B,) or () sigma -> (B, C, H, W) float64."""
        flat = x.flatten(1).to(torch.float64)
        level = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1, 1).expand(len(flat), 1)
        centres, total = self.centres.flatten(1), level**2 + self.std**2
        half = (flat @ centres.T - centres.square().sum(1) / 2) / total
        mean = (half + self.weights.log()).softmax(1) @ centres
        return ((self.std**2 * flat + level**2 * mean) / total).reshape(x.shape)

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The component of every sample and the distance to its centre: (N,) int64 and float64."""
        flat = x.flatten(1).to(torch.float64)
        distances, modes = torch.cdist(flat, self.centres.flatten(1)).min(1)
        return modes, distances

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Independent samples of the mixture itself, (count, C, H, W) float64."""
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn((count, *self.image_shape), generator=generator, dtype=torch.float64)
        return self.centres[which] + self.std * noise

    def latents(self, noise: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
        """Latents whose multiple by sigma is exactly the mixture noised to sigma.

        Pure noise would do only where sigma is far beyond the distances between modes; with unequal
        modes it shifts their shares.
        """
        return self.draw(len(noise), generator) / sigma + noise


def ring(
    modes: int = 10, *, std: float = RING_STD, weights: Sequence[float] | None = None
) -> MixtureDenoiser:
    """Gaussians evenly on the unit circle, as images of two pixels (1, 1, 2)."""
    angles = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
    centres = torch.stack([angles.cos(), angles.sin()], 1).reshape(modes, 1, 1, 2)
    return MixtureDenoiser(centres, std, weights)


def jumps(*, std: float = 0.0, weights: Sequence[float] | None = None) -> MixtureDenoiser:
    """A ring-shaped glyph, 16x16 in 32x32 pixels in [-1, 1], moved by the eight jumps of 4 pixels."""
    axis = torch.arange(_GLYPH, dtype=torch.float64) - (_GLYPH - 1) / 2
    radius = (axis[:, None] ** 2 + axis[None] ** 2).sqrt()
    glyph = (-(((radius - 5) / 1.2) ** 2)).exp()
    images = torch.zeros(len(JUMP_DIRECTIONS), 1, _SIDE, _SIDE, dtype=torch.float64)
    for image, (dx, dy) in zip(images, JUMP_DIRECTIONS, strict=True):
        x, y = 8 + _JUMP * dx, 8 + _JUMP * dy
        image[0, y : y + _GLYPH, x : x + _GLYPH] = glyph
    return MixtureDenoiser(2 * images - 1, std, weights)
