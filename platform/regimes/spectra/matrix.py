"""Eigenvalues of the Gram and covariance matrices of N rows of D numbers.

X X^T (N x N) and X^T X (D x D) have the same nonzero eigenvalues, the squared singular values of X. The
smaller of the two is formed, in tiles, from rows that are read in blocks; the other never exists, nor
does the D x D matrix of singular vectors.

What is measured is explicit:

    raw          X X^T                        as published; the first eigenvalue is about N |mean|^2
    per-image    X X^T / N
    covariance   (X - mean)(X - mean)^T / (N - 1)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regimes.spectra.rows import BLOCK_BYTES, Rows
from regimes.spectra.triangles import add_products, mirrored

Floats = npt.NDArray[np.float64]
Normalisation = Literal["raw", "per-image", "covariance"]
Solver = Literal["full", "randomised", "lanczos"]
Precision = Literal["float64", "float32"]
_DTYPES = {"float64": torch.float64, "float32": torch.float32}
_AGREE = {"float64": 1e-9, "float32": 1e-3}
"""Relative difference of trace and Frobenius norm from those of the data that is a defect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """Eigenvalues, with what they are of."""

    values: Floats
    """(R,), descending, at least 0; R = min(N, D) unless only the largest were asked for."""
    num_rows: int
    """N."""
    width: int
    """D."""
    normalisation: Normalisation
    trace: float
    """Of the matrix, summed over rows and not over eigenvalues."""
    frobenius: float
    """Frobenius norm of the matrix; nan where the matrix was never formed."""
    mean_norm: float
    """|mean of the rows|."""
    solver: Solver = "full"
    precision: Precision = "float64"
    num_negative: int = 0
    """Eigenvalues that rounding made negative; they are set to 0."""
    residual: float = 0.0
    """No value is further from an eigenvalue than this (randomised and lanczos)."""

    @property
    def is_complete(self) -> bool:
        """Whether all nonzero eigenvalues are there."""
        return len(self.values) == min(self.num_rows, self.width)

    @property
    def rank_bound(self) -> int:
        """Eigenvalues that need not be 0: min(N, D), or min(N - 1, D) of centred rows."""
        return min(self.num_rows - (self.normalisation == "covariance"), self.width)

    def positive(self, *, relative: float = 1e-12) -> Floats:
        """Eigenvalues above rounding: above ``relative`` times the largest, the exact zero left out."""
        kept = self.values[: self.rank_bound]
        floor = relative if self.precision == "float64" else max(relative, 1e-6)
        return kept[kept > floor * kept[0]] if len(kept) and kept[0] > 0 else kept[:0]


def divisor(num_rows: int, normalisation: Normalisation) -> float:
    """What the sum of products is divided by."""
    return {"raw": 1.0, "per-image": float(num_rows), "covariance": num_rows - 1.0}[normalisation]


def eigenvalues(
    rows: Rows,
    normalisation: Normalisation = "covariance",
    *,
    precision: Precision = "float64",
    device: str = "cpu",
    num_bytes: int = BLOCK_BYTES,
) -> Spectrum:
    """All eigenvalues, by the smaller matrix.

    Args:
        rows: (N, D), N >= 2.
        normalisation: see the module.
        precision: of products and of the decomposition; float32 is for GPUs, whose float64 is slow. Its
            eigenvalues are off by 1e-6 of the largest.
        device: where products and decomposition are computed.
        num_bytes: of a block of rows as float64.

    Returns:
        The spectrum. That trace and Frobenius norm of the matrix are those of the rows and of the
        eigenvalues is checked on every call.

    Raises:
        ValueError: if there are fewer than 2 rows, or one is not finite.

    Cost: N D min(N, D) products and min(N, D)^3; memory min(N, D)^2 and two blocks.
    """
    if len(rows) < 2:
        raise ValueError(f"rows: expected 2 or more, got {len(rows)}")
    mean = rows.mean()
    centre = mean if normalisation == "covariance" else np.zeros_like(mean)
    matrix, trace = smaller_matrix(
        rows, centre, precision=precision, device=device, num_bytes=num_bytes
    )
    scale = divisor(len(rows), normalisation)
    frobenius = float(torch.linalg.matrix_norm(matrix).item())
    found = torch.linalg.eigvalsh(matrix).flip(0).double().cpu().numpy()
    if trace > 0:
        sums = (float(found.sum()) / trace, float((found**2).sum()) ** 0.5 / frobenius)
        assert all(abs(s - 1) < _AGREE[precision] for s in sums), (
            f"trace, Frobenius norm off: {sums}"
        )
    return Spectrum(
        values=found.clip(0) / scale,
        num_rows=len(rows),
        width=rows.width,
        normalisation=normalisation,
        trace=trace / scale,
        frobenius=frobenius / scale,
        mean_norm=float(np.linalg.norm(mean)),
        precision=precision,
        num_negative=int((found < 0).sum()),
    )


def smaller_matrix(
    rows: Rows,
    centre: Floats,
    *,
    precision: Precision = "float64",
    device: str = "cpu",
    num_bytes: int = BLOCK_BYTES,
) -> tuple[Tensor, float]:
    """(N, N) products of rows minus a centre, or (D, D) of their columns if D < N; and their trace.

    Returns:
        The symmetric matrix, and the sum of squares of all centred values, summed in float64.
    """
    count, width = rows.shape
    dtype = _DTYPES[precision]
    side = min(count, width)
    upper = torch.zeros((side, side), dtype=dtype, device=device)
    trace = 0.0
    for start, stop in rows.spans(num_bytes):
        block = _centred(rows, centre, start, stop)
        trace += float(np.vdot(block, block))
        x = torch.from_numpy(block).to(device, dtype)
        if width < count:
            add_products(upper, x)
        else:
            _fill_rows(upper, x, rows, centre, start, num_bytes)
    return mirrored(upper), trace


def _centred(rows: Rows, centre: Floats, start: int, stop: int) -> Floats:
    block = rows.block(start, stop)
    if centre.any():
        block -= centre
    return block


def _fill_rows(
    upper: Tensor, x: Tensor, rows: Rows, centre: Floats, start: int, num_bytes: int
) -> None:
    """Products of one block with itself and with all blocks behind it."""
    for a, b in rows.spans(num_bytes):
        if a == start:
            upper[a:b, a:b] = x @ x.T
        elif a > start:
            other = torch.from_numpy(_centred(rows, centre, a, b)).to(upper.device, upper.dtype)
            upper[start : start + len(x), a:b] = x @ other.T
