"""DPM-Solver++(2M): a multistep method of order 2 at one evaluation per step.

In lambda = -ln sigma the probability-flow ODE of z = x / s is dz/dlambda = D(z; sigma) - z, whose
solution over a step h = lambda_{i+1} - lambda_i is

    z_{i+1} = e^{-h} z_i + (1 - e^{-h}) D_i,    e^{-h} = sigma_{i+1} / sigma_i

if D does not change along it. Order 2 extrapolates D from the step before:

    D_i = D(z_i) + (h_i / (2 h_{i-1})) (D(z_i) - D(z_{i-1}))

Lu et al. 2022 (DPM-Solver++, arXiv 2211.01095), algorithm 2, data prediction. Only sigma enters:
neither the schedule sigma(t) nor the scaling s(t) changes the samples, because s = 1 at the end.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from regimes.samplers.config import SampledDenoiser, SamplerConfig


def sample_dpmpp_2m(
    denoiser: SampledDenoiser,
    latents: Tensor,
    *,
    config: SamplerConfig,
    class_labels: Tensor | None = None,
) -> Tensor:
    """Map latents to samples; arguments as of ``sample``.

    The first step has no past and the last one, to sigma = 0, has infinite h: both are of order 1.

    Returns:
        (B, C, H, W) float64 samples.
    """
    sigmas = config.sigmas(denoiser).to(latents.device)
    z = latents.to(torch.float64) * sigmas[0]
    before: Tensor | None = None
    h_before = torch.zeros_like(sigmas[0])
    for sigma, sigma_next in itertools.pairwise(sigmas):
        D = D_i = denoiser(z, sigma, class_labels).to(torch.float64)
        h = (sigma / sigma_next).log()
        # A network of few levels can round two steps to one level, and h_before is then 0.
        if before is not None and sigma_next > 0 and h_before > 0:
            D_i = D + h / (2 * h_before) * (D - before)
        ratio = sigma_next / sigma
        z = ratio * z + (1 - ratio) * D_i
        before, h_before = D, h
    return z
