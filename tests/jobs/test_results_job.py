"""Browsing results: all runs, one table, two compared, as text, CSV, Parquet and HTML."""

from __future__ import annotations

import datetime
import json
import os
import re
import uuid

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from regimes.errors import ConfigError
from regimes.jobs import results
from regimes.jobs.support.browsing.listing import listing
from regimes.jobs.support.browsing.runs import find_runs
from regimes.jobs.support.result_folder import parquet_bytes
from regimes.storage.filesystem import Location

HOSTILE = "<script>alert(1)</script>"


def table(shift):
    rows = [
        {"score": s, "n": n, "width": 8, "half": "A", "value": v + shift, "low": v + shift - 0.05,
         "high": v + shift + 0.05, "null": None, "num_generated": 100, "width_other": None,
         "half_other": None, "versus": None, "descriptor": "pixels"}
        for s, n, v in [("gl", 16, 0.1), ("gl", 64, 0.5), ("ratio", 16, 0.8)]
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def write(location, scores, answer, *, complete=True, **recipe):
    location.write("config.json", json.dumps({"regimes": "0.1.0", "recipe": recipe}).encode())
    location.write("scores.json", json.dumps({"answer": answer}).encode())
    location.write("report.html", b"<!DOCTYPE html>")
    location.write("scores.parquet", parquet_bytes(scores))
    if complete:
        location.write("manifest.json", b"{}")


@pytest.fixture(params=["local", "memory"])
def output(request, tmp_path):
    """An output folder with three runs, work in progress, and artifacts."""
    uri = (
        str(tmp_path / ("out" * 40)) if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    )
    root = Location(uri)
    write(root.child("memorization/seed0"), table(0.0), ["Up to n = 16.", "Then not."])
    write(root.child("memorization/seed1"), table(0.2), HOSTILE)
    write(root.child("guidance/ring"), table(0.0).slice(0, 2), "More modes.", complete=False)
    root.child("artifacts/samples/abc").write("manifest.json", b"{}")
    root.child("checkpoints/x").write("config.json", b"{}")
    yield root.uri
    if request.param == "memory":
        fsspec.filesystem("memory").rm(root.path, recursive=True)


def test_runs_are_listed_with_answer_and_report(output, capsys):
    assert results.main([output]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["guidance/ring", "no"], ["memorization/seed0", "yes"], ["memorization/seed1", "yes"],
    ]  # fmt: skip
    assert "Up to n = 16. Then not." in text
    assert f"{output}/memorization/seed0/report.html" in text
    assert "artifacts" not in text


def test_runs_of_a_job_are_told_apart_by_what_they_were_asked(tmp_path):
    root = Location(str(tmp_path))
    for name, heldout, descriptor, steps in (
        ("a", None, "pixels", 18), ("b", "test.zip", {"name": "sscd", "code_version": 2}, 18),
        ("c", None, "pixels", 40), ("d", None, {"descriptor": "clip", "resize": "skew-8"}, 18),
    ):  # fmt: skip
        experiment = {"type": "Audit", "train": "x", "heldout": heldout, "sizes": [8, 16],
                      "sampler": {"type": "Sampler", "num_steps": steps}}  # fmt: skip
        write(root.child(f"audit/{name}"), table(0.0), "", descriptor=descriptor,
              experiment=experiment, fingerprints={"train": name}, code_version=ord(name))  # fmt: skip
    write(root.child("diverse/d"), table(0.0), "", experiment={"seed": 1}, descriptor="pixels")
    rows = listing(find_runs(root)).to_pylist()
    assert [row["differs in"] for row in rows] == [
        "descriptor pixels, heldout not given, sampler.num_steps 18",
        "descriptor sscd, heldout test.zip, sampler.num_steps 18",
        "descriptor pixels, heldout not given, sampler.num_steps 40",
        "descriptor clip, heldout not given, sampler.num_steps 18, descriptor.resize skew-8",
        "",
    ]


def test_runs_say_when_they_were_written(tmp_path):
    root = Location(str(tmp_path))
    write(root.child("audit/a"), table(0.0), "")
    then = datetime.datetime(2025, 3, 4, 5, 6, 7).timestamp()
    os.utime(tmp_path / "audit/a/manifest.json", (then, then))
    assert listing(find_runs(root))["written"].to_pylist() == ["2025-03-04 05:06"]


def test_the_table_of_a_run_is_shown_by_its_name_alone_where_that_is_clear(output, capsys):
    for name in ("memorization/seed0", "seed0", "memorization/seed0/"):
        assert results.main([output, "--run", name]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split()[:6] == ["score", "n", "width", "half", "value", "low"]
        assert lines[1].split()[:6] == ["gl", "16", "8", "A", "0.1", "0.05"]


def test_the_beginning_of_a_name_is_enough_where_it_is_one_run_s(output, capsys):
    for name in ("guidance/r", "ri", "memorization/seed1"):
        assert results.main([output, "--run", name]) == 0
    assert results.main([output, "--run", "seed"]) == 1
    assert "seed: expected one run, found 2 of this name; there are memorization/seed0, mem" in (
        capsys.readouterr().err
    )
    assert results.main([output, "--run", "eed0"]) == 1


@pytest.mark.parametrize("suffix", ["csv", "parquet", "html"])
def test_a_table_is_exported_whole(output, tmp_path, suffix, capsys):
    target = tmp_path / f"table.{suffix}"
    assert results.main([output, "--run", "seed1", "--export", str(target)]) == 0
    expected = table(0.2)
    if suffix == "parquet":
        assert pq.read_table(target).equals(expected)
    elif suffix == "csv":
        found = pa.csv.read_csv(target)
        assert found["value"].to_pylist() == pytest.approx(expected["value"].to_pylist())
        assert found.column_names == expected.column_names
    else:
        page = target.read_text()
        assert len(re.findall("<tr>", page)) == 4
        assert HOSTILE not in page
        assert "&lt;script&gt;" in page
        assert "<script" not in page
        assert "default-src 'none'" in page


def compared(root, capsys, first, second, *options):
    """Lines of a comparison, split."""
    assert results.main([str(root), "--compare", first, second, *options]) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def write_audit(root, name, values):
    """An audit's scores, and its table of images with a verdict of each."""
    metrics = [
        {"metric": metric, "value": v, "low": low, "high": high, "threshold": v / 2,
         "num_generated": 50, "descriptor": name}
        for metric, (v, low, high) in values.items()
    ]  # fmt: skip
    images = [{"id": f"{i}.png", "similarity": 0.5, "is_copy": i < 9} for i in range(50)]
    folder = Location(str(root)).child(f"audit/{name}")
    write(folder, pa.Table.from_pylist(images), "")
    folder.write("metrics.parquet", parquet_bytes(pa.Table.from_pylist(metrics)))


@pytest.fixture
def audits(tmp_path):
    write_audit(tmp_path, "a", {"memorized": (0.1, 0.05, 0.15), "vendi": (9.0, 8.0, 10.0),
                                "kernel": (0.2, None, None), "ratio": (0.3, 0.2, 0.4)})  # fmt: skip
    write_audit(tmp_path, "b", {"memorized": (0.25, 0.2, 0.3), "vendi": (8.5, 7.5, 9.5),
                                "kernel": (0.3, None, None), "ratio": (0.3, 0.2, 0.4)})  # fmt: skip
    return tmp_path


def test_two_runs_are_joined_by_what_was_asked_and_compared_by_what_was_found(output, capsys):
    lines = compared(output, capsys, "seed0", "seed1")
    assert lines[0] == ["score", "n", "width", "half", "A", "B", "difference", "margin", "apart"]
    assert lines[1] == ["gl", "16", "8", "A", "0.1", "0.3", "0.2", "0.1", "yes"]
    note = " ".join(lines[4])
    assert note.startswith(
        "A is memorization/seed0, B is memorization/seed1: of 3 numbers in both, "
    )
    assert "3 differ by more than their intervals; 0 rows only in" in note


def test_a_comparison_shows_what_changed_and_first_what_changed_by_more_than_intervals(
    audits, tmp_path, capsys
):
    lines = compared(audits, capsys, "a", "b")
    assert lines[1:4] == [
        ["memorized", "0.1", "0.25", "0.15", "0.1", "yes"],
        ["vendi", "9", "8.5", "-0.5", "2", "no"],
        ["kernel", "0.2", "0.3", "0.1"],
    ]
    assert " ".join(lines[4]).startswith("1 equal number left out; --export FILE.csv (or ")
    note = " ".join(lines[5])
    assert (
        "1 differ by more than their intervals, 1 differ within them, 1 differ and have no" in note
    )
    assert "1 are equal; 0 rows only in audit/a, 0 rows only in audit/b; descriptors differ" in note
    target = tmp_path / "all.csv"
    compared(audits, capsys, "a", "b", "--export", str(target))
    assert pa.csv.read_csv(target)["metric"].to_pylist() == [
        "memorized",
        "vendi",
        "kernel",
        "ratio",
    ]


def test_scores_that_one_run_lacks_are_counted(output, capsys):
    write(Location(output).child("memorization/few"), table(0.0).slice(0, 2), "")
    lines = compared(output, capsys, "seed0", "few")
    assert " ".join(lines[0]).startswith("2 equal numbers left out")
    assert "1 row only in memorization/seed0, 0 rows only in memorization/few" in " ".join(lines[1])


def test_of_an_audit_scores_are_shown_and_images_if_asked_for(audits, tmp_path, capsys):
    assert results.main([str(audits), "--run", "a"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["metric", "memorized", "vendi"]
    assert lines[-1] == "images    one row each with --images"
    assert results.main([str(audits), "--run", "a", "--images"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["0.png", "0.5", "yes"]
    assert lines[50].split() == ["49.png", "0.5", "no"]
    target = tmp_path / "images.csv"
    assert results.main([str(audits), "--run", "a", "--images", "--export", str(target)]) == 0
    assert "50 rows in" in capsys.readouterr().out
    assert pa.csv.read_csv(target).num_rows == 50


def test_a_terminal_gets_the_first_rows_and_is_told_how_to_have_all(audits, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert results.main([str(audits), "--run", "a", "--images"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[40].split()[0] == "39.png"
    assert lines[41] == "... 10 more rows; --export FILE.csv (or .parquet, .html) writes all"
    assert len([line for line in lines if ".png" in line]) == 40


def test_tables_of_settings_and_measures_are_compared_measure_by_measure(tmp_path, capsys):
    for name, shift in (("a", 0.0), ("b", 0.25)):
        rows = [
            {"group": "all images", "against": "halves", "set": s, "ks": 0.5 + shift,
             "ks_low": 0.4 + shift, "ks_high": 0.6 + shift, "w1": 2.0, "w1_low": 1.0, "w1_high": 3.0,
             "shift": shift, "differs": True}
            for s in ("mixture", "samples")
        ]  # fmt: skip
        write(Location(str(tmp_path)).child(f"spectrum/{name}"), pa.Table.from_pylist(rows), "")
    lines = compared(tmp_path, capsys, "a", "b")
    assert lines[0][3:] == ["measured", "A", "B", "difference", "margin", "apart"]
    assert lines[1][2:] == ["halves", "mixture", "ks", "0.5", "0.75", "0.25", "0.2", "yes"]
    assert lines[3][2:] == ["halves", "mixture", "shift", "0", "0.25", "0.25"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--run", "seed7"], "seed7: expected one run, found 0"),
        (["--run", "seed0", "--export", "x.xls"], ".csv, .parquet, .html"),
        (["--run", "seed0", "--compare", "seed0", "seed1"], "expected one of them, got both"),
        (["--compare", "seed0", "ring"], "expected two runs of one job"),
        (["--run", "seed0", "--images"], "expected a run of audit or diverse"),
        (["--images"], "pass --run NAME too"),
        (["--output", "elsewhere"], "expected one folder"),
    ],
)
def test_wrong_input_is_one_line(output, options, words, capsys):
    assert results.main([output, *options]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert words in error


def test_a_folder_without_results_is_refused(tmp_path, capsys):
    assert results.main([str(tmp_path)]) == 1
    assert "no results here" in capsys.readouterr().err


@pytest.mark.parametrize("below", ["/memorization", "/memorization/seed0", "/memorization/"])
def test_for_the_folder_of_a_job_or_of_a_run_the_one_above_is_named(output, below, capsys):
    assert results.main([f"{output}{below}"]) == 1
    assert capsys.readouterr().err.endswith(f"was given as --output, here {output}\n")


def test_for_a_folder_of_something_else_none_is_named(output, capsys):
    for name in ("artifacts/samples", "nothing"):
        assert results.main([f"{output}/{name}"]) == 1
        assert capsys.readouterr().err.endswith("was given as --output\n")


def test_above_a_bucket_there_is_nothing_to_name(output):
    bucket = Location(f"{output}/memorization")
    bucket.uri = "s3://memorization"
    with pytest.raises(ConfigError, match=r"was given as --output$"):
        find_runs(bucket)


def test_a_cluster_says_where_results_are(output, monkeypatch, capsys):
    monkeypatch.setenv("REGIMES_OUTPUT", output)
    assert results.main([]) == 0
    assert "3 runs" in capsys.readouterr().out


def test_the_folder_may_be_told_as_other_jobs_are(output, capsys):
    assert results.main(["--output", output, "--run", "seed0"]) == 0
    assert "memorization/seed0/report.html" in capsys.readouterr().out
