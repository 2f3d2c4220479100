"""Preconditioning: how a raw network F becomes a denoiser D (Karras et al. 2022, table 1).

    D(x; sigma) = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x; c_noise(sigma))

A denoiser maps x = y + sigma n, with y in [-1, 1] and n ~ N(0, I), to an estimate of E[y | x].
Four published choices of the coefficients live here: EDM, VP, VE and iDDPM.

Symbols: ``sigma`` noise level, ``sigma_data`` standard deviation of the data, ``M`` number of
training levels of a discrete-time model, ``u`` the grid of noise levels iDDPM was trained on.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Coefficients(NamedTuple):
    """The four functions of table 1, each with the shape of ``sigma``."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


class Preconditioning(Protocol):
    """What a denoiser needs to know about the way its network was trained."""

    @property
    def sigma_min(self) -> float:
        """Lowest noise level the network was trained for."""
        ...

    @property
    def sigma_max(self) -> float:
        """Highest noise level the network was trained for."""
        ...

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The four coefficients at ``sigma`` (any shape), in its dtype."""
        ...

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest noise level that the network knows."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EDM:
    """Unit-variance inputs and targets at every noise level (Karras et al. 2022, table 1)."""

    sigma_data: float = 0.5
    sigma_min: float = 0.0
    sigma_max: float = math.inf

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """See ``Preconditioning``."""
        total = sigma**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_out = sigma * self.sigma_data / total.sqrt()
        return Coefficients(c_skip, c_out, 1 / total.sqrt(), sigma.log() / 4)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Every noise level is known."""
        return sigma


@dataclass(frozen=True, slots=True, kw_only=True)
class VP:
    """Variance-preserving diffusion, continuous time (Song et al. 2021); Karras et al., table 1."""

    beta_d: float = 19.9
    beta_min: float = 0.1
    M: int = 1000
    epsilon_t: float = 1e-5

    @property
    def sigma_min(self) -> float:
        """sigma(epsilon_t), as EDM's networks have it: 9.766e-4 (the exact value is 1.0005e-3)."""
        return self._published_sigma(self.epsilon_t)

    @property
    def sigma_max(self) -> float:
        """sigma(1)."""
        return self._published_sigma(1.0)

    def _published_sigma(self, time: float) -> float:
        # exp(x) - 1 in float32 loses 2.4% of sigma_min. The limits of the grid must be the
        # published ones for a seed to give the published image, so the loss is kept.
        t = torch.tensor(time, dtype=torch.float32, device="cpu")
        return float(((0.5 * self.beta_d * t**2 + self.beta_min * t).exp() - 1).sqrt())

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level at time t in (0, 1]."""
        return (0.5 * self.beta_d * t**2 + self.beta_min * t).expm1().sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        """Inverse of ``sigma``."""
        log = (1 + sigma**2).log()
        return ((self.beta_min**2 + 2 * self.beta_d * log).sqrt() - self.beta_min) / self.beta_d

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """See ``Preconditioning``."""
        c_in = 1 / (sigma**2 + 1).sqrt()
        return Coefficients(torch.ones_like(sigma), -sigma, c_in, (self.M - 1) * self.time(sigma))

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Every noise level is known."""
        return sigma


@dataclass(frozen=True, slots=True, kw_only=True)
class VE:
    """Variance-exploding diffusion (Song et al. 2021), as in table 1 of Karras et al."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """See ``Preconditioning``."""
        one = torch.ones_like(sigma)
        return Coefficients(one, sigma, one, (sigma / 2).log())

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Every noise level is known."""
        return sigma


@functools.lru_cache(maxsize=8)
def iddpm_levels(M: int, C_1: float, C_2: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Noise levels u_0 > ... > u_M = 0 of iDDPM, (M + 1,) of ``dtype`` (table 1, u_j).

    A network's levels come from a recursion in float32, the sampler's discretization from one in
    float64, and in both alpha_bar is float32, because EDM's are: the rounding adds up to 5e-4 of
    u_{M-1} and 1e-6 elsewhere, and a sampler on other levels does not give the published images.
    The tensor is shared between callers: do not write into it.
    """
    j = torch.arange(M + 1, dtype=torch.float32, device="cpu")
    alpha_bar = (0.5 * math.pi * j / M / (C_2 + 1)).sin() ** 2
    u = torch.zeros(M + 1, dtype=dtype, device="cpu")
    ratio = (alpha_bar[:-1] / alpha_bar[1:]).clip(min=C_1)
    for i in range(M, 0, -1):
        u[i - 1] = ((u[i] ** 2 + 1) / ratio[i - 1] - 1).sqrt()
    return u


@dataclass(frozen=True, slots=True, kw_only=True)
class IDDPM:
    """Improved DDPM's discrete cosine schedule (Nichol & Dhariwal 2021); Karras et al., table 1.

    A network trained this way also predicts a variance in its second C output channels;
    ``Denoiser`` keeps the first C.
    """

    M: int = 1000
    C_1: float = 0.001
    C_2: float = 0.008
    levels: tuple[float, ...] | None = None
    """The M + 1 levels stored with a network; None computes them."""

    @property
    def u(self) -> Tensor:
        """Noise levels known to the network, (M + 1,) float32, decreasing to 0."""
        if self.levels is not None:
            return torch.tensor(self.levels, dtype=torch.float32, device="cpu")
        return iddpm_levels(self.M, self.C_1, self.C_2)

    @property
    def sigma_min(self) -> float:
        """u_{M-1}, the lowest non-zero level."""
        return float(self.u[self.M - 1])

    @property
    def sigma_max(self) -> float:
        """u_0."""
        return float(self.u[0])

    def _index(self, sigma: Tensor) -> Tensor:
        # By cdist, whose rounding decides between two levels where sigma is in their middle: for
        # 0.2% of all sigmas the exact distance would pick the other one, and not EDM's image.
        levels, wanted = self.u.to(sigma.device), sigma.to(torch.float32)
        distances = torch.cdist(wanted.reshape(1, -1, 1), levels.reshape(1, -1, 1))
        return distances[0].argmin(-1).reshape(sigma.shape)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """See ``Preconditioning``."""
        c_in = 1 / (sigma**2 + 1).sqrt()
        c_noise = (self.M - 1 - self._index(sigma)).to(sigma.dtype)
        return Coefficients(torch.ones_like(sigma), -sigma, c_in, c_noise)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest level of the grid ``u``."""
        return self.u.to(sigma.device)[self._index(sigma)].to(sigma.dtype)


class Denoiser(nn.Module):
    """A network with its preconditioning: ``D(x, sigma)`` estimates the clean image.

    The network is called as ``network(c_in * x, c_noise, class_labels)``. Leading axes are free:
    x is (B, C, H, W) for one model and (E, B, C, H, W) for an ensemble of E models. A network that
    was trained with augmentation takes its vector as a fourth argument. A network that continues clips
    sees the frames before, noiseless and in [-1, 1], behind the channels of c_in x.
    """

    condition_channels = 0
    """Channels of the frames that the network sees beside a noisy image."""

    def __init__(self, network: nn.Module, preconditioning: Preconditioning) -> None:
        super().__init__()
        self.network = network
        self.preconditioning = preconditioning

    @property
    def sigma_min(self) -> float:
        """Lowest noise level the network was trained for."""
        return self.preconditioning.sigma_min

    @property
    def sigma_max(self) -> float:
        """Highest noise level the network was trained for."""
        return self.preconditioning.sigma_max

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest noise level that the network knows."""
        return self.preconditioning.round_sigma(sigma)

    def forward(
        self,
        x: Tensor,
        sigma: Tensor | float,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Denoise.

        Args:
            x: (..., C, H, W), noisy images; computed in float32 whatever the dtype.
            sigma: (...), (..., 1, 1, 1) or a scalar, positive noise levels.
            class_labels: (..., L) float32 one-hot rows, or None for "no class".
            augment_labels: (..., A) float32, how the images were augmented (training only); None
                for "not augmented", also to networks that know no augmentation.
            condition: (..., condition_channels, H, W) in [-1, 1], the frames before; None for networks
                that see none.

        Returns:
            (..., C, H, W) float32, the estimate of E[y | x], or of E[y | x, frames].

        Raises:
            ValueError: if the condition has another number of channels.
        """
        self._check_condition(condition)
        x = x.to(torch.float32)
        sigma = torch.as_tensor(sigma, dtype=torch.float32, device=x.device)
        if sigma.ndim == x.ndim:  # (..., 1, 1, 1), as some samplers write it
            sigma = sigma.flatten(-4)
        sigma = sigma.expand(x.shape[:-3])
        c_skip, c_out, c_in, c_noise = self.preconditioning.coefficients(sigma)
        extra = () if augment_labels is None else (augment_labels,)
        inputs = _scale(c_in, x)
        if condition is not None:
            inputs = torch.cat([inputs, condition.to(torch.float32)], dim=-3)
        F_x = self.network(inputs, c_noise, class_labels, *extra)
        F_x = F_x[..., : x.shape[-3], :, :]
        return _scale(c_skip, x) + _scale(c_out, F_x.to(torch.float32))

    def _check_condition(self, condition: Tensor | None) -> None:
        found = 0 if condition is None else condition.shape[-3]
        if found != self.condition_channels:
            raise ValueError(
                f"condition: expected {self.condition_channels} channels of frames, got {found}"
            )


class ContinuedFrames:
    """A denoiser of what comes behind given frames, as samplers want it.

    Args:
        network: a denoiser that sees frames.
        frames: (B, condition_channels, H, W) in [-1, 1], one row per image of the batch.
    """

    def __init__(self, network: Denoiser, frames: Tensor) -> None:
        self.network, self.frames = network, frames

    @property
    def sigma_min(self) -> float:
        """See ``Denoiser``."""
        return self.network.sigma_min

    @property
    def sigma_max(self) -> float:
        """See ``Denoiser``."""
        return self.network.sigma_max

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """See ``Denoiser``."""
        return self.network.round_sigma(sigma)

    def __call__(
        self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W) noisy images -> estimates of the clean ones, given the frames."""
        denoised: Tensor = self.network(x, sigma, class_labels, condition=self.frames)
        return denoised


def _scale(coefficient: Tensor, images: Tensor) -> Tensor:
    return coefficient[..., None, None, None] * images
