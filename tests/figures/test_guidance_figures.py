"""Figures of a guidance sweep show the numbers of the study."""

from __future__ import annotations

import numpy as np
import pytest

from regimes.figures import guidance as figures
from regimes.figures.style import png_bytes
from regimes.studies.guidance import CellData, CellKey, Tolerance, study_guidance


@pytest.fixture
def study(rng):
    cells = {}
    for churn in (0.0, 4.0):
        for factor, kernel in ((0, "none"), (1, "rbf"), (3, "rbf"), (1, "iou"), (3, "iou")):
            strength = "linear" if factor else "none"
            key = CellKey(
                factor=factor, s_churn=churn, group_size=4, kernel=kernel, strength=strength
            )
            modes = rng.integers(-1, 4, (20, 4))
            cells[key] = CellData(modes=modes, quality=rng.random((20, 4)), seconds=1.0)
    names = ["0", "1", "2", "a long name of a mode"]
    return study_guidance(cells, [0.25] * 4, mode_names=names, tolerance=Tolerance())


def test_heatmaps_write_every_cell_into_its_field(study):
    figure = figures.heatmaps(study, lambda f: f.scores.distinct.value, title="t", unit="u")
    panels = [a for a in figure.axes if a.images]
    assert [a.get_title(loc="left") for a in panels] == ["rbf, linear, B = 4", "iou, linear, B = 4"]
    for panel, kernel in zip(panels, ("rbf", "iou"), strict=True):
        shown = np.asarray(panel.images[0].get_array())
        for y, factor in enumerate((0, 1, 3)):
            for x, churn in enumerate((0.0, 4.0)):
                wanted = next(
                    f.scores.distinct.value
                    for f in study.findings
                    if (f.key.factor, f.key.s_churn) == (factor, churn)
                    and f.key.kernel in (kernel, "none")
                )
                assert shown[y, x] == wanted
        texts = {t.get_text() for t in panel.texts}
        assert f"{shown[0, 0]:.2f}" in texts
    assert png_bytes(figure) == png_bytes(figure)


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_bright_fields_are_the_good_ones_and_numbers_can_be_read_on_them(study, lower_is_better):
    figure = figures.heatmaps(
        study,
        lambda f: f.scores.quality.value,
        title="t",
        unit="u",
        lower_is_better=lower_is_better,
    )
    fields = []
    for panel in (a for a in figure.axes if a.images):
        image = panel.images[0]
        table = np.asarray(image.get_array()).ravel()
        light = image.cmap(image.norm(table))[:, :3].mean(-1)
        fields += zip(table, light, [t.get_color() == "white" for t in panel.texts], strict=True)
    _, light, white = map(np.array, zip(*sorted(fields), strict=True))
    assert (np.diff(light) * (-1 if lower_is_better else 1) >= 0).all()
    assert light[white].max() < light[~white].min()


def test_intervals_of_shares_end_at_100_percent(rng):
    cells = {}
    for factor in (0, 1):
        names = ("rbf", "linear") if factor else ("none", "none")
        key = CellKey(factor=factor, s_churn=0, group_size=4, kernel=names[0], strength=names[1])
        modes = rng.integers(0, 4, (20, 4))
        modes[0, 0] = -1
        cells[key] = CellData(modes=modes, quality=rng.random((20, 4)), seconds=1.0)
    study = study_guidance(cells, [0.25] * 4, mode_names=list("abcd"), tolerance=Tolerance())
    axes = figures.pareto(study, title="t", by="accepted").axes[0]
    bars = [bar for c in axes.collections for bar in c.get_segments()]
    across = np.array([bar[:, 0] for bar in bars if bar[0, 1] == bar[1, 1]])
    error = 196 * study.findings[0].scores.inliers.error
    np.testing.assert_allclose(across, [[98.75 - error, 100]] * 2)


def test_pareto_has_a_line_per_row_from_the_baseline_on(study):
    figure = figures.pareto(study, title="t", by="accepted")
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert len(lines) == 4
    base = study.baseline(study.guided[0].key).scores
    assert lines[0].get_xdata()[0] == pytest.approx(100 * base.inliers.value)
    assert lines[0].get_ydata()[0] == pytest.approx(base.distinct.value)
    axes = figures.pareto(study, title="t", by="distance").axes[0]
    first = next(line for line in axes.lines if len(line.get_xdata()) == 3)
    assert first.get_xdata()[0] == pytest.approx(base.quality.value)
    assert axes.xaxis_inverted()


def test_marginals_draw_data_baseline_and_guided(study):
    found = study.guided[1]
    axes = figures.marginals(study, found, title="t").axes[0]
    heights = [bar.get_height() for bar in axes.patches]
    assert heights[4:] == pytest.approx(100 * found.scores.marginal)
    assert axes.get_xticklabels()[3].get_text().startswith("a lo")


def test_paths_are_drawn_whole_and_the_same_everywhere(rng):
    points = rng.standard_normal((6, 4, 2))
    paths = [figures.Paths(name=n, points=points) for n in ("without", "with")]
    figure = figures.trajectories(
        rng.random((9, 2)), rng.random((5, 2)), paths, title="t", labels=("x", "y")
    )
    panels = [a for a in figure.axes if a.lines]
    assert len(panels) == 2
    drawn = [line.get_xydata() for line in panels[0].lines if len(line.get_xdata()) == 6]
    np.testing.assert_allclose(np.stack(drawn, 1), points)
    assert panels[0].get_xlim() == panels[1].get_xlim()


def test_sheet_frames_what_is_rejected(rng):
    images = list(rng.integers(0, 256, (3, 8, 8, 1), dtype=np.uint8))
    figure = figures.groups_sheet(
        [("a", images, [True, True, True]), ("b", images, [True, False, True])], title="t"
    )
    axes = figure.axes[0]
    assert len(axes.images) == 6
    assert len(axes.lines) == 1
