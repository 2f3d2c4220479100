"""Convex hulls in the plane: which points lie strictly inside, and how much two hulls share.

Which side of an edge a point is on is decided exactly: by the float64 determinant where it exceeds
its rounding error, else in rational numbers (after Shewchuk 1997).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_ERROR = (3 + 16 * 2.0**-53) * 2.0**-53  # of the determinant, relative to its two products


@dataclass(frozen=True, slots=True, kw_only=True)
class Hull:
    """A convex polygon.

    Args:
        vertices: (V, 2), counter-clockwise.
        area: of the polygon.
    """

    vertices: Floats
    area: float


def convex_hull(points: npt.NDArray) -> Hull:
    """The convex hull of (N, 2) points, as scipy's Qhull finds it.

    Raises:
        ValueError: if the points lie on a line, or there are fewer than three.
    """
    from scipy.spatial import ConvexHull, QhullError

    try:
        found = ConvexHull(points.astype(np.float64))
    except (QhullError, ValueError) as error:
        raise ValueError(
            f"convex hull: expected at least 3 points that are not on a line, got {len(points)}"
        ) from error
    return Hull(vertices=found.points[found.vertices], area=float(found.volume))


def strictly_inside(points: npt.NDArray, hull: Hull) -> npt.NDArray[np.bool_]:
    """Which of (M, 2) points are inside, not on the border; exact for the given coordinates.

    Cost: O(M V), V the number of vertices.
    """
    inside = np.ones(len(points), np.bool_)
    ends = np.roll(hull.vertices, -1, axis=0)
    p = points.astype(np.float64)
    for a, b in zip(hull.vertices, ends, strict=True):
        left = (b[0] - a[0]) * (p[:, 1] - a[1])
        right = (b[1] - a[1]) * (p[:, 0] - a[0])
        unsure = np.abs(left - right) <= _ERROR * (np.abs(left) + np.abs(right))
        inside &= unsure | (left > right)
        for i in np.flatnonzero(unsure & inside):
            inside[i] = _exactly_left(a, b, p[i])
    return inside


def _exactly_left(a: Floats, b: Floats, p: Floats) -> bool:
    """Whether p is strictly to the left of the line from a to b."""
    (ax, ay), (bx, by), (px, py) = ([Fraction(float(v)) for v in point] for point in (a, b, p))
    return (bx - ax) * (py - ay) > (by - ay) * (px - ax)


def intersection(first: Hull, second: Hull) -> Floats:
    """Vertices (K, 2) of what two convex polygons share, K = 0 if nothing. Cost: O(V W)."""
    polygon = first.vertices
    for a, b in zip(second.vertices, np.roll(second.vertices, -1, axis=0), strict=True):
        if len(polygon) == 0:
            break
        polygon = _clipped(polygon, a, b)
    return polygon


def intersection_area(first: Hull, second: Hull) -> float:
    """Area that two convex polygons share, 0 if none. Cost: O(V W)."""
    return _area(intersection(first, second))


def _clipped(polygon: Floats, a: Floats, b: Floats) -> Floats:
    """The part of a convex polygon to the left of a line (Sutherland & Hodgman 1974)."""
    side = (b[0] - a[0]) * (polygon[:, 1] - a[1]) - (b[1] - a[1]) * (polygon[:, 0] - a[0])
    kept: list[Floats] = []
    for p, q, s, t in zip(polygon, np.roll(polygon, -1, 0), side, np.roll(side, -1), strict=True):
        if s >= 0:
            kept.append(p)
        if s * t < 0:
            kept.append(p + s / (s - t) * (q - p))
    return np.array(kept).reshape(-1, 2)


def _area(polygon: Floats) -> float:
    """Shoelace formula, about the first vertex."""
    if len(polygon) < 3:
        return 0.0
    x, y = (polygon - polygon[0]).T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)
