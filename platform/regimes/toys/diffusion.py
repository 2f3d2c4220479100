"""Diffusion of points, forwards and backwards.

Time runs from 0 (data) to 1 (noise). Noise is added without shrinking the data:

    x_t = x_0 + sigma_q sqrt(t) n,   n ~ N(0, I),   t in [0, 1]

and removed in T equal steps, t = 1, 1 - 1/T, ..., 1/T. All a sampler has to know of the data is the
**posterior mean** D(x, t) = E[x_0 | x_t = x]: what the clean point was, on average. From t to s = t - 1/T,

    DDPM:  x_s = E[x_s | x_t] + noise,   E[x_s | x_t] = (1/(T t)) D(x_t, t) + (1 - 1/(T t)) x_t
    DDIM:  x_s = x_t + (1 - sqrt(s/t)) (D(x_t, t) - x_t)

DDPM throws dice in every step, DDIM never does. Two things are exact only in the limit of T and
sigma_q, and can be had both ways (``Diffusion``).

Source: Nakkiran et al. 2024 (arXiv 2406.08929), algorithms 1 and 2.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
"""(N, d) float64, one point per row."""
PosteriorMean = Callable[[Points, float], Points]
"""(x (N, d), t in (0, 1]) -> E[x_0 | x_t = x], (N, d)."""
PosteriorVariance = Callable[[Points, float], Points]
"""(x (N, d), t in (0, 1]) -> Var[x_0 | x_t = x] of every coordinate, (N, d)."""
Method = Literal["ddpm", "ddim"]
Start = Literal["published", "exact"]
Noise = Literal["published", "posterior"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diffusion:
    """How noise comes and goes.

    Raises:
        ValueError: if there is no noise or no step.
    """

    variance: float
    """sigma_q^2, of the noise at t = 1."""
    num_steps: int
    """T."""
    start: Start = "published"
    """published: pure noise N(0, sigma_q^2 I), which forgets that data have a mean and a spread;
    exact: noised data, the true law at t = 1."""
    noise: Noise = "published"
    """Of DDPM's steps. published: variance sigma_q^2/T, in the last step too; posterior: what x_s has
    when x_t is known, (s/t) sigma_q^2/T + Var[x_0 | x_t]/(T t)^2. Where the variance of x_0 is not
    known (a network has learned means only) the second term is left out."""

    def __post_init__(self) -> None:
        """Refuse what is not a diffusion."""
        if not self.variance > 0 or self.num_steps < 1:
            raise ValueError(
                f"expected variance > 0 and num_steps >= 1, got {self.variance}, {self.num_steps}"
            )

    def step_variance(self, step: int) -> float:
        """Of DDPM's noise from t = step/T to (step - 1)/T, but for the variance of x_0."""
        share = 1.0 if self.noise == "published" else (step - 1) / step
        return self.variance / self.num_steps * share

    def first(self, data: Points, rng: np.random.Generator) -> Points:
        """Points at t = 1.

        Args:
            data: (N, d), points at t = 0 drawn from the data; used by the exact start only.
            rng: where the noise comes from.
        """
        noise = math.sqrt(self.variance) * rng.standard_normal(data.shape)
        return noise + data if self.start == "exact" else noise


def backwards(
    posterior_mean: PosteriorMean,
    first: Points,
    diffusion: Diffusion,
    method: Method,
    rng: np.random.Generator | None = None,
    *,
    posterior_variance: PosteriorVariance | None = None,
) -> Iterator[Points]:
    """The way back from noise to data.

    Args:
        posterior_mean: what is known of the data.
        first: (N, d), points at t = 1.
        diffusion: how noise is removed.
        method: ddpm or ddim.
        rng: dice; for ddpm.
        posterior_variance: what else is known of the data; for ddpm with the posterior's noise.

    Yields:
        (N, d) at t = 1, 1 - 1/T, ..., 0: T + 1 times. Cost: T posterior means.

    Raises:
        ValueError: if DDPM has no dice.
    """
    if method == "ddpm" and rng is None:
        raise ValueError("ddpm: expected a generator for its noise, got none")
    x = first
    yield x
    for step in range(diffusion.num_steps, 0, -1):  # t = step/T: an integer has no rounding error
        t = step / diffusion.num_steps
        clean = posterior_mean(x, t)
        if rng is None or method == "ddim":
            x = x + (1 - math.sqrt((step - 1) / step)) * (clean - x)
        else:
            variance: float | Points = diffusion.step_variance(step)
            if posterior_variance is not None and diffusion.noise == "posterior":
                variance = variance + posterior_variance(x, t) / step**2
            noise = np.sqrt(variance) * rng.standard_normal(x.shape)
            x = clean / step + (1 - 1 / step) * x + noise
        yield x


def last(steps: Iterator[Points]) -> Points:
    """Where the way back ends, (N, d): ``last(backwards(...))``, which keeps one step at a time."""
    return collections.deque(steps, maxlen=1)[0]


def path(steps: Iterator[Points]) -> Points:
    """The whole way back, (T + 1, N, d): ``path(backwards(...))``."""
    return np.stack(list(steps))
