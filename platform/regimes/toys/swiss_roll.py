"""A spiral in the plane: data on a curve, where a network has something to learn and can be checked.

    (theta cos theta, theta sin theta) / 4 pi,   theta from pi/2 to 4 pi, evenly

The radius grows from 1/8 to 1. Everything that a perfect network would know follows from the curve:
its posterior mean (``SwissRoll.posterior_mean``, the **oracle**), and so the loss that no network can
go below. How far a sample lies from the curve is a plain distance.

Source: the toy data of diffusion tutorials; here without the usual noise across the curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regimes.toys.diffusion import Points

FIRST_ANGLE, LAST_ANGLE = math.pi / 2, 4 * math.pi
_TILE = 2**22  # weights that the oracle holds at a time


def spiral(theta: npt.NDArray[np.float64]) -> Points:
    """(N,) angles -> (N, 2) points of the curve, inside the unit circle."""
    return theta[:, None] * np.stack([np.cos(theta), np.sin(theta)], axis=1) / (4 * math.pi)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """The nearest points of the curve."""

    distance: npt.NDArray[np.float64]
    """(N,), to the curve."""
    theta: npt.NDArray[np.float64]
    """(N,), angle of the nearest point, from pi/2 to 4 pi."""

    @property
    def rms(self) -> float:
        """Root of the mean squared distance."""
        return math.sqrt(float(np.mean(self.distance**2)))

    def bins(self, count: int) -> npt.NDArray[np.int64]:
        """How many of the N lie on each of ``count`` pieces of equal angle; for data, N/count each."""
        edges = np.linspace(FIRST_ANGLE, LAST_ANGLE, count + 1)
        return np.histogram(self.theta, edges)[0].astype(np.int64)


class SwissRoll:
    """The spiral.

    Args:
        nodes: points of the curve that the oracle averages. 500 are enough down to a noise of 0.03:
            they lie closer than that, and sums over a smooth function then equal its integral.
        fine: points of the curve among which the nearest is looked up, 6e-5 apart on average.
    """

    def __init__(self, *, nodes: int = 500, fine: int = 100_000) -> None:
        from scipy.spatial import cKDTree

        self._nodes = spiral(_midpoints(nodes))
        self._angles = np.linspace(FIRST_ANGLE, LAST_ANGLE, fine)
        self._tree = cKDTree(spiral(self._angles))

    @property
    def variance(self) -> float:
        """Of a coordinate, the mean of both."""
        return float(self._nodes.var(0).mean())

    def draw(self, count: int, rng: np.random.Generator) -> Points:
        """(count, 2) data: angles are uniform."""
        return spiral(rng.uniform(FIRST_ANGLE, LAST_ANGLE, count))

    def posterior_mean(
        self, x: Points, t: float | npt.NDArray[np.float64], *, variance: float
    ) -> Points:
        """E[x_0 | x_t = x] of the curve itself: nothing is learned.

        Args:
            x: (N, 2).
            t: one time, or (N,).
            variance: of the noise at t = 1.

        Returns:
            (N, 2). Cost: O(N nodes).
        """
        level = np.broadcast_to(np.asarray(t, np.float64) * variance, len(x))
        tile = max(1, _TILE // len(self._nodes))
        parts = [
            self._average(x[i : i + tile], level[i : i + tile]) for i in range(0, len(x), tile)
        ]
        return np.concatenate(parts)

    def _average(self, x: Points, level: npt.NDArray[np.float64]) -> Points:
        half_norms = (self._nodes**2).sum(1) / 2
        logits = (x @ self._nodes.T - half_norms) / level[:, None]
        weights = np.exp(logits - logits.max(1, keepdims=True))
        return (weights @ self._nodes) / weights.sum(1, keepdims=True)

    def nearest(self, x: Points) -> Nearest:
        """The nearest points of the curve, of (N, 2) points; distances are exact to 1e-4."""
        distance, index = self._tree.query(x)
        return Nearest(distance=distance, theta=self._angles[index])


def _midpoints(count: int) -> npt.NDArray[np.float64]:
    """The middles of ``count`` equal pieces: an average over them is an integral over the angle."""
    return FIRST_ANGLE + (np.arange(count) + 0.5) / count * (LAST_ANGLE - FIRST_ANGLE)
