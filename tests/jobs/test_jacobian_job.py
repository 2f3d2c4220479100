"""The jacobian job: closed forms, checkpoints with classes, digits models; resumed, and by any replicas."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from job_runs import ROOT, artifact_bytes, counts, run_job
from sklearn.datasets import load_digits

from regimes.denoisers.closed_form import WienerDenoiser
from regimes.images.pixels import to_float
from regimes.images.sources import load_images, open_source
from regimes.jobs import jacobian

EDM = ROOT / "tests" / "data" / "edm"


def job(output: Path, *options: str, expect: int = 0) -> str:
    return run_job(
        "jacobian", "--output", str(output), "--name", "a", "--cpus", "2", *options, expect=expect
    )


def scores(output: Path, name: str = "a"):
    return json.loads((output / "jacobian" / name / "scores.json").read_text())


def test_ranks_of_the_wiener_filter_are_those_of_its_eigenvalues(tmp_path):
    few = ("--model", "wiener:digits", "--source", "digits", "--num-images", "3", "--seeds", "0-1")
    text = job(tmp_path, *few, "--sigmas", "10", "0.5", "0.01", "--rank", "effective")
    found = scores(tmp_path)
    _, images, _ = load_images(open_source("digits"))
    assert images.shape == (*load_digits().images.shape, 1)
    variances = WienerDenoiser(to_float(images)).variances.numpy()
    for row in found["scores"]:
        s = variances / (variances + row["sigma"] ** 2)
        p = s / s.sum()
        expected = np.exp(-(p[p > 0] * np.log(p[p > 0])).sum())
        assert row["rank"] == pytest.approx(expected, rel=1e-6)
        assert (row["num_points"], row["num_groups"], row["size"]) == (6, 3, 64)
    reference = {r["sigma"]: r["ratio"] for r in found["reference"]["ratios"]}
    assert reference == pytest.approx({r["sigma"]: r["ratio"] for r in found["scores"]}, rel=1e-6)
    table = pq.read_table(tmp_path / "jacobian" / "a" / "scores.parquet")
    assert table["ratio"].to_pylist() == [r["ratio"] for r in found["scores"]]
    assert (tmp_path / "jacobian" / "a" / "report.html").exists()
    assert counts(text, "linearise") == (0, 2)
    again = job(tmp_path, *few, "--sigmas", "10", "0.5", "0.01", "--rank", "effective")
    assert "complete: nothing to compute" in again
    # Spectra are kept: another rule measures nothing.
    other = job(tmp_path, *few, "--sigmas", "10", "0.5", "0.01", "--name", "b")
    assert counts(other, "linearise") == (2, 0)


def test_a_conditional_network_is_linearised_along_trajectories_by_any_number_of_replicas(tmp_path):
    found = {}
    options = ("--model", str(EDM / "adm-edm-cond.pkl"), "--seeds", "0-3", "--batch-size", "2")
    quick = (
        "--sampler.num-steps",
        "3",
        "--method",
        "randomised",
        "--width",
        "8",
        "--max-width",
        "8",
    )
    for replicas in ("1", "2"):
        job(tmp_path / replicas, *options, *quick, "--replicas", replicas)
        found[replicas] = artifact_bytes(tmp_path / replicas)
    assert found["1"] == found["2"]
    rows = scores(tmp_path / "1")["scores"]
    assert len(rows) == 3
    for row in rows:
        assert 0 < row["least"] <= row["ratio"] <= row["most"] <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sigmas", "1"), "--source"),
        (("--source", "digits", "--sampler.num-steps", "4"), "--sampler"),
        (("--class", "3"), "unconditional"),
        (("--model", "wiener:digits", "wiener:digits"), "each once"),
        (("--source", "digits", "--sigmas", "0"), "--sigmas"),
        (("--num-images", "3"), "--source"),
        (("--method", "randomised", "--width", "8", "--max-width", "4"), "max_width"),
    ],
)
def test_options_that_would_do_nothing_are_refused(tmp_path, capsys, options, message):
    if "--class" in options:  # found out by the replicas
        text = job(tmp_path, *options, "--seeds", "0-1", "--sampler.num-steps", "2", expect=1)
    else:
        with contextlib.suppress(SystemExit):  # of the command line's reader
            assert jacobian.main(["--output", str(tmp_path), *options]) == 1
        captured = capsys.readouterr()
        text = captured.err + captured.out
    assert message in text
    assert "Traceback" not in text


def test_a_dry_run_measures_and_writes_nothing(tmp_path, capsys):
    assert jacobian.main(["--output", str(tmp_path / "x"), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "model     empirical:digits: 8x8x1, 16 points at 18 levels, whole Jacobians" in text
    assert not (tmp_path / "x").exists()
