"""Exact nearest neighbours, and balls around reference points.

FAISS finds candidates with one float32 matrix product per block. Such distances lose all digits
near zero, which is where copies are, so every candidate is measured again by float64 subtraction
before anything is decided. Nothing of size (M, N) is ever held.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

BLOCK = 4096
_SPARE = 8  # candidates beyond k: float32 rounding must confuse more than these to hide a neighbour


def nearest(
    queries: Rows, references: Rows, k: int = 1, *, exclude_self: bool = False
) -> tuple[Index, Floats]:
    """The k nearest references of every query, by Euclidean distance.

    On unit rows this is also the order of similarity: <q, r> = 1 - ||q - r||^2 / 2.

    Args:
        queries: (M, D) float32.
        references: (N, D) float32.
        k: neighbours per query.
        exclude_self: the queries *are* the references, and a row is not its own neighbour (it is
            excluded by position, so exact duplicates of it still count).

    Returns:
        positions (M, k) int64 and squared distances (M, k) float64, nearest first; equal distances
        in the order of position.

    Raises:
        ValueError: if there are fewer than k neighbours to find, or the widths differ.

    Cost: O(M N D) time in float32 BLAS, O(BLOCK N) memory.
    """
    available = len(references) - int(exclude_self)
    if k > available or queries.shape[1] != references.shape[1]:
        raise ValueError(
            f"expected at least {k} references of width {queries.shape[1]}, "
            f"got {available} of width {references.shape[1]}"
        )
    import faiss  # here, so that the rest of the library works without it

    index = faiss.IndexFlatL2(references.shape[1])
    index.add(np.ascontiguousarray(references))
    wanted = min(k + int(exclude_self) + _SPARE, len(references))
    positions = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k), np.float64)
    for block in _blocks(len(queries)):
        _, found = index.search(np.ascontiguousarray(queries[block]), wanted)
        exact = squared_distances(queries[block], references, found)
        if exclude_self:
            exact[found == np.arange(len(queries))[block, None]] = np.inf
        order = np.lexsort((found, exact), axis=1)[:, :k]
        positions[block] = np.take_along_axis(found, order, axis=1)
        distances[block] = np.take_along_axis(exact, order, axis=1)
    return positions, distances


def squared_distances(queries: Rows, references: Rows, positions: Index) -> Floats:
    """||q_i - r_j||^2 for the listed pairs only, by float64 subtraction: exactly 0 for equal rows.

    Args:
        queries: (M, D).
        references: (N, D).
        positions: (M, K), for query i the references to measure.

    Returns:
        (M, K) float64.
    """
    out = np.empty(positions.shape, np.float64)
    for column in range(positions.shape[1]):
        difference = queries.astype(np.float64) - references[positions[:, column]]
        out[:, column] = np.einsum("md,md->m", difference, difference)
    return out


def nearest_two_groups(queries: Rows, references: Rows, groups: Index) -> tuple[Index, Floats]:
    """The nearest reference of each of the two nearest groups.

    Args:
        queries: (M, D) float32.
        references: (N, D) float32, no two rows equal, at most two of a group.
        groups: (N,) which references count as one.

    Returns:
        positions (M, 2) and squared distances (M, 2) float64, the nearer first.

    Raises:
        ValueError: if there are fewer than two groups.

    Cost: as ``nearest``.
    """
    if len(np.unique(groups)) < 2:
        raise ValueError(f"expected at least 2 groups of references, got {np.unique(groups)}")
    # Of the three nearest at most two are of one group, so the second group is among them.
    positions, squared = nearest(queries, references, min(3, len(references)))
    of = groups[positions]
    second = np.argmax(of != of[:, :1], axis=1)[:, None]
    columns = np.concatenate([np.zeros_like(second), second], axis=1)
    return np.take_along_axis(positions, columns, 1), np.take_along_axis(squared, columns, 1)


def first_occurrences(values: Rows) -> Index:
    """For every row, the position of the first row that equals it, (N,); cost O(N D)."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(row.tobytes(), i) for i, row in enumerate(values)], np.int64)


def similarities(first: Rows, second: Rows) -> Floats:
    """<a_i, b_i> of paired rows, (N,) float64."""
    return np.einsum("nd,nd->n", first.astype(np.float64), second.astype(np.float64))


def inside_any_ball(queries: Rows, centres: Rows, squared_radii: Floats) -> npt.NDArray[np.bool_]:
    """Which queries lie in at least one ball; a point on the border is inside.

    The matrix form of the distance settles all pairs but those within its rounding error of the
    border; these are measured by subtraction. So a query equal to a centre of radius 0 is inside.

    Args:
        queries: (M, D) float32.
        centres: (N, D) float32.
        squared_radii: (N,) float64.

    Returns:
        (M,) bool. Cost: O(M N D) time, O(BLOCK N) memory.
    """
    centres64 = centres.astype(np.float64)
    norms = np.einsum("nd,nd->n", centres64, centres64)
    inside = np.zeros(len(queries), np.bool_)
    for block in _blocks(len(queries)):
        q = queries[block].astype(np.float64)
        q_norms = np.einsum("md,md->m", q, q)[:, None]
        margin = q_norms - 2 * (q @ centres64.T) + norms - squared_radii  # <= 0 inside
        slack = 1e-12 * (q_norms + norms)
        inside[block] = (margin < -slack).any(1)
        rows, columns = np.nonzero((np.abs(margin) <= slack) & ~inside[block, None])
        exact = squared_distances(queries[block][rows], centres, columns[:, None])[:, 0]
        inside[block.start + rows[exact <= squared_radii[columns]]] = True
    return inside


def _blocks(length: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK))
