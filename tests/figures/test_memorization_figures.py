"""Figures of a memorization study show its scores, label them in place, and fit on the page."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from drawn import all_figures, pairs, texts
from matplotlib.text import Text
from memorization_tables import GL, SIZES, TAU, WIDTHS, N, table

from regimes.figures import curves, histograms, sheets
from regimes.figures.style import LINES, MARK, width_colors
from regimes.scores.result import wilson_interval


@pytest.mark.parametrize("sizes", [SIZES, (10, 100, 128, 850)])
def test_ticks_are_the_sizes_on_a_log2_axis(sizes):
    for make in (curves.copies, curves.reproducibility, curves.fidelity):
        axes = make(table(sizes), sizes, WIDTHS).axes[0]
        assert [t.get_text() for t in axes.get_xticklabels()] == [str(n) for n in sizes]
        assert axes.get_xticks().tolist() == list(sizes)
        assert (axes.get_xscale(), axes.xaxis.get_transform().base) == ("log", 2)
        assert axes.get_xlabel() == "training images n"


def test_axes_say_which_score_they_show():
    figures = all_figures()
    assert figures["copies"].axes[0].get_ylabel().startswith("GL score")
    assert figures["reproducibility"].axes[0].get_ylabel().startswith("RP score")
    assert figures["similarity"].axes[-1].get_xlabel() == "similarity to the nearest training image"


def test_curve_of_a_width_is_its_pooled_score_in_its_colour():
    axes = curves.copies(table(), SIZES, WIDTHS).axes[0]
    for color in width_colors(WIDTHS).values():
        solid = [ln for ln in axes.lines if ln.get_color() == color and ln.get_linestyle() == "-"]
        assert len(solid) == 1
        np.testing.assert_allclose(solid[0].get_ydata(), [GL[n] for n in SIZES], atol=1 / N)


def test_bands_are_the_intervals():
    axes = curves.copies(table(widths=(128,)), SIZES, (128,)).axes[0]
    (band,) = axes.collections
    y = band.get_paths()[0].vertices[:, 1]
    expected = wilson_interval(round(GL[16] * N), N)[0], wilson_interval(396, 400)[1]
    np.testing.assert_allclose((y.min(), y.max()), expected)


def test_references_are_labelled_in_place():
    shown = {
        k: {t.get_text().replace("\n", " ") for t in texts(f)} for k, f in all_figures().items()
    }
    assert "real held-out images" in shown["copies"]
    assert {"two memorizers, disjoint data", "two linear denoisers"} <= shown["reproducibility"]
    assert {"real images: precision", "linear denoiser: precision"} <= shown["fidelity"]
    assert "copy threshold 0.880 [0.870, 0.900]" in shown["similarity"]


def test_every_comparison_has_its_own_line_style():
    assert len({str(style) for style in LINES.values()}) == len(LINES)


@pytest.mark.parametrize("count", [1, 2, 5, 6, 12])
def test_widths_have_distinct_colours_none_of_them_the_mark(count):
    colors = list(width_colors(range(1, count + 1)).values())
    assert len({*colors, MARK}) == count + 1


def test_sheet_frames_exactly_the_pairs_above_the_threshold_and_prints_every_similarity():
    values = [0.95, 0.88, 0.2, 0.881]
    axes = sheets.nearest_sheet([pairs(16, values)], width=8, threshold=0.88).axes[0]
    assert len(axes.patches) == 2  # 0.880 is not above 0.880
    printed = {t.get_text(): t.get_color() for t in axes.texts}
    assert {k: printed[k] == MARK for k in ("0.950", "0.880", "0.200", "0.881")} == {
        "0.950": True,
        "0.880": False,
        "0.200": False,
        "0.881": True,
    }


def test_sheet_enlarges_without_smoothing():
    block = pairs(16, [0.5])
    axes = sheets.nearest_sheet([block], width=8, threshold=0.88).axes[0]
    drawn = axes.images[0].get_array()
    factor = drawn.shape[0] // 8
    assert factor > 1
    np.testing.assert_array_equal(drawn, block.upper[0, ..., 0].repeat(factor, 0).repeat(factor, 1))
    assert axes.images[0].get_interpolation() == "none"


def test_sheet_refuses_blocks_of_different_seeds():
    other = replace(pairs(64, [0.1, 0.2]), seeds=np.array([5, 6]))
    with pytest.raises(ValueError, match="same in every block"):
        sheets.nearest_sheet([pairs(16, [0.1, 0.2]), other], width=8, threshold=0.88)


def test_pairs_refuse_images_without_a_similarity():
    with pytest.raises(ValueError, match="1 similarities"):
        replace(pairs(16, [0.1, 0.2]), similarity=np.array([0.1]))


def test_histogram_needs_items_not_only_scores():
    rows = [replace(r, score=replace(r.score, per_item={})) for r in table()]
    with pytest.raises(ValueError, match="per-item"):
        histograms.similarity_histogram(rows, SIZES, 128, TAU)


# ---- layout ----


@pytest.mark.parametrize(
    ("sizes", "widths", "channels"),
    [
        (SIZES, WIDTHS, 1),
        ((64,), (128,), 1),
        ((10, 33, 100, 128, 50000), (8, 16, 32), 3),
        ((16, 850), tuple(2**k for k in range(3, 10)), 1),
    ],
)
def test_every_text_is_inside_its_figure_and_labels_do_not_overlap(sizes, widths, channels):
    for name, figure in all_figures(sizes, widths, channels).items():
        figure.draw_without_rendering()
        boxes = {t.get_text(): t.get_window_extent() for t in texts(figure)}
        for text, box in boxes.items():
            inside = box.x0 >= 0 and box.y0 >= 0
            inside &= box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
            assert inside, f"{name}: {text!r} leaves the figure"
        if name in ("copies", "reproducibility", "fidelity"):
            # Not Annotation.get_window_extent, which includes the leader line.
            labels = [Text.get_window_extent(t) for t in figure.axes[0].texts]
            assert labels
            for a, b in itertools.combinations(labels, 2):
                assert not a.overlaps(b), name


def test_labels_are_spread_apart_in_order_and_only_where_they_must():
    free = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(curves.spread(free, np.full(3, 0.1), 0, 1), free)
    tight = curves.spread(np.array([0.5, 0.5, 0.5]), np.full(3, 0.1), 0, 1)
    np.testing.assert_allclose(tight, [0.4, 0.5, 0.6])
    edge = curves.spread(np.array([0.99, 1.0]), np.full(2, 0.1), 0, 1)
    np.testing.assert_allclose(edge, [0.85, 0.95])
