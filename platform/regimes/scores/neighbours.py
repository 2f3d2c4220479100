"""Exact nearest neighbours.

Float32 matrix products (``products``) score all pairs, tile by tile; every pair that could matter,
given the bound on their rounding error, is measured again by float64 subtraction before anything is
decided. So results are exact also where float32 distances have no digit left, which is where copies
are; a missed neighbour is impossible, not unlikely. Nothing of size (M, N) is ever held.

``device`` names where the products run, "cpu" or "cuda"; results have the same bits on all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regimes.scores.products import (
    Device,
    Products,
    blocks,
    exact_products,
    on_device,
    squared_differences,
)

Rows = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Measure = Callable[[Tensor, Tensor], Tensor]
Search = Callable[[Rows, Rows, int], tuple[Index, Floats]]
"""(queries, references, k) -> positions (M, k), squared distances (M, k), nearest first."""

BLOCK = 4096
"""References of a tile on a CPU; see ``queries_at_once``."""
_MOST_CANDIDATES = 2**22  # held at once; more (many equal rows) are measured early
_MASKED = -1e30  # below every product: they are at most 4


def nearest(
    queries: Rows,
    references: Rows,
    k: int = 1,
    *,
    exclude_self: bool = False,
    query_ids: npt.NDArray | None = None,
    reference_ids: npt.NDArray | None = None,
    device: Device = "cpu",
) -> tuple[Index, Floats]:
    """The k nearest references of every query, by Euclidean distance.

    On unit rows this is also the order of similarity: <q, r> = 1 - ||q - r||^2 / 2.

    Args:
        queries: (M, D) float32.
        references: (N, D) float32.
        k: neighbours per query.
        exclude_self: the queries *are* the references, and a row is not its own neighbour (it is
            excluded by position, so exact duplicates of it still count).
        query_ids: (M,) with ``reference_ids``: a reference of the same id is no neighbour.
        reference_ids: (N,) distinct.
        device: where to compute.

    Returns:
        positions (M, k) int64 and squared distances (M, k) float64, nearest first; equal distances
        in the order of position.

    Raises:
        ValueError: if there are fewer than k neighbours to find, the widths differ, reference ids
            repeat, or a row is not finite.

    Cost: O(M N D) time, about one float32 matrix product; O(BLOCK^2 + (M + N) D) memory. Sets in
    which most rows are nearly equal take up to the time of a float64 subtraction of all pairs.
    """
    own = _own_positions(len(queries), exclude_self, query_ids, reference_ids)
    _check_sizes(queries, references, k, own)
    q, r = on_device(queries, device), on_device(references, device)
    products = Products(q, r)
    return _search(products, k, own, lambda i, j: squared_differences(q, r, i, j))


def most_similar(
    queries: Rows,
    references: Rows,
    k: int = 1,
    *,
    exclude_self: bool = False,
    query_ids: npt.NDArray | None = None,
    reference_ids: npt.NDArray | None = None,
    device: Device = "cpu",
) -> tuple[Index, Floats]:
    """The k most similar references of every query, by cosine; rows may have any length.

    A row of zeros has cosine 0 with everything.

    Args, errors and cost: as ``nearest``.

    Returns:
        positions (M, k) int64 and cosines (M, k) float64 in [-1, 1], the most similar first; equal
        cosines in the order of position.
    """
    own = _own_positions(len(queries), exclude_self, query_ids, reference_ids)
    _check_sizes(queries, references, k, own)
    q, r = on_device(queries, device), on_device(references, device)
    lengths = [exact_products(x, x, *(2 * [torch.arange(len(x), device=x.device)])) for x in (q, r)]

    def unlike(i: Tensor, j: Tensor) -> Tensor:
        squares = lengths[0][i] * lengths[1][j]
        cosines = exact_products(q, r, i, j) / squares.sqrt().clamp(min=1e-300)
        return -cosines.clamp(-1, 1)

    positions, negated = _search(Products(q, r, cosine=True), k, own, unlike)
    return positions, -negated


def queries_at_once() -> int:
    """Queries of a tile: a tile of 2048 x 4096 is 32 MiB, about what a CPU's cache holds."""
    return max(1, BLOCK // 2)


def references_at_once(device: torch.device) -> int:
    """References of a tile; a GPU wants larger products."""
    return BLOCK * (8 if device.type == "cuda" else 1)


def _own_positions(
    count: int,
    exclude_self: bool,
    query_ids: npt.NDArray | None,
    reference_ids: npt.NDArray | None,
) -> Index | None:
    """For every query the position of the one reference that is itself, or -1; None if all are -1."""
    if exclude_self:
        return np.arange(count)
    if query_ids is None or reference_ids is None:
        return None
    ordered = np.argsort(reference_ids, kind="stable")
    known = reference_ids[ordered]
    if (known[1:] == known[:-1]).any():
        raise ValueError("reference_ids: expected distinct ids, got repeated ones")
    if len(known) == 0 or len(query_ids) != count:
        raise ValueError(f"expected ids of {count} queries, got {len(query_ids)}")
    place = np.searchsorted(known, query_ids).clip(max=len(known) - 1)
    return np.where(known[place] == query_ids, ordered[place], -1)


def _check_sizes(queries: Rows, references: Rows, k: int, own: Index | None) -> None:
    available = len(references) - int(own is not None and bool((own >= 0).any()))
    if not 1 <= k <= available or queries.shape[1] != references.shape[1]:
        raise ValueError(
            f"expected at least {k} references of width {queries.shape[1]}, "
            f"got {available} of width {references.shape[1]}"
        )


def _search(
    products: Products, k: int, own: Index | None, measure: Measure
) -> tuple[Index, Floats]:
    """The k references of smallest measure for every query, block by block."""
    count = len(products.slack)
    positions, measures = np.empty((count, k), np.int64), np.empty((count, k), np.float64)
    for rows in blocks(count, queries_at_once()):
        mine = None if own is None else on_device(own[rows], products.slack.device)
        _, found, values = _best(products, rows, k, mine, measure)
        positions[rows] = found.view(-1, k).cpu().numpy()
        measures[rows] = values.view(-1, k).cpu().numpy()
    return positions, measures


def _best(
    products: Products, rows: slice, k: int, own: Tensor | None, measure: Measure
) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and measure of the k best of a block of queries, in order: 3 x (B k,)."""
    slack = products.slack[rows]
    best = slack.new_full((len(slack), k), _MASKED)  # lower bounds of the k largest products
    held: list[tuple[Tensor, Tensor, Tensor]] = []
    for start, tile in products.tiles(rows, references_at_once(slack.device)):
        if own is not None:
            _mask(tile, own - start)
        maxima = _group_maxima(tile, k)
        best = torch.cat([best, *(_largest(part, k) for part in maxima)], 1)
        best = _largest(best, k)
        floor = best.amin(1) - 2 * slack
        held.append(_at_least(tile, maxima, floor, start))
        if sum(len(part[0]) for part in held) > _MOST_CANDIDATES:
            i, j, _ = _reduce(held, floor, k, rows.start, measure)
            held = [(i, j, torch.full_like(floor[i], torch.inf))]  # measured: they stay
    return _reduce(held, floor, k, rows.start, measure)


def _mask(tile: Tensor, columns: Tensor) -> None:
    rows = ((columns >= 0) & (columns < tile.shape[1])).nonzero()[:, 0]
    tile[rows, columns[rows]] = _MASKED


def _largest(values: Tensor, k: int) -> Tensor:
    """(B, <= k) the largest values of every row; (B, 0) of no columns."""
    if k == 1 and values.shape[1]:
        return values.amax(1, keepdim=True)
    return values.topk(min(k, values.shape[1]), sorted=False).values


def _group_maxima(tile: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(B, G) maxima of groups of columns G apart, and (B, <= 31) the columns that are left.

    One pass that the processor vectorizes; all that follows looks at one value in up to 32. The
    k-th largest maximum is at most the k-th largest product, and near it while G >= 8 k.
    """
    size = min(32, max(1, tile.shape[1] // (8 * k)))
    groups = tile.shape[1] // size
    shape, strides = (len(tile), size, groups), (tile.stride(0), groups, 1)
    return tile.as_strided(shape, strides).amax(1), tile[:, groups * size :]


def _at_least(
    tile: Tensor, maxima: tuple[Tensor, Tensor], floor: Tensor, start: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Row, reference and product of all pairs of the tile at or above the floor of their row."""
    whole, tail = maxima
    groups, covered = whole.shape[1], tile.shape[1] - tail.shape[1]
    i, group = (whole >= floor[:, None]).nonzero(as_tuple=True)
    columns = group[:, None] + torch.arange(0, covered, groups, device=tile.device)
    values = tile[i[:, None], columns]
    hit = values >= floor[i, None]
    tail_i, tail_j = (tail >= floor[:, None]).nonzero(as_tuple=True)
    return (
        torch.cat([i[:, None].expand_as(hit)[hit], tail_i]),
        torch.cat([columns[hit], covered + tail_j]) + start,
        torch.cat([values[hit], tail[tail_i, tail_j]]),
    )


def _reduce(
    held: list[tuple[Tensor, Tensor, Tensor]],
    floor: Tensor,
    k: int,
    first_row: int,
    measure: Measure,
) -> tuple[Tensor, Tensor, Tensor]:
    """The k candidates of smallest measure of every row; of equal ones those of lower position."""
    i, j, products = (torch.cat(parts) for parts in zip(*held, strict=True))
    keep = (products >= floor[i]) & (products > _MASKED / 2)
    i, j = i[keep], j[keep]
    measures = measure(first_row + i, j)
    order = j.argsort(stable=True)
    order = order[measures[order].argsort(stable=True)]
    order = order[i[order].argsort(stable=True)]
    i, j, measures = i[order], j[order], measures[order]
    counts = torch.bincount(i, minlength=len(floor))
    rank = torch.arange(len(i), device=i.device) - (counts.cumsum(0) - counts)[i]
    return i[rank < k], j[rank < k], measures[rank < k]


def merge_top_k(parts: Sequence[tuple[Index, Floats]], k: int) -> tuple[Index, Floats]:
    """The k nearest of several disjoint shards of references, from the nearest of each.

    Associative and independent of order; exact if every shard gave its k nearest, or all it has.

    Args:
        parts: per shard, positions (M, <= k) among *all* references and measures (M, <= k),
            smallest first, as ``nearest`` gives them.
        k: how many to keep; all, if there are fewer.

    Returns:
        (M, <= k) positions and measures, smallest first, equal ones in the order of position.
    """
    positions, measures = (np.concatenate(p, axis=1) for p in zip(*parts, strict=True))
    order = np.lexsort((positions, measures), axis=1)[:, :k]
    return np.take_along_axis(positions, order, 1), np.take_along_axis(measures, order, 1)


def squared_distances(queries: Rows, references: Rows, positions: Index) -> Floats:
    """||q_i - r_j||^2 for the listed pairs only, by float64 subtraction: exactly 0 for equal rows.

    Args:
        queries: (M, D).
        references: (N, D).
        positions: (M, K), for query i the references to measure.

    Returns:
        (M, K) float64.
    """
    rows = np.repeat(np.arange(len(queries)), positions.shape[1])
    pairs = torch.from_numpy(rows), on_device(positions.reshape(-1), "cpu")
    squared = squared_differences(on_device(queries, "cpu"), on_device(references, "cpu"), *pairs)
    return squared.numpy().reshape(positions.shape)


def nearest_two_groups(
    queries: Rows, references: Rows, groups: Index, *, device: Device = "cpu"
) -> tuple[Index, Floats]:
    """The nearest reference of each of the two nearest groups.

    Args:
        queries: (M, D) float32.
        references: (N, D) float32, no two rows equal, at most two of a group.
        groups: (N,) which references count as one.
        device: where to compute.

    Returns:
        positions (M, 2) and squared distances (M, 2) float64, the nearer first.

    Raises:
        ValueError: if there are fewer than two groups.

    Cost: as ``nearest``.
    """
    if len(np.unique(groups)) < 2:
        raise ValueError(f"expected at least 2 groups of references, got {np.unique(groups)}")
    # Of the three nearest at most two are of one group, so the second group is among them.
    positions, squared = nearest(queries, references, min(3, len(references)), device=device)
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
