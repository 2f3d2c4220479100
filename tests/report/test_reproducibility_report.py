"""The report of a comparison: the answer, what was compared, every number with interval and null."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from compared_models import RULES, compared, planted_sets
from pages import HOSTILE, Page

from regimes.descriptors.pixels import Pixels
from regimes.report import ReproducibilityReport, render
from regimes.report.reproducibility import SetLine
from regimes.scores.agreement import compare
from regimes.scores.unpaired import Blocks
from regimes.studies.reproducibility import answer, study


def report(found=None, **changes):
    found = found or compared((0.9, 0.3), names=["EDM", "CT", "UViT"])
    basic = ReproducibilityReport(
        title="Reproducibility",
        answer=answer(found),
        figures=[("The matrix.", b"png-1"), ("More.", b"png-2")],
        study=found,
        sets=[SetLine(name=n, where=f"/data/{n}", count=100, size="8x8 gray") for n in found.names],
        descriptor="pixels",
        joined_by="seed",
        left_out={},
        recipe='{"seed": 0}',
        command="python jobs/reproducibility.py --sets a b",
        links=[("scores", "scores.json")],
    )
    return dataclasses.replace(basic, **changes)


def test_report_answers_before_it_proves():
    made = report()
    html = render(made)
    order = [
        made.answer[0].split(" (")[0],
        "cG5nLTE=",
        ">What was compared<",
        ">What counts as the same image<",
        ">Evidence<",
        "cG5nLTI=",
        ">Numbers<",
        ">What to beware of<",
        ">Reproduce it<",
        made.command,
    ]
    places = [html.index(part) for part in order]
    assert places == sorted(places)


def test_every_score_of_every_pair_is_shown_with_interval_and_null():
    found = compared((0.9, 0.3), names=["EDM", "CT", "UViT"])
    text = Page(render(report(found))).text
    for row in found.rows:
        s = row.score
        shown = f"{row.first}, {row.second}{s.value:.3f}[{s.low:.3f}, {s.high:.3f}]{s.null:.3f}"
        assert shown in text, s.name
    assert "nan" not in text


def test_report_says_what_was_compared_and_what_was_left_out():
    text = Page(render(report(left_out={"EDM": 3, "CT": 0}))).text
    assert (
        "100 images of each, paired by seed. Left out, because another set lacks them: 3 of EDM."
        in text
    )
    assert "/data/UViT" in text
    assert "Left out" not in Page(render(report())).text


def test_report_says_whether_nulls_are_exact():
    text = Page(render(report())).text
    assert "Nulls are exact: all 9900 couples" in text
    sets = planted_sets((0.9,))
    some = compare(sets, Pixels(), blocks=Blocks(num_items=100, size=10))
    found = study("ab", some, descriptor="pixels", rules=RULES)
    assert "unbiased estimates from 900 of the 9900 couples" in Page(render(report(found))).text


def test_a_threshold_that_chance_passes_is_called_so():
    found = compared((0.9,))
    low = dataclasses.replace(RULES, threshold=-0.5)
    easy = study("ab", compare(planted_sets((0.9,)), Pixels()), descriptor="pixels", rules=low)
    caution = "of images of different seeds count as the same"
    assert caution in Page(render(report(easy))).text
    assert caution not in Page(render(report(found))).text


def test_models_at_chance_level_raise_the_question_of_noise():
    text = Page(render(report(compared((0.0, 0.9), names=["A", "B", "C"])))).text
    assert "Not more alike than images of different seeds: A and B; B and C." in text
    assert "same noise" in text
    assert "Not more alike" not in Page(render(report())).text


def test_images_without_contrast_are_counted():
    sets = planted_sets((0.9,))
    sets[0][:5] = np.uint8(9)
    found = study("ab", compare(sets, Pixels()), descriptor="pixels", rules=RULES)
    assert "not even to themselves: 5.0% of a." in Page(render(report(found))).text


def test_hostile_names_are_escaped_and_nothing_is_loaded():
    found = compared((0.9,), names=[HOSTILE, "b"])
    lines = [SetLine(name=HOSTILE, where=HOSTILE, count=1, size=HOSTILE)] * 2
    html = render(
        report(
            found,
            title=HOSTILE,
            sets=lines,
            descriptor=HOSTILE,
            joined_by=HOSTILE,
            left_out={HOSTILE: 2},
            recipe=HOSTILE,
            command=HOSTILE,
        )
    )
    page = Page(html)
    assert "script" not in page.tags
    assert page.tags.count("img") == 2
    assert page.text.count("<script>alert('x')</script>") >= 8
    addresses = [v for _, key, v in page.attributes if key in ("src", "href", "srcset", "action")]
    assert len(addresses) == 3
    assert not [a for a in addresses if not re.match(r"data:image/png;base64,|[\w./-]+$", a)]


def test_report_is_the_same_text_every_time_and_needs_a_figure():
    assert render(report()) == render(report())
    with pytest.raises(ValueError, match="figures"):
        report(figures=[])
