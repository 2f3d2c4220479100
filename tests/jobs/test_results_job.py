"""Browsing results: all runs, one table, two compared, as text, CSV, Parquet and HTML."""

from __future__ import annotations

import json
import re
import uuid

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from regimes.jobs import results
from regimes.jobs.support.result_folder import parquet_bytes
from regimes.storage.filesystem import Location

HOSTILE = "<script>alert(1)</script>"


def table(shift):
    rows = [
        {"score": s, "n": n, "value": v + shift, "low": v + shift - 0.05, "high": v + shift + 0.05,
         "null": None, "num_generated": 100}
        for s, n, v in [("gl", 16, 0.1), ("gl", 64, 0.5), ("ratio", 16, 0.8)]
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def write(location, scores, answer, *, complete=True):
    location.write("config.json", json.dumps({"regimes": "0.1.0"}).encode())
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


def test_the_table_of_a_run_is_shown_by_its_name_alone_where_that_is_clear(output, capsys):
    for name in ("memorization/seed0", "seed0"):
        assert results.main([output, "--run", name]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["score", "n", "value", "low", "high", "num_generated"]
        assert lines[1].split() == ["gl", "16", "0.1", "0.05", "0.15", "100"]


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


def test_two_runs_are_joined_by_what_was_asked_and_compared_by_what_was_found(output, capsys):
    assert results.main([output, "--compare", "seed0", "seed1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["score", "n", "first", "second", "difference", "apart"]
    assert lines[1].split() == ["gl", "16", "0.1", "0.3", "0.2", "yes"]
    assert "3 numbers in both runs, of which 3 have intervals that do not overlap" in lines[-1]
    assert results.main([output, "--compare", "memorization/seed0", "guidance/ring"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "2 numbers in both runs, of which 0 " in last
    assert "1 rows only in memorization/seed0, 0 only in guidance/ring" in last


def test_tables_of_settings_and_measures_are_compared_measure_by_measure(tmp_path, capsys):
    for name, shift in (("a", 0.0), ("b", 0.25)):
        rows = [
            {"kernel": "rbf", "factor": f, "modes": 6.0 + f + shift, "spent": 1.0}
            for f in (0.0, 9.0)
        ]
        write(Location(str(tmp_path)).child(f"guidance/{name}"), pa.Table.from_pylist(rows), "")
    assert results.main([str(tmp_path), "--compare", "a", "b"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["kernel", "factor", "measured", "first", "second", "difference"]
    assert lines[1] == ["rbf", "0", "modes", "6", "6.25", "0.25"]
    assert lines[4] == ["rbf", "9", "spent", "1", "1", "0"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--run", "seed7"], "seed7: expected one run, found 0"),
        (["--run", "seed0", "--export", "x.xls"], ".csv, .parquet, .html"),
        (["--run", "seed0", "--compare", "seed0", "seed1"], "expected one of them, got both"),
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


def test_a_cluster_says_where_results_are(output, monkeypatch, capsys):
    monkeypatch.setenv("REGIMES_OUTPUT", output)
    assert results.main([]) == 0
    assert "3 runs" in capsys.readouterr().out
