"""The EDM training loss (Karras et al. 2022, section 5).

    L = E[ lambda(sigma) ||D(y + sigma n; sigma) - y||^2 ],
    ln sigma ~ N(p_mean, p_std^2),   lambda(sigma) = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2

The weight lambda makes every noise level contribute 1 to the loss of an untrained network.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class TrainedDenoiser(Protocol):
    """What the loss needs of a denoiser."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """(..., C, H, W) noisy images, (...) noise levels -> (..., C, H, W) estimates."""
        ...


def edm_loss(
    denoiser: TrainedDenoiser, y: Tensor, sigma: Tensor, noise: Tensor, *, sigma_data: float
) -> Tensor:
    """Weighted squared error per image, averaged over its pixels.

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
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    return weight * error.square().mean((-3, -2, -1))
