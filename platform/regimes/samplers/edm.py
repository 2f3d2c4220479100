"""Sampling: from noise to images, along the probability-flow ODE, with optional churn.

    dx / dsigma = (x - D(x; sigma)) / sigma          (Karras et al. 2022, equation 1)

Algorithm 2 of the paper is here; ``general`` steps in other times and scales, and ``dpmpp`` is a
multistep method. The state is float64; the denoiser computes in its own precision. With
``s_churn = 0`` a sampler is deterministic and draws nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from regimes.errors import ConfigError
from regimes.noise import SeedNoise
from regimes.samplers.config import SampledDenoiser, SamplerConfig
from regimes.samplers.dpmpp import sample_dpmpp_2m
from regimes.samplers.general import sample_general

__all__ = ["SampledDenoiser", "SamplerConfig", "sample", "sample_seeds"]


def sample(
    denoiser: SampledDenoiser,
    latents: Tensor,
    *,
    config: SamplerConfig,
    class_labels: Tensor | None = None,
    step_noise: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Map latents to samples.

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
        ConfigError: if the options do not fit the noise levels that the denoiser knows.
    """
    if config.s_churn > 0 and step_noise is None:
        raise ValueError("s_churn > 0 needs step_noise")
    if config.solver == "dpmpp2m":
        return sample_dpmpp_2m(denoiser, latents, config=config, class_labels=class_labels)
    is_plain = config.schedule == "linear" and config.scaling == "none"
    return (_sample_edm if is_plain else sample_general)(
        denoiser, latents, config=config, class_labels=class_labels, step_noise=step_noise
    )


def _sample_edm(
    denoiser: SampledDenoiser,
    latents: Tensor,
    *,
    config: SamplerConfig,
    class_labels: Tensor | None = None,
    step_noise: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Euler and Heun steps in sigma (algorithm 2)."""
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
    sigma_hat = denoiser.round_sigma(config.churned(sigma))
    added = (sigma_hat**2 - sigma**2).sqrt() * config.s_noise
    return x + added * noise.to(x.device), sigma_hat


def sample_seeds(
    denoiser: SampledDenoiser,
    seeds: Sequence[int],
    image_shape: tuple[int, int, int],
    *,
    config: SamplerConfig,
    num_classes: int = 0,
    class_index: int | None = None,
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
        class_index: class of all samples, from 0 to num_classes - 1; None takes the one that each
            seed draws. A class is drawn in any case, so that the noise of later steps is the same.
        batch_size: seeds per batch; None takes all at once. Changes the samples by rounding only.
        noise_device: where noise is drawn, "cpu" or "cuda".
        device: where the denoiser computes.

    Returns:
        (N, C, H, W) float64 on the CPU, in the order of ``seeds``.

    Raises:
        ConfigError: if ``class_index`` is not a class, the noise device is missing, or the options
            do not fit the denoiser.
    """
    check_class(class_index, num_classes)
    batches = []
    step = batch_size or max(len(seeds), 1)
    for start in range(0, len(seeds), step):
        noise = SeedNoise(seeds[start : start + step], image_shape, device=noise_device)
        latents = noise.latents().to(device)
        labels = _labels(noise, num_classes, class_index)
        with torch.inference_mode():
            x = sample(
                denoiser,
                latents,
                config=config,
                class_labels=None if labels is None else labels.to(device),
                step_noise=noise.step,
            )
        batches.append(x.cpu())
    return torch.cat(batches) if batches else torch.empty((0, *image_shape), dtype=torch.float64)


def seed_labels(noise: SeedNoise, num_classes: int, class_index: int | None) -> Tensor | None:
    """Classes of a batch, of the second draw of every seed: (B, num_classes) float32 one-hot rows.

    Args:
        noise: after its latents.
        num_classes: 0 for an unconditional model, which has None.
        class_index: as of ``sample_seeds``.

    Raises:
        ConfigError: if ``class_index`` is not a class.
    """
    check_class(class_index, num_classes)
    return _labels(noise, num_classes, class_index)


def check_class(class_index: int | None, num_classes: int) -> None:
    """Refuse a class that a model does not have.

    Raises:
        ConfigError: if there is no such class, or the model knows none.
    """
    if class_index is None:
        return
    if not num_classes:
        raise ConfigError(f"class_index: the model is unconditional, got {class_index}")
    if not 0 <= class_index < num_classes:
        raise ConfigError(f"class_index: expected 0 to {num_classes - 1}, got {class_index}")


def _labels(noise: SeedNoise, num_classes: int, class_index: int | None) -> Tensor | None:
    """(B, num_classes) float32 one-hot rows, or None for an unconditional model."""
    if not num_classes:
        return None
    labels = noise.class_labels(num_classes)
    if class_index is None:
        return labels
    chosen = torch.zeros_like(labels)
    chosen[:, class_index] = 1
    return chosen
