"""What is said of models of low-rank mixtures, and figures and report that show it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from regimes.figures.molrg import rank_by_noise, transition
from regimes.figures.style import png_bytes
from regimes.images.molrg import MoLRG
from regimes.report import render
from regimes.report.molrg import MoLRGReport
from regimes.studies.molrg import (
    Cell,
    MoLRGStudy,
    RankCurve,
    answer,
    compare_halves,
    copy_threshold,
)

DATA = MoLRG(dim=4)
SIGMAS = (10.0, 1.0, 0.1)


def rows(count, part):
    return DATA.draw(count, part)[0].flatten(1).numpy()


TRAIN, HELDOUT = rows(40, "half A"), rows(100, "heldout")
TAU = copy_threshold(HELDOUT, TRAIN)


def test_copies_of_training_points_are_found_at_the_planted_rate():
    samples = np.concatenate([2 * TRAIN[:30], rows(35, "new")])  # length does not matter
    gl, rp = compare_halves((samples, samples), TRAIN, HELDOUT, threshold=TAU)
    assert gl.null == pytest.approx(0.95, abs=0.01)  # by construction of the threshold
    assert gl.value == pytest.approx(0.95 * 70 / 100, abs=0.05)  # of 70 new points 5% resemble one
    assert rp.value == 1
    assert rp.null < 0.05


def test_models_that_agree_on_a_third_have_that_rp():
    a, b = rows(150, "one"), rows(150, "two")
    b[:100] = a[:100]
    _, rp = compare_halves((a, b), TRAIN, HELDOUT, threshold=TAU)
    assert rp.value == pytest.approx(1 / 3, abs=0.02)


def scores():
    return compare_halves((TRAIN, TRAIN[::-1].copy()), TRAIN, HELDOUT, threshold=TAU)


def cell(per_class, missed, model="low-rank", dim=4):
    gl, rp = scores()
    return Cell(model=model, dim=dim, per_class=per_class, recovery=(missed, missed), gl=gl, rp=rp)


def found(cells):
    def curve(name, scale):
        ratios = scale * np.linspace(0.1, 0.2, 12).reshape(3, 4)
        return RankCurve(model=name, sigmas=SIGMAS, ratios=ratios)

    return MoLRGStudy(
        num_classes=2,
        dim=4,
        size=48,
        per_class=40,
        exact=curve("exact denoiser", 1),
        curves=[curve("low-rank", 1), curve("mlp", 3)],
        recovery={"low-rank": 0.01, "mlp": 0.3, "exact denoiser": 0.0},
        cells=cells,
    )


def test_recovery_counts_from_where_it_lasts():
    sentences = answer(found([cell(2, 0.5), cell(4, 0.05), cell(8, 0.2), cell(16, 0.01)]))
    assert sentences[-1] == "low-rank, d = 4: recovered by both models from 16 points per class on."
    never = answer(found([cell(2, 0.5), cell(4, 0.4)]))
    assert (
        never[-1] == "low-rank, d = 4: one model or both fail to recover with 4 points per class."
    )
    always = answer(found([cell(2, 0.0), cell(4, 0.0)]))
    assert always[-1] == "low-rank, d = 4: recovered by both models from 2 points per class on."


def test_one_of_two_models_is_not_enough():
    """Of 12 studies of 12 points per class, four called subspaces recovered that one model had mixed up."""
    mixed = dataclasses.replace(cell(12, 0.0), recovery=(0.167, 0.0))
    assert mixed.missed < 0.1
    words = "low-rank, d = 4: one model or both fail to recover with 12 points per class."
    assert answer(found([mixed]))[-1] == words


def test_subspaces_that_chance_nearly_finds_are_not_recovered():
    """Any 46 directions hold most of 46 others in 48."""
    chance = 1 - 46 / 48
    study = dataclasses.replace(found([cell(50, chance, dim=46)]), num_classes=1, dim=46)
    assert "fail to recover" in answer(study)[-1]
    study = dataclasses.replace(study, cells=[cell(50, 0.05 * chance, dim=46)])
    assert answer(study)[-1].endswith("recovered by both models from 50 points per class on.")


def test_the_answer_gives_the_closed_form_first():
    first, second, _ = answer(found([cell(2, 0.5)]))
    assert "follows 4 directions at low noise (ratio 0.083) and 8 at high noise (0.167)" in first
    assert "low-rank 0.186, mlp 0.559" in second
    many = answer(dataclasses.replace(found([cell(2, 0.5)]), dim=60, size=192))[0]
    assert "60 directions at low noise (ratio 0.307) and 120 at high noise (0.615)" in many
    assert "low-rank 1.0%, mlp 30%" in second


def test_figures_stand_where_the_numbers_are():
    made = found([cell(2, 0.5), cell(4, 0.4), cell(2, 0.3, "mlp"), cell(4, 0.1, "mlp")])
    axes = rank_by_noise(made).axes[0]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), made.curves[1].ratios.mean(1))
    np.testing.assert_allclose(axes.lines[2].get_ydata(), made.exact.ratios.mean(1))
    panels = transition(made).axes[1:]
    assert [panel.get_ylabel() for panel in panels] == ["missed share", "GL score", "RP score"]
    np.testing.assert_allclose(panels[0].lines[1].get_xydata(), [[0.5, 0.3], [1, 0.1]])
    np.testing.assert_allclose(panels[0].lines[2].get_ydata(), 1 - 4 / 48)  # chance
    assert png_bytes(transition(made)) == png_bytes(transition(made))


def test_the_report_shows_every_cell():
    made = found([cell(2, 0.5), cell(4, 0.125)])
    html = render(
        MoLRGReport(
            title="MoLRG",
            answer=answer(made),
            figures=[("Ranks.", b"png")],
            recipe="{}",
            command="python jobs/molrg.py",
            study=made,
        )
    )
    assert "low-rank, d = 4, M = 4" in html
    assert "0.125, 0.125" in html
    assert f"{made.cells[0].gl.value:.3f} <span>[" in html


def test_one_point_gives_no_interval():
    curve = dataclasses.replace(found([]).exact, ratios=np.array([[0.1], [0.2], [0.3]]))
    mean, low, high = curve.interval()
    assert mean.tolist() == [0.1, 0.2, 0.3]
    assert np.isnan(low).all()
    assert np.isnan(high).all()
