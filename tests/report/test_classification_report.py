"""The report of classifiers: the answer, the comparisons, every number with its intervals and null."""

from __future__ import annotations

import dataclasses

from classified import CLASSES, GOOD, planted_arms
from pages import HOSTILE, Page

from regimes.report.classification import ClassificationReport, SetLine
from regimes.report.page import render
from regimes.studies.classification import answer, study

FOUND = study(planted_arms(GOOD), CLASSES)


def report(found=FOUND, **changes):
    basic = ClassificationReport(
        title="Classifiers",
        answer=answer(found),
        figures=[("Accuracy.", b"png-1"), ("Recall.", b"png-2")],
        study=found,
        sets=[SetLine(name="real", where="/data/real", counts=(12, 34))],
        training="Every arm lists 100 images.",
        network="The network is resnet50.",
        recipe='{"seed": 0}',
        command="python jobs/classifier.py --real a --generated b",
        links=[("table", "accuracy_results.csv")],
    )
    return dataclasses.replace(basic, **changes)


def test_report_answers_before_it_proves():
    made = report()
    html = render(made)
    order = [
        made.answer[0].split(":")[0],
        "cG5nLTE=",
        ">Do they help?<",
        ">What was trained<",
        ">Evidence<",
        "cG5nLTI=",
        ">Numbers<",
        ">What to beware of<",
        ">Reproduce it<",
        made.command,
    ]
    places = [html.index(part) for part in order]
    assert places == sorted(places)


def test_every_score_of_every_arm_is_shown_with_intervals_and_null():
    text = Page(render(report())).text
    for arm in FOUND.arms:
        for e in FOUND.estimates[arm]:
            ends = "".join(f"[{a:.3f}, {b:.3f}]" for a, b in ((e.low, e.high), e.seeds, e.images))
            assert f"{arm}{e.value:.3f}{ends}{e.null:.3f}" in text, (arm, e.metric)
    assert "nan" not in text
    assert "Recall of PNEUMONIA, 100 test images" in text


def test_every_comparison_is_shown_with_verdict_and_tests():
    text = Page(render(report())).text
    for c in FOUND.comparisons:
        counts = ", ".join(f"{t.only_first}:{t.only_second}" for t in c.tests)
        ends = f"[{c.main.low:+.3f}, {c.main.high:+.3f}]"
        shown = f"{c.effect}{c.main.value:+.3f}{ends}{counts}{c.p_value:.2g}{c.p_adjusted:.2g}"
        assert f"{c.arm} against {c.base}{shown}" in text
    assert "corrected for 6 comparisons by Holm's rule" in text


def test_report_says_what_was_trained_and_what_no_number_covers():
    text = Page(render(report())).text
    for part in (
        "Every arm lists 100 images.",
        "real12, 34/data/real",
        "It does not cover another generator",
        "would show a difference of 0",
        "If the generator was trained on the validation or test images",
    ):
        assert part in text


def test_few_seeds_are_cautioned_against():
    one = report(study(planted_arms(GOOD, seeds=1), CLASSES))
    assert one.cautions()[0].startswith("There is one seed only")
    assert "nan" not in Page(render(one)).text
    assert (
        report(study(planted_arms(GOOD, seeds=2), CLASSES)).cautions()[0].startswith("There are 2")
    )
    assert not report().cautions()[0].startswith("There")


def test_names_of_classes_and_paths_cannot_inject_markup():
    found = study(planted_arms(GOOD), (HOSTILE, "b"))
    sets = [SetLine(name="real", where=HOSTILE, counts=(1, 2))]
    page = Page(render(report(found, sets=sets)))
    assert "script" not in page.tags
    assert all("evil" not in value for tag, key, value in page.attributes if key in ("src", "href"))
    assert HOSTILE in page.text
