"""Options of particle guidance.

Particles of one group are sampled together under the joint density

    p(x_1) ... p(x_B) Phi(x_1, ..., x_B),    log Phi = -a U,    U = sum_{i<j} exp(-delta_ij / h),

whose score has the repulsive force F_i = -dU/dz_i added, so that along the probability-flow ODE

    dx_i / dsigma = (x_i - D(x_i; sigma)) / sigma - s(sigma) F_i.

delta is a dissimilarity of what the particles are compared by (``space``), h its bandwidth, and
s the strength; s = a sigma is the guided score of Corso et al. 2024 (arXiv 2310.13102), equation 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from regimes.errors import ConfigError

Space = Literal["x", "denoised", "features"]
KernelName = Literal["rbf", "iou", "cosine", "angular", "custom"]
Bandwidth = Literal["fixed", "sigma", "median"]
Strength = Literal["constant", "linear", "cosine", "relative"]
Jacobian = Literal["identity", "exact"]
_CHOICES = {
    "space": get_args(Space),
    "kernel": get_args(KernelName),
    "bandwidth": get_args(Bandwidth),
    "strength": get_args(Strength),
    "jacobian": get_args(Jacobian),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidanceConfig:
    """How particles repel each other; the defaults suit images."""

    factor: float = 0.0
    """Strength of the repulsion; 0 is the plain sampler, bit for bit."""
    group_size: int = 10
    """B, particles that see each other; groups are independent. 1 is the plain sampler."""
    space: Space = "denoised"
    """What is compared: the noisy state x, the estimate D(x), or features of D(x)."""
    jacobian: Jacobian = "identity"
    """How a force on D(x) acts on x: identity takes dD/dx = 1 (no cost; as published), exact pulls it
    back through the network (one backward pass per step, and the gradient of U in x)."""
    kernel: KernelName = "rbf"
    """Dissimilarity: rbf the squared distance, iou one minus the overlap of images in [0, 1], cosine
    one minus the cosine, angular the squared angle (in space x a rotation), or custom: a callable."""
    bandwidth: Bandwidth = "median"
    """h: fixed, in proportion to sigma, or median dissimilarity / ln B of each group, which is a
    constant to the gradient and the same for all its pairs."""
    width: float = 1.0
    """Multiplies h."""
    average: bool = False
    """Divide forces by B, so that the factor means the same for groups of different size."""
    strength: Strength = "linear"
    """s(sigma): constant: factor. linear: factor sigma. cosine: factor sigma (1 + cos(pi i / N)) / 2
    at step i of N. relative: such that the guidance of a group is factor times as long as its slope."""
    cap: float | None = None
    """Never let the guidance of a group be longer than so many times its slope."""
    lowest: float = 0.0
    """Guide only at noise levels from here ..."""
    highest: float = math.inf
    """... to here."""
    corrector: bool = True
    """Guide Heun's corrector too; otherwise the guidance of a step is that of its predictor."""
    eta: float = 0.0
    """Noise of DDIM (solver euler alone): 0 is the ODE, 1 ancestral sampling of the reverse SDE."""

    def __post_init__(self) -> None:
        """Refuse what could not run, or what would change nothing."""
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{name}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        self._check_numbers()
        if self.jacobian == "exact" and self.space == "x":
            raise ConfigError(
                "jacobian: exact pulls back through D; expected space denoised or features"
            )
        if self.kernel == "iou" and self.space != "denoised":
            raise ConfigError(
                f"kernel iou: compares images; expected space denoised, got {self.space}"
            )

    def _check_numbers(self) -> None:
        if not 0 <= self.factor < math.inf:
            raise ConfigError(f"factor: expected 0 or more, got {self.factor}")
        if self.group_size < 1:
            raise ConfigError(f"group_size: expected at least 1, got {self.group_size}")
        if not 0 < self.width < math.inf:
            raise ConfigError(f"width: expected a number above 0, got {self.width}")
        if self.cap is not None and not self.cap > 0:
            raise ConfigError(f"cap: expected a number above 0, or none, got {self.cap}")
        if not 0 <= self.lowest <= self.highest:
            raise ConfigError(
                f"lowest, highest: expected 0 <= lowest <= highest, got {self.lowest}, {self.highest}"
            )
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"eta: expected a number in [0, 1], got {self.eta}")

    @property
    def is_plain(self) -> bool:
        """Whether nothing repels."""
        return self.factor == 0 or self.group_size == 1

    def guides_at(self, sigma: float) -> bool:
        """Whether a noise level is inside the window."""
        return self.lowest <= sigma <= self.highest

    def schedule(self, sigma: float, progress: float) -> float:
        """s(sigma), before what depends on the slope.

        Args:
            sigma: noise level.
            progress: i / N, from 0 to 1.
        """
        if self.strength in ("constant", "relative"):
            return self.factor
        decay = (1 + math.cos(math.pi * progress)) / 2 if self.strength == "cosine" else 1.0
        return self.factor * sigma * decay
