"""The report of an audit and its gallery: the answer first, every number with its null, no script."""

from __future__ import annotations

import dataclasses
import re
from functools import cache

import numpy as np
import pytest
from audited_sets import audit_sets, audited, planted, smooth_images
from pages import HOSTILE, Page

from regimes.figures.gallery import GalleryPair
from regimes.report import render
from regimes.report.audit import TITLES, AuditReport, DuplicateLine, base_name, metric_line
from regimes.report.gallery import LARGEST, GalleryPage, render_gallery
from regimes.report.reproducibility import SetLine
from regimes.studies.audit_metrics import Limits, all_scores, duplicate_groups
from regimes.studies.audit_words import answer, null_range

NONE = "\u2013"


@cache
def found(heldout=True):
    train = smooth_images(300, 1)
    images = train, planted(train, 200), smooth_images(100, 2) if heldout else None
    copies, sets = audited(*images, flips=True), audit_sets(*images, flips=True)
    same = duplicate_groups(sets.train, sets.mirrored, 0), duplicate_groups(sets.generated, None, 0)
    return copies, all_scores(copies, sets, {}, same, Limits(manifold=100))


def report(*, heldout=True, **changes):
    copies, metrics = found(heldout)
    basic = AuditReport(
        title="Copy audit",
        answer=answer(copies),
        figures=[("The nearest.", b"png-1"), ("More.", b"png-2")],
        copies=copies,
        sets=[SetLine(name="train", where="/data/train", count=300, size="10x10 gray")],
        descriptor="pixels",
        metrics=metrics,
        duplicates=[DuplicateLine(where="train", ids=("a.png", "b.png"), size=3)],
        gallery=(200, 4),
        notes=["--train and --generated hold the same images"],
        recipe='{"seed": 0}',
        command="python jobs/audit.py --train a --generated b",
        links=[("scores", "scores.json")],
    )
    return dataclasses.replace(basic, **changes)


def test_report_answers_before_it_proves():
    made = report()
    html = render(made)
    order = [
        made.answer[0].split(" (")[0], "cG5nLTE=", "gallery/page-001.html", ">What was compared<",
        ">What marks a copy<", ">Evidence<", "cG5nLTI=", ">Numbers<", ">Largest groups of duplicates<",
        ">What to beware of<", "hold the same images", ">Reproduce it<", made.command,
    ]  # fmt: skip
    places = [html.index(part) for part in order]
    assert places == sorted(places)


def test_every_metric_is_shown_with_interval_and_null():
    text = Page(render(report())).text
    known = {name for family in TITLES.values() for name in family}
    for score in report().metrics:
        assert base_name(score.name) in known, score.name
        line = metric_line(score, "title", null_range(report().copies, score))
        cells = (line.value, line.interval or NONE, line.null or NONE, line.images)
        assert "".join(cells) in text
    assert "nan" not in text


def test_rules_say_what_a_copy_is():
    text = Page(render(report())).text
    threshold = report().copies.threshold
    assert f"similarity above {threshold.value:.3f} [{threshold.low:.3f}" in text
    assert "which 5% of 100 held-out images reach" in text
    assert "published thresholds (0.5, 0.6, 0.75)" in text
    assert "nearer to a flipped training image" in text


def test_without_heldout_images_the_report_says_what_is_weaker():
    text = Page(render(report(heldout=False))).text
    assert "There are no held-out images" in text
    assert "leave-one-out training images" in text
    assert "There are no held-out images" not in Page(render(report())).text


def test_blind_spots_are_named():
    assert "crops" in Page(render(report())).text


def test_hostile_names_are_escaped_and_nothing_is_loaded():
    lines = [SetLine(name=HOSTILE, where=HOSTILE, count=1, size=HOSTILE)]
    groups = [DuplicateLine(where=HOSTILE, ids=(HOSTILE,), size=2)]
    page = Page(
        render(
            report(
                title=HOSTILE, sets=lines, duplicates=groups, descriptor=HOSTILE, notes=[HOSTILE]
            )
        )
    )
    assert "script" not in page.tags
    assert page.text.count("<script>alert('x')</script>") >= 7
    addresses = [v for _, key, v in page.attributes if key in ("src", "href")]
    assert not [a for a in addresses if not re.match(r"data:image/png;base64,|[\w./-]+$", a)]


def pairs(count=3, shape=(8, 8, 3), name="image.png", rules=("identical",)):
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    return [
        GalleryPair(
            rank=i + 1, generated=image, train=image[:, ::-1], generated_id=f"g-{i}-{name}",
            train_id=f"t-{i}-{name}", similarity=0.9, rules=rules if i < 2 else (), is_copy=i < 2,
        )
        for i, image in enumerate(images)
    ]  # fmt: skip


def gallery(number=1, total=3, **options):
    page = GalleryPage(
        title="Pairs", note="Framed: a copy.", number=number, total=total, pairs=pairs(**options)
    )
    return render_gallery(page)


def test_gallery_shows_pairs_with_ids_similarity_and_the_rules_that_mark_them():
    html = gallery()
    page = Page(html)
    assert page.tags.count("img") == 6
    assert html.count('class="copy"') == 2
    assert page.text.count("identical") == 2
    for text in ("g-0-image.png", "t-2-image.png", "0.9000"):
        assert text in page.text


@pytest.mark.parametrize(
    ("number", "there"), [(1, ["next"]), (2, ["previous", "next"]), (3, ["previous"])]
)
def test_gallery_pages_lead_to_each_other_and_to_the_report(number, there):
    page = Page(gallery(number))
    links = [v for tag, key, v in page.attributes if (tag, key) == ("a", "href")]
    expected = {"previous": f"page-{number - 1:03d}.html", "next": f"page-{number + 1:03d}.html"}
    for word, target in expected.items():
        assert (target in links) == (word in there)
    assert "../report.html" in links
    assert f"page-{number:03d}.png" in links


def test_gallery_is_hostile_proof_without_script_and_reduces_large_images():
    page = Page(gallery(name=HOSTILE, shape=(LARGEST + 40, 2 * LARGEST, 1)))
    assert "script" not in page.tags
    sources = [v for tag, key, v in page.attributes if (tag, key) == ("img", "src")]
    assert len(sources) == 6
    assert all(s.startswith("data:image/png;base64,") for s in sources)
    small = Page(gallery(shape=(LARGEST + 40, 2 * LARGEST, 1))).attributes
    assert max(len(v) for _, key, v in small if key == "src") < 1.5 * LARGEST**2


def test_a_page_without_pairs_is_refused():
    with pytest.raises(ValueError, match="page 1 of 1: expected pairs"):
        GalleryPage(title="t", note="n", number=1, total=1, pairs=[])
