"""The molrg job: everything runs, what is complete is kept, and the exact denoiser has its ranks."""

from __future__ import annotations

import json

import pytest
from job_runs import artifact_bytes, check_comparison, counts, run_job

from regimes.errors import ConfigError
from regimes.images.molrg import MoLRG
from regimes.jobs import molrg
from regimes.jobs.support.molrg.experiment import SMALL, MoLRGExperiment, make_grid

QUICK = ("--preset", "smoke", "--cpus", "2", "--models", "low-rank", "unet")
QUICK = (*QUICK, "--transition-models", "mlp", "--name", "a")


def test_the_study_runs_resumes_and_shows_the_closed_form(tmp_path):
    text = run_job("molrg", "--output", str(tmp_path), *QUICK)
    found = json.loads((tmp_path / "molrg" / "a" / "scores.json").read_text())
    exact, *learned = found["ranks"]
    by_sigma = dict(zip(exact["sigmas"], exact["ratios"], strict=True))
    assert (by_sigma[10.0], by_sigma[0.1]) == (12 / 48, 6 / 48)
    assert [curve["model"] for curve in learned] == ["low-rank", "unet"]
    assert found["recovery"]["exact denoiser"] < 1e-6
    cells = [(c["model"], c["dim"], c["per_class"]) for c in found["cells"]]
    assert cells == [("mlp", 3, 3), ("mlp", 3, 12)]
    assert counts(text, "train") == (0, 5)
    before = artifact_bytes(tmp_path)
    again = run_job("molrg", "--output", str(tmp_path), *QUICK[:-1], "b")
    assert counts(again, "train") == (5, 0)
    assert artifact_bytes(tmp_path) == before
    for name in ("rank", "transition"):
        assert (tmp_path / "molrg" / "a" / "figures" / f"{name}.png").stat().st_size > 10_000
    check_comparison(tmp_path, "molrg")


def test_a_model_of_both_parts_of_the_study_is_trained_once():
    e = MoLRGExperiment(per_class=24, dims=(6,), per_dim=(4,))
    models = {recipe.model.address for recipe in make_grid(e).all if recipe.model is not None}
    assert len(models) == 3 + 2  # three rank curves; of low-rank and mlp the half B besides


def test_augmentation_and_dropout_reach_the_unet_alone():
    e = MoLRGExperiment(unet_augment=0.12, unet_dropout=0.13)
    for kind in ("low-rank", "mlp", "unet"):
        model = e.point_model(kind)
        assert (model.augment, model.dropout) == ((0.12, 0.13) if kind == "unet" else (0, 0))


def test_a_dry_run_says_what_it_would_cost_and_writes_nothing(tmp_path, capsys):
    assert molrg.main(["--preset", "smoke", "--output", str(tmp_path / "x"), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "train     low-rank: 5 models missing" in text
    assert "not counted" in text
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": (30,)}, "do not fit"),
        ({"dims": (3, 3)}, "--dims"),
        ({"sigmas": (0.0,)}, "above 0"),
        ({"num_samples": 1}, "--num-samples"),
        ({"unet_dropout": 1.0}, "dropout: expected a probability"),
        ({"unet_augment": 0.1, "models": ("mlp",)}, "no model is a unet"),
        (
            {"unet_augment": 0.1, "data": MoLRG(side=2), "dims": (3,)},
            "--unet-augment: expected a side",
        ),
    ],
)
def test_what_could_not_run_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        MoLRGExperiment(**options)


def test_the_smoke_preset_is_small():
    assert sum(r.model.model.steps for r in make_grid(SMALL).all if r.model) < 1000
