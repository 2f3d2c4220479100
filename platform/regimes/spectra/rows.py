"""Items as rows of numbers: arrays, memory maps or uint8 images, converted block by block.

A set of 50,000 images of 3072 values is 150 MB as uint8 and 1.2 GB as float64. Everything here reads
rows in blocks of some megabytes, so that the converted set never exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from regimes.images.pixels import Images

Floats = npt.NDArray[np.float64]
BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """N rows of D numbers.

    Args:
        values: (N, ...) of any real type, a memory map too; what follows the first axis is flattened.
        scale: what values are multiplied by.
        offset: what is added then.
        index: (M,) rows that count, in this order; None takes all.
    """

    values: npt.NDArray
    scale: float = 1.0
    offset: float = 0.0
    index: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Refuse what has no rows."""
        if self.values.ndim < 2 or len(self) < 1 or self.values[0].size < 1:
            raise ValueError(
                f"rows: expected (N, D) with N and D of at least 1, got {self.values.shape}"
                + ("" if self.index is None else f" and {len(self.index)} chosen")
            )

    def __len__(self) -> int:
        return len(self.values if self.index is None else self.index)

    @property
    def width(self) -> int:
        """Numbers per row, D."""
        return int(np.prod(self.values.shape[1:]))

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return len(self), self.width

    def take(self, index: npt.NDArray[np.int64]) -> Rows:
        """Some of the rows, in the order asked for; nothing is copied."""
        index = np.asarray(index, np.int64)
        return replace(self, index=index if self.index is None else self.index[index])

    def block(self, start: int, stop: int) -> Floats:
        """Rows ``start`` to ``stop`` (excluded) as (B, D) float64, a copy.

        Raises:
            ValueError: if one is not finite; its position is named.
        """
        chosen = slice(start, stop) if self.index is None else self.index[start:stop]
        block = np.array(self.values[chosen], np.float64).reshape(-1, self.width)
        if self.scale != 1:
            block *= self.scale
        if self.offset != 0:
            block += self.offset
        if self.values.dtype.kind == "f" and not np.isfinite(block).all():
            bad = int(np.flatnonzero(~np.isfinite(block).all(1))[0])
            raise ValueError(f"row {start + bad}: expected finite numbers, got NaN or infinity")
        return block

    def spans(self, num_bytes: int = BLOCK_BYTES) -> list[tuple[int, int]]:
        """(start, stop) of blocks of about ``num_bytes`` as float64, at least one row each."""
        size = max(1, num_bytes // (8 * self.width))
        return [(i, min(i + size, len(self))) for i in range(0, len(self), size)]

    def blocks(self, num_bytes: int = BLOCK_BYTES) -> Iterator[Floats]:
        """All rows, (B, D) float64 at a time."""
        for start, stop in self.spans(num_bytes):
            yield self.block(start, stop)

    def dense(self) -> Floats:
        """All rows, (N, D) float64."""
        return self.block(0, len(self))

    def mean(self) -> Floats:
        """(D,), in one pass."""
        total = np.zeros(self.width)
        for block in self.blocks():
            total += block.sum(0)
        return total / len(self)

    def norms(self, p: float = 2) -> Floats:
        """(N,) l_p norms of the rows, p >= 1 or infinity."""
        found = [np.linalg.norm(block, ord=p, axis=1) for block in self.blocks()]
        return np.concatenate(found)


def pixel_rows(images: Images) -> Rows:
    """(N, H, W, C) uint8 as rows of H W C values in [0, 1], the published range."""
    return Rows(values=images, scale=1 / 255)


def symmetric_rows(images: Images) -> Rows:
    """(N, H, W, C) uint8 as rows in [-1, 1], the range of models here."""
    return Rows(values=images, scale=1 / 127.5, offset=-1.0)
