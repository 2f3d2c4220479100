"""The largest eigenvalues of sets too large for all of them, and the images that belong to them.

Both solvers know X^T X by its products with vectors only: a product is one pass over the rows, and no
matrix of N x N or D x D is formed. What they return is checked by its residuals: for a vector u of
length 1 and a number t, some eigenvalue lies within |A u - t u| of t.

    randomised   subspace iteration on k + 16 random vectors at once: few passes, for rows on a disk
    lanczos      one vector after the other (ARPACK through scipy): many passes, exact to rounding
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regimes.noise import keyed_generator
from regimes.spectra.matrix import Normalisation, Solver, Spectrum, divisor
from regimes.spectra.rows import Rows

Floats = npt.NDArray[np.float64]
_MORE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Leading:
    """The k largest eigenvalues and their directions."""

    spectrum: Spectrum
    directions: Floats
    """(k, D), orthonormal rows."""
    mean: Floats
    """(D,) of the rows, whether it was taken off or not."""

    @property
    def explained(self) -> Floats:
        """(k,) fraction of the trace of each."""
        trace = self.spectrum.trace
        return self.spectrum.values / trace if trace > 0 else np.zeros_like(self.spectrum.values)


def leading(
    rows: Rows,
    k: int,
    normalisation: Normalisation = "covariance",
    *,
    solver: Solver = "randomised",
    passes: int = 12,
    tolerance: float = 1e-8,
    seed: int = 0,
) -> Leading:
    """The k largest eigenvalues with their directions.

    Args:
        rows: (N, D).
        k: how many, 1 to min(N, D) - 1.
        normalisation: see ``regimes.spectra.matrix``.
        solver: "randomised" or "lanczos".
        passes: most passes of "randomised".
        tolerance: it stops where all residuals are below this fraction of the largest eigenvalue.
        seed: of the first vectors.

    Raises:
        ValueError: if there are not that many, or "full" is asked for.

    Cost: O(N D (k + 16)) per pass; memory O(D (k + 16)).
    """
    most = min(rows.shape) - 1
    if not 1 <= k <= most:
        raise ValueError(f"k: expected 1 to {most} eigenvalues of {rows.shape} rows, got {k}")
    if solver == "full":
        raise ValueError("solver: full gives all eigenvalues; expected randomised or lanczos")
    mean = rows.mean()
    centre = mean if normalisation == "covariance" else np.zeros_like(mean)
    product = _Products(rows, centre)
    if solver == "lanczos":
        values, basis = _lanczos(product, k, seed)
    else:
        values, basis = _randomised(product, k, passes, tolerance, seed)
    residual = np.linalg.norm(product(basis) - basis * values, axis=0).max()
    scale = divisor(len(rows), normalisation)
    spectrum = Spectrum(
        values=values.clip(0) / scale,
        num_rows=len(rows),
        width=rows.width,
        normalisation=normalisation,
        trace=product.trace / scale,
        frobenius=float("nan"),
        mean_norm=float(np.linalg.norm(mean)),
        solver=solver,
        num_negative=int((values < 0).sum()),
        residual=float(residual) / scale,
    )
    return Leading(spectrum=spectrum, directions=basis.T.copy(), mean=mean)


class _Products:
    """V -> sum over rows of (x - centre)(x - centre)^T V; the trace is summed on the way."""

    def __init__(self, rows: Rows, centre: Floats) -> None:
        self.rows, self.centre = rows, centre
        self.trace = 0.0

    def __call__(self, vectors: Floats) -> Floats:
        """(D,) or (D, K) -> the same shape; one pass."""
        found, trace = np.zeros_like(vectors), 0.0
        for block in self.rows.blocks():
            block -= self.centre
            found += block.T @ (block @ vectors)
            trace += float(np.vdot(block, block))
        self.trace = trace
        return found


def _randomised(
    product: _Products, k: int, passes: int, tolerance: float, seed: int
) -> tuple[Floats, Floats]:
    """Rayleigh-Ritz values and vectors (D, k) of an iterated random subspace (Halko et al. 2011)."""
    width = product.rows.width
    columns = min(k + _MORE, *product.rows.shape)
    rng = keyed_generator("spectrum", seed, width, columns)
    basis = np.linalg.qr(rng.standard_normal((width, columns)))[0]
    for _ in range(passes):
        image = product(basis)
        values, mix = np.linalg.eigh(basis.T @ image)
        values, mix = values[::-1], mix[:, ::-1]
        ritz, moved = basis @ mix, image @ mix
        if np.linalg.norm(moved - ritz * values, axis=0)[:k].max() <= tolerance * abs(values[0]):
            break
        basis = np.linalg.qr(moved)[0]
    return values[:k], ritz[:, :k]


def _lanczos(product: _Products, k: int, seed: int) -> tuple[Floats, Floats]:
    from scipy.sparse.linalg import LinearOperator, eigsh

    width = product.rows.width
    operator = LinearOperator((width, width), matvec=lambda v: product(v.ravel()), dtype=np.float64)
    start = keyed_generator("spectrum", seed, width).standard_normal(width)
    values, vectors = eigsh(operator, k, which="LA", v0=start)
    order = np.argsort(-values)
    return values[order], vectors[:, order]
