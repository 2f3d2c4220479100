"""Figures of a classification study: titles follow from the numbers, and every mark is where it belongs."""

from __future__ import annotations

import numpy as np
import pytest
from classified import CLASSES, GOOD, planted, planted_arms
from drawn import texts

from regimes.figures.classification import (
    MOST_CLASSES,
    captions,
    finding,
    recall_by_class,
    score_by_arm,
)
from regimes.figures.style import pdf_bytes, png_bytes
from regimes.studies.classification import study

FOUND = study(planted_arms(GOOD), CLASSES)


def drawn_points(figure, marker="o", face=None):
    """(x, y) of all points drawn with a marker."""
    lines = [line for line in figure.axes[0].lines if line.get_marker() == marker]
    lines = [line for line in lines if (line.get_markerfacecolor() == "none") == (face == "none")]
    return np.array([xy for line in lines for xy in zip(*line.get_data())])


def test_title_says_which_images_help():
    assert finding(FOUND) == (
        f"Diverse images help ({FOUND.comparison('real+diverse').main.value:+.3f}); generated images "
        "make no measurable difference beside real ones"
    )
    worse = {"real": (0.9, 0.9), "generated": (0.5, 0.5), "real+generated": (0.6, 0.7)}
    found = study(planted_arms(worse), CLASSES)
    change = found.comparison("real+generated").main.value
    assert change == pytest.approx(-0.25, abs=0.01)
    assert finding(found) == f"Generated images hurt ({change:+.3f}) beside real ones"


def test_title_claims_nothing_that_one_seed_or_chance_cannot_tell():
    assert "one seed tells no spread" in finding(study(planted_arms(GOOD, seeds=1), CLASSES))
    weak = {"real": (0.5, 0.5), "generated": (0.5, 0.5), "real+generated": (0.9, 0.9)}
    assert "not above chance" in finding(study(planted_arms(weak), CLASSES))


def test_every_arm_has_its_mean_its_seeds_and_its_interval():
    figure = score_by_arm(FOUND)
    means, seeds = drawn_points(figure), drawn_points(figure, face="none")
    bars = [tuple(b.get_xdata()) for b in figure.axes[0].lines if b.get_linewidth() == 1.6]
    for row, arm in enumerate(FOUND.arms):
        e = FOUND.of(arm)
        assert [x for x, y in means if y == row] == [e.value]
        assert sorted(x for x, y in seeds if abs(y - row) < 0.5) == sorted(e.by_seed)
        assert bars[row] == (e.low, e.high)
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels == list(FOUND.arms)


def test_the_real_images_and_the_chance_level_are_marked():
    shown = {t.get_text() for t in texts(score_by_arm(FOUND))}
    assert f"real: {FOUND.of('real').value:.3f}" in shown
    assert "balanced accuracy, 160 test images (chance: 0.50)" in shown


def test_recalls_are_drawn_for_every_class_and_arm():
    figure = recall_by_class(FOUND)
    for arm, marker in zip(FOUND.arms, "osD^v"):
        points = drawn_points(figure, marker)
        for label in range(2):
            e = FOUND.of(arm, "recall", label)
            assert [x for x, y in points if round(y) == label] == [pytest.approx(e.value)]
    shown = {t.get_text() for t in texts(figure)}
    assert {"NORMAL (60)", "PNEUMONIA (100)", *FOUND.arms} <= shown
    assert figure.get_suptitle().replace("\n", " ") == (
        "Largest change of a recall: NORMAL +0.300 with diverse images"
    )


def test_a_change_within_its_interval_is_said_to_be():
    same = {"real": (0.7, 0.8), "generated": (0.7, 0.8), "real+generated": (0.7, 0.8)}
    predictions = planted_arms(same)
    predictions["real+generated", 0] = planted((0.72, 0.8), seed=0)
    title = recall_by_class(study(predictions, CLASSES)).get_suptitle().replace("\n", " ")
    assert title.endswith("with generated images, within its interval of none")


def test_many_classes_are_not_drawn_one_by_one():
    assert set(captions(FOUND)) == {"balanced-accuracy", "recall"}
    k = MOST_CLASSES + 1
    many = dict.fromkeys(("real", "generated", "real+generated"), (0.8,) * k)
    found = study(planted_arms(many, counts=(4,) * k, seeds=2), [str(c) for c in range(k)])
    assert set(captions(found)) == {"balanced-accuracy"}


def test_equal_studies_give_equal_bytes():
    for draw in (score_by_arm, recall_by_class):
        assert png_bytes(draw(FOUND)) == png_bytes(draw(FOUND))
        assert pdf_bytes(draw(FOUND)) == pdf_bytes(draw(FOUND))


@pytest.mark.parametrize("seeds", [1, 4])
def test_nothing_is_cut_off(seeds):
    found = study(planted_arms(GOOD, seeds=seeds), ["a class of a very long name indeed", "b"])
    for figure in (score_by_arm(found), recall_by_class(found)):
        figure.canvas.draw()  # labels find their places
        renderer = figure.canvas.get_renderer()
        width, height = figure.get_size_inches() * figure.dpi
        boxes = [t.get_window_extent(renderer) for t in texts(figure)]
        assert boxes
        assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= width + 1 and b.y1 <= height for b in boxes)
