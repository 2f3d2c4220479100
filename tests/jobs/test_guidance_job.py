"""The guidance job as a user runs it: small sweeps, resumed, and bad input."""

from __future__ import annotations

import json

import pytest
from job_runs import artifact_bytes, counts, run_job

from regimes.errors import ConfigError
from regimes.jobs.guidance import _main
from regimes.jobs.support.guidance import GuidancePlan
from regimes.jobs.support.guidance_experiment import PRESETS, GuidanceExperiment

RING = ("--preset", "ring", "--groups", "6", "--factors", "0", "300", "--kernels", "angular",
        "--strengths", "linear", "--cpus", "2")  # fmt: skip
DIGITS = ("--groups", "3", "--steps", "40", "--width", "16", "--factors", "0.1", "--churns", "0",
          "--strengths", "linear", "--sampler.num-steps", "4", "--cpus", "2")  # fmt: skip


def scores(output):
    (path,) = output.glob("guidance/*/scores.json")
    return json.loads(path.read_text()), path.parent


def test_a_small_ring_gains_modes_and_its_second_run_computes_nothing(tmp_path):
    text = run_job("guidance", *RING, "--output", str(tmp_path))
    assert counts(text, "sample") == (0, 2)
    found, folder = scores(tmp_path)
    base, guided = found["cells"]
    assert (base["factor"], guided["factor"], guided["kernel"]) == (0, 300, "angular")
    assert guided["distinct"] > base["distinct"] + 1
    assert found["answer"][0].startswith("Particle guidance covers more modes")
    names = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}
    for name in ("report.html", "scores.parquet", "config.json", "figures/pareto-distance.png",
                 "figures/modes.png", "figures/accepted.png", "figures/distance.png",
                 "figures/paths.png", "figures/marginal.pdf"):  # fmt: skip
        assert name in names, name
    assert any(name.startswith("tensorboard/angular-linear-B10-churn0/") for name in names)
    assert "complete: nothing to compute" in run_job("guidance", *RING, "--output", str(tmp_path))


def test_digits_train_judge_sweep_and_resume_cell_by_cell(tmp_path):
    text = run_job("guidance", *DIGITS, "--kernels", "rbf", "--output", str(tmp_path))
    assert counts(text, "train") == (0, 1)
    assert counts(text, "sample") == (0, 2)
    before = artifact_bytes(tmp_path)
    more = run_job("guidance", *DIGITS, "--output", str(tmp_path), "--name", "more")
    assert counts(more, "train") == (1, 0)
    assert counts(more, "sample") == (2, 1)  # kernel iou is new
    after = artifact_bytes(tmp_path)
    assert {name: after[name] for name in before} == before
    assert "Variation: total variation" in (tmp_path / "guidance/more/report.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "ring", "--width", "8"], "--width: nothing is trained here"),
        (["--target", "ring", "--source", "x"], "--model, --source: target ring has no images"),
        (["--mode-weights", "1"], "--mode-weights: are of targets ring and jumps"),
        (["--factors", "1", "1"], "--factors: expected distinct values"),
        (["--group-sizes", "1"], "--group-sizes: expected at least 2"),
        (["--groups", "1"], "--groups: expected at least 2"),
        (["--sampler.s-churn", "1"], "--sampler.s-churn: is swept; pass --churns"),
        (["--space", "x"], "kernel iou: compares images"),
        (["--eta", "1", "--churns", "0"], "eta: is DDIM's noise"),
        (["--sampler.solver", "dpmpp2m", "--churns", "0"], "guidance steps by euler or heun"),
        (["--replicas", "2"], "--replicas: a sweep runs as trials"),
        (["--preset", "nothing"], "choose one of digits, ring, jumps, circle"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        _main([*options, "--output", str(tmp_path), "--dry-run"])
    assert not any(tmp_path.iterdir())


def test_a_source_without_classes_is_refused(tmp_path):
    import numpy as np

    np.save(tmp_path / "images.npy", np.zeros((120, 8, 8, 1), np.uint8))
    with pytest.raises(ConfigError, match="expected images with classes"):
        GuidancePlan(GuidanceExperiment(source=str(tmp_path / "images.npy")))


def test_a_dry_run_says_what_it_would_cost(tmp_path, capsys):
    _main(["--preset", "ring", "--output", str(tmp_path), "--dry-run"])
    text = capsys.readouterr().out
    assert "cells     17, 17 missing: 17,000 samples" in text
    assert "3,417,000 evaluations of the denoiser" in text


@pytest.mark.parametrize("preset", PRESETS)
def test_the_sweep_always_has_a_baseline_and_at_least_twenty_groups(preset):
    plan = GuidancePlan(PRESETS[preset])
    assert PRESETS[preset].groups >= 20
    baselines = [key for key in plan.cells if key.is_baseline]
    assert len(baselines) == len(PRESETS[preset].churns) * len(PRESETS[preset].group_sizes)
    for recipe in plan.cells.values():
        assert recipe.seeds == plan.cells[baselines[0]].seeds
    assert len({r.address for r in plan.cells.values()}) == len(plan.cells)
