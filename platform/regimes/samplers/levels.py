"""Discretizations: which noise levels a sampler visits (Karras et al. 2022, table 1, time steps).

All run from ``sigma_max`` down to ``sigma_min`` in n levels, i = 0 ... n - 1, followed by 0.

    edm    sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho
    vp     sigma_i = sigma(t_i) of the vp schedule, t_i even from 1 to epsilon_s
    ve     sigma_i^2 = sigma_max^2 (sigma_min^2 / sigma_max^2)^(i/(n-1)), a geometric sequence
    iddpm  sigma_i = u_j, even in j among those of the 1000 levels u_j within the range

The vp schedule is the one that passes through both ends of the range. In iddpm the first and last
level are the outermost u_j in the range, and j between them is rounded to the nearest (halves to
even).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from regimes.denoisers.preconditioning import iddpm_levels
from regimes.errors import ConfigError
from regimes.noise import karras_sigmas
from regimes.samplers.schedules import EPSILON_S, VariancePreserving

Discretization = Literal["vp", "ve", "iddpm", "edm"]
IDDPM_LEVELS, IDDPM_C_1, IDDPM_C_2 = 1000, 0.001, 0.008


_RANGES = {"edm": (0.002, 80.0), "ve": (0.02, 100.0), "iddpm": (0.002, 81.0)}


def published_range(discretization: Discretization) -> tuple[float, float]:
    """Default last and first level of a discretization; vp runs from sigma(epsilon_s) to sigma(1)."""
    if discretization != "vp":
        return _RANGES[discretization]
    times = torch.tensor([EPSILON_S, 1.0], dtype=torch.float64, device="cpu")
    low, high = VariancePreserving().sigma(times).tolist()
    return low, high


def noise_levels(
    discretization: Discretization,
    num_steps: int,
    *,
    sigma_min: float,
    sigma_max: float,
    rho: float = 7.0,
    round_sigma: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The levels of a discretization, followed by 0.

    Args:
        discretization: see the module's docstring.
        num_steps: n, number of levels above 0, at least 1; one level is ``sigma_max``.
        sigma_min: last level above 0.
        sigma_max: first level.
        rho: spacing of the edm discretization, not used by the others.
        round_sigma: maps levels to those that a network knows; None keeps them.

    Returns:
        (num_steps + 1,) float64, decreasing to 0.

    Raises:
        ConfigError: if no vp schedule fits the range, or it holds fewer than n iddpm levels.
    """
    if discretization == "edm":
        return karras_sigmas(
            num_steps,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
            rho=rho,
            round_sigma=round_sigma,
        )
    fraction = torch.arange(num_steps, dtype=torch.float64) / max(num_steps - 1, 1)
    if discretization == "vp":
        schedule = VariancePreserving.through(sigma_min, sigma_max)
        sigmas = schedule.sigma(1 + fraction * (EPSILON_S - 1))
    elif discretization == "ve":
        sigmas = sigma_max * (sigma_min / sigma_max) ** fraction
    else:
        sigmas = _iddpm_sigmas(fraction, sigma_min, sigma_max)
    if round_sigma is not None:
        sigmas = round_sigma(sigmas)
    return torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)])


def _iddpm_sigmas(fraction: Tensor, sigma_min: float, sigma_max: float) -> Tensor:
    u = iddpm_levels(IDDPM_LEVELS, IDDPM_C_1, IDDPM_C_2, torch.float64)
    u = u[(u >= sigma_min) & (u <= sigma_max)]
    if len(u) < len(fraction):
        raise ConfigError(
            f"num_steps: discretization iddpm has {len(u)} levels from {sigma_min} to {sigma_max}, "
            f"got {len(fraction)} steps"
        )
    return u[((len(u) - 1) * fraction).round().long()]
