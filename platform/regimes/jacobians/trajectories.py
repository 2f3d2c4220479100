"""The points at which a denoiser is linearised.

On a trajectory, x_i is the state of the sampler at its i-th noise level: what the model itself makes
of noise. At an image, x = y + sigma n: the model's own training law, for images that it may or may
not have seen; one draw n per point serves all levels, so that levels differ in nothing but sigma.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from regimes.errors import ConfigError
from regimes.noise import keyed_generator
from regimes.samplers.config import SampledDenoiser, SamplerConfig
from regimes.samplers.edm import sample


def trajectory(
    denoiser: SampledDenoiser,
    latents: Tensor,
    *,
    config: SamplerConfig,
    class_labels: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The states of a deterministic sampler at its noise levels.

    Args:
        denoiser: the model.
        latents: (B, C, H, W), standard normal.
        config: sampler options: Euler or Heun in sigma itself, without churn.
        class_labels: (B, L) one-hot rows, or None.

    Returns:
        levels (T,) float64, decreasing, the final 0 left out; states (T, B, C, H, W) float64.

    Raises:
        ConfigError: if the sampler is another.
    """
    plain = (config.schedule, config.scaling) == ("linear", "none")
    if config.s_churn > 0 or config.solver == "dpmpp2m" or not plain:
        raise ConfigError(
            "trajectory: expected solver heun or euler, schedule linear, scaling none and no churn, "
            f"got {config.solver}, {config.schedule}, {config.scaling} and s_churn {config.s_churn:g}"
        )
    recorder = _Recorder(denoiser)
    with torch.no_grad():
        sample(recorder, latents, config=config, class_labels=class_labels)
    levels = config.sigmas(denoiser)[:-1]
    return levels, torch.stack([recorder.seen[float(s)] for s in levels])


class _Recorder:
    """A denoiser that keeps the last x it was asked about at every level.

    Heun's method asks twice about a level: at a guess first, and at the state it arrives at last.
    """

    def __init__(self, denoiser: SampledDenoiser) -> None:
        self._denoiser = denoiser
        self.sigma_min, self.sigma_max = denoiser.sigma_min, denoiser.sigma_max
        self.seen: dict[float, Tensor] = {}

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return self._denoiser.round_sigma(sigma)

    def __call__(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        self.seen[float(sigma)] = x.to(torch.float64)
        return self._denoiser(x, sigma, class_labels)


def noise_of(keys: Sequence[tuple[str, int]], image_shape: tuple[int, int, int]) -> Tensor:
    """The noise of points (image id, seed): (P, C, H, W) float64, standard normal, keyed by both."""
    draws = [
        keyed_generator("jacobian noise", image, seed).standard_normal(image_shape)
        for image, seed in keys
    ]
    return torch.from_numpy(np.stack(draws))


def known_levels(denoiser: SampledDenoiser, sigmas: Sequence[float]) -> Tensor:
    """The levels nearest to those asked for that the denoiser knows, (T,) float64.

    Raises:
        ConfigError: if one is outside of the denoiser's range.
    """
    low, high = denoiser.sigma_min, denoiser.sigma_max
    outside = [s for s in sigmas if not low <= s <= high]
    if outside:
        raise ConfigError(
            f"sigmas: the model knows noise levels from {low:g} to {high:g}, got {outside[0]:g}"
        )
    return denoiser.round_sigma(torch.tensor(list(sigmas), dtype=torch.float64)).to(torch.float64)
