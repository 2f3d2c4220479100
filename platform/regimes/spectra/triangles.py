"""Symmetric products by their upper triangles: half of the arithmetic."""

from __future__ import annotations

from torch import Tensor

_TILE = 768


def add_products(upper: Tensor, x: Tensor) -> None:
    """Add x^T x to a matrix, for tiles on and above the diagonal only: half of the products.

    Args:
        upper: (D, D); what lies below the diagonal's tiles is not touched.
        x: (B, D) of its type.
    """
    width = len(upper)
    for i in range(0, width, _TILE):
        for j in range(i, width, _TILE):
            upper[i : i + _TILE, j : j + _TILE].addmm_(x[:, i : i + _TILE].T, x[:, j : j + _TILE])


def mirrored(upper: Tensor) -> Tensor:
    """(D, D) the symmetric matrix of an upper triangle."""
    found = upper.triu()
    found += found.triu(1).T  # a copy: nothing is read where it was written
    return found
