"""The memorization job with U-Nets: the cifar10 presets, on tiny networks and few images."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import made_networks
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from cifar_format import write_cifar_archive
from job_runs import ROOT, artifact_bytes, counts, run_job

from regimes.jobs import memorization
from regimes.jobs.support.chosen_descriptor import DEFAULT_DESCRIPTOR, ChosenDescriptor
from regimes.jobs.support.memorization import cost

TEACHER = ROOT / "tests" / "data" / "edm" / "ddpmpp-vp-uncond.pkl"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A CIFAR-10 archive of 60 smooth pictures."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32] / 32
    waves = rng.random((60, 3, 3))
    pictures = [
        np.stack([np.sin(6 * (w[0] * x + w[1] * y + w[2])) for w in colours], -1)
        for colours in waves
    ]
    images = ((np.stack(pictures) + 1) * 127).astype(np.uint8)
    path = tmp_path_factory.mktemp("cifar") / "cifar-10-python.tar.gz"
    write_cifar_archive(path, images, rng.integers(0, 10, 60).tolist(), per_batch=12)
    return path


def scores(output: Path) -> dict[tuple[str, int, int | None], float]:
    (folder,) = (output / "memorization").iterdir()
    rows = pq.read_table(folder / "scores.parquet").to_pylist()
    return {(r["score"], r["n"], r["width"]): r["value"] for r in rows}


def test_cifar10_runs_from_the_archive_to_the_report_and_counts_flips(archive, tmp_path):
    common = ("--preset", "cifar10-smoke", "--source", str(archive), "--output", str(tmp_path))
    text = run_job("memorization", *common, "--cpus", "2")
    assert "60 images read" in text
    assert counts(text, "train") == (0, 4)
    assert counts(text, "sample") == (0, 16)
    found = scores(tmp_path)
    for n in (4, 16):
        for width in (4, 8):
            for name in ("gl", "gl_unflipped", "ratio", "ratio_unflipped", "gl_published"):
                assert 0 <= found[name, n, width] <= 1
            assert found["gl", n, width] <= found["gl_unflipped", n, width]
    assert not [key for key in found if key[0].startswith("rp_disjoint")]
    (folder,) = (tmp_path / "memorization").iterdir()
    config = json.loads((folder / "config.json").read_text())
    assert config["recipe"]["experiment"]["network"]["precond"] == "vp"
    assert (folder / "figures" / "memorizer-w4.png").stat().st_size > 1000
    before = artifact_bytes(tmp_path)
    assert "complete: nothing to compute" in run_job("memorization", *common)
    assert artifact_bytes(tmp_path) == before


def test_models_are_trained_on_the_samples_of_a_teacher_and_described_by_a_network(tmp_path):
    made_networks.tiny_script(tmp_path / "tiny.pt")
    text = run_job(
        "memorization",
        *("--preset", "cifar10-smoke", "--teacher", str(TEACHER), "--teacher-seeds", "0-29"),
        *("--teacher-sampler.num-steps", "3", "--sizes", "4", "8", "--widths", "4"),
        *("--descriptor", f"torchscript:{tmp_path / 'tiny.pt'}", "--resize", "skew-32", "--centre"),
        *("--output", str(tmp_path), "--cpus", "2"),
    )
    assert "teacher   30 images: 0 units kept, 3 made" in text
    assert counts(text, "train") == (0, 2)
    trained = [
        json.loads((p / "recipe.json").read_text())["train"]
        for p in (tmp_path / "artifacts" / "network").iterdir()
    ]
    assert sorted(t["size"] for t in trained) == [4, 8]
    for train in trained:  # the first n seeds, as published
        assert train["split"] == {"type": "Split", "num_images": 30, "parts": 1, "seed": None}
        assert train["images"]["seeds"]["ranges"] == [[0, 29]]
    assert ("rp_optimal", 4, 4) in scores(tmp_path)
    (folder,) = (tmp_path / "memorization").iterdir()
    rows = pq.read_table(folder / "scores.parquet").to_pylist()
    in_pixels = {r["score"] for r in rows if r["descriptor"] == "raw-pixels"}
    assert in_pixels == {"ratio", "ratio_heldout", "ratio_unflipped"}  # distances, as published
    (label,) = {r["descriptor"] for r in rows} - {"raw-pixels"}
    assert label.startswith("torchscript-tiny skew-32 output weights:")
    assert " centre:" in label


def test_two_parts_train_models_of_disjoint_images(archive):
    experiment = dataclasses.replace(
        memorization.PRESETS["cifar10-smoke"], source=str(archive), parts=2, widths=(4,)
    )
    grid, _ = memorization._plan(experiment, ChosenDescriptor.find(DEFAULT_DESCRIPTOR))
    assert sorted(grid.models) == [(4, 4, "A"), (4, 4, "B"), (4, 16, "A"), (4, 16, "B")]
    a, b = (set(grid.split.subset(half, 16)) for half in ("A", "B"))
    assert len(a) == len(b) == 16
    assert not a & b


def test_dry_run_prints_the_grid_and_its_cost(archive, tmp_path, capsys):
    options = ["--preset", "cifar10-smoke", "--source", str(archive), "--dry-run"]
    assert memorization.main([*options, "--output", str(tmp_path / "new")]) == 0
    text = capsys.readouterr().out
    assert "width 4: 2 models, 2 missing, 20 steps" in text
    assert "width 8: 2 models, 2 missing, 20 steps" in text
    assert "storage" in text
    assert "not counted" in text
    assert not (tmp_path / "new").exists()


def test_gpu_hours_without_a_gpu_come_from_counted_operations(capsys):
    a, b = torch.zeros(3, 5), torch.zeros(5, 7)
    assert cost._operations(lambda: a @ b) == 2 * 3 * 5 * 7
    cost._print_total([1e6], 3.6e18, 2, on_gpu=False)
    assert "100 GPU-hours at 10 TFLOP/s" in capsys.readouterr().out
    cost._print_total([7200.0], 3.6e18, 2, on_gpu=True)
    total = "total     2.0 GPU-hours at the measured throughput; "
    assert capsys.readouterr().out == f"{total}{cost._NOT_COUNTED}\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--preset", "cifar10"], "cifar-10-python.tar.gz: no such file"),
        (["--preset", "cifar10-teacher"], "edm-cifar10-32x32-uncond-vp.pkl: cannot be read"),
        (["--network.width", "8"], "--network.width: a study has --widths"),
        (["--network.conditional"], "--network.conditional"),
        (["--sizes", "4", "58"], "leaves fewer than 4 of 60 images"),
        (["--teacher", str(TEACHER), "--teacher-seeds", "x"], "seeds 'x'"),
        (["--centre"], "--centre: whitened-pixels needs no centre"),
        (["--descriptor", "sscd"], "--descriptor sscd: expected one of"),
        (["--descriptor", "pixels", "--ridge", "1"], "--ridge: pixels is not fitted"),
        (["--training.batch-size", "0"], "batch_size"),
        (["--training.duration-kimg", "0"], "duration_kimg"),
    ],
)
def test_wrong_input_is_one_line(archive, tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    preset = (
        [] if "--preset" in options else ["--preset", "cifar10-smoke", "--source", str(archive)]
    )
    assert memorization.main([*preset, *options, "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert len(error.strip().splitlines()) == 1
