"""Figures of diverse samples: what is drawn is what was found."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from drawn import texts
from matplotlib.collections import PathCollection
from matplotlib.patches import Polygon

from regimes.figures.diverse import diverse_sheet, hull_map, shares
from regimes.figures.style import MARK, pdf_bytes, png_bytes
from regimes.scores.features import Features
from regimes.scores.hulls import Hull, intersection, intersection_area
from regimes.studies.diverse import DiverseRules, DiverseSets, find_diverse


@cache
def study():
    rng = np.random.default_rng(0)
    made = [rng.standard_normal((n, 3)) + shift for n, shift in ((80, 0), (40, 0), (40, 7))]
    real, same, new = (Features(np.arange(len(v)), v.astype(np.float32), "t") for v in made)
    sets = DiverseSets(real=real, generated={"same": same, "new": new})
    return find_diverse(sets, DiverseRules(names=("knn", "pca-hull")))


def test_rows_with_more_than_chance_are_marked():
    findings = study().findings
    axes = shares(findings, title="t").axes[0]
    values = [
        line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1
    ]
    assert [line.get_xdata()[0] for line in values] == [f.score.value for f in findings]
    marked = [line.get_color() == MARK for line in values]
    assert marked == [f.exceeds_null for f in findings] == [False, False, True, True]
    ticks = [line.get_xdata() for line in axes.lines if line.get_marker() == "|"]
    nulls = [x[0] for x in ticks if len(x)]
    assert nulls == [f.score.null for f in findings]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["same, knn", "same, pca-hull", "new, knn", "new, pca-hull"]


def test_the_map_holds_all_points_both_hulls_and_what_they_share():
    plane = study().of("same", "pca-hull").plane
    figure = hull_map(plane, title="t", samples="held-out")
    axes = figure.axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names[:5] == [
        "real images", "held-out", "held-out outside", "hull of real images", "hull of held-out",
    ]  # fmt: skip
    real, inside, outside = (
        c.get_offsets() for c in axes.collections if isinstance(c, PathCollection)
    )
    np.testing.assert_allclose(real, plane.real_points)
    assert len(inside) + len(outside) == 40
    np.testing.assert_allclose(outside, plane.generated_points[plane.selected])
    hulls = [line.get_xydata() for line in axes.lines]
    for drawn, hull in zip(hulls, (plane.real_hull, plane.generated_hull), strict=True):
        np.testing.assert_allclose(drawn[:-1], hull.vertices)
        np.testing.assert_allclose(drawn[0], drawn[-1])
    (shared,) = [p for p in axes.patches if isinstance(p, Polygon)]
    np.testing.assert_allclose(
        shared.get_xy()[:-1], intersection(plane.real_hull, plane.generated_hull)
    )
    assert f"both: {plane.overlap_percent:.1f}%" in [t.get_text() for t in texts(figure)]
    assert png_bytes(figure) == png_bytes(hull_map(plane, title="t", samples="held-out"))
    assert len(pdf_bytes(figure)) > 1000


def test_hulls_that_share_nothing_have_no_shared_area():
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    one, two = (Hull(vertices=square + shift, area=1.0) for shift in (0, 5))
    assert len(intersection(one, two)) == 0
    assert intersection_area(one, two) == 0
    half = Hull(vertices=square + np.array([0.5, 0]), area=1.0)
    assert intersection_area(one, half) == pytest.approx(0.5)
    plane = study().of("new", "pca-hull").plane
    patches = hull_map(plane, title="t").axes[0].patches
    assert (len(patches) == 1) == (plane.overlap_percent > 0)


@pytest.mark.parametrize("shape", [(8, 8, 1), (6, 12, 3), (300, 200, 3)])
def test_the_sheet_shows_every_image_in_its_own_shape(shape):
    images = np.random.default_rng(0).integers(0, 256, (7, *shape), np.uint8)
    axes = diverse_sheet(list(images), title="t").axes[0]
    assert len(axes.images) == 7
    left, right, bottom, top = axes.images[6].get_extent()
    assert (right - left) / (bottom - top) == pytest.approx(shape[1] / shape[0])
    places = {tuple(np.round(image.get_extent(), 6)) for image in axes.images}
    assert len(places) == 7


def test_sheets_and_shares_of_nothing_are_refused():
    image = np.zeros((4, 4, 1), np.uint8)
    for images in ([], [image] * 26):
        with pytest.raises(ValueError, match="expected 1 to 25"):
            diverse_sheet(images, title="t")
    with pytest.raises(ValueError, match="expected at least one"):
        shares([], title="t")
