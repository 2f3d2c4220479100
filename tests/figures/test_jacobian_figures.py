"""Figures and report of Jacobian and MoLRG studies: marks are where the numbers are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from drawn import texts
from report.pages import HOSTILE, Page

from regimes.figures.jacobian import rank_curve, rule_panels, spectrum_curves, vector_sheet
from regimes.figures.style import png_bytes
from regimes.jacobians.ranks import Spectrum
from regimes.report import render
from regimes.report.jacobian import JacobianReport
from regimes.studies.jacobian import ModelSpectra, answer, study

SIGMAS = (10.0, 1.0, 0.1)


def model(name="EDM", seed=0):
    rng = np.random.default_rng(seed)
    spectra = [
        [Spectrum(values=np.sort(rng.exponential(size=20) ** 3)[::-1], size=20) for _ in SIGMAS]
        for _ in range(6)
    ]
    spectra[0][2] = Spectrum(values=np.zeros(20), size=20)
    return ModelSpectra(name=name, groups=np.arange(6), sigmas=np.array(SIGMAS), spectra=spectra)


def found(**options):
    return study([model(), model(HOSTILE, 1)], "energy", **options)


def test_the_curve_stands_at_the_means():
    made = found()
    axes = rank_curve(made).axes[0]
    x, y = axes.lines[0].get_data()
    np.testing.assert_allclose(x, [0.1, 1, 10])
    np.testing.assert_allclose(y, [row.ratio for row in made.rows["EDM"]])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_rank_0_stands_on_the_lower_edge_and_violins_where_points_differ():
    zero = ModelSpectra(
        name="memorizer",
        groups=np.arange(6),
        sigmas=np.array(SIGMAS),
        spectra=[[Spectrum(values=np.zeros(20), size=20)] * 3] * 6,
    )
    axes = rank_curve(study([zero], "energy")).axes[0]
    assert set(axes.lines[0].get_ydata()) == {0.5 / 20}
    assert axes.get_ylim()[0] < 0.5 / 20
    assert len(axes.collections) == 1  # the interval; equal ranks have no violin
    assert len(rank_curve(study([model()], "energy")).axes[0].collections) == 4


def test_of_few_points_the_points_are_drawn():
    whole = model()
    few = dataclasses.replace(whole, groups=whole.groups[:3], spectra=whole.spectra[:3])
    axes = rank_curve(study([few], "energy")).axes[0]
    drawn = [line.get_ydata().tolist() for line in axes.lines[1:]]
    rows = study([few], "energy").rows["EDM"]
    assert drawn == [np.maximum(row.per_point, 0.5 / 20).tolist() for row in rows]


def test_every_rule_has_its_panel():
    made = found()
    panels = rule_panels(made).axes
    assert [p.get_title(loc="left") for p in panels] == [
        "energy rank",
        "effective rank",
        "stable rank",
    ]
    for panel, ranked in zip(panels, made.by_rule.values(), strict=True):
        expected = [max(row.ratio, 0.5 / 20) for row in ranked["EDM"]]
        np.testing.assert_allclose(panel.lines[0].get_ydata(), expected)


def test_no_text_holds_unparsed_mathematics_and_names_are_shown():
    pictures = np.random.default_rng(0).normal(size=(3, 1, 4, 4))
    vectors = np.random.default_rng(1).normal(size=(3, 2, 1, 4, 4))
    values = np.array([[0.5, 0.1], [0.4, 0.2], [0.0, 0.0]])
    figures = [
        rank_curve(found(reference={1.0: model().spectra[1][0]}, reference_name="linear")),
        rule_panels(found()),
        spectrum_curves([model(), model("other")]),
        vector_sheet("EDM", np.array(SIGMAS), pictures, vectors, values),
    ]
    for figure in figures:
        assert png_bytes(figure) == png_bytes(figure)
        assert not any("mathdefault" in text.get_text() for text in texts(figure))
    assert "linear" in {text.get_text() for text in texts(figures[0])}
    assert {"0.5", "0.1", "D(x)", "0"} <= {text.get_text() for text in texts(figures[3])}


def test_the_report_shows_every_number_and_no_markup_of_a_name():
    made = found()
    report = JacobianReport(
        title="Jacobian rank",
        answer=answer(made),
        figures=[("The curve.", b"png")],
        recipe="{}",
        command="python jobs/jacobian.py",
        study=made,
        points="along 6 sampled trajectories",
        methods=dict.fromkeys(made.rows, "all singular values"),
    )
    html = render(report)
    page = Page(html)
    assert "script" not in page.tags
    for row in made.every_row:
        assert f"{row.ratio:.4f}" in page.text
        assert f"[{row.low:.4f}, {row.high:.4f}]" in page.text
    assert "98.01%" in page.text
    assert page.text.count("all singular values") == 2
    for row in made.by_rule["stable"]["EDM"]:
        assert f"{row.rank:.1f}" in page.text


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_any_channels_are_drawn(channels):
    images = np.random.default_rng(0).normal(size=(8, channels, 4, 4))
    vectors = np.random.default_rng(1).normal(size=(8, 3, channels, 4, 4))
    sigmas = np.geomspace(80, 0.002, 8)
    figure = vector_sheet("m", sigmas, images, vectors, np.ones((8, 3)))
    assert len(figure.axes) == 1 + 6 * 4  # the frame, and six levels of an image and three vectors
