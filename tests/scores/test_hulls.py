"""Hulls in the plane against shapely, and borders that float64 cannot tell."""

from __future__ import annotations

import numpy as np
import pytest
from shapely.geometry import Point, Polygon

from regimes.scores.hulls import Hull, convex_hull, intersection_area, strictly_inside

SQUARE = Hull(vertices=np.array([[0.0, 0], [2, 0], [2, 2], [0, 2]]), area=4.0)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_points_inside_are_those_that_shapely_finds(rng, scale):
    hull = convex_hull(scale * rng.standard_normal((200, 2)).astype(np.float32))
    points = scale * 1.5 * rng.standard_normal((500, 2)).astype(np.float32)
    polygon = Polygon(hull.vertices)
    expected = [polygon.contains(Point(p)) for p in points]
    assert strictly_inside(points, hull).tolist() == expected
    assert 0.3 < np.mean(expected) < 1
    assert hull.area == pytest.approx(polygon.area, rel=1e-12)


def test_the_border_is_outside():
    points = [[1, 1], [0, 0], [2, 1], [1, 0], [2.5, 1], [1, -1e-9]]
    assert strictly_inside(np.array(points), SQUARE).tolist() == [True] + [False] * 5


def test_sides_are_decided_where_float64_products_are_not():
    # A point one last digit off a slanted edge: the float64 determinant is 0 or has the wrong sign.
    a, b = np.array([0.5, 0.5]), np.array([12.0, 12.0])
    hull = Hull(vertices=np.array([a, b, [-9.0, 20.0]]), area=1.0)
    step = 2.0**-53
    points = np.array([[0.5 + i * step, 0.5 + j * step] for i in range(8) for j in range(8)])
    # Exactly: to the left of y = x is y > x, and all of these are inside the other two edges
    # if they are above the first and not at its start.
    far = points + np.array([1.0, 1.0])
    expected = far[:, 1] > far[:, 0]
    assert strictly_inside(far, hull).tolist() == expected.tolist()
    polygon = Polygon(hull.vertices)
    near = [polygon.contains(Point(p)) for p in points]
    assert strictly_inside(points, hull).tolist() == near


@pytest.mark.parametrize("shift", [0.0, 0.7, 1.9, 5.0])
def test_shared_area_is_that_of_shapely(rng, shift):
    first = convex_hull(rng.standard_normal((50, 2)))
    second = convex_hull(rng.standard_normal((40, 2)) + shift)
    expected = Polygon(first.vertices).intersection(Polygon(second.vertices)).area
    assert intersection_area(first, second) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert intersection_area(second, first) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert intersection_area(first, first) == pytest.approx(first.area, rel=1e-12)


def test_a_hull_within_another_is_shared_whole():
    inner = Hull(vertices=SQUARE.vertices / 4 + 0.5, area=0.25)
    assert intersection_area(SQUARE, inner) == pytest.approx(0.25, rel=1e-12)
    assert intersection_area(inner, SQUARE) == pytest.approx(0.25, rel=1e-12)


def test_hull_ignores_the_order_of_points(rng):
    points = rng.standard_normal((60, 2))
    first, second = convex_hull(points), convex_hull(points[rng.permutation(60)])
    assert {tuple(v) for v in first.vertices} == {tuple(v) for v in second.vertices}


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.eye(2), np.arange(8.0)[:, None] * [1, 2]])
def test_points_on_a_line_have_no_hull(points):
    with pytest.raises(ValueError, match="at least 3 points that are not on a line"):
        convex_hull(points)
