"""The report of a memorization study answers before it proves, and is safe to open."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from memorization_tables import GL, SIZES, TAU, WIDTHS, N, score, table
from pages import HOSTILE, Page

from regimes.report import MemorizationReport, render
from regimes.scores.result import wilson_interval
from regimes.studies.memorization import Row
from regimes.studies.verdict import RULES, answer, classify


def report(**changes):
    rows = table()
    basic = MemorizationReport(
        title="Digits",
        answer=answer(rows, SIZES, WIDTHS),
        regimes=[classify(rows, n, w) for n in SIZES for w in WIDTHS],
        figures=[("The curve.", b"png-1"), ("More evidence.", b"png-2")],
        threshold=TAU,
        rows=rows,
        recipe='{"seed": 0}',
        command="python jobs/memorization.py --seed 0",
        links=[("scores", "scores.json"), ("figures", "figures/")],
    )
    return replace(basic, **changes)


def hostile_report():
    rows = [
        replace(r, score=replace(r.score, name=HOSTILE, descriptor=HOSTILE)) for r in table()[:2]
    ]
    return report(
        title=HOSTILE,
        answer=(HOSTILE, HOSTILE),
        regimes=[replace(classify(table(), 16, 128), because=HOSTILE)],
        figures=[(HOSTILE, b"png")],
        rows=rows,
        recipe=HOSTILE,
        command=HOSTILE,
        links=[(HOSTILE, "scores.json")],
    )


def test_report_escapes_hostile_names():
    page = Page(render(hostile_report()))
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert page.text.count("<script>alert('x')</script>") >= 8  # shown, as text


@pytest.mark.parametrize("make", [report, hostile_report])
def test_report_loads_nothing_and_runs_nothing(make):
    html = render(make())
    page = Page(html)
    addresses = [v for _, key, v in page.attributes if key in ("src", "href", "srcset", "action")]
    assert len(addresses) >= 2
    assert not [a for a in addresses if not re.match(r"data:image/png;base64,|[\w./-]+$", a)]
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize(
    "path",
    ["javascript:alert(1)", "java\tscript:alert(1)", "https://x.y", "//x.y", "/etc", "", "a?b"],
)
def test_report_refuses_links_that_lead_elsewhere(path):
    with pytest.raises(ValueError, match="a path beside the report"):
        report(links=[("more", path)])


def test_report_answers_before_it_proves():
    made = report()
    html = render(made)
    order = [
        made.answer[0].split(" (")[0],
        made.answer[1].split(" (")[0],
        "cG5nLTE=",  # the curve
        ">Regimes<",
        ">Evidence<",
        "cG5nLTI=",
        ">Numbers<",
        ">What to beware of<",
        ">Reproduce it<",
        made.command,
    ]
    places = [html.index(part) for part in order]
    assert places == sorted(places)


def test_report_gives_every_regime_its_rule():
    text = Page(render(report())).text
    for name, rule in RULES.items():
        assert name in text
        assert rule in text


def test_numbers_are_pooled_values_with_interval_and_null():
    text = Page(render(report())).text
    low, high = wilson_interval(round(GL[64] * N), N)
    assert f"0.100[{low:.3f}, {high:.3f}]null 0.950" in text
    assert "null nan" not in text


def test_cautions_quote_the_numbers_of_the_largest_size():
    text = Page(render(report())).text
    assert "At n = 850, GL is 0.990 (real images: 0.950) and precision 0.640" in text
    assert "At n = 850 it scores GL = 1.000 and RP = 1.000" in text


def test_scores_without_a_title_are_still_shown():
    rows = [*table(), Row(score=score("vendi", 0.25), n=16, width=128, half="A", versus="")]
    assert "vendi" in Page(render(report(rows=rows))).text


def test_report_is_the_same_text_every_time():
    assert render(report()) == render(report())


def test_report_needs_a_curve():
    with pytest.raises(ValueError, match="figures"):
        report(figures=[])
