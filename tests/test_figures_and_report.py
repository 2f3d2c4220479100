"""Figures state what their numbers say, fit on the page, and repeat; the report is safe to open."""

from __future__ import annotations

import itertools
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.text import Text

from regimes.figures import curves, findings, histograms, sheets
from regimes.figures.style import LINES, MARK, pdf_bytes, png_bytes, width_colors
from regimes.report import Report, render
from regimes.scores.calibration import Threshold
from regimes.scores.result import Score, wilson_interval
from regimes.studies.memorization import Row
from regimes.studies.verdict import RULES, answer, classify

N = 400
SIZES, WIDTHS = (16, 64, 256, 850), (128, 256)
TAU = Threshold(value=0.88, low=0.87, high=0.9, quantile=0.95, num_heldout=900, num_train=850)

# Scores by n that follow the measured ones on digits.
GL = {16: 0.01, 64: 0.1, 256: 0.84, 850: 0.99}
DISJOINT = {16: 0.0, 64: 0.0, 256: 0.01, 850: 0.56}
PRECISION = {16: 0.92, 64: 0.91, 256: 0.9, 850: 0.64}


def score(name, value, null=0.0, threshold=0.88):
    """A score of N items, ``value`` of which are hits; similarities split at the threshold."""
    hits = round(value * N)
    low, high = wilson_interval(hits, N)
    similarity = np.concatenate([np.linspace(0.3, 0.8, hits), np.linspace(0.9, 1, N - hits)])
    return Score(
        name=name,
        value=hits / N,
        low=low,
        high=high,
        null=null,
        threshold=threshold,
        num_generated=N,
        num_train=850,
        descriptor="pixels",
        higher_is_better=True,
        per_item={"similarity": similarity} if name.startswith("gl") else {},
    )


def table(sizes=SIZES, widths=WIDTHS, gl=None, disjoint=None, precision=None, wiener=None):
    """Rows as ``score_table`` makes them, with chosen values."""

    def at(values, default, n):
        return (values or {}).get(n, default.get(n, 0.5))

    rows = []
    for n, half in itertools.product(sizes, "AB"):

        def add(name, value, width=None, null=0.0, half=half, n=n, **extra):
            rows.append(
                Row(score=score(name, value, null), n=n, width=width, half=half, versus="", **extra)
            )

        add("gl_heldout", 0.95, null=math.nan)
        add("gl_wiener", 1.0)
        add("precision_heldout", 0.9)
        add("precision_null", 0.1)
        for w in widths:
            add("gl", at(gl, GL, n), w, null=0.95)
            add("precision", at(precision, PRECISION, n), w, null=0.1)
            add("rp_optimal", 0.9 - at(gl, GL, n) * 0.9, w)
            add("wiener_similarity", at(wiener, {}, n) if wiener else 0.05, w)
        for w, v in itertools.combinations(widths, 2):
            add("rp_same_data", 0.75, w, width_other=v, half_other=half)
        if half == "A":
            add("rp_disjoint_null", 0.01, half_other="B")
            add("rp_disjoint_wiener", 1.0, half_other="B")
            for w in widths:
                add("rp_disjoint", at(disjoint, DISJOINT, n), w, width_other=w, half_other="B")
    return rows


def pairs(n, similarity, seed=0, channels=1, side=8):
    images = np.random.default_rng(seed).integers(
        0, 256, (2, len(similarity), side, side, channels), np.uint8
    )
    return sheets.PairedImages(
        n=n,
        seeds=np.arange(len(similarity)),
        upper=images[0],
        lower=images[1],
        similarity=np.array(similarity),
    )


@cache
def all_figures(sizes=SIZES, widths=WIDTHS, channels=1):
    rows = table(sizes, widths)
    blocks = [pairs(n, [0.95, 0.2, 0.9, -0.1], channels=channels) for n in sizes]
    w = widths[0]
    return {
        "copies": curves.copies(rows, sizes, widths),
        "reproducibility": curves.reproducibility(rows, sizes, widths),
        "fidelity": curves.fidelity(rows, sizes, widths),
        "similarity": histograms.similarity_histogram(rows, sizes, w, TAU),
        "nearest": sheets.nearest_sheet(blocks, width=w, threshold=TAU.value),
        "noise": sheets.same_noise_sheet(blocks, blocks, width=w, threshold=TAU.value),
    }


def texts(figure):
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


# ---- titles ----


def test_title_names_the_sizes_between_which_copying_stops():
    assert findings.copying(table(), SIZES, WIDTHS) == "Copying stops between n = 64 and n = 850"
    early = table(gl={64: 0.95, 256: 0.95})
    assert findings.copying(early, SIZES, WIDTHS) == "Copying stops between n = 16 and n = 64"


@pytest.mark.parametrize(
    ("gl", "expected"),
    [
        (dict.fromkeys(SIZES, 0.1), "Most samples are copies at every n up to 850"),
        (dict.fromkeys(SIZES, 0.95), "No more copies than among real images at every n up to 850"),
        ({850: 0.7}, "Copying fades after n = 64 but has not stopped at n = 850"),
        ({16: 0.6, 64: 0.7}, "Copying stops by n = 850"),
        (dict.fromkeys(SIZES, 0.7), "Copying has not stopped at n = 850"),
    ],
)
def test_title_of_copies_does_not_claim_a_transition_that_is_not_there(gl, expected):
    assert findings.copying(table(gl=gl), SIZES, WIDTHS) == expected


def test_one_width_that_still_copies_keeps_copying_from_having_stopped():
    rows = table()
    slow = [
        replace(r, score=score("gl", 0.7))
        if (r.score.name, r.n, r.width) == ("gl", 850, 256)
        else r
        for r in rows
    ]
    assert "has not stopped" in findings.copying(slow, SIZES, WIDTHS)


def test_title_of_reproducibility_follows_the_scores_on_disjoint_data():
    title = "Models trained on disjoint data agree on 56% of seeds at n = 850"
    assert findings.agreement(table(), SIZES, WIDTHS) == title
    never = dict.fromkeys(SIZES, 0.01)
    title = "No models trained on disjoint data agree up to n = 850"
    assert findings.agreement(table(disjoint=never), SIZES, WIDTHS) == title
    assert "Only some" in findings.agreement(table(disjoint={16: 0.6, 850: 0}), SIZES, WIDTHS)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({}, "Samples are less precise than real images at n = 850: 0.64 against 0.90"),
        (
            {"precision": {850: 0.9}},
            "Samples are about as precise as real images at n = 850: 0.90 against 0.90",
        ),
        (
            {"precision": {850: 0.1}},
            "Samples are no more precise than the linear denoiser's at n = 850",
        ),
        ({"wiener": {850: 0.9}}, "Most samples are those of the linear denoiser at n = 850"),
    ],
)
def test_title_of_fidelity_follows_precision_and_linearity(scores, expected):
    assert findings.fidelity(table(**scores), SIZES, WIDTHS) == expected


def test_title_of_a_sheet_counts_the_pairs_above_the_threshold():
    blocks = [pairs(16, [0.95, 0.9, 0.1]), pairs(64, [0.1, 0.88, 0.9])]
    figure = sheets.nearest_sheet(blocks, width=128, threshold=0.88)
    title = figure.get_suptitle().replace("\n", " ")
    assert title == "Width 128: 2 of the 3 shown are copies at n = 16, 1 at n = 64"


def test_a_missing_score_is_named():
    rows = [r for r in table() if r.score.name != "gl_heldout"]
    with pytest.raises(ValueError, match="no gl_heldout at n="):
        curves.copies(rows, SIZES, WIDTHS)


# ---- what is drawn ----


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


# ---- files ----


def test_two_renderings_are_byte_identical():
    first, second = (all_figures.__wrapped__((16, 850)) for _ in range(2))
    for name in first:
        assert png_bytes(first[name]) == png_bytes(second[name]), name
    for name in ("copies", "nearest"):
        assert pdf_bytes(first[name]) == pdf_bytes(second[name]), name


def test_bytes_do_not_depend_on_the_users_settings_or_on_the_process(tmp_path):
    (tmp_path / "matplotlibrc").write_text("font.size: 30\naxes.facecolor: red\nsavefig.dpi: 30\n")
    code = (
        "import sys, hashlib; sys.path.insert(0, sys.argv[1]); import test_figures_and_report as t;"
        "f = t.curves.copies(t.table(), t.SIZES, t.WIDTHS);"
        "print(hashlib.sha256(t.png_bytes(f) + t.pdf_bytes(f)).hexdigest())"
    )
    here = os.path.dirname(os.path.abspath(__file__))
    prints = {
        subprocess.run(
            [sys.executable, "-c", code, here],
            env={**os.environ, "PYTHONHASHSEED": seed, **extra},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, extra in (("1", {}), ("2", {"MATPLOTLIBRC": str(tmp_path)}))
    }
    assert len(prints) == 1


def test_pyplot_is_not_used():
    code = (
        "import sys; from regimes.figures import curves, sheets, histograms; import regimes.report;"
        "bad = [m for m in ('matplotlib.pyplot', 'ray', 'regimes.storage') if m in sys.modules];"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- report ----


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend((tag, key, value or "") for key, value in attrs)

    def handle_data(self, data):
        self.text += data


HOSTILE = "<script>alert('x')</script> \"><img src=https://evil.example/x>"


def report(**changes):
    rows = table()
    basic = Report(
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
