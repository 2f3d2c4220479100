"""Pretrained pipelines as a user samples them: one command for several schedulers, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import made_pipelines
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from job_runs import run_job
from PIL import Image

from regimes.jobs import diverse, generate

STEPS = ("--num-steps", "3", "--seeds", "0-39", "--batch-size", "20")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A latent pipeline, and real images of its size."""
    path = tmp_path_factory.mktemp("pipelines")
    made_pipelines.save(made_pipelines.latent_pipeline(), path / "ldm")
    made_pipelines.save(made_pipelines.pixel_pipeline(), path / "ddpm")
    images = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3))
    np.save(path / "real.npy", images.astype(np.uint8))
    return path


@pytest.fixture(scope="module")
def compared(folder) -> tuple[Path, str]:
    """Two schedulers compared by one command: its output folder, and what it printed."""
    output = folder / "out"
    text = run_job(
        *("diverse", "--real", str(folder / "real.npy"), "--model", str(folder / "ldm")),
        *("--schedulers", "ddim", "dpm-solver++", *STEPS, "--descriptor", "pixels"),
        *("--output", str(output), "--name", "run", "--cpus", "1"),
    )
    return output, text


def test_one_command_samples_every_scheduler_and_judges_each(folder, compared):
    output, text = compared
    assert "ddim, dpm-solver++, 40 seeds each: 0 units kept, 4 made" in text
    found = json.loads((output / "diverse" / "run" / "scores.json").read_text())["metrics"]
    assert [row["set"] for row in found] == ["ddim", "dpm-solver++"]
    assert [row["num_generated"] for row in found] == [40, 40]
    rows = pq.read_table(output / "diverse" / "run" / "scores.parquet").to_pandas()
    distances = [
        rows[rows["set"] == name]["distance"].to_numpy() for name in ("ddim", "dpm-solver++")
    ]
    assert np.abs(distances[0] - distances[1]).max() > 1e-3
    report = (output / "diverse" / "run" / "report.html").read_text()
    assert f"{folder / 'ldm'}, scheduler ddim, 3 steps, eta 0, seeds 0-39" in report
    assert "--schedulers ddim dpm-solver++" in report


def test_generate_finds_the_same_samples_and_exports_those_of_diffusers(folder, compared, capsys):
    """No worker is needed: all units are there. The images are those of the pipeline's own call."""
    output, _ = compared
    options = [
        "--model",
        str(folder / "ldm"),
        "--scheduler",
        "ddim",
        *STEPS,
        "--store",
        str(output),
    ]
    assert generate.main([*options, "--output", str(folder / "png")]) == 0
    assert "40 seeds: 2 units kept, 0 made" in capsys.readouterr().out
    pipeline = diffusers.LDMPipeline.from_pretrained(folder / "ldm")
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        batch_size=2,
        generator=[torch.Generator().manual_seed(seed) for seed in (0, 39)],
        num_inference_steps=3,
        output_type="np",
    ).images
    for seed, image in zip((0, 39), theirs, strict=True):
        with Image.open(folder / "png" / f"{seed:06d}.png") as png:
            assert np.abs(np.asarray(png) - np.round(image * 255)).max() <= 1
    own = [*options[:2], *options[4:]]  # saved with DDIM: the same samples, without its name
    assert generate.main([*own, "--output", str(folder / "png")]) == 0
    assert "complete: nothing to compute; 40 images" in capsys.readouterr().out


def test_second_run_samples_nothing_and_more_sets_come_beside(folder, compared, capsys):
    output, _ = compared
    np.save(
        folder / "more.npy", np.random.default_rng(1).integers(0, 256, (40, 16, 16, 3), np.uint8)
    )
    options = ["--real", str(folder / "real.npy"), "--model", str(folder / "ldm"), *STEPS]
    options += ["--descriptor", "pixels", "--output", str(output), "--cpus", "1"]
    options += ["--generated", str(folder / "more.npy"), "--schedulers", "dpm-solver++"]
    assert diverse.main([*options, "--keep-images", "none"]) == 0
    text = capsys.readouterr().out
    assert "2 units kept, 0 made" in text
    assert {"dpm-solver++", "more"} <= {line.split()[0] for line in text.splitlines() if line}
    assert "diverse/ldm-dpm-solver-" in text


def test_dry_run_tells_the_cost_of_sampling_and_leaves_nothing(folder, tmp_path, capsys):
    options = ["--real", str(folder / "real.npy"), "--model", str(folder / "ldm"), "--dry-run"]
    options += ["--schedulers", "plms", "heun", "--descriptor", "pixels", "--seeds", "0-49999"]
    assert diverse.main([*options, "--output", str(tmp_path / "new")]) == 0
    text = capsys.readouterr().out
    assert "50,000 images 16x16x3, 9 evaluations each" in text
    assert "50,000 images 16x16x3, 15 evaluations each" in text
    options = ["--model", str(folder / "ldm"), "--scheduler", "plms", "--num-steps", "8"]
    assert generate.main([*options, "--dry-run", "--output", str(tmp_path / "new")]) == 0
    assert "64 images 16x16x3, 9 evaluations each" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "{}/ldm", "--rho", "5"], "--rho: belongs to EDM's samplers"),
        (["--model", "{}/ldm", "--solver", "euler"], "--solver: belongs to EDM's samplers"),
        (["--model", "{}/ddpm", "--scheduler", "heun", "--s-churn", "1"], "--s-churn: belongs"),
        (["--model", "{}/ddpm", "--eta", "0.5"], "--eta: of --scheduler ddim"),
        (
            ["--model", "{}/ddpm", "--scheduler", "plms", "--eta", "0.5"],
            "eta: scheduler ddim alone",
        ),
        (["--model", "{}/ddpm", "--scheduler", "ddim", "--num-steps", "1001"], "at most 1000"),
        (["--model", "empirical:digits", "--scheduler", "ddim"], "the model is empirical-n1797-A"),
    ],
)
def test_options_of_generate_that_do_not_fit_are_one_line(folder, tmp_path, capsys, options, words):
    options = [option.format(folder) for option in options]
    assert generate.main([*options, "--output", str(tmp_path)]) == 1
    assert_one_line(capsys, words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--generated: expected one set of images or more, or --model"),
        (["--model", "{}/ldm"], "--schedulers: expected one or more"),
        (["--model", "{}/ldm", "--schedulers", "ddim", "ddim"], "each once"),
        (["--schedulers", "ddim", "--generated", "{}/real.npy"], "--schedulers: for sets that are"),
        (["--num-steps", "9", "--generated", "{}/real.npy"], "--num-steps: for sets that are"),
        (["--model", "{}/ldm", "--schedulers", "plms", "--eta", "0.5"], "--eta: ddim alone"),
        (["--model", "{}/real.npy", "--schedulers", "plms"], "real.npy"),
        (
            [
                *("--model", "{}/ldm", "--schedulers", "ddim"),
                *("--generated", "{}/real.npy", "--names", "ddim"),
            ],
            "--generated: a set is called ddim",
        ),
        (
            ["--model", "{}/ldm", "--schedulers", "ddim", "--heldout", "{}/nothing"],
            "nothing: no such file",
        ),
    ],
)
def test_options_of_diverse_that_do_not_fit_are_one_line(folder, tmp_path, capsys, options, words):
    options = ["--real", str(folder / "real.npy"), *(option.format(folder) for option in options)]
    options += ["--descriptor", "pixels", "--output", str(tmp_path)]
    assert diverse.main(options) == 1
    assert_one_line(capsys, words)
    assert not list(tmp_path.glob("artifacts/samples/*"))


def assert_one_line(capsys, words: str) -> None:
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.strip().splitlines()) == 1
    assert words in error
