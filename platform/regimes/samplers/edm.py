"""The EDM sampler: Euler or Heun steps along the probability-flow ODE, with optional churn.

    dx / dsigma = (x - D(x; sigma)) / sigma          (Karras et al. 2022, equation 1)

Algorithm 2 of the paper. The state is float64; the denoiser computes in its own precision.
With ``s_churn = 0`` the sampler is deterministic and draws nothing; with ``solver="euler"`` it is
first order and costs one evaluation per step instead of two.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from regimes.errors import ConfigError
from regimes.noise import SeedNoise, karras_sigmas


class SampledDenoiser(Protocol):
    """What the sampler needs of a denoiser (``Denoiser`` and the closed forms have it)."""

    @property
    def sigma_min(self) -> float:
        """Lowest noise level that can be asked for."""
        ...

    @property
    def sigma_max(self) -> float:
        """Highest noise level that can be asked for."""
        ...

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest noise level that the denoiser knows."""
        ...

    def __call__(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W) noisy images, () noise level -> (B, C, H, W) estimates of the clean ones."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerConfig:
    """Options of the EDM sampler; the defaults are those of the paper for 32x32 images."""

    num_steps: int = 18
    """Noise levels above 0; Heun costs 2 num_steps - 1 evaluations."""
    sigma_min: float = 0.002
    """Last noise level above 0 (raised to the network's own limit)."""
    sigma_max: float = 80.0
    """First noise level (lowered to the network's own limit)."""
    rho: float = 7.0
    """Spacing of the levels."""
    solver: Literal["euler", "heun"] = "heun"
    """Order 1 or 2."""
    s_churn: float = 0.0
    """Amount of noise added per step; 0 is the deterministic ODE."""
    s_min: float = 0.0
    """Churn only at noise levels from here ..."""
    s_max: float = math.inf
    """... to here."""
    s_noise: float = 1.0
    """Standard deviation of the added noise."""

    def __post_init__(self) -> None:
        """Refuse what the sampler could not run."""
        if self.num_steps < 1:
            raise ConfigError(f"num_steps: expected at least 1, got {self.num_steps}")
        if not 0 < self.sigma_min <= self.sigma_max:
            raise ConfigError(
                f"sigma_min, sigma_max: expected 0 < sigma_min <= sigma_max, "
                f"got {self.sigma_min} and {self.sigma_max}"
            )
        if self.rho <= 0:
            raise ConfigError(f"rho: expected a number above 0, got {self.rho}")
        if self.solver not in ("euler", "heun"):
            raise ConfigError(f"solver: expected 'euler' or 'heun', got {self.solver!r}")
        if self.s_churn < 0:
            raise ConfigError(f"s_churn: expected 0 or more, got {self.s_churn}")

    @property
    def num_evaluations(self) -> int:
        """Denoiser calls per sample."""
        return 2 * self.num_steps - 1 if self.solver == "heun" else self.num_steps

    def sigmas(self, denoiser: SampledDenoiser) -> Tensor:
        """The grid for this denoiser, (num_steps + 1,) float64, ending in 0."""
        return karras_sigmas(
            self.num_steps,
            sigma_min=max(self.sigma_min, denoiser.sigma_min),
            sigma_max=min(self.sigma_max, denoiser.sigma_max),
            rho=self.rho,
            round_sigma=denoiser.round_sigma,
        )


def sample(
    denoiser: SampledDenoiser,
    latents: Tensor,
    *,
    config: SamplerConfig,
    class_labels: Tensor | None = None,
    step_noise: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Map latents to samples (Karras et al. 2022, algorithm 2).

    Args:
        denoiser: the model.
        latents: (B, C, H, W), standard normal, any float dtype.
        config: sampler options.
        class_labels: (B, L) float32 one-hot rows, or None.
        step_noise: returns (B, C, H, W) float64, standard normal; called once per step, and only if
            ``config.s_churn > 0``.

    Returns:
        (B, C, H, W) float64 samples, about in [-1, 1] (not clipped).

    Raises:
        ValueError: if churn is asked for without ``step_noise``.
    """
    if config.s_churn > 0 and step_noise is None:
        raise ValueError("s_churn > 0 needs step_noise")
    sigmas = config.sigmas(denoiser).to(latents.device)
    x = latents.to(torch.float64) * sigmas[0]
    for sigma, sigma_next in itertools.pairwise(sigmas):
        if step_noise is not None and config.s_churn > 0:
            x, sigma = _churn(denoiser, x, sigma, step_noise(), config)
        d = (x - denoiser(x, sigma, class_labels)) / sigma
        x_next = x + (sigma_next - sigma) * d
        if config.solver == "heun" and sigma_next > 0:
            d_next = (x_next - denoiser(x_next, sigma_next, class_labels)) / sigma_next
            x_next = x + (sigma_next - sigma) * (d + d_next) / 2
        x = x_next
    return x


def _churn(
    denoiser: SampledDenoiser, x: Tensor, sigma: Tensor, noise: Tensor, config: SamplerConfig
) -> tuple[Tensor, Tensor]:
    """Raise the noise level of ``x`` before a step (lines 5 and 6 of algorithm 2)."""
    inside = config.s_min <= sigma <= config.s_max
    gamma = min(config.s_churn / config.num_steps, math.sqrt(2) - 1) if inside else 0.0
    sigma_hat = denoiser.round_sigma(sigma + gamma * sigma)
    added = (sigma_hat**2 - sigma**2).sqrt() * config.s_noise
    return x + added * noise.to(x.device), sigma_hat


def sample_seeds(
    denoiser: SampledDenoiser,
    seeds: Sequence[int],
    image_shape: tuple[int, int, int],
    *,
    config: SamplerConfig,
    num_classes: int = 0,
    batch_size: int | None = None,
    noise_device: str = "cpu",
    device: str = "cpu",
) -> Tensor:
    """Samples of the given seeds, each determined by its seed (see ``regimes.noise``).

    Args:
        denoiser: the model, on ``device``.
        seeds: N integers.
        image_shape: (C, H, W) of one sample.
        config: sampler options.
        num_classes: 0 for an unconditional model.
        batch_size: seeds per batch; None takes all at once. Changes the samples by rounding only.
        noise_device: where noise is drawn, "cpu" or "cuda".
        device: where the denoiser computes.

    Returns:
        (N, C, H, W) float64 on the CPU, in the order of ``seeds``.
    """
    batches = []
    step = batch_size or max(len(seeds), 1)
    for start in range(0, len(seeds), step):
        noise = SeedNoise(seeds[start : start + step], image_shape, device=noise_device)
        latents = noise.latents().to(device)
        labels = noise.class_labels(num_classes).to(device) if num_classes else None
        with torch.inference_mode():
            x = sample(denoiser, latents, config=config, class_labels=labels, step_noise=noise.step)
        batches.append(x.cpu())
    return torch.cat(batches) if batches else torch.empty((0, *image_shape), dtype=torch.float64)
