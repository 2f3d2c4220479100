"""Euler and Heun steps for any schedule sigma(t) and scaling s(t).

    dx/dt = (s'/s) x + (sigma'/sigma) (x - s D(x / s; sigma))    (Karras et al. 2022, equation 4)

Algorithm 1 of the paper, with churn as in algorithm 2: x / s is a noisy image at level sigma, and
noise is added to it. With the linear schedule and s = 1 this is algorithm 2.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regimes.samplers.config import SampledDenoiser, SamplerConfig
from regimes.samplers.schedules import Schedule, make_schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flow:
    """The differential equation: a denoiser, its labels, sigma(t) and s(t)."""

    denoiser: SampledDenoiser
    class_labels: Tensor | None
    schedule: Schedule
    scaled: bool
    """Whether s = 1 / sqrt(1 + sigma^2) instead of 1."""

    def scale(self, sigma: Tensor) -> Tensor:
        """s, as a function of the noise level."""
        return (1 + sigma**2).rsqrt() if self.scaled else torch.ones_like(sigma)

    def slope(self, x: Tensor, t: Tensor, sigma: Tensor) -> Tensor:
        """dx/dt at time t > 0, where the noise level is ``sigma``; one evaluation."""
        s, sigma_slope = self.scale(sigma), self.schedule.slope(t)
        D = self.denoiser(x / s, sigma, self.class_labels)
        d = sigma_slope / sigma * (x - s * D)
        if self.scaled:  # s'/s = -sigma sigma' / (1 + sigma^2)
            d = d - sigma * sigma_slope / (1 + sigma**2) * x
        return d


def sample_general(
    denoiser: SampledDenoiser,
    latents: Tensor,
    *,
    config: SamplerConfig,
    class_labels: Tensor | None = None,
    step_noise: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Map latents to samples along any schedule and scaling; arguments as of ``sample``.

    Returns:
        (B, C, H, W) float64 samples.
    """
    flow = _Flow(
        denoiser=denoiser,
        class_labels=class_labels,
        schedule=make_schedule(config.schedule, *config.clipped_range(denoiser)),
        scaled=config.scaling == "vp",
    )
    sigmas = config.sigmas(denoiser).to(latents.device)
    x = latents.to(torch.float64) * sigmas[0] * flow.scale(sigmas[0])
    for sigma, sigma_next in itertools.pairwise(sigmas):
        if step_noise is not None and config.s_churn > 0:
            x, sigma = _churn(flow, x, sigma, step_noise(), config)
        x = _step(flow, x, sigma, sigma_next, heun=config.solver == "heun")
    return x


def _step(flow: _Flow, x: Tensor, sigma: Tensor, sigma_next: Tensor, *, heun: bool) -> Tensor:
    """One step from ``sigma`` to ``sigma_next``; the step to 0 is always Euler's."""
    t, t_next = flow.schedule.time(sigma), flow.schedule.time(sigma_next)
    d = flow.slope(x, t, sigma)
    x_next = x + (t_next - t) * d
    if heun and sigma_next > 0:
        d_next = flow.slope(x_next, t_next, sigma_next)
        x_next = x + (t_next - t) * (d + d_next) / 2
    return x_next


def _churn(
    flow: _Flow, x: Tensor, sigma: Tensor, noise: Tensor, config: SamplerConfig
) -> tuple[Tensor, Tensor]:
    """Raise the noise level of x / s before a step."""
    sigma_hat = flow.denoiser.round_sigma(config.churned(sigma))
    added = (sigma_hat**2 - sigma**2).sqrt() * config.s_noise
    s, s_hat = flow.scale(sigma), flow.scale(sigma_hat)
    return s_hat / s * x + added * s_hat * noise.to(x.device), sigma_hat
