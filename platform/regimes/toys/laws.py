"""What comes out of a sampler exactly, for data simple enough to say.

* **A Gaussian**, N(mu0, s0) in one dimension. Every step is linear, so samples are Gaussian at every
  T, with a mean and a variance that follow a recursion of two numbers (``Gaussian.sampled``). That
  law is *not* the law of the data.
* **One point** a. D(x, t) = a wherever x is, so DDIM's paths are straight: x_t = a + sqrt(t) (x_1 - a).
* **Two points** (+-c, h). D(x, t) = (c tanh(c x_1 / (sigma_q^2 t)), h): the second coordinate behaves
  like one point, and the first can be iterated on the line, without sampling (``TwoPoints.end``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regimes.toys.diffusion import Diffusion, Method, Points


@dataclass(frozen=True, slots=True, kw_only=True)
class Normal:
    """A normal distribution in one dimension."""

    mean: float
    variance: float

    def density(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Its density at x, of any shape."""
        scale = math.sqrt(2 * math.pi * self.variance)
        return np.exp(-((x - self.mean) ** 2) / (2 * self.variance)) / scale

    def distance(self, other: Normal) -> float:
        """Largest difference of two distribution functions (Kolmogorov-Smirnov), in [0, 1].

        Evaluated on 200,001 points out to 8 standard deviations, which is exact to 1e-8.
        """
        from scipy.stats import norm

        sd = math.sqrt(max(self.variance, other.variance))
        low, high = min(self.mean, other.mean) - 8 * sd, max(self.mean, other.mean) + 8 * sd
        x = np.linspace(low, high, 200_001)
        difference = norm.cdf(x, self.mean, math.sqrt(self.variance)) - norm.cdf(
            x, other.mean, math.sqrt(other.variance)
        )
        return float(np.abs(difference).max())


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussian:
    """Data that are normal in one dimension."""

    law: Normal
    """Of the data."""

    def draw(self, count: int, rng: np.random.Generator) -> Points:
        """(count, 1) data."""
        return self.law.mean + math.sqrt(self.law.variance) * rng.standard_normal((count, 1))

    def posterior_mean(self, x: Points, t: float, *, variance: float) -> Points:
        """E[x_0 | x_t = x] under noise of ``variance`` at t = 1."""
        return self.law.mean + self._gain(t, variance) * (x - self.law.mean)

    def posterior_variance(self, x: Points, t: float, *, variance: float) -> Points:
        """Var[x_0 | x_t = x], which does not depend on x."""
        return np.full_like(x, self._gain(t, variance) * variance * t)

    def sampled(self, diffusion: Diffusion, method: Method) -> Normal:
        """The exact law of samples. Cost: T multiplications."""
        mean, variance = self._first(diffusion)
        for step in range(diffusion.num_steps, 0, -1):
            gain = self._gain(step / diffusion.num_steps, diffusion.variance)
            if method == "ddim":
                factor, added = 1 + (1 - math.sqrt((step - 1) / step)) * (gain - 1), 0.0
            else:
                factor, added = 1 + (gain - 1) / step, diffusion.step_variance(step)
                if diffusion.noise == "posterior":
                    added += gain * diffusion.variance / (diffusion.num_steps * step)
            mean = self.law.mean + factor * (mean - self.law.mean)
            variance = factor**2 * variance + added
        return Normal(mean=mean, variance=variance)

    def _gain(self, t: float, variance: float) -> float:
        return self.law.variance / (self.law.variance + variance * t)

    def _first(self, diffusion: Diffusion) -> tuple[float, float]:
        if diffusion.start == "exact":
            return self.law.mean, self.law.variance + diffusion.variance
        return 0.0, diffusion.variance


@dataclass(frozen=True, slots=True, kw_only=True)
class OnePoint:
    """Data that are one point."""

    point: tuple[float, ...]

    def draw(self, count: int, rng: np.random.Generator) -> Points:
        """(count, d) data, all the same; rng is not used."""
        return np.tile(np.asarray(self.point, np.float64), (count, 1))

    def posterior_mean(self, x: Points, t: float) -> Points:
        """E[x_0 | x_t = x]: the point."""
        return np.broadcast_to(np.asarray(self.point, np.float64), x.shape)

    def straight(self, first: Points, num_steps: int) -> Points:
        """DDIM's exact paths from ``first`` (N, d): (T + 1, N, d), at t = 1, 1 - 1/T, ..., 0."""
        root = np.sqrt(np.arange(num_steps, -1, -1) / num_steps)[:, None, None]
        return np.asarray(self.point) + root * (first - np.asarray(self.point))


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPoints:
    """Data that are one of (c, h) and (-c, h), with equal chances."""

    half_distance: float
    """c."""
    height: float
    """h."""

    def draw(self, count: int, rng: np.random.Generator) -> Points:
        """(count, 2) data."""
        side = np.where(rng.random(count) < 0.5, 1.0, -1.0)
        return np.stack([side * self.half_distance, np.full(count, self.height)], axis=1)

    def posterior_mean(self, x: Points, t: float, *, variance: float) -> Points:
        """E[x_0 | x_t = x] by Bayes' rule: the two points, weighted by their likelihoods.

        Weights are formed from the difference of the log-likelihoods: far away, and for small t,
        the likelihoods themselves are both 0.
        """
        left, between = self._segment()
        return left + self._share(x, t, variance) * between

    def posterior_variance(self, x: Points, t: float, *, variance: float) -> Points:
        """Var[x_0 | x_t = x] of both coordinates: largest where either point is as likely."""
        share = self._share(x, t, variance)
        return share * (1 - share) * self._segment()[1] ** 2

    def _segment(self) -> tuple[Points, Points]:
        """The left point, and what leads from it to the right one."""
        left = np.array([-self.half_distance, self.height])
        return left, np.array([2 * self.half_distance, 0.0])

    def _share(self, x: Points, t: float, variance: float) -> Points:
        """(N, 1) probability of the right point."""
        from scipy.special import expit

        left, between = self._segment()
        logit = ((x - (left + between / 2)) @ between) / (variance * t)
        return np.asarray(expit(logit))[:, None]

    def end(self, first: npt.NDArray[np.float64], diffusion: Diffusion) -> npt.NDArray[np.float64]:
        """Where DDIM takes a first coordinate, by the tanh law alone; any shape in, the same out."""
        x, c = first, self.half_distance
        for step in range(diffusion.num_steps, 0, -1):
            clean = c * np.tanh(c * x * diffusion.num_steps / (diffusion.variance * step))
            x = x + (1 - math.sqrt((step - 1) / step)) * (clean - x)
        return x

    def miss(self, diffusion: Diffusion, *, nodes: int = 40_001) -> Miss:
        """By how much DDIM misses the points, exactly: an integral over where it starts.

        The map is odd, so it is enough to start around +c (exact start) or around 0. Trapezoids on
        ``nodes`` points that crowd around 0 like a fifth power, because many steps make the map steep
        there; twice as many change nothing above 1e-6 (moments) and 1e-4 (fractions).
        """
        middle = self.half_distance if diffusion.start == "exact" else 0.0
        sd = math.sqrt(diffusion.variance)
        u = np.linspace(-1, 1, nodes)
        x = 10 * sd * u**5
        weights = u**4 * np.exp(-((x - middle) ** 2) / (2 * diffusion.variance))
        end = self.end(x, diffusion)
        return Miss.of(np.abs(np.abs(end) - self.half_distance), weights / weights.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """How far from the nearer of two points samples end."""

    mean: float
    sd: float
    within_tenth: float
    """Fraction closer than 0.1."""
    within_hundredth: float
    """Fraction closer than 0.01."""

    @classmethod
    def of(
        cls, error: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None = None
    ) -> Miss:
        """Of (N,) distances, all alike or with (N,) weights that sum to 1."""
        mean = float(np.average(error, weights=weights))
        return cls(
            mean=mean,
            sd=math.sqrt(float(np.average((error - mean) ** 2, weights=weights))),
            within_tenth=float(np.average(error < 0.1, weights=weights)),
            within_hundredth=float(np.average(error < 0.01, weights=weights)),
        )
