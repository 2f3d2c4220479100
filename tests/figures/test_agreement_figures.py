"""Figures of a comparison: the matrix, the histogram and the sheet say what the numbers say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from compared_models import compared, planted_sets
from drawn import texts
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from regimes.figures import findings
from regimes.figures.agreement import agreement_matrix, pair_histogram
from regimes.figures.model_sheet import ModelRow, model_sheet
from regimes.figures.style import MARK, pdf_bytes, png_bytes

LONG = ["edm-cifar10-32x32-uncond-vp", "consistency_training_v2_$final$", "UViT", "x" * 80]


def sheet(shares=(0.5,), count=4, ids=None, **options):
    sets = planted_sets(shares, count=count, **options)
    names = [f"model {i}" for i in range(len(sets))]
    same = [np.linspace(1, 0, count) for _ in shares]
    rows = [ModelRow(name=names[0], images=sets[0], similarity=None)]
    rows += [ModelRow(name=n, images=s, similarity=v) for n, s, v in zip(names[1:], sets[1:], same)]
    return model_sheet(rows, ids or list(range(count)), threshold=0.6)


# ---- titles ----


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((0.9,), "model 0 and model 1 agree on 90% of seeds (chance: 0%)"),
        ((0.9, 0.3), "Models agree on 30% to 90% of seeds (chance: 0%)"),
        ((0.0,), "model 0 and model 1 do not agree more often than chance (0%)"),
        ((0.0, 0.0), "No two models agree more often than chance (0%)"),
    ],
)
def test_title_of_the_matrix_follows_the_scores(shares, expected):
    assert findings.matrix(compared(shares), "rp") == expected


def test_title_says_by_which_rule_models_agree():
    found = compared((0.9,))
    assert "at the calibrated threshold" in findings.matrix(found, "rp_calibrated")
    assert "pixel by pixel" in findings.matrix(found, "mae_score")


def test_title_of_the_sheet_counts_seeds_on_which_all_models_agree():
    assert findings.same_noise([np.array([0.9, 0.9, 0.1])], 0.6) == (
        "Same noise: both models agree on 2 of the 3 seeds shown"
    )
    three = [np.array([0.9, 0.9, 0.1]), np.array([0.9, 0.1, 0.9])]
    assert findings.same_noise(three, 0.6).startswith("Same noise: all 3 models agree on 1 of")


# ---- what is drawn ----


def test_cells_print_value_and_interval_of_their_pair_and_nothing_on_the_diagonal():
    found = compared((0.9, 0.3))
    axes = agreement_matrix(found, "rp").axes[0]
    printed = [(t.get_text(), t.get_position()) for t in axes.texts]
    table = found.matrix("rp")
    for row, column in itertools.product(range(3), repeat=2):
        here = [t for t, (x, y) in printed if int(x) == column and int(y) == row]
        score = table[row][column]
        if score is None:
            assert here == []
        else:
            assert here == [f"{score.value:.2f}", f"{score.low:.2f}\u2013{score.high:.2f}"]


def test_darker_cells_are_higher_scores():
    axes = agreement_matrix(compared((0.9, 0.3)), "rp").axes[0]
    cells = {(p.get_x(), p.get_y()): sum(p.get_facecolor()[:3]) for p in axes.patches}
    assert cells[1, 0] == cells[0, 1] < cells[2, 0]


def test_rows_and_columns_carry_the_names():
    axes = agreement_matrix(compared((0.9,), names=["EDM", "CT"]), "mae_score").axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [t.get_text() for t in labels] == ["EDM", "CT"]


def test_chance_is_marked_on_the_scale_where_it_is():
    found = compared((0.9, 0.3))
    scale = agreement_matrix(found, "rp_calibrated").axes[1]
    (line,) = scale.lines
    assert line.get_linestyle() == ":"
    np.testing.assert_allclose(line.get_ydata(), found.chance("rp_calibrated"))


def test_histogram_shows_both_distributions_of_every_pair_as_shares():
    found = compared((0.9, 0.3))
    figure = pair_histogram(found)
    panels = figure.axes[1:]
    assert len(panels) == 3
    for axes in panels:
        filled = [p for p in axes.patches if isinstance(p, Rectangle)]
        assert sum(p.get_height() for p in filled) == pytest.approx(1)
        assert [line.get_xdata()[0] for line in axes.lines] == [0.6, found.calibrated]
    shown = {t.get_text() for t in panels[0].texts}
    assert {"model 0, model 1", "above 0.6: 90%", "different seeds: 0%"} <= shown


def test_histogram_of_many_pairs_shows_the_least_and_the_most_similar():
    found = compared((0.9, 0.7, 0.5, 0.1))  # 10 pairs
    panels = pair_histogram(found).axes[1:]
    shown = [axes.texts[0].get_text() for axes in panels]
    means = found.of("mean_similarity")
    ordered = sorted(means, key=lambda pair: means[pair].value)
    assert shown == [", ".join(pair) for pair in (*ordered[:3], *ordered[-3:])]


def test_sheet_frames_exactly_the_images_above_the_threshold_and_prints_every_similarity():
    axes = sheet(count=4).axes[0]  # similarities 1, 0.67, 0.33, 0
    assert len(axes.patches) == 2
    printed = {t.get_text(): t.get_color() == MARK for t in axes.texts}
    assert {k: printed[k] for k in ("1.00", "0.67", "0.33", "0.00")} == {
        "1.00": True,
        "0.67": True,
        "0.33": False,
        "0.00": False,
    }


def test_sheet_shows_every_image_enlarged_without_smoothing():
    sets = planted_sets((0.5,), count=3)
    axes = sheet(count=3).axes[0]
    assert len(axes.images) == 6
    drawn = axes.images[3].get_array()
    factor = drawn.shape[0] // 8
    assert factor > 1
    expected = sets[1][0, ..., 0].repeat(factor, 0).repeat(factor, 1)
    np.testing.assert_array_equal(drawn, expected)


def test_sheet_refuses_rows_that_do_not_belong_together():
    images = np.zeros((3, 4, 4, 1), np.uint8)
    with pytest.raises(ValueError, match="one similarity per image, got 2 for 3"):
        ModelRow(name="a", images=images, similarity=np.zeros(2))
    alone = ModelRow(name="a", images=images, similarity=None)
    with pytest.raises(ValueError, match="two rows or more"):
        model_sheet([alone], [0, 1, 2], threshold=0.6)
    other = ModelRow(name="b", images=images[:, :2], similarity=np.zeros(3))
    with pytest.raises(ValueError, match="two rows or more"):
        model_sheet([alone, other], [0, 1, 2], threshold=0.6)


# ---- layout and files ----


def figures(names):
    found = compared([0.9, 0.5, 0.2][: len(names) - 1], names=names)
    ids = [f"folder/with/a/long/name-{i}$.png" for i in range(4)]
    yield from (agreement_matrix(found, name) for name in ("rp", "rp_calibrated", "mae_score"))
    yield pair_histogram(found)
    yield sheet((0.5, 0.1), ids=ids, channels=3)


@pytest.mark.parametrize("names", [["a", "b"], LONG], ids=["short", "long"])
def test_every_text_is_inside_its_figure(names):
    for figure in figures(names):
        figure.draw_without_rendering()
        for text in texts(figure):
            box = Text.get_window_extent(text)
            inside = box.x0 >= 0 and box.y0 >= 0
            inside &= box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
            assert inside, f"{text.get_text()!r} leaves the figure"


def test_cells_hold_their_text():
    figure = agreement_matrix(compared((1.0,)), "rp")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    width = axes.bbox.width / 2
    assert max(t.get_window_extent().width for t in axes.texts) < 0.95 * width


def test_two_renderings_of_a_comparison_are_byte_identical():
    first, second = (list(figures(["a", "b"])) for _ in range(2))
    for a, b in zip(first, second):
        assert png_bytes(a) == png_bytes(b)
        assert pdf_bytes(a) == pdf_bytes(b)
