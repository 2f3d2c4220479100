"""The main job on a small grid: complete, repeatable, resumable, and quiet about it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from job_runs import artifact_bytes, check_comparison, counts, finish, run, shards, start
from object_store import BUCKET, google_store, object_store

from regimes.jobs import memorization
from regimes.jobs.support.browsing.runs import find_runs
from regimes.jobs.support.chosen_descriptor import DEFAULT_DESCRIPTOR, ChosenDescriptor
from regimes.jobs.support.console import RunOptions
from regimes.jobs.support.memorization.results import Results
from regimes.storage.filesystem import Location
from regimes.storage.samples import SamplesRecipe

MODELS, UNITS, FEATURE_UNITS = 8, 48, 50


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An undisturbed run: its output folder and what it printed.

    The output is given relative to a working directory that is not the checkout.
    """
    here = tmp_path_factory.mktemp("some where ü")
    return here / "out put", finish(start("out put", cwd=here))


def results(output: Path) -> Path:
    (folder,) = (output / "memorization").iterdir()
    return folder


def test_a_fresh_run_makes_every_unit_and_says_so(finished: tuple[Path, str]) -> None:
    _, text = finished
    assert counts(text, "train") == (0, MODELS)
    assert counts(text, "sample") == (0, UNITS)
    assert counts(text, "describe") == (0, FEATURE_UNITS)


def test_output_is_quiet(finished: tuple[Path, str]) -> None:
    _, text = finished
    for noise in ("WARNING", "INFO", "Traceback", "core_worker", "E0000"):
        assert noise not in text
    assert len(text.splitlines()) < 20


def test_the_result_folder_has_what_the_readme_promises(finished: tuple[Path, str]) -> None:
    folder = results(finished[0])
    for name in ("config.json", "scores.json", "scores.parquet", "report.html"):
        assert (folder / name).stat().st_size > 0
    assert {p.suffix for p in (folder / "figures").iterdir()} == {".png", ".pdf"}
    assert list((folder / "tensorboard").glob("*/events.out.tfevents*"))
    config = json.loads((folder / "config.json").read_text())
    assert config["recipe"]["experiment"]["sizes"] == [8, 64]


def test_scores_table_has_one_row_per_cell_with_interval_and_null(
    finished: tuple[Path, str],
) -> None:
    table = pq.read_table(results(finished[0]) / "scores.parquet").to_pylist()
    for name in ("gl", "ratio", "rp_optimal", "wiener_similarity", "precision"):
        cells = [(r["n"], r["width"], r["half"]) for r in table if r["score"] == name]
        assert sorted(cells) == [(n, w, h) for n in (8, 64) for w in (16, 24) for h in ("A", "B")]
    names = {r["score"] for r in table}
    assert names >= {
        "rp_same_data", "rp_disjoint", "gl_heldout", "ratio_heldout", "precision_heldout",
        "rp_disjoint_null", "precision_null",
    }  # fmt: skip
    for row in table:
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
        assert row["num_generated"] > 0
        is_reference = row["score"].endswith(("_heldout", "_null"))
        assert row["null"] is not None or is_reference
    check_comparison(finished[0], "memorization")


def test_a_second_run_computes_nothing(finished: tuple[Path, str]) -> None:
    output, _ = finished
    before = {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file()}
    text = run(output)
    assert "complete: nothing to compute" in text
    assert not [
        line for line in text.splitlines() if line.startswith(("images", "train", "sample"))
    ]
    assert {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file()} == before


@pytest.mark.slow  # the client waits 0.2 s after every refusal; artifacts alone: test_object_store.py
def test_on_a_failing_object_store_the_job_ends_with_the_same_bytes(
    finished: tuple[Path, str],
) -> None:
    with object_store() as server:
        server.faults(share=0.1, names=["manifest.json"])
        finish(start(f"s3://{BUCKET}/digits", env=server.environment))
        refused = server.faults()
        server.faults(share=0.0)
        place = Location(f"s3://{BUCKET}/digits")
        names = [name for name in place.names() if name.startswith("artifacts/")]
        found = {name: hashlib.sha256(place.read(name)).hexdigest() for name in names}
    assert found == artifact_bytes(finished[0])
    assert refused["manifest.json"] > len([name for name in names if "manifest" in name])
    assert refused["refused"] > 50


@pytest.mark.slow
def test_on_google_storage_the_job_ends_with_the_same_bytes_and_is_found_again(
    finished: tuple[Path, str],
) -> None:
    with google_store(refused=0.02) as address:
        output = address("digits")
        finish(start(output))
        assert "complete: nothing to compute" in finish(start(output))
        place = Location(output)
        names = [name for name in place.names() if name.startswith("artifacts/")]
        found = {name: hashlib.sha256(place.read(name)).hexdigest() for name in names}
        assert [run.label for run in find_runs(place)] == [
            f"memorization/{results(finished[0]).name}"
        ]
    assert found == artifact_bytes(finished[0])


def test_lost_results_are_written_again_from_complete_artifacts(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(finished[0], output)
    shutil.rmtree(output / "memorization")
    text = run(output)
    assert counts(text, "train") == (MODELS, 0)
    assert counts(text, "sample") == (UNITS, 0)
    assert counts(text, "describe") == (FEATURE_UNITS, 0)
    for name in ("scores.json", "scores.parquet", "report.html"):
        first, again = (results(o) / name for o in (finished[0], output))
        assert first.read_bytes() == again.read_bytes()


def test_samples_are_byte_identical_for_1_and_3_replicas(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    for replicas in ("1", "3"):
        output = tmp_path / replicas
        shutil.copytree(finished[0], output)
        for kind in ("samples", "features"):
            shutil.rmtree(output / "artifacts" / kind)
        shutil.rmtree(output / "memorization")
        text = run(output, "--replicas", replicas)  # of three, one finds no CPU and stays idle
        assert counts(text, "sample") == (0, UNITS)
        assert artifact_bytes(output) == artifact_bytes(finished[0])


def test_no_resume_computes_everything_again(finished: tuple[Path, str], tmp_path: Path) -> None:
    output = tmp_path / "copy"
    shutil.copytree(finished[0], output)
    text = run(output, "--no-resume")
    assert counts(text, "train") == (0, MODELS)
    assert artifact_bytes(output) == artifact_bytes(finished[0])


def test_a_name_holds_one_configuration(finished: tuple[Path, str]) -> None:
    output, _ = finished
    name = results(output).name
    text = run(output, "--name", name, "--num-samples", "50", expect=1)
    assert "another configuration (num_samples 100, now 50); choose another --name" in text


def test_no_resume_replaces_results_of_another_configuration(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(finished[0], output)
    run(output, "--name", results(output).name, "--first-seed", "7", "--no-resume")
    config = json.loads((results(output) / "config.json").read_text())
    assert config["recipe"]["experiment"]["first_seed"] == 7


def test_results_of_an_older_step_are_not_taken_for_complete(
    finished: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ChosenDescriptor.find(DEFAULT_DESCRIPTOR)
    grid, _ = memorization._plan(memorization.PRESETS["digits-smoke"], chosen)
    options = RunOptions(output=str(finished[0]))
    preset = memorization.PRESETS["digits-smoke"]
    assert Results(options, "digits-smoke", preset, grid).is_complete()
    monkeypatch.setattr(SamplesRecipe, "code_version", SamplesRecipe.code_version + 1)
    assert not Results(options, "digits-smoke", preset, grid).is_complete()


def test_dry_run_prints_plan_and_cost_and_writes_nothing(tmp_path: Path) -> None:
    text = run(tmp_path / "out", "--dry-run")
    for word in ("train", "sample", "describe", "total", "storage", "missing"):
        assert word in text
    assert not (tmp_path / "out").exists()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [(truncate, "bytes expected"), (flip_a_byte, "checksum differs"), (Path.unlink, "missing")],
)
def test_a_damaged_shard_is_named_before_anything_rests_on_it(
    finished: tuple[Path, str], tmp_path: Path, damage: Callable[[Path], None], complaint: str
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(finished[0], output)
    shard = shards(output, "samples")[0]
    damage(shard)
    text = run(output, expect=1).strip()
    assert len(text.splitlines()) == 1
    assert str(shard) in text
    assert complaint in text
    assert f"delete the folder {shard.parent}" in text


def test_after_a_damaged_artifact_is_deleted_only_that_is_made_again(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(finished[0], output)
    shutil.rmtree(shards(output, "samples")[0].parent)
    text = run(output, "--name", "again")
    assert counts(text, "sample") == (UNITS - 3, 3)
    assert artifact_bytes(output) == artifact_bytes(finished[0])


def test_a_truncated_shard_of_an_unfinished_artifact_is_named(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(finished[0], output)
    shard = shards(output, "samples")[0]
    truncate(shard)
    (shard.parent / "manifest.json").unlink()
    text = run(output, "--name", "again", expect=1)
    (error,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert str(shard) in error
    assert "delete" in error
    assert "Traceback" not in text


def test_a_full_disk_stops_the_run_by_name_and_it_goes_on_after(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        text = run(small, expect=1)
        (error,) = [line for line in text.splitlines() if line.startswith("error: ")]
        assert "No space left on device" in error
        assert "run the same command again" in error
        assert "Traceback" not in text
        subprocess.run(["mount", "-o", "remount,size=50m", str(small)], check=True)
        run(small)
        assert artifact_bytes(small) == artifact_bytes(finished[0])
    finally:
        subprocess.run(["umount", str(small)], check=True)
