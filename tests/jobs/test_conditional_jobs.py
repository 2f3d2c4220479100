"""Text pipelines as a user samples them: replicas, files and their prompts, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import made_pipelines
import numpy as np
import pytest
from job_runs import run_job

from regimes.jobs import diverse, generate
from regimes.jobs.generate import Generation
from regimes.jobs.support.sampling import choose_sampler
from regimes.storage.artifacts import Store
from regimes.storage.model_specs import import_model
from regimes.storage.samples import SamplesRecipe, load_model, make_samples
from regimes.storage.seeds import Seeds

PROMPTS = ("a cat", "a dog", "42")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Saved pipelines, and a file of prompts."""
    path = tmp_path_factory.mktemp("conditional")
    made_pipelines.save(made_pipelines.text_pipeline(), path / "sd")
    made_pipelines.save(made_pipelines.class_pipeline(num_classes=5), path / "dit")
    made_pipelines.save(made_pipelines.latent_pipeline(), path / "ldm")
    (path / "prompts.txt").write_text("\n".join(PROMPTS))
    return path


@pytest.fixture(scope="module")
def made(folder) -> tuple[Path, str]:
    """Two replicas sample six seeds: the output folder, and what was printed."""
    output = folder / "out"
    text = run_job(
        *("generate", "--model", str(folder / "sd"), "--prompts", str(folder / "prompts.txt")),
        *("--n", "6", "--steps", "3", "--batch-size", "2", "--guidance", "3", "--replicas", "2"),
        *("--format", "npz", "--output", str(output), "--cpus", "2"),
    )
    return output, text


def test_two_replicas_write_the_bytes_of_one(folder, made):
    """One replica is one thread that makes every unit in turn, as here."""
    output, text = made
    assert "6 seeds: 0 units kept, 3 made" in text
    store = Store(str(folder / "alone"))
    denoiser = import_model(store, str(folder / "sd"))
    asked = Generation(prompts=PROMPTS, guidance=3.0, n=6, steps=3)
    sampler = choose_sampler(store, denoiser, asked.asked_sampler, None, 0.0, asked.conditions)
    recipe = SamplesRecipe(
        denoiser=denoiser, sampler=sampler, seeds=Seeds.parse("0-5"), seeds_per_unit=2
    )
    loaded = load_model(store, recipe)
    theirs = Store(str(output)).artifact(recipe)
    for unit in range(3):
        entry = make_samples(store, recipe, unit, loaded)
        assert entry in theirs.files  # name, size and SHA-256


def test_the_files_say_which_prompt_made_which_image(made):
    output, _ = made
    with np.load(output / "samples.npz") as found:
        assert found["seeds"].tolist() == [0, 1, 2, 3, 4, 5]
        assert found["prompts"].tolist() == [0, 1, 2, 0, 1, 2]
        assert found["images"].shape == (6, 16, 16, 3)
    config = json.loads((output / "config.json").read_text())
    assert config["prompts"] == list(PROMPTS)
    assert config["recipe"]["samples"]["sampler"]["guidance"] == 3.0


def test_prompts_of_the_command_line_are_those_of_the_file(folder, made, capsys):
    output, _ = made
    options = ["--model", str(folder / "sd"), "--prompts", *PROMPTS, "--seeds", "0-5"]
    options += ["--num-steps", "3", "--batch-size", "2", "--guidance", "3", "--format", "npz"]
    assert generate.main([*options, "--output", str(output)]) == 0
    assert "complete: nothing to compute; 6 images" in capsys.readouterr().out


def test_dry_run_counts_both_evaluations_of_a_guided_step(folder, tmp_path, capsys):
    options = ["--model", str(folder / "dit"), "--n", "1024", "--steps", "50", "--dry-run"]
    assert generate.main([*options, "--output", str(tmp_path / "new")]) == 0
    assert "1,024 images 16x16x3, 100 evaluations each" in capsys.readouterr().out
    options = ["--model", str(folder / "sd"), "--prompts", "a cat", "--guidance", "1", "--dry-run"]
    assert generate.main([*options, "--steps", "50", "--output", str(tmp_path / "new")]) == 0
    assert "64 images 16x16x3, 51 evaluations each" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "{}/sd"], "--prompts: text-pipeline-"),
        (["--model", "{}/sd", "--prompts", "{}/none.txt"], "none.txt: prompts: cannot be read"),
        (["--model", "{}/ldm", "--prompts", "a cat"], "--prompts: of pipelines that read text"),
        (["--model", "{}/ldm", "--guidance", "2"], "--guidance: of pipelines with a class"),
        (["--model", "empirical:digits", "--guidance", "2"], "--guidance: of DiT and Stable"),
        (["--model", "{}/dit", "--negative-prompt", "x"], "--negative-prompt: of pipelines that"),
        (["--model", "{}/dit", "--guidance", "-1"], "guidance: expected a number from 0"),
        (["--model", "{}/dit", "--n", "8", "--seeds", "0-3"], "--n: expected 1 or more images"),
        (["--model", "{}/dit", "--steps", "8", "--num-steps", "9"], "--steps: the same as"),
        (["--model", "{}/dit", "--sigma-max", "9"], "--sigma-max: belongs to EDM's samplers"),
    ],
)
def test_options_that_do_not_fit_are_one_line(folder, tmp_path, capsys, options, words):
    options = [option.format(folder) for option in options]
    assert generate.main([*options, "--output", str(tmp_path)]) == 1
    assert_one_line(capsys, words)


def test_comparing_schedulers_of_a_text_pipeline_asks_for_samples_instead(folder, tmp_path, capsys):
    np.save(tmp_path / "real.npy", np.zeros((20, 16, 16, 3), np.uint8))
    options = ["--real", str(tmp_path / "real.npy"), "--model", str(folder / "sd")]
    options += ["--schedulers", "ddim", "--descriptor", "pixels", "--output", str(tmp_path)]
    assert diverse.main(options) == 1
    assert_one_line(capsys, "jobs/generate.py takes them")


def assert_one_line(capsys, words: str) -> None:
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.strip().splitlines()) == 1
    assert words in error
