"""Time: the noise level sigma(t) along which a solver steps, and the scale s of its state.

    linear  sigma = t
    ve      sigma = sqrt(t)
    vp      sigma = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1)

The state is s y + s sigma n: scaling none is s = 1, scaling vp is s = 1 / sqrt(1 + sigma^2), which
keeps the variance bounded. Karras et al. 2022, table 1. Times and levels are float64 tensors of any
shape; t = 0 is sigma = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from regimes.errors import ConfigError

EPSILON_S = 1e-3
"""Time of the last level above 0 in the vp discretization (table 1, epsilon_s)."""


class Schedule(Protocol):
    """An increasing sigma(t)."""

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level at time t >= 0."""
        ...

    def slope(self, t: Tensor) -> Tensor:
        """Derivative of ``sigma`` at time t > 0."""
        ...

    def time(self, sigma: Tensor) -> Tensor:
        """Inverse of ``sigma``."""
        ...


class Linear:
    """EDM's choice: time is the noise level."""

    def sigma(self, t: Tensor) -> Tensor:
        """See ``Schedule``."""
        return t

    def slope(self, t: Tensor) -> Tensor:
        """See ``Schedule``."""
        return torch.ones_like(t)

    def time(self, sigma: Tensor) -> Tensor:
        """See ``Schedule``."""
        return sigma


class VarianceExploding:
    """Time is the variance of the noise."""

    def sigma(self, t: Tensor) -> Tensor:
        """See ``Schedule``."""
        return t.sqrt()

    def slope(self, t: Tensor) -> Tensor:
        """See ``Schedule``."""
        return 0.5 / t.sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        """See ``Schedule``."""
        return sigma**2


@dataclass(frozen=True, slots=True, kw_only=True)
class VariancePreserving:
    """Linear beta(t) = beta_d t + beta_min of a variance-preserving process."""

    beta_d: float = 19.9
    beta_min: float = 0.1

    @classmethod
    def through(cls, sigma_min: float, sigma_max: float) -> VariancePreserving:
        """The schedule with sigma(epsilon_s) = sigma_min and sigma(1) = sigma_max.

        With L(sigma) = ln(1 + sigma^2) = beta_d t^2 / 2 + beta_min t, two linear equations give

            beta_d = 2 (L(sigma_min) / epsilon_s - L(sigma_max)) / (epsilon_s - 1)
            beta_min = L(sigma_max) - beta_d / 2

        Raises:
            ConfigError: if that schedule does not increase (sigma_min is too large).
        """
        low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
        beta_d = 2 * (low / EPSILON_S - high) / (EPSILON_S - 1)
        beta_min = high - beta_d / 2
        if beta_d + beta_min <= 0 or EPSILON_S * beta_d + beta_min <= 0:
            raise ConfigError(
                f"sigma_min, sigma_max: no vp schedule runs from {sigma_min} at time {EPSILON_S} "
                f"to {sigma_max} at time 1; lower sigma_min, or choose another discretization "
                f"and schedule"
            )
        return cls(beta_d=beta_d, beta_min=beta_min)

    def _log(self, t: Tensor) -> Tensor:
        """L = ln(1 + sigma^2)."""
        return 0.5 * self.beta_d * t**2 + self.beta_min * t

    def sigma(self, t: Tensor) -> Tensor:
        """See ``Schedule``."""
        return self._log(t).expm1().sqrt()

    def slope(self, t: Tensor) -> Tensor:
        """See ``Schedule``."""
        L = self._log(t)
        return 0.5 * (self.beta_d * t + self.beta_min) * L.exp() / L.expm1().sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        """See ``Schedule``; the root in the form that holds for any sign of beta_d, and for 0."""
        L = (sigma**2).log1p()
        t = 2 * L / (self.beta_min + (self.beta_min**2 + 2 * self.beta_d * L).sqrt())
        # A range that ends very low (EDM's own) has beta_min < 0: t(0) would be 0 / 0. Its
        # sigma^2 is negative somewhere between time 0 and epsilon_s, where no level lies.
        return torch.where(L > 0, t, L)


def make_schedule(name: str, sigma_min: float, sigma_max: float) -> Schedule:
    """The schedule of that name; vp is the one that runs through the given levels."""
    if name == "vp":
        return VariancePreserving.through(sigma_min, sigma_max)
    return VarianceExploding() if name == "ve" else Linear()
