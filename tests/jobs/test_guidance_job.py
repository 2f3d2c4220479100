"""The guidance job as a user runs it: small sweeps, resumed, and bad input."""

from __future__ import annotations

import dataclasses
import json

import pytest
from job_runs import artifact_bytes, check_comparison, counts, run_job

from regimes.descriptors.options import DescriptorOptions
from regimes.errors import ConfigError, RegimesError
from regimes.jobs import guidance as job
from regimes.jobs.guidance import _main
from regimes.jobs.support.chosen_descriptor import DEFAULT_DESCRIPTOR
from regimes.jobs.support.console import RunOptions
from regimes.jobs.support.guidance.experiment import PRESETS, GuidanceExperiment
from regimes.jobs.support.guidance.results import GuidanceResults, guided_words
from regimes.jobs.support.guidance.sweep import GuidancePlan
from regimes.storage.artifacts import Store
from regimes.storage.guidance import make_units
from regimes.storage.images import ingest
from regimes.storage.networks import train_network

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
    shown = f"{guided['gain']:+.2f} [{guided['gain_low']:+.2f}, {guided['gain_high']:+.2f}]"
    (line,) = [line for line in text.splitlines() if line.startswith("factor 300 ")]
    assert shown in line
    assert f"distance {guided['distance']:.3f} ({guided['distance_change']:+.3f})" in line
    assert "samples   worse if accepted ones surely drop by more than" in text
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
    check_comparison(tmp_path, "guidance")


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
        (["--preset", "ring", "--mode-weights", ".5", ".6"], "expected positive shares of sum 1"),
        (["--preset", "ring", "--mode-weights", "1"], "expected 2 or more shares, got 1"),
        (["--preset", "jumps", "--mode-weights", ".5", ".5"], "expected 8 shares, got 2"),
        (["--kernels", "published", "--cap", "1"], "--cap: kernel published has its own"),
        (["--kernels", "published", "--no-corrector"], "--corrector: kernel published has its own"),
        (["--no-corrector", "--sampler.solver", "euler"], "corrector: solver euler has none"),
        (["--factors", "1", "1"], "--factors: expected distinct values"),
        (["--group-sizes", "1"], "--group-sizes: expected at least 2"),
        (["--groups", "1"], "--groups: expected at least 2"),
        (["--sampler.s-churn", "1"], "--sampler.s-churn: is swept; pass --churns"),
        (["--space", "x"], "kernel iou: compares images"),
        (["--eta", "1", "--churns", "0"], "eta: is DDIM's noise"),
        (["--sampler.solver", "dpmpp2m", "--churns", "0"], "guidance steps by euler or heun"),
        (["--preset", "nothing"], "choose one of digits, ring, jumps, circle"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        _main([*options, "--output", str(tmp_path), "--dry-run"])
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kernels", "laplace"], "--kernels laplace: expected some of rbf, iou"),
        (["--kernels", "python:nothing_there:f"], "expected python:MODULE:CALLABLE, .* PYTHONPATH"),
        (["--target", "clips", "--clips.motion", "free"], "has no directions to choose from"),
        (["--preset", "circle", "--clips.motion", "horizontal"], "jump: of motion circle, and"),
        (["--preset", "circle", "--clips.window", "1"], "a window of at least 2 frames"),
        (["--preset", "circle", "--width", "8"], "--width: nothing is trained here"),
        (["--preset", "circle", "--mode-weights", "1"], "--mode-weights: are of targets ring"),
        (["--clips.canvas", "40"], "--clips, --network, --network-training: are of target clips"),
        (["--descriptor", "pixels"], "--descriptor: is of --space features"),
        (["--preset", "ring", "--space", "features"], "has no images to describe"),
        (["--preset", "circle", "--space", "features", "--kernels", "rbf"], "choose pixels or a network"),
        (["--preset", "circle", "--space", "x", "--kernels", "published"], "kernel published: compares"),
    ],
)  # fmt: skip
def test_options_of_clips_features_and_kernels_that_do_not_fit_are_refused(
    options, message, tmp_path
):
    with pytest.raises(RegimesError, match=message):
        _main([*options, "--output", str(tmp_path), "--dry-run"])
    assert not any(tmp_path.iterdir())


def cells_of(monkeypatch, *options):
    """Recipes of the guided cells that a command line asks for; nothing is run."""
    found = []
    monkeypatch.setattr(job, "print_plan", lambda plan, *_: found.append(plan))
    _main([*options, "--dry-run", "--output", "nowhere"])
    return [r for key, r in found[0].cells.items() if not key.is_baseline]


@pytest.mark.parametrize(
    ("options", "part", "name", "value"),
    [
        (("--lowest", ".5"), "guidance", "lowest", 0.5),
        (("--highest", "5"), "guidance", "highest", 5.0),
        (("--no-corrector",), "guidance", "corrector", False),
        (("--sampler.solver", "euler"), "sampler", "solver", "euler"),
        (("--sampler.solver", "euler", "--churns", "0", "--eta", "1"), "guidance", "eta", 1.0),
        (("--churns", "2"), "sampler", "s_churn", 2.0),
        (("--jacobian", "exact"), "guidance", "jacobian", "exact"),
        (("--bandwidth", "fixed"), "guidance", "bandwidth", "fixed"),
        (("--cap", "1"), "guidance", "cap", 1.0),
        (("--strengths", "relative"), "guidance", "strength", "relative"),
        (("--kernels", "angular", "--space", "x"), "guidance", "space", "x"),
    ],
)
def test_every_part_of_guidance_is_reachable(options, part, name, value, monkeypatch):
    for recipe in cells_of(monkeypatch, *options):
        assert getattr(getattr(recipe, part), name) == value


def test_features_own_kernels_and_the_published_method_are_reachable(monkeypatch, tmp_path):
    (tmp_path / "kernel_of_mine.py").write_text("def f(z):\n    return z @ z.mT\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    options = ("--space", "features", "--descriptor", "whitened-pixels", "--ridge", "1")
    names = ("--kernels", "cosine", "python:kernel_of_mine:f")
    cosine, mine = (
        [r for r in cells_of(monkeypatch, *options, *names) if (r.own_kernel is None) == plain]
        for plain in (True, False)
    )
    assert all(
        (r.features.name, r.features.ridge) == ("whitened-pixels", 1.0) for r in cosine + mine
    )
    assert {r.guidance.kernel for r in mine} == {"custom"}
    assert mine[0].own_kernel.target == "kernel_of_mine:f"
    published = cells_of(monkeypatch, "--kernels", "published", "--strengths", "linear", "cosine")
    assert all(r.as_published for r in published)
    assert len({r.address for r in published}) == len(published) == 8  # factors x churns


def test_the_report_says_by_what_particles_are_compared():
    def words(**options):
        plan = GuidancePlan(GuidanceExperiment(**options), DescriptorOptions(**descriptor))
        return " ".join(guided_words(plan))

    descriptor = {"descriptor": "whitened-pixels"}
    assert words(space="features", kernels=("rbf",)).startswith(
        "Particles are compared by features of the estimates of the image, by whitened-pixels;"
    )
    descriptor = {"descriptor": DEFAULT_DESCRIPTOR.descriptor}
    assert words().startswith(
        "Particles are compared by the estimates of the image; bandwidth: median"
    )
    assert "the noisy state" in words(space="x", kernels=("rbf",))
    assert words(kernels=("published",)).startswith("Kernel published is the whole method")
    assert "bandwidth: median" in words(kernels=("rbf", "published"))


def test_clips_are_learned_continued_and_reported_beside_the_law_they_were_made_with(tmp_path):
    """All of it in this process, on clips and a network of seconds."""
    smoke = PRESETS["horizontal-smoke"]
    experiment = dataclasses.replace(
        smoke,
        clips=dataclasses.replace(smoke.clips, clips=12),
        groups=4,
        kernels=("rbf", "published"),
    )
    plan, store = GuidancePlan(experiment), Store(str(tmp_path))
    assert plan.probabilities == [0.7, pytest.approx(0.3)]
    ingest(store, plan.images, plan.decoded)
    ingest(store, plan.continued_images, plan.continued)
    train_network(store, plan.model)
    for trial in plan.trials(store):
        make_units(store, trial, "cpu", lambda *_: None)
    run = RunOptions(output=str(tmp_path), name="clips")
    results = GuidanceResults(run, "horizontal-smoke", plan)
    results.write(store)
    found, folder = scores(tmp_path)
    assert [c["kernel"] for c in found["cells"]] == ["none", "rbf", "published"]
    assert {"shifted_distance", "overlap", "shift"} <= set(found["cells"][0])
    assert "go right" in found["answer"][-1]
    text = (folder / "report.html").read_text()
    for words in (
        "goes right",
        "set 0.700",
        "<span>published ",
        "<span>overlap ",
        "held-out digits",
    ):
        assert words in text, words
    for name in ("embedding", "samples", "paths", "marginal"):
        assert (folder / f"figures/{name}.png").stat().st_size > 5000, name
    assert results.is_complete()


def test_a_source_without_classes_is_refused(tmp_path):
    import numpy as np

    np.save(tmp_path / "images.npy", np.zeros((120, 8, 8, 1), np.uint8))
    with pytest.raises(ConfigError, match="expected images with classes"):
        GuidancePlan(GuidanceExperiment(source=str(tmp_path / "images.npy")))


def test_a_dry_run_of_clips_names_the_network_that_it_would_train(tmp_path, capsys):
    _main(["--preset", "circle-smoke", "--output", str(tmp_path), "--dry-run"])
    assert "model     width 8, 10 steps, to be made" in capsys.readouterr().out


def test_a_dry_run_says_what_it_would_cost(tmp_path, capsys):
    _main(["--preset", "ring", "--output", str(tmp_path), "--dry-run"])
    text = capsys.readouterr().out
    assert "cells     17, 17 missing: 17,000 samples" in text
    assert "3,417,000 evaluations of the denoiser" in text
    assert "not counted" in text


def test_modes_without_width_have_a_tolerance_that_is_not_nothing():
    assert PRESETS["jumps"].tolerance.least_distance == pytest.approx(2 / 255)
    assert PRESETS["ring"].tolerance.least_distance == 0


@pytest.mark.parametrize("preset", PRESETS)
def test_the_sweep_always_has_a_baseline_and_at_least_twenty_groups(preset):
    plan = GuidancePlan(PRESETS[preset])
    assert PRESETS[preset].groups >= 20
    baselines = [key for key in plan.cells if key.is_baseline]
    assert len(baselines) == len(PRESETS[preset].churns) * len(PRESETS[preset].group_sizes)
    for recipe in plan.cells.values():
        assert recipe.seeds == plan.cells[baselines[0]].seeds
    assert len({r.address for r in plan.cells.values()}) == len(plan.cells)
