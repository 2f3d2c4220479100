"""The report of diverse samples: the answer first, every count beside its null, no script."""

from __future__ import annotations

import dataclasses
import re
from functools import cache

import numpy as np
from pages import HOSTILE, Page

from regimes.report import render
from regimes.report.diverse import DiverseReport, finding_line
from regimes.report.reproducibility import SetLine
from regimes.scores.features import Features
from regimes.studies.diverse import DiverseRules, DiverseSets, find_diverse
from regimes.studies.diverse_words import answer


@cache
def study(names=("same", "new")):
    rng = np.random.default_rng(0)
    made = [rng.standard_normal((n, 3)) + shift for n, shift in ((80, 0), (40, 0), (40, 7))]
    real, *rest = (Features(np.arange(len(v)), v.astype(np.float32), "t") for v in made)
    sets = DiverseSets(real=real, generated=dict(zip(names, rest, strict=True)))
    return find_diverse(sets, DiverseRules(names=("calibrated", "pca-hull")))


def report(**changes):
    found = changes.pop("study", study())
    basic = DiverseReport(
        title="Diverse samples",
        answer=answer(found),
        figures=[("Shares.", b"png-1"), ("More.", b"png-2")],
        study=found,
        sets=[SetLine(name="real", where="/data/real", count=80, size="8x8 gray")],
        descriptor="pixels",
        fitted=False,
        raw=False,
        notes=["--real and --generated hold the same images"],
        recipe='{"seed": 0}',
        command="python jobs/diverse.py --real a --generated b",
        links=[("scores", "scores.json")],
    )
    return dataclasses.replace(basic, **changes)


def test_report_answers_before_it_proves():
    made = report()
    html = render(made)
    order = [
        made.answer[0], "cG5nLTE=", ">Every set by every rule<", "the hulls share", ">Evidence<",
        "cG5nLTI=", ">What was compared<", ">When a sample is diverse<", ">What to beware of<",
        "hold the same images", ">Reproduce it<", made.command,
    ]  # fmt: skip
    places = [html.index(part) for part in order]
    assert places == sorted(places)


def test_every_row_is_shown_with_interval_null_and_verdict():
    text = Page(render(report())).text
    for finding in study().findings:
        line = finding_line(finding)
        cells = (
            line.name, line.rule, line.count, line.share, line.interval, line.null, line.expected,
            line.verdict,
        )  # fmt: skip
        assert "".join(cells) in text
        assert line.verdict == ("more than chance" if line.exceeds else "no more than chance")
    assert {finding_line(f).exceeds for f in study().findings} == {True, False}
    assert "nan" not in text


def test_what_hulls_are_drawn_of_is_said():
    assert "as published" in Page(render(report(raw=True))).text
    assert "as published" not in Page(render(report())).text


def test_cautions_are_those_of_the_study():
    text = Page(render(report(fitted=True))).text
    for part in ("compatible with no novelty", "broken images", "was fitted to the real images"):
        assert part in text


def test_hostile_names_are_escaped_and_nothing_is_loaded():
    lines = [SetLine(name=HOSTILE, where=HOSTILE, count=1, size=HOSTILE)]
    hostile = study(names=(HOSTILE, "new"))
    changes = {"title": HOSTILE, "sets": lines, "descriptor": HOSTILE, "notes": [HOSTILE]}
    page = Page(render(report(study=hostile, **changes)))
    assert "script" not in page.tags
    assert page.text.count("<script>alert('x')</script>") >= 8
    addresses = [v for _, key, v in page.attributes if key in ("src", "href")]
    assert not [a for a in addresses if not re.match(r"data:image/png;base64,|[\w./-]+$", a)]
