"""The training losses of EDM, VP and VE (Karras et al. 2022, table 1, section 5).

    L = E[ lambda(sigma) ||D(y + sigma n; sigma) - y||^2 ],      n ~ N(0, I)

A loss is a law of the noise level and a weight:

    EDM   ln sigma ~ N(p_mean, p_std^2)                        lambda = (sigma^2 + sd^2) / (sigma sd)^2
    VP    sigma = sigma(t), t uniform on (epsilon_t, 1]         lambda = 1 / sigma^2
    VE    sigma log-uniform on [sigma_min, sigma_max]           lambda = 1 / sigma^2

Each weight makes every noise level contribute 1 per pixel to the loss of an untrained network (its
output is 0) if the pixels have standard deviation sd (EDM), or if D(x) = x to begin with (VP, VE).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regimes.denoisers.preconditioning import VP

Levels = npt.NDArray[np.float64]


class TrainedDenoiser(Protocol):
    """What ``edm_loss`` needs of a denoiser."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """(..., C, H, W) noisy images, (...) noise levels -> (..., C, H, W) estimates."""
        ...


class ConditionedDenoiser(Protocol):
    """What ``weighted_error`` needs of a denoiser."""

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """(B, C, H, W) noisy images, (B,) noise levels, labels -> (B, C, H, W) estimates."""
        ...


class Loss(Protocol):
    """A law of the noise level and a weight."""

    def draw_sigma(self, rng: np.random.Generator, num: int) -> Levels:
        """``num`` noise levels, (num,) float64."""
        ...

    def weight(self, sigma: Tensor) -> Tensor:
        """Lambda, of the shape and dtype of ``sigma``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EDMLoss:
    """Noise levels where learning pays most; unit contribution of each (section 5 of the paper)."""

    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_data: float = 0.5

    def draw_sigma(self, rng: np.random.Generator, num: int) -> Levels:
        """See ``Loss``."""
        return np.exp(self.p_mean + self.p_std * rng.standard_normal(num))

    def weight(self, sigma: Tensor) -> Tensor:
        """See ``Loss``."""
        return _edm_weight(sigma, self.sigma_data)


@dataclass(frozen=True, slots=True, kw_only=True)
class VPLoss:
    """Times of the variance-preserving diffusion, uniformly (Song et al. 2021)."""

    diffusion: VP = field(default_factory=VP)

    def draw_sigma(self, rng: np.random.Generator, num: int) -> Levels:
        """See ``Loss``."""
        t = 1 + rng.random(num) * (self.diffusion.epsilon_t - 1)
        return self.diffusion.sigma(torch.from_numpy(t)).numpy()

    def weight(self, sigma: Tensor) -> Tensor:
        """See ``Loss``."""
        return 1 / sigma**2


@dataclass(frozen=True, slots=True, kw_only=True)
class VELoss:
    """Log-uniform noise levels (Song et al. 2021)."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def draw_sigma(self, rng: np.random.Generator, num: int) -> Levels:
        """See ``Loss``."""
        low, high = math.log(self.sigma_min), math.log(self.sigma_max)
        return np.exp(low + (high - low) * rng.random(num))

    def weight(self, sigma: Tensor) -> Tensor:
        """See ``Loss``."""
        return 1 / sigma**2


def weighted_error(
    denoiser: ConditionedDenoiser,
    loss: Loss,
    y: Tensor,
    sigma: Tensor,
    noise: Tensor,
    *,
    class_labels: Tensor | None = None,
    augment_labels: Tensor | None = None,
) -> Tensor:
    """Weighted squared error per image, summed over its pixels as in the published training.

    Args:
        denoiser: the model.
        loss: gives the weight.
        y: (B, C, H, W) float32, clean images in [-1, 1].
        sigma: (B,) float32, noise levels, drawn from ``loss``.
        noise: (B, C, H, W) float32, standard normal.
        class_labels: (B, L) one-hot rows, or None.
        augment_labels: (B, A), how the images were augmented, or None.

    Returns:
        (B,) float32, at least 0.
    """
    x = y + sigma[:, None, None, None] * noise
    error = denoiser(x, sigma, class_labels, augment_labels) - y
    return loss.weight(sigma) * error.square().sum((-3, -2, -1))


def edm_loss(
    denoiser: TrainedDenoiser, y: Tensor, sigma: Tensor, noise: Tensor, *, sigma_data: float
) -> Tensor:
    """EDM's weighted squared error per image, averaged over its pixels.

    Args:
        denoiser: the model.
        y: (..., C, H, W) float32, clean images in [-1, 1].
        sigma: (...) float32, noise levels.
        noise: (..., C, H, W) float32, standard normal.
        sigma_data: standard deviation of the data.

    Returns:
        (...) float32, at least 0; about 1 for a network whose output is 0.
    """
    error = denoiser(y + sigma[..., None, None, None] * noise, sigma) - y
    return _edm_weight(sigma, sigma_data) * error.square().mean((-3, -2, -1))


def _edm_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
