"""The jacobian job: closed forms, checkpoints with classes, digits models; resumed, and by any replicas.

One run starts Ray; the others measure in this process, through the same units of work.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import made_pipelines
import numpy as np
import pyarrow.parquet as pq
import pytest
from job_runs import ROOT, artifact_bytes, check_comparison, counts, run_job
from PIL import Image

from regimes.denoisers.closed_form import WienerDenoiser
from regimes.images.pixels import to_float
from regimes.images.sources import ArraySource, load_images, open_source
from regimes.images.split import Split
from regimes.jobs import jacobian
from regimes.storage.artifacts import Store
from regimes.storage.denoisers import load_denoiser
from regimes.storage.images import ImagesRecipe, Subset, decode_source, ingest
from regimes.storage.jacobian import measure_unit, split_work
from regimes.storage.models import ModelRecipe, train_ensemble
from regimes.training.ensemble import TrainingConfig

EDM = ROOT / "tests" / "data" / "edm"
FEW = ("--num-images", "2", "--sigmas", "10", "0.1")


@pytest.fixture
def here(monkeypatch):
    """Measure without Ray."""

    def linearise(runtime, store, recipes, chosen, *, options, on_unit):
        for recipe in recipes:
            loaded = load_denoiser(store, recipe.denoiser)
            entries, missing = split_work(store, recipe)
            for unit in missing:
                entries.append(measure_unit(store, recipe, unit, loaded, chosen))
                on_unit()
            store.artifact(recipe).finish(entries)

    monkeypatch.setattr(jacobian, "linearise", linearise)


def run(output: Path, *options: str, name: str = "a") -> int:
    return jacobian.main(["--output", str(output), "--name", name, *options])


def scores(output: Path, name: str = "a"):
    return json.loads((output / "jacobian" / name / "scores.json").read_text())


def test_ranks_of_the_wiener_filter_are_those_of_its_eigenvalues(tmp_path, capsys, here):
    few = ("--model", "wiener:digits", "--source", "digits", "--num-images", "3", "--seeds", "0-1")
    few = (*few, "--sigmas", "10", "0.5", "0.01")
    assert run(tmp_path, *few, "--rank", "effective") == 0
    assert counts(capsys.readouterr().out, "linearise") == (0, 2)
    found = scores(tmp_path)
    _, images, _ = load_images(open_source("digits"))
    variances = WienerDenoiser(to_float(images)).variances.numpy()
    rows = [row for row in found["scores"] if row["rule"] == "effective"]
    assert [row["sigma"] for row in rows] == [10, 0.5, 0.01]
    for row in rows:
        s = variances / (variances + row["sigma"] ** 2)
        p = s / s.sum()
        expected = np.exp(-(p[p > 0] * np.log(p[p > 0])).sum())
        assert row["rank"] == pytest.approx(expected, rel=1e-6)
        assert (row["num_points"], row["num_groups"], row["size"]) == (6, 3, 64)
    reference = {r["sigma"]: r["ratio"] for r in found["reference"]["ratios"]}
    assert reference == pytest.approx({r["sigma"]: r["ratio"] for r in rows}, rel=1e-6)
    table = pq.read_table(tmp_path / "jacobian" / "a" / "scores.parquet")
    assert table["ratio"].to_pylist() == [r["ratio"] for r in found["scores"]]
    assert table["rule"].to_pylist() == [
        r for r in ("effective", "energy", "stable") for _ in "abc"
    ]
    assert (tmp_path / "jacobian" / "a" / "report.html").exists()
    assert run(tmp_path, *few, "--rank", "effective") == 0
    assert "complete: nothing to compute" in capsys.readouterr().out
    # Spectra are kept: another rule measures nothing.
    assert run(tmp_path, *few, name="b") == 0
    assert counts(capsys.readouterr().out, "linearise") == (2, 0)
    energy = [r["rank"] for r in found["scores"] if r["rule"] == "energy"]
    assert [r["rank"] for r in scores(tmp_path, "b")["scores"]][:3] == energy
    check_comparison(tmp_path, "jacobian")


def test_two_replicas_linearise_a_conditional_network_as_this_process_does(tmp_path, here):
    options = ("--model", str(EDM / "adm-edm-cond.pkl"), "--seeds", "0-3", "--batch-size", "2")
    quick = ("--sampler.num-steps", "2", "--method", "randomised", "--width", "8")
    options = (*options, *quick, "--max-width", "8", "--name", "a")
    run_job("jacobian", "--output", str(tmp_path / "2"), *options, "--replicas", "2", "--cpus", "2")
    assert run(tmp_path / "1", *options) == 0
    assert artifact_bytes(tmp_path / "1") == artifact_bytes(tmp_path / "2")
    rows = [row for row in scores(tmp_path / "2")["scores"] if row["rule"] == "energy"]
    assert len(rows) == 2
    for row in rows:
        assert 0 < row["least"] <= row["ratio"] <= row["most"] <= 1


def class_folders(path: Path, side: int) -> str:
    """Three images of three classes."""
    rng = np.random.default_rng(0)
    for name in "abc":
        (path / name).mkdir(parents=True)
        image = rng.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(image).save(path / name / "1.png")
    return str(path)


def digits_model(output: Path) -> str:
    """The folder of a model of an ensemble, as the digits job trains them."""
    store, images = Store(str(output)), np.zeros((12, 8, 8, 3), np.uint8)
    images[:] = np.random.default_rng(0).integers(0, 256, images.shape)
    source = ArraySource("mine", images)
    recipe = ImagesRecipe(
        fingerprint=source.fingerprint, image_size=None, channels=None, skip_bad=False
    )
    ingest(store, recipe, decode_source(source, recipe))
    models = [
        ModelRecipe(
            train=Subset(images=recipe, split=Split(num_images=12, seed=0), half=half, size=4),
            width=8,
            blocks=1,
            steps=20,
            sigma_data=0.5,
            training=TrainingConfig(batch_size=4, warmup_steps=10),
            seed=3,
            ensemble=("w8-n4-A", "w8-n4-B"),
        )
        for half in ("A", "B")
    ]
    train_ensemble(store, models)
    return store.artifact(models[0]).location.uri


def test_every_kind_of_model_is_linearised_at_images(tmp_path, here):
    pipeline = made_pipelines.save(made_pipelines.pixel_pipeline(), tmp_path / "ddpm")
    source = class_folders(tmp_path / "images", 8)
    models = (str(pipeline), digits_model(tmp_path / "models"), f"empirical:{source}")
    full = ("--source", source, *FEW, "--method", "full")
    assert run(tmp_path, "--model", *models, *full) == 0
    rows = [row for row in scores(tmp_path)["scores"] if row["rule"] == "energy"]
    names = [row["model"] for row in rows]
    assert names == [m for m in ("ddpm", models[1][-20:-12], "empirical-images") for _ in "12"]
    assert [row["sigma"] for row in rows] == pytest.approx(3 * [10, 0.1], rel=0.02)
    assert all(row["size"] == 192 and row["num_groups"] == 2 for row in rows)
    # Three images span two directions about their mean; an untrained network keeps nearly all.
    assert 0 < rows[4]["rank"] <= 2
    assert rows[5]["rank"] == 0
    assert min(rows[1]["rank"], rows[3]["rank"]) > 100


def test_a_conditional_network_takes_the_classes_of_the_images_or_the_one_asked_for(
    tmp_path, capsys, here
):
    network, source = str(EDM / "adm-edm-cond.pkl"), class_folders(tmp_path / "images", 16)
    options = ("--model", network, "--source", source, *FEW)
    options = (*options, "--method", "randomised", "--width", "4", "--max-width", "4")
    found = {}
    for name, more in (("own", ()), ("other", ("--class", "3"))):  # no image is of class 3
        assert run(tmp_path, *options, *more, name=name) == 0
        found[name] = [row["rank"] for row in scores(tmp_path, name)["scores"]]
    assert found["own"] != found["other"]
    capsys.readouterr()
    assert run(tmp_path, *options, "--class", "99", name="c") == 1
    assert "--class: expected 0 to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sigmas", "1"), "--source"),
        (("--source", "digits", "--sampler.num-steps", "4"), "--sampler"),
        (("--class", "3"), "unconditional"),
        (("--class", "3", "--dry-run"), "unconditional"),
        (("--model", "wiener:digits", "wiener:digits"), "each once"),
        (("--source", "digits", "--sigmas", "0"), "--sigmas"),
        (("--num-images", "3"), "--source"),
        (("--source", "digits", "--image-size", "4"), "--image-size"),
        (("--method", "randomised", "--width", "8", "--max-width", "4"), "max_width"),
    ],
)
def test_what_cannot_run_is_refused_before_workers_start(
    tmp_path, capsys, monkeypatch, options, message
):
    monkeypatch.setattr(jacobian, "linearise", None)
    with contextlib.suppress(SystemExit):  # of the command line's reader
        assert jacobian.main(["--output", str(tmp_path), *options]) == 1
    captured = capsys.readouterr()
    assert message in captured.err + captured.out
    assert "Traceback" not in captured.err


def test_a_dry_run_measures_and_writes_nothing(tmp_path, capsys):
    assert jacobian.main(["--output", str(tmp_path / "x"), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "model     empirical-digits: 8x8x1, 16 points at 18 levels, whole Jacobians" in text
    assert "not counted" in text
    assert not (tmp_path / "x").exists()
