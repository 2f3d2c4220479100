"""What eigenvalues of a sample covariance matrix are by chance, where N and D are both large.

For N rows of D independent values of variance s, c = D / N, the eigenvalues of X^T X / N fill

    s (1 - sqrt c)^2  to  s (1 + sqrt c)^2                      (Marchenko & Pastur 1967)

and if the population covariance has eigenvalues t of law H, their law F is given by the companion
transform m(z), the solution in the upper half plane of

    z = -1 / m + c int t / (1 + t m) dH(t),     density of F at x = Im m(x) / (pi c)     (Silverstein 1995)

These say how far a spectrum spreads although nothing is going on. The law is the same for every
distribution of independent values with four moments, Gaussian or not.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def marchenko_pastur_edges(ratio: float, variance: float = 1.0) -> tuple[float, float]:
    """Smallest and largest nonzero eigenvalue in the limit.

    Args:
        ratio: c = D / N, above 0.
        variance: s of the values.

    Raises:
        ValueError: if either is not positive.
    """
    if not (ratio > 0 and variance > 0):
        raise ValueError(f"expected ratio and variance above 0, got {ratio}, {variance}")
    return variance * (1 - math.sqrt(ratio)) ** 2, variance * (1 + math.sqrt(ratio)) ** 2


def marchenko_pastur_density(x: Floats, ratio: float, variance: float = 1.0) -> Floats:
    """Density at x of the *nonzero* eigenvalues: it integrates to 1 for every c.

    Args:
        x: (G,) positive.
        ratio: c = D / N. For c > 1 a fraction 1 - 1/c of all D eigenvalues is 0 and not counted here.
        variance: s.
    """
    low, high = marchenko_pastur_edges(ratio, variance)
    inside = np.sqrt(np.clip((high - x) * (x - low), 0, None))
    return inside / (2 * math.pi * ratio * variance * x) * max(ratio, 1.0)


def covariance_law_density(
    x: Floats, population: Floats, ratio: float, *, smoothing: float = 0.01
) -> Floats:
    """Density at x of the nonzero eigenvalues of a sample covariance of given population.

    Args:
        x: (G,) positive, in the units of the population.
        population: (D,) eigenvalues of the population covariance, at least 0, not all 0.
        ratio: c = D / N with D = len(population).
        smoothing: the law is evaluated at x (1 + i smoothing): features finer than that fraction of x
            are blurred, and edges are round.

    Returns:
        (G,) which integrates to 1 over x > 0.

    Raises:
        ValueError: if there is no positive eigenvalue, or ratio is not positive.

    Cost: O(G D) per step, a hundred steps and more for less smoothing.
    """
    t = np.asarray(population, np.float64)
    if not ((t >= 0).all() and t.sum() > 0 and ratio > 0):
        raise ValueError("expected eigenvalues of at least 0, one above, and a ratio above 0")
    m = _companion(x, t, ratio, smoothing)
    zeros = max(float((t == 0).mean()), 1 - 1 / ratio)  # of F, at x = 0
    atom = (
        1 - ratio + ratio * zeros
    )  # of the companion, at x = 0: off the axis it is seen everywhere
    seen = atom * smoothing / (x * (1 + smoothing**2))
    return np.clip(m.imag - seen, 0, None) / (math.pi * ratio * (1 - zeros))


def _companion(x: Floats, t: Floats, ratio: float, smoothing: float) -> npt.NDArray:
    """m(x (1 + i smoothing)): a fixed point far from the real axis, followed towards it by Newton steps.

    The fixed point contracts in the upper half plane, quickly at an imaginary part as large as x. From
    there every solution is followed while the imaginary part is divided by 1.5 at a time; near an edge
    two solutions meet, and larger steps would land on the wrong one.
    """
    m = -1 / (x * (1 + 1j))
    for _ in range(60):
        m = 0.5 * m + 0.5 / (ratio * _mean(t, m, 1) - x * (1 + 1j))
    count = max(1, math.ceil(math.log(1 / smoothing, 1.5)))
    for level in np.geomspace(1.0, smoothing, count + 1):
        for _ in range(4):
            m = _newton(m, x * (1 + 1j * level), t, ratio)
    return m


def _newton(m: npt.NDArray, z: npt.NDArray, t: Floats, ratio: float) -> npt.NDArray:
    """One step for z(m) = z; steps that leave the half plane or are longer than m / 2 are shortened."""
    gap = -1 / m + ratio * _mean(t, m, 1) - z
    step = gap / (1 / m**2 - ratio * _mean(t, m, 2))
    step *= np.minimum(1, 0.5 * np.abs(m) / np.maximum(np.abs(step), 1e-300))
    down = step.imag > 0
    step *= np.where(down, np.minimum(1, 0.9 * m.imag / np.where(down, step.imag, 1)), 1)
    return m - step


def _mean(t: Floats, m: npt.NDArray, power: int) -> npt.NDArray:
    """(G,) mean over t of (t / (1 + t m))^power."""
    found = np.empty_like(m)
    for start in range(0, len(m), 64):
        part = slice(start, start + 64)
        found[part] = ((t / (1 + t * m[part, None])) ** power).mean(1)
    return found
