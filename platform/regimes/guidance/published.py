"""Particle guidance as a thesis published it, for comparison only; do not sample with it.

The code of Kleutgens 2024 (circle jumping, MNIST) differs from the method it describes:

* kernel exp(-delta / h) with the distance itself, not its square, on D(x) taken to [0, 1];
* h = median^2 / ln B is differentiated too, which adds a push on the one median pair;
* the gradient of the kernels' sum is subtracted from the slope d, so that particles attract;
* latents start at a tenth of the first noise level;
* Heun's corrector evaluates the network at the old state, and is not guided;
* coinciding particles give NaN, upon which the step is not guided at all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from regimes.guidance.sampler import OnStep
from regimes.samplers.edm import SampledDenoiser, SamplerConfig

_START = 0.1


def sample_as_published(
    denoiser: SampledDenoiser,
    latents: Tensor,
    *,
    config: SamplerConfig,
    factor: float,
    group_size: int,
    step_noise: Callable[[], Tensor] | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Map latents to samples as the published code does; arguments as of ``guided_sample``.

    Returns:
        (G B, C, H, W) float64 samples.
    """
    sigmas = config.sigmas(denoiser).to(latents.device)
    x = latents.to(torch.float64) * sigmas[0] * _START
    for sigma, sigma_next in itertools.pairwise(sigmas):
        if step_noise is not None and config.s_churn > 0:
            raised = config.churned(sigma)
            noise = step_noise().to(x.device)
            x = x + (raised**2 - sigma**2).sqrt() * config.s_noise * noise
            sigma = raised
        D = denoiser(x, sigma).to(torch.float64)
        if on_step is not None:
            on_step(float(sigma), x, D)
        push = factor * sigma * published_gradient(D, group_size)
        d = (x - D) / sigma - push
        x_next = x + (sigma_next - sigma) * d
        if config.solver == "heun" and sigma_next > 0:
            d_next = (x_next - denoiser(x, sigma_next)) / sigma_next
            x_next = x + (sigma_next - sigma) * (d + d_next) / 2
        x = x_next
    return x


def published_gradient(D: Tensor, group_size: int) -> Tensor:
    """Derivative of the kernels' sum in z = (D + 1) / 2, through the bandwidth; 0 where it is NaN.

    Args:
        D: (G B, C, H, W) float64 estimates.
        group_size: B.

    Returns:
        The shape of ``D``.
    """
    if group_size == 1:
        return torch.zeros_like(D)
    groups = ((D + 1) / 2).reshape(-1, group_size, D[0].numel())
    return torch.cat([_gradient(z) for z in groups]).reshape(D.shape)


def _gradient(z: Tensor) -> Tensor:
    """Of one group, (B, D) -> (B, D)."""
    i, j = torch.triu_indices(len(z), len(z), 1)
    with torch.enable_grad():
        leaf = z.detach().clone().requires_grad_()
        distances = (leaf[i] - leaf[j]).norm(dim=1)
        h = distances.median() ** 2 / math.log(len(z))
        (gradient,) = torch.autograd.grad((-distances / h).exp().sum(), leaf)
    return gradient if bool(gradient.isfinite().all()) else torch.zeros_like(z)
