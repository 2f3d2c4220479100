"""Options of the samplers, and what a sampler asks of a denoiser."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from torch import Tensor

from regimes.errors import ConfigError
from regimes.samplers.levels import Discretization, noise_levels, published_range

Solver = Literal["euler", "heun", "dpmpp2m"]
ScheduleName = Literal["vp", "ve", "linear"]
Scaling = Literal["vp", "none"]
_CHOICES = {
    "solver": get_args(Solver),
    "discretization": get_args(Discretization),
    "schedule": get_args(ScheduleName),
    "scaling": get_args(Scaling),
}
_EDM_RHO = 7.0


class SampledDenoiser(Protocol):
    """What a sampler needs of a denoiser (``Denoiser`` and the closed forms have it)."""

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
    """How samples are drawn; the defaults are those of EDM for 32x32 images."""

    num_steps: int = 18
    """Noise levels above 0; Heun costs 2 num_steps - 1 evaluations, the other solvers num_steps."""
    sigma_min: float | None = None
    """Last noise level above 0; by default that of the discretization: edm and iddpm .002, ve .02,
    vp .0105. Raised to the network's own limit."""
    sigma_max: float | None = None
    """First noise level; by default that of the discretization: edm 80, iddpm 81, ve 100, vp 152.
    Lowered to the network's own limit."""
    rho: float = _EDM_RHO
    """Spacing of the levels of the edm discretization."""
    solver: Solver = "heun"
    """euler (order 1), heun (order 2), or dpmpp2m: DPM-Solver++(2M), order 2 at one evaluation per
    step, in x / s and ln sigma, so that it takes no schedule and no scaling."""
    discretization: Discretization = "edm"
    """Which noise levels are visited."""
    schedule: ScheduleName = "linear"
    """Noise level as a function of time, sigma(t), along which euler and heun step. linear is EDM's;
    under vp and ve the last step removes only half of the noise of sigma_min."""
    scaling: Scaling = "none"
    """Scale of the state, s(t): none is EDM's; vp keeps the variance bounded."""
    s_churn: float = 0.0
    """Amount of noise added per step; 0 is the deterministic ODE."""
    s_min: float = 0.0
    """Churn only at noise levels from here ..."""
    s_max: float = math.inf
    """... to here."""
    s_noise: float = 1.0
    """Standard deviation of the added noise."""

    def __post_init__(self) -> None:
        """Refuse what the sampler could not run, or what would change nothing.

        s_min, s_max and s_noise without churn are let pass, as EDM's own command lines have them.
        """
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{name}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        self._check_numbers()
        if self.rho != _EDM_RHO and self.discretization != "edm":
            raise ConfigError(
                f"rho: spaces the levels of discretization edm only, got {self.rho} with "
                f"{self.discretization}; leave it out"
            )
        if self.solver == "dpmpp2m":
            self._check_multistep()

    def _check_multistep(self) -> None:
        """DPM-Solver++ steps in x / s and ln sigma: what changes the path in time has no effect."""
        if self.s_churn > 0:
            raise ConfigError(
                "s_churn: solver dpmpp2m is deterministic; expected 0, or solver euler or heun"
            )
        if (self.schedule, self.scaling) != ("linear", "none"):
            raise ConfigError(
                "schedule, scaling: solver dpmpp2m does not depend on them; expected linear and none, "
                f"got {self.schedule} and {self.scaling}"
            )

    def _check_numbers(self) -> None:
        if self.num_steps < 1:
            raise ConfigError(f"num_steps: expected at least 1, got {self.num_steps}")
        sigma_min, sigma_max = self.sigma_range
        if not 0 < sigma_min <= sigma_max < math.inf:
            raise ConfigError(
                f"sigma_min, sigma_max: expected 0 < sigma_min <= sigma_max, "
                f"got {sigma_min} and {sigma_max}"
            )
        if not 0 < self.rho < math.inf:
            raise ConfigError(f"rho: expected a number above 0, got {self.rho}")
        if not 0 <= self.s_churn < math.inf:
            raise ConfigError(f"s_churn: expected 0 or more, got {self.s_churn}")
        if not self.s_min <= self.s_max:
            raise ConfigError(
                f"s_min, s_max: expected s_min <= s_max, got {self.s_min} and {self.s_max}"
            )
        if not 0 <= self.s_noise < math.inf:
            raise ConfigError(f"s_noise: expected 0 or more, got {self.s_noise}")

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Last and first noise level above 0, before the network's own limits apply."""
        low, high = published_range(self.discretization)
        return (
            low if self.sigma_min is None else self.sigma_min,
            high if self.sigma_max is None else self.sigma_max,
        )

    @property
    def num_evaluations(self) -> int:
        """Denoiser calls per sample."""
        return 2 * self.num_steps - 1 if self.solver == "heun" else self.num_steps

    def clipped_range(self, denoiser: SampledDenoiser) -> tuple[float, float]:
        """``sigma_range`` within the limits of a denoiser.

        Raises:
            ConfigError: if they do not overlap.
        """
        sigma_min, sigma_max = self.sigma_range
        low, high = max(sigma_min, denoiser.sigma_min), min(sigma_max, denoiser.sigma_max)
        if low > high:
            raise ConfigError(
                f"sigma_min, sigma_max: the network knows noise levels from {denoiser.sigma_min} "
                f"to {denoiser.sigma_max}, got {sigma_min} and {sigma_max}"
            )
        return low, high

    def sigmas(self, denoiser: SampledDenoiser) -> Tensor:
        """The noise levels for this denoiser, (num_steps + 1,) float64, ending in 0."""
        sigma_min, sigma_max = self.clipped_range(denoiser)
        return noise_levels(
            self.discretization,
            self.num_steps,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
            rho=self.rho,
            round_sigma=denoiser.round_sigma,
        )

    def churned(self, sigma: Tensor) -> Tensor:
        """The level to which churn raises ``sigma`` (line 5 of algorithms 1 and 2), unrounded."""
        inside = self.s_min <= sigma <= self.s_max
        gamma = min(self.s_churn / self.num_steps, math.sqrt(2) - 1) if inside else 0.0
        return sigma + gamma * sigma
