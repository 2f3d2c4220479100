"""The classifier job: trials on Ray, results for people and programs, resume, errors in one line."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from job_runs import ROOT, check_comparison, counts, finish, run_job, start_job, wait_for
from PIL import Image

from regimes.jobs import classifier

SMOKE = ("--preset", "smoke", "--name", "run")


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One complete run of the smoke preset: where it is, and what it printed."""
    output = tmp_path_factory.mktemp("classifier")
    return output, run_job("classifier", *SMOKE, "--cpus", "2", "--output", str(output))


def test_all_arms_are_trained_and_written_for_people_and_programs(finished):
    output, text = finished
    assert counts(text, "train") == (0, 10)
    folder = output / "classifier" / "run"
    found = json.loads((folder / "scores.json").read_text())
    assert found["arms"] == ["real", "generated", "diverse", "real+generated", "real+diverse"]
    assert found["seeds"] == [0, 1]
    assert len(found["comparisons"]) == 6
    assert pq.read_table(folder / "scores.parquet").to_pylist() == found["scores"]
    assert "\n".join(found["answer"]) in text
    names = {p.as_posix() for p in files(folder)}
    drawn = {f"figures/{n}.{k}" for n in ("balanced-accuracy", "recall") for k in ("png", "pdf")}
    assert drawn | {"report.html", "config.json"} <= names
    assert sum(name.startswith("tensorboard/") for name in names) == 10
    check_comparison(output, "classifier")


def test_the_table_has_the_published_columns_and_one_row_per_classifier(finished):
    output, _ = finished
    folder = output / "classifier" / "run"
    rows = list(csv.DictReader((folder / "accuracy_results.csv").open()))
    digits = [str(c) for c in range(10)]
    assert list(rows[0]) == ["Subfolder", "Weight File", "Overall Accuracy", *digits]
    assert len(rows) == 10
    by_seed = json.loads((folder / "scores.json").read_text())["by_seed"]
    for row in rows:
        assert (output / row["Weight File"]).is_file()
        predictions = pq.read_table((output / row["Weight File"]).with_name("predictions.parquet"))
        labels = predictions["label"].to_numpy()
        p = predictions["probability"].combine_chunks().to_numpy_ndarray()
        right = p.argmax(1) == labels
        assert float(row["Overall Accuracy"]) == pytest.approx(right.mean(), abs=5e-5)
        for c, digit in enumerate(digits):
            assert float(row[digit]) == pytest.approx(right[labels == c].mean(), abs=5e-5)
        shares = by_seed[row["Subfolder"]]["accuracy"]
        assert any(right.mean() == pytest.approx(share) for share in shares)


def test_a_second_run_computes_nothing_and_another_configuration_is_refused(finished, capsys):
    output, _ = finished
    before = files(output)
    asked = (*SMOKE, "--output", str(output))
    assert classifier.main(asked) == 0
    assert capsys.readouterr().out.startswith("complete: nothing to compute")
    assert classifier.main((*asked, "--num-seeds", "1")) == 1
    assert "another configuration" in capsys.readouterr().err
    assert files(output) == before
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


def test_results_are_written_anew_from_what_is_kept(finished, capsys):
    """A study of one seed fewer trains nothing."""
    output, _ = finished
    asked = ("--preset", "smoke", "--name", "fewer", "--num-seeds", "1", "--output", str(output))
    assert classifier.main(asked) == 0
    text = capsys.readouterr().out
    assert counts(text, "train") == (5, 0)
    assert "one seed" in text


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(finished, tmp_path):
    whole, _ = finished
    asked = (*SMOKE, "--output", str(tmp_path), "--cpus", "1")
    process = start_job("classifier", *asked)
    made = tmp_path / "artifacts" / "classifier"
    wait_for(lambda: list(made.glob("*/manifest.json")), process, limit_s=400)
    process.terminate()
    assert "the same command goes on from here" in finish(process, 143)
    kept, trained = counts(run_job("classifier", *asked), "train")
    assert 1 <= kept < 10
    assert kept + trained == 10
    assert files(made) == files(whole / "artifacts" / "classifier")
    config = Path("config.json")
    both = [files(root / "classifier" / "run") for root in (tmp_path, whole)]
    assert both[0].pop(config) == both[1].pop(config)
    assert both[0] == both[1]


def test_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path, capsys):
    assert classifier.main([*SMOKE, "--output", str(tmp_path / "out"), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "real, generated, diverse, real+generated, real+diverse; 2 seeds each" in text
    assert "Every arm lists 80 images" in text
    assert "0 kept, 10 to train" in text
    assert "time       about" in text
    assert "not counted" in text
    assert not (tmp_path / "out").exists()


def save(folder, size, mode):
    for name in "ab":
        (folder / name).mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 256, (size, size, 3), np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{i}.png")
    return str(folder)


def test_sets_of_other_shapes_are_refused_with_the_remedy(tmp_path, capsys):
    for part in ("train", "val", "test"):
        save(tmp_path / "real" / part, 8, "L")
    asked = (
        "--real",
        str(tmp_path / "real"),
        "--image-size",
        "None",
        "--validation-per-class",
        "2",
    )
    made = save(tmp_path / "made", 8, "RGB")
    output = ("--output", str(tmp_path / "out"))
    assert classifier.main([*asked, "--generated", made, *output]) == 1
    error = capsys.readouterr().err
    assert "the generated images are 8x8x3, the real ones 8x8x1; pass --image-size and" in error
    assert len(error.strip().splitlines()) == 1


BAD = [
    (["--preset", "images"], "--real: expected images, got none"),
    (["--preset", "digits", "--generated", "nothing"], "no such file or folder"),
    (["--preset", "digits", "--network", "resnet51"], "did you mean"),
    (["--preset", "digits", "--per-class", "99"], "expected at least 99 of each class, got 22"),
    (["--preset", "digits", "--cpus", "0"], "--cpus: expected at least 1"),
    (["--preset", "digits", "--replicas", "0"], "--replicas: expected at least 1"),
    (["--preset", "digits", "--gpus-per-trial", "2"], "--gpus-per-trial"),
    (["--preset", "digits", "--name", "a/b"], "--name a/b"),
    (["--preset", "digits", "--weights", "absent.pth"], "--weights absent.pth: cannot be read"),
    (["--preset", "digits", "--training.batch-size", "1"], "batch_size: expected at least 2"),
]


@pytest.mark.parametrize(("options", "words"), BAD)
def test_bad_input_is_one_line(options, words, tmp_path, capsys):
    assert classifier.main([*options, "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_job_lists_itself():
    from regimes.jobs.__main__ import names

    assert "classifier" in names()
    assert (ROOT / "jobs" / "classifier.py").exists()
