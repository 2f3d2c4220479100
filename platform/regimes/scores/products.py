"""Float32 matrix products with a bound on their error: what lets a fast search be exact.

References are moved so that their mean is 0, everything is scaled to lengths of at most 1, and one
matrix product gives, for query q and reference r,

    s(q, r) = <q, r> - w_r / 2

* w_r = |r|^2:             |q - r|^2 = |q|^2 - 2 s, so the nearest reference has the largest s;
* w_r = |r|^2 - radius^2:  q is in the ball of r where s >= |q|^2 / 2;
* w_r = 0, |r| = 1:        s is |q| times the cosine.

In float32, s is off by at most ``slack(q)``, the textbook bound for a sum in any order (Higham 2002,
section 3.1). Whatever the bound cannot settle is measured again by float64 subtraction. The products
run over at most ``WIDTH`` columns at a time, which keeps the bound small for wide rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Rows = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Device = str | torch.device

WIDTH = 1024
MEASURED_VALUES = 2**17
"""Values subtracted at once by ``squared_differences``: 1 MiB, which stays in a CPU's cache."""
_UNIT = 2.0**-24  # float32 rounds by at most this, relatively
_UNDERFLOW = 2.0**-100  # more than all that denormals can lose


def blocks(length: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` that cover range(length)."""
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def on_device(rows: npt.NDArray, device: Device) -> Tensor:
    """The array as a tensor; on the CPU it shares memory if it is contiguous and writable."""
    rows = np.ascontiguousarray(rows)
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy()).to(device)


class Products:
    """The products s(q, r) of all queries and references, tile by tile.

    Args:
        queries: (M, D) float32.
        references: (N, D) float32.
        squared_radii: (N,) float64, for balls; None for distances.
        cosine: references are divided by their lengths (rows of zeros stay), and w_r = 0.

    Raises:
        ValueError: if a row is not finite.

    ``slack`` is (M,) float32; ``half_squares`` is (M,) float32, |q|^2 / 2 in the same scale.
    Memory: one copy of both sets.
    """

    def __init__(
        self,
        queries: Tensor,
        references: Tensor,
        *,
        squared_radii: Tensor | None = None,
        cosine: bool = False,
    ) -> None:
        width = references.shape[1]
        both = _greatest(queries), _greatest(references)
        if not np.isfinite(both).all():
            raise ValueError("neighbours: expected finite rows, got nan or inf among them")
        centre = torch.zeros(width, device=references.device)
        if len(references) and not cosine:  # near the mean is near enough: of at most 8191 rows
            centre = references[:: -(-len(references) // 8191)].mean(0, dtype=torch.float64).float()
        # Lengths become at most 1; a power of two, and so exact.
        bound = max(both) * 2 * max(1, width) ** 0.5
        scale = 2.0 ** -max(np.ceil(np.log2(bound)), -126.0) if bound > 0 else 1.0
        self._queries, own = _scaled(queries, centre, scale)
        self._references, lengths = _scaled(references, centre, scale)
        weights = lengths**2
        if cosine:
            self._references, lengths = _unit(references)
            weights = torch.zeros_like(lengths)
        if squared_radii is not None:  # no two points are farther apart than 2: 5 holds them all
            weights -= (squared_radii * scale**2).clamp(max=5.0)
        # The last column makes the product subtract the weights too.
        self._queries[:, width], self._references[:, width] = 1, -weights / 2
        self.half_squares = (own**2 / 2).float()
        size = own * _greatest(lengths) + _greatest(weights) / 2 + own**2 / 2
        self.slack = (_relative_error(width) * size + _UNDERFLOW).float()

    def tiles(self, rows: slice, size: int) -> Iterator[tuple[int, Tensor]]:
        """For these queries and ``size`` references at a time: first position, (Q, <= size) float32.

        A tile is overwritten by the next one.
        """
        queries = self._queries[rows]
        buffer = queries.new_empty(len(queries) * min(size, len(self._references)))
        for part in blocks(len(self._references), size):
            references = self._references[part]
            tile = buffer[: len(queries) * len(references)].view(len(queries), len(references))
            with torch.autocast(tile.device.type, enabled=False):
                torch.mm(queries[:, :WIDTH], references[:, :WIDTH].T, out=tile)
                for columns in list(blocks(queries.shape[1], WIDTH))[1:]:
                    tile.addmm_(queries[:, columns], references[:, columns].T)
            yield part.start, tile


def _scaled(rows: Tensor, centre: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(N, D + 1) float32, (row - centre) * scale, rounded once, and (N,) float64 their lengths."""
    width = rows.shape[1]
    out = torch.empty(len(rows), width + 1, dtype=torch.float32, device=rows.device)
    lengths = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    for part in blocks(len(rows), _rows_at_once(rows)):
        values = (rows[part] * scale).sub_(centre * scale)
        out[part, :width] = values
        lengths[part] = torch.linalg.vector_norm(values.double(), dim=1)
    return out, lengths


def _unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D + 1) float32 rows divided by their lengths, and (N,) their new lengths: 1 or 0."""
    out = torch.zeros(len(rows), rows.shape[1] + 1, dtype=torch.float32, device=rows.device)
    lengths = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    for part in blocks(len(rows), _rows_at_once(rows)):
        values = rows[part].double()
        lengths[part] = torch.linalg.vector_norm(values, dim=1)
        out[part, :-1] = values / lengths[part, None].clamp(min=1e-300)
    return out, (lengths > 0).double()


def _rows_at_once(rows: Tensor) -> int:
    return max(1, MEASURED_VALUES // max(1, rows.shape[1]))


def _greatest(values: Tensor) -> float:
    """The largest absolute value; nan if there is one."""
    if not values.numel():
        return 0.0
    low, high = torch.aminmax(values)
    return float(torch.maximum(-low, high))


def _relative_error(width: int) -> float:
    """Error of s relative to |q| |r| + |w| / 2: roundings per term, each of at most u."""
    terms = min(width + 1, WIDTH) + -(-(width + 1) // WIDTH) + 16  # a chunk, their sum, inputs, w
    error = terms * _UNIT / (1 - terms * _UNIT)
    return 1.01 * (error + 2 * _input_rounding())


def _input_rounding() -> float:
    """What torch may round the factors by, where the user allows TF32 or bfloat16 products."""
    backends = (torch.backends.cuda, torch.backends.mkldnn)
    matmuls = (getattr(backend, "matmul", None) for backend in backends)
    found = {str(getattr(matmul, "fp32_precision", "unknown")) for matmul in matmuls}
    if "unknown" in found:  # torch before 2.9 has one switch for all
        found = {{"highest": "ieee", "high": "tf32"}.get(torch.get_float32_matmul_precision(), "")}
    if found <= {"none", "ieee"}:
        return 0.0
    return 2.0**-10 if found <= {"none", "ieee", "tf32"} else 2.0**-7


def squared_differences(
    queries: Tensor, references: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    """||q_i - r_j||^2 of the listed pairs, by float64 subtraction: exactly 0 for equal rows.

    The sum is a fixed tree of additions over the width, so a pair has the same bits wherever it
    stands, on every device, and whichever of the two is the query.

    Args:
        queries: (M, D).
        references: (N, D).
        rows: (P,) int64 positions among the queries.
        columns: (P,) int64 positions among the references.

    Returns:
        (P,) float64. Cost: O(P D) time, O(MEASURED_VALUES) memory.
    """
    return _measure(lambda q, r: (q - r).square_(), queries, references, rows, columns)


def exact_products(queries: Tensor, references: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """<q_i, r_j> of the listed pairs in float64, (P,); arguments and sum as above."""
    return _measure(lambda q, r: q * r, queries, references, rows, columns)


def _measure(
    terms: Callable[[Tensor, Tensor], Tensor],
    queries: Tensor,
    references: Tensor,
    rows: Tensor,
    columns: Tensor,
) -> Tensor:
    out = torch.empty(len(rows), dtype=torch.float64, device=queries.device)
    for part in blocks(len(rows), _rows_at_once(queries)):
        out[part] = _tree_sum(
            terms(queries[rows[part]].double(), references[columns[part]].double())
        )
    return out


def _tree_sum(values: Tensor) -> Tensor:
    """(P, D) -> (P,): the second half is added to the first until one column is left."""
    width = values.shape[1]
    while width > 1:
        half = width // 2
        values[:, :half] += values[:, width - half : width]
        width -= half
    return values[:, 0] if width else values.sum(1)
