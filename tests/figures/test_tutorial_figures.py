"""The figures of the tutorial: what they show is what was measured, and every text is inside."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from drawn import texts
from matplotlib.text import Text

from regimes.figures import tutorial as figures
from regimes.figures.style import INK, MARK, pdf_bytes, png_bytes
from regimes.studies.checks import Check, Lesson, near
from regimes.studies.tutorial import Setting, gaussian, one_point
from regimes.studies.tutorial_points import two_points
from regimes.studies.tutorial_roll import TIMES, Losses, SwissRollLesson
from regimes.toys.swiss_roll import SwissRoll

SETTING = Setting(count=300, seed=0, start="published", noise="published")


@cache
def roll_lesson(*, good=True):
    roll, rng = SwissRoll(), np.random.default_rng(0)
    samples = {m: roll.draw(200, rng) for m in ("ddpm", "ddim")}
    nearest = {m: roll.nearest(x) for m, x in samples.items()}
    return SwissRollLesson(
        name="swiss-roll",
        title="A spiral",
        question="",
        seen=[],
        why=[],
        checks=[near("a", 0.0 if good else 9.0, 0.0, 1.0)],
        losses=Losses(network=0.13, oracle=0.12, by_time={t: (0.2 * t, 0.1 * t) for t in TIMES}),
        samples=samples,
        nearest=nearest,
        oracle=nearest,
    )


@cache
def drawn():
    lessons = [gaussian(SETTING), one_point(SETTING), two_points(SETTING), roll_lesson()]
    draw = (
        figures.gaussian_figure,
        figures.one_point_figure,
        figures.two_points_figure,
        figures.swiss_roll_figure,
    )
    return [one(lesson) for one, lesson in zip(draw, lessons)] + [figures.checks_figure(lessons)]


@pytest.mark.parametrize("index", range(5))
def test_every_text_is_inside_its_figure_and_no_tick_is_a_formula(index):
    figure = drawn()[index]
    figure.draw_without_rendering()
    shown = texts(figure)
    assert len(shown) > 5
    for text in shown:
        assert "$" not in text.get_text()
        box = Text.get_window_extent(text)
        inside = box.x0 >= 0 and box.y0 >= 0
        inside &= box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert inside, f"{text.get_text()!r} leaves the figure"


def test_two_drawings_are_byte_identical():
    first, second = (figures.swiss_roll_figure(roll_lesson()) for _ in range(2))
    assert png_bytes(first) == png_bytes(second)
    assert pdf_bytes(first) == pdf_bytes(second)


def test_paths_end_where_they_were_measured():
    lesson = one_point(SETTING)
    lines = figures.one_point_figure(lesson).axes[0].lines
    np.testing.assert_array_equal(lines[0].get_xydata(), lesson.ddim[:, 0])
    np.testing.assert_allclose(lines[0].get_xydata()[-1], [2, 3], atol=1e-12)


def test_dots_lie_on_the_exact_lines():
    axes = figures.two_points_figure(two_points(SETTING)).axes[2]
    line, dots = axes.lines[0], axes.lines[1]
    exact = np.interp(dots.get_xdata(), line.get_xdata(), line.get_ydata())
    assert len(dots.get_xdata()) > 50
    np.testing.assert_allclose(dots.get_ydata(), exact, atol=1e-3)


def test_titles_follow_the_checks():
    good, bad = (figures.swiss_roll_figure(roll_lesson(good=g)) for g in (True, False))
    assert "examples puts" in good._suptitle.get_text()
    assert "does not put" in bad._suptitle.get_text()


CHECKS = [
    (near("a", 1.05, 1.0, 0.1), 0.5),
    (near("a", 0.9, 1.0, 0.1), -1.0),
    (near("a", 7.0, 1.0, 0.1), 1.4),
    (Check(what="a", measured=0.25, exact=0.0, low=-np.inf, high=0.5), 0.5),
    (Check(what="a", measured=0.0, exact=0.0, low=-np.inf, high=0.0), 0.0),
    (Check(what="a", measured=0.1, exact=0.0, low=-np.inf, high=0.0), 1.4),
    (Check(what="a", measured=0.1, exact=None, low=0.2, high=np.inf), -1.4),
]


@pytest.mark.parametrize(("check", "place"), CHECKS)
def test_a_check_stands_where_it_lies_in_its_range(check, place):
    lesson = Lesson(name="n", title="t", question="", seen=[], why=[], checks=[check])
    figure = figures.checks_figure([lesson])
    (dot,) = [x for x in figure.axes[0].lines if x.get_marker() in ("o", "X")]
    assert dot.get_xdata()[0] == pytest.approx(place)
    assert dot.get_color() == (INK if check.passed else MARK)
    assert ("do not lie" in figure._suptitle.get_text()) is not check.passed
