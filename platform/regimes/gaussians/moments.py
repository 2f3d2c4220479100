"""Mean and scatter of rows that arrive in blocks, in one pass.

Two parts A and B, with d = m_B - m_A, have together

    m = m_A + d n_B / n,    M = M_A + M_B + d d^T n_A n_B / n,    n = n_A + n_B

(Chan, Golub & LeVeque 1979), which loses no digits where E[x x^T] - m m^T would: there, means of
images are a hundred times larger than what is left.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regimes.spectra.rows import Rows
from regimes.spectra.triangles import add_products, mirrored

Floats = npt.NDArray[np.float64]
_BLOCK_BYTES = 8 * 2**20


class StreamedMoments:
    """Count, mean (D,) and scatter sum (x - m)(x - m)^T (D, D) of rows, float64.

    Args:
        width: D.
        device: where sums are kept, "cpu" or "cuda".

    Cost: O(N D^2 / 2) products, D^2 numbers of memory and a block of a few megabytes.
    """

    def __init__(self, width: int, *, device: str = "cpu") -> None:
        self.count = 0
        self._mean = torch.zeros(width, dtype=torch.float64, device=device)
        self._upper = torch.zeros((width, width), dtype=torch.float64, device=device)

    @classmethod
    def of(
        cls, rows: Rows, *, device: str = "cpu", num_bytes: int = _BLOCK_BYTES
    ) -> StreamedMoments:
        """Moments of all rows."""
        found = cls(rows.width, device=device)
        for block in rows.blocks(num_bytes):
            found.add(block)
        return found

    def add(self, block: Floats) -> None:
        """Add (B, D) rows."""
        x = torch.from_numpy(np.ascontiguousarray(block, np.float64)).to(self._mean.device)
        if len(x):
            mean = x.mean(0)
            self._join(len(x), mean, x - mean)

    def merge(self, other: StreamedMoments) -> None:
        """Add the rows that another object has seen; order changes roundings only."""
        if other.count:
            self._upper += other._upper.to(self._upper.device)
            self._join(other.count, other._mean.to(self._mean.device), None)

    def _join(self, count: int, mean: Tensor, centred: Tensor | None) -> None:
        """One product serves both terms: the shift of the means is one more centred row."""
        total = self.count + count
        d = mean - self._mean
        row = (d * (self.count * count / total) ** 0.5)[None]
        add_products(self._upper, row if centred is None else torch.cat([centred, row]))
        self._mean += d * (count / total)
        self.count = total

    @property
    def mean(self) -> Floats:
        """(D,)."""
        return self._mean.cpu().numpy()

    @property
    def scatter(self) -> Floats:
        """(D, D), symmetric."""
        return mirrored(self._upper).cpu().numpy()

    @property
    def covariance(self) -> Floats:
        """(D, D), the scatter over count - 1.

        Raises:
            ValueError: if there are fewer than 2 rows.
        """
        if self.count < 2:
            raise ValueError(f"covariance: expected 2 rows or more, got {self.count}")
        found = self.scatter
        found /= self.count - 1
        return found
