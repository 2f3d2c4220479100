"""Gaussians and mixtures of Gaussians of D-dimensional rows, and exact samples of them.

    x = mean + F^T z + sqrt(isotropic) z',    z ~ N(0, I_R), z' ~ N(0, I_D)

has exactly the covariance F^T F + isotropic I, whatever R is. With fewer rows than dimensions F is the
centred rows over sqrt(N - 1): no D x D matrix is ever formed or decomposed, and a sample costs O(N D).

A seed determines its sample: it owns a generator that gives the component, then z, then z'. What other
seeds are drawn beside it changes roundings (1e-15) only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regimes.noise import keyed_generator

Floats = npt.NDArray[np.float64]
_BATCH = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussian:
    """N(mean, F^T F + isotropic I)."""

    mean: Floats
    """(D,)"""
    factor: Floats
    """(R, D), F."""
    isotropic: float = 0.0
    """Variance added to every direction, by a ridge or by shrinkage."""
    num_fitted: int = 0
    """Rows that it was fitted to; for a component of EM the sum of its responsibilities, rounded."""
    shrinkage: float = 0.0
    """Weight of the isotropic target, 0 to 1 (Ledoit-Wolf)."""

    @property
    def width(self) -> int:
        """D."""
        return len(self.mean)

    def covariance(self) -> Floats:
        """(D, D); for small D."""
        return self.factor.T @ self.factor + self.isotropic * np.eye(self.width)

    def eigenvalues(self) -> Floats:
        """(D,) of the covariance, descending; cost O(R D min(R, D))."""
        rows, width = self.factor.shape
        f = self.factor
        found = np.linalg.eigvalsh(f @ f.T if rows < width else f.T @ f)[::-1].clip(0)[:width]
        return np.pad(found, (0, width - len(found))) + self.isotropic

    @property
    def trace(self) -> float:
        """Total variance."""
        return float((self.factor**2).sum()) + self.isotropic * self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """A mixture of Gaussians; of one it is that Gaussian.

    Raises:
        ValueError: if weights are not K positive numbers that sum to 1, or widths differ.
    """

    weights: Floats
    """(K,)"""
    components: tuple[Gaussian, ...]
    labels: tuple[int, ...] | None = None
    """The class of each component, if each is one class."""
    notes: tuple[str, ...] = ()
    """What to know about the fit, such as EM that did not converge."""

    def __post_init__(self) -> None:
        """Check what sampling relies on."""
        good = len(self.weights) == len(self.components) > 0 and (self.weights > 0).all()
        if not good or abs(self.weights.sum() - 1) > 1e-9:
            raise ValueError(
                f"weights: expected {len(self.components)} positive numbers that sum to 1, got "
                f"{self.weights}"
            )
        if len({g.width for g in self.components}) > 1:
            raise ValueError("components: expected Gaussians of one width")

    @property
    def width(self) -> int:
        """D."""
        return self.components[0].width

    @property
    def num_fitted(self) -> int:
        """Rows behind the component that has the fewest."""
        return min(g.num_fitted for g in self.components)

    def moments(self) -> tuple[Floats, Floats]:
        """Mean (D,) and covariance (D, D) of the mixture; for small D."""
        means = np.stack([g.mean for g in self.components])
        mean = self.weights @ means
        shift = (means - mean) * np.sqrt(self.weights)[:, None]
        within = sum(w * g.covariance() for w, g in zip(self.weights, self.components))
        return mean, shift.T @ shift + within

    def population(self) -> Floats:
        """(D,) eigenvalues of the mixture's covariance, descending, without a D x D matrix if R < D."""
        means = np.stack([g.mean for g in self.components])
        shift = (means - self.weights @ means) * np.sqrt(self.weights)[:, None]
        parts = [np.sqrt(w) * g.factor for w, g in zip(self.weights, self.components)]
        isotropic = sum(w * g.isotropic for w, g in zip(self.weights, self.components))
        whole = Gaussian(
            mean=means[0], factor=np.concatenate([*parts, shift]), isotropic=float(isotropic)
        )
        return whole.eigenvalues()

    def sample(self, seeds: Sequence[int], *, stream: str = "sample") -> tuple[Floats, npt.NDArray]:
        """The samples of some seeds.

        Args:
            seeds: B integers.
            stream: another stream gives other, independent samples for the same seeds.

        Returns:
            (B, D) float64, and (B,) int64, the component of each.

        Cost: O(B R D), 30 microseconds per seed besides.
        """
        x = np.empty((len(seeds), self.width))
        chosen = np.empty(len(seeds), np.int64)
        for start in range(0, len(seeds), _BATCH):
            rows = slice(start, start + _BATCH)
            x[rows], chosen[rows] = self._batch(seeds[rows], stream)
        return x, chosen

    def draw(self, count: int, *key: int | str) -> tuple[Floats, npt.NDArray]:
        """Samples (count, D) and components (count,) that a key determines together; faster than seeds."""
        rng = keyed_generator("gaussian mixture", "draw", *key)
        chosen = rng.choice(len(self.weights), count, p=self.weights)
        x = np.empty((count, self.width))
        for k, g in enumerate(self.components):
            of_k = np.flatnonzero(chosen == k)
            x[of_k] = g.mean + rng.standard_normal((len(of_k), len(g.factor))) @ g.factor
            if g.isotropic > 0:
                x[of_k] += g.isotropic**0.5 * rng.standard_normal((len(of_k), self.width))
        return x, chosen

    def _batch(self, seeds: Sequence[int], stream: str) -> tuple[Floats, npt.NDArray]:
        generators = [keyed_generator("gaussian mixture", stream, int(seed)) for seed in seeds]
        bounds = np.cumsum(self.weights)[:-1]
        chosen = np.array([np.searchsorted(bounds, g.random(), side="right") for g in generators])
        x = np.empty((len(seeds), self.width))
        for k in np.unique(chosen):
            of_k = np.flatnonzero(chosen == k)
            x[of_k] = _draw(self.components[k], [generators[i] for i in of_k])
        return x, chosen


def _draw(gaussian: Gaussian, generators: Sequence[np.random.Generator]) -> Floats:
    """(B, D), one row per generator."""
    rank = len(gaussian.factor)
    z = np.stack([g.standard_normal(rank) for g in generators])
    x = gaussian.mean + z @ gaussian.factor
    if gaussian.isotropic > 0:
        noise = np.stack([g.standard_normal(gaussian.width) for g in generators])
        x += gaussian.isotropic**0.5 * noise
    return x
