"""The report of the tutorial: the answer, every lesson with its figure, every check."""

from __future__ import annotations

import dataclasses
import re

import pytest
from pages import HOSTILE, Page

from regimes.report import render
from regimes.report.tutorial import TutorialReport, answer
from regimes.studies.checks import Lesson, near


def lesson(name="one", passed=True, **changes):
    basic = Lesson(
        name=name,
        title=f"Title of {name}",
        question=f"Question of {name}?",
        seen=["It is seen."],
        why=["It is so."],
        checks=[near(f"number of {name}", 1.0 if passed else 9.0, 1.1, 0.5)],
    )
    return dataclasses.replace(basic, **changes)


def report(lessons, **changes):
    basic = TutorialReport(
        title="Tutorial",
        answer=answer(lessons),
        figures=[("All checks.", b"png-0")],
        lessons=lessons,
        lesson_figures=[(f"Figure of {x.name}.", b"png-1") for x in lessons],
        recipe="{}",
        command="python jobs/tutorial.py",
        links=[("scores.json", "scores.json")],
    )
    return dataclasses.replace(basic, **changes)


def test_report_answers_then_teaches():
    html = render(report([lesson("one"), lesson("two")]))
    order = [
        "All 2 measured numbers agree with theory.",
        "cG5nLTA=",
        "In one minute",
        *(
            part
            for name in ("one", "two")
            for part in (
                f"Title of {name}",
                f"Question of {name}?",
                f'alt="Figure of {name}."',
                f"number of {name}",
            )
        ),
        "What to beware of",
        "Reproduce it",
    ]
    places = [html.index(part) for part in order]
    assert places == sorted(places)
    assert "numberof" not in Page(html).text
    assert "number of one11.1± 0.5ok" in Page(html).text


def test_failed_checks_are_named_and_marked():
    html = render(report([lesson("one"), lesson("two", passed=False)]))
    text = Page(html).text
    assert "1 of 2 measured numbers do not agree with theory." in text
    assert "Failed: two, number of two." in text
    assert html.count('class="bad">FAIL<') == 1
    assert 'class="bad"' not in render(report([lesson("one")]))


def test_hostile_words_are_escaped_and_nothing_is_loaded():
    made = lesson(title=HOSTILE, question=HOSTILE, seen=[HOSTILE], why=[HOSTILE])
    page = Page(render(report([made], lesson_figures=[(HOSTILE, b"png")])))
    assert "script" not in page.tags
    assert page.tags.count("img") == 2
    addresses = [v for _, key, v in page.attributes if key in ("src", "href", "srcset", "action")]
    assert len(addresses) == 3
    assert not [a for a in addresses if not re.match(r"data:image/png;base64,|[\w./-]+$", a)]


def test_every_lesson_needs_its_figure():
    with pytest.raises(ValueError, match="a figure per lesson, got 0 for 1"):
        report([lesson()], lesson_figures=[])
    with pytest.raises(ValueError, match="figures"):
        report([lesson()], figures=[])
