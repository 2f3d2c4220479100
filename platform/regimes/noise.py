"""Noise: the grid of noise levels, and the streams of random numbers.

Two laws hold everywhere in this project.

* **A seed determines its sample.** Each seed owns one generator that is consumed in a fixed order:
  the latent (float32), the class label if the model is conditional, then one float64 draw per
  stochastic step. Nothing depends on the batch a seed is in, or on how many workers there are.
  The order and the generator are EDM's, so EDM's own images are reproduced.
* **Training noise is keyed, not drawn in sequence.** ``keyed_generator(*key)`` depends on its key
  only. A resumed run needs no saved generator state and continues bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from regimes.errors import ConfigError


def karras_sigmas(
    num_steps: int,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    round_sigma: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Noise levels of the EDM sampler (Karras et al. 2022, equation 5), followed by 0.

    Args:
        num_steps: number of levels above 0, at least 1.
        sigma_min: last level above 0.
        sigma_max: first level.
        rho: 1 spaces the levels evenly; larger values crowd them near ``sigma_min``.
        round_sigma: maps levels to those that a network knows; None keeps them.

    Returns:
        (num_steps + 1,) float64, decreasing from ``sigma_max`` to 0.

    Raises:
        ValueError: if the levels are not 0 < sigma_min <= sigma_max, or num_steps < 1.
    """
    if num_steps < 1 or not 0 < sigma_min <= sigma_max:
        raise ValueError(
            f"expected num_steps >= 1 and 0 < sigma_min <= sigma_max, "
            f"got {num_steps=}, {sigma_min=}, {sigma_max=}"
        )
    i = torch.arange(num_steps, dtype=torch.float64)
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = (first + i / max(num_steps - 1, 1) * (last - first)) ** rho
    if round_sigma is not None:
        sigmas = round_sigma(sigmas)
    return torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)])


class SeedNoise:
    """The noise streams of a batch of seeds.

    Call ``latents`` once, then ``class_labels`` if the model is conditional, then ``step`` once per
    stochastic step: the order is part of what a seed means.

    Args:
        seeds: B integers; a seed and seed + 2^32 are the same.
        image_shape: (C, H, W) of one sample.
        device: where the generators live. CPU and CUDA generators give different numbers for the
            same seed; "cpu" is comparable everywhere, "cuda" reproduces EDM's GPU images.

    Raises:
        ConfigError: if the device is "cuda" and there is none.
    """

    def __init__(
        self, seeds: Sequence[int], image_shape: tuple[int, int, int], *, device: str = "cpu"
    ) -> None:
        self.image_shape = tuple(image_shape)
        self.device = torch.device(device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                f"noise_device: this machine has no CUDA device, got {device}; expected cpu (which "
                f"gives other images for the same seeds)"
            )
        self._generators = [
            torch.Generator(self.device).manual_seed(int(seed) % 2**32) for seed in seeds
        ]

    def _normal(self, dtype: torch.dtype) -> Tensor:
        draws = [
            torch.randn(self.image_shape, dtype=dtype, generator=g, device=self.device)
            for g in self._generators
        ]
        return torch.stack(draws)

    @property
    def generators(self) -> list[torch.Generator]:
        """The generator of every seed, as far as it is consumed: for solvers that draw by themselves."""
        return list(self._generators)

    def latents(self) -> Tensor:
        """(B, C, H, W) float32, standard normal; the first draw of every seed."""
        return self._normal(torch.float32)

    def class_labels(self, num_classes: int) -> Tensor:
        """(B, num_classes) float32 one-hot rows, uniform classes; the second draw of every seed."""
        draws = [
            torch.randint(num_classes, size=[], generator=g, device=self.device)
            for g in self._generators
        ]
        return torch.eye(num_classes, device=self.device)[torch.stack(draws)]

    def step(self) -> Tensor:
        """(B, C, H, W) float64, standard normal; one draw per stochastic step."""
        return self._normal(torch.float64)


def keyed_generator(*key: int | str) -> np.random.Generator:
    """A numpy generator that depends on nothing but its key.

    Args:
        key: integers and strings, for example ("train", seed, cell, step). Different keys give
            independent streams (a 128-bit hash of the key is the key of a Philox counter cipher).

    Returns:
        A fresh generator at the start of its stream. Cost: about 30 microseconds.
    """
    plain = tuple(part if isinstance(part, str) else int(part) for part in key)  # no numpy integers
    digest = hashlib.blake2b(repr(plain).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
