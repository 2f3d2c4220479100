"""Balls around reference points: which queries lie in them, and in how many.

Float32 products settle all pairs but those within their rounding error of a border; these are
measured again by float64 subtraction (see ``products``). So a query that equals a centre of radius 0
is inside, and a query exactly on a border is inside too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regimes.scores import neighbours
from regimes.scores.neighbours import Floats, Index, Rows
from regimes.scores.products import Device, Products, blocks, on_device, squared_differences


def inside_any_ball(
    queries: Rows, centres: Rows, squared_radii: Floats, *, device: Device = "cpu"
) -> npt.NDArray[np.bool_]:
    """Which queries lie in at least one ball, (M,) bool.

    Args, errors and cost: as ``count_balls``, and twice as fast: it needs no more than the largest
    product of every row.
    """
    balls = _Balls(queries, centres, squared_radii, device)
    inside = np.zeros(len(queries), np.bool_)
    for rows, start, tile in balls.tiles():
        low, high = balls.borders(rows)
        best = tile.amax(1, keepdim=True)
        certain = (best > high)[:, 0]
        open_rows = ((best >= low) & (best <= high)).nonzero()[:, 0]
        i, j = (tile[open_rows] >= low[open_rows]).nonzero(as_tuple=True)
        i = open_rows[i]
        certain[i[balls.measure(rows.start + i, start + j)]] = True
        inside[rows] |= certain.cpu().numpy()
    return inside


def count_balls(
    queries: Rows, centres: Rows, squared_radii: Floats, *, device: Device = "cpu"
) -> Index:
    """In how many balls every query lies; a point on the border is inside.

    Args:
        queries: (M, D) float32.
        centres: (N, D) float32.
        squared_radii: (N,) float64.
        device: where to compute.

    Returns:
        (M,) int64.

    Raises:
        ValueError: if a row is not finite.

    Cost: O(M N D) time, O(BLOCK^2 + (M + N) D) memory.
    """
    balls = _Balls(queries, centres, squared_radii, device)
    counts = np.zeros(len(queries), np.int64)
    for rows, start, tile in balls.tiles():
        low, high = balls.borders(rows)
        possible, certain = _count(torch.ge, tile, low), _count(torch.gt, tile, high)
        open_rows = (possible > certain).nonzero()[:, 0]
        part = tile[open_rows]
        i, j = ((part >= low[open_rows]) & (part <= high[open_rows])).nonzero(as_tuple=True)
        inside = balls.measure(rows.start + open_rows[i], start + j)
        certain += torch.bincount(open_rows[i[inside]], minlength=len(certain))
        counts[rows] += certain.cpu().numpy()
    return counts


def _count(compare: Callable[..., Tensor], tile: Tensor, border: Tensor) -> Tensor:
    """(Q,) int64 columns beyond a border; ones are added as float32, which is faster than bools."""
    return compare(tile, border, out=torch.empty_like(tile)).sum(1).long()


def pairs_inside(
    queries: Rows, centres: Rows, squared_radii: Floats, *, device: Device = "cpu"
) -> Iterator[tuple[Index, Index]]:
    """All pairs (query, centre) such that the query is in the ball, tile by tile.

    Args, errors and cost: as ``count_balls``; memory grows with the pairs of one tile.

    Yields:
        (P,) int64 positions of queries and (P,) of centres.
    """
    balls = _Balls(queries, centres, squared_radii, device)
    for rows, start, tile in balls.tiles():
        low, high = balls.borders(rows)
        i, j = (tile >= low).nonzero(as_tuple=True)
        inside = tile[i, j] > high[i, 0]
        i, j = i + rows.start, j + start
        inside[~inside] = balls.measure(i[~inside], j[~inside])
        yield i[inside].cpu().numpy(), j[inside].cpu().numpy()


class _Balls:
    """Tiles of products, in which a pair is inside from its query's border on."""

    def __init__(self, queries: Rows, centres: Rows, squared_radii: Floats, device: Device) -> None:
        self._queries, self._centres = on_device(queries, device), on_device(centres, device)
        self._radii = on_device(squared_radii, device)
        self._products = Products(self._queries, self._centres, squared_radii=self._radii)

    def tiles(self) -> Iterator[tuple[slice, int, Tensor]]:
        """Queries, first centre, and (Q, C) products; overwritten by the next."""
        for rows in blocks(len(self._queries), neighbours.queries_at_once()):
            size = neighbours.references_at_once(self._queries.device)
            for start, tile in self._products.tiles(rows, size):
                yield rows, start, tile

    def borders(self, rows: slice) -> tuple[Tensor, Tensor]:
        """(Q, 1) products below which a pair is certainly outside, and above which inside."""
        half, slack = self._products.half_squares[rows], self._products.slack[rows]
        return (half - slack)[:, None], (half + slack)[:, None]

    def measure(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Whether each of the listed pairs is inside, (P,) bool, by subtraction."""
        squared = squared_differences(self._queries, self._centres, rows, columns)
        return squared <= self._radii[columns]
