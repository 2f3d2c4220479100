"""Result folders as tables: all runs, the scores of one, and two beside each other."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from regimes.errors import BrokenArtifact, ConfigError
from regimes.jobs.support.result_folder import CONFIG, REPORT, SCORES, TABLE, parquet_bytes
from regimes.storage.artifacts import MANIFEST
from regimes.storage.filesystem import Location

FORMATS = (".csv", ".parquet", ".html")
SHOWN_ROWS = 400
_NOT_JOBS = {"artifacts", "checkpoints"}
_MEASURED = ("value", "low", "high", "null", "threshold")
_ABOUT = ("num_generated", "num_train", "higher_is_better")


@dataclass(frozen=True, slots=True)
class Run:
    """A result folder."""

    label: str
    """``<job>/<name>``"""
    location: Location
    files: Mapping[str, int]

    @property
    def is_complete(self) -> bool:
        """Whether all its files were written."""
        return MANIFEST in self.files

    @property
    def report(self) -> str:
        """Where its report is."""
        return f"{self.location.uri}/{REPORT}" if REPORT in self.files else ""

    def table(self) -> pa.Table:
        """Its table of scores.

        Raises:
            ConfigError: if it has none (yet).
            BrokenArtifact: if it cannot be read.
        """
        if TABLE not in self.files:
            raise ConfigError(
                f"{self.location.uri}: has no {TABLE}; "
                + ("see its report" if self.is_complete else "the run is not complete yet")
            )
        try:
            return pq.read_table(pa.BufferReader(self.location.read(TABLE)))
        except (pa.ArrowInvalid, OSError) as error:
            raise BrokenArtifact(
                f"{self.location.uri}/{TABLE}: not readable as Parquet ({error}); delete the folder "
                "and run the job again"
            ) from error

    def summary(self) -> str:
        """The answer in words, if the job gives one."""
        found = self._json(SCORES).get("answer", "")
        return found if isinstance(found, str) else " ".join(str(part) for part in found)

    def about(self) -> str:
        """Versions that it ran with."""
        config = self._json(CONFIG)
        return str(config.get("regimes", ""))

    def _json(self, name: str) -> dict[str, Any]:
        try:
            found = json.loads(self.location.read(name))
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def find_runs(root: Location) -> list[Run]:
    """All result folders below an output folder, whatever their jobs, sorted; artifacts are not read.

    Raises:
        ConfigError: if there is none.
    """
    found = []
    for job in root.folders():
        if job in _NOT_JOBS or job.startswith("."):
            continue
        folder = root.child(job)
        for name in folder.folders():
            files = folder.child(name).sizes()
            if CONFIG in files or MANIFEST in files:
                found.append(Run(f"{job}/{name}", folder.child(name), files))
    if not found:
        raise ConfigError(
            f"{root.uri}: no results here; expected the folder or URI that a job was given as --output"
        )
    return sorted(found, key=lambda run: run.label)


def choose(runs: Sequence[Run], name: str) -> Run:
    """The run of this name; the job may be left out where that is clear.

    Raises:
        ConfigError: if there is none, or several.
    """
    exact = [run for run in runs if run.label == name.strip("/")]
    found = exact or [run for run in runs if run.label.split("/")[1] == name]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(run.label for run in found or runs)
    raise ConfigError(
        f"{name}: expected one run, found {len(found)} of this name; there are {listed}"
    )


def listing(runs: Iterable[Run]) -> pa.Table:
    """One row per run."""
    rows = [
        {
            "run": run.label,
            "complete": run.is_complete,
            "regimes": run.about(),
            "answer": run.summary(),
            "report": run.report,
        }
        for run in runs
    ]
    return pa.Table.from_pylist(rows)


def compare(first: Run, second: Run) -> tuple[pa.Table, str]:
    """Two runs' numbers, joined by everything but what was measured; and what came of it in words.

    A row says for each number both values, their difference, and whether the intervals are apart.

    Raises:
        ConfigError: if the tables have not the same columns, or nothing in common.
    """
    tables = [first.table(), second.table()]
    names = [table.column_names for table in tables]
    if set(names[0]) != set(names[1]):
        raise ConfigError(
            f"--compare: expected two runs of one job, got {first.label} ({', '.join(names[0])}) and "
            f"{second.label} ({', '.join(names[1])})"
        )
    keys = _keys(tables)
    sides = [_by_key(table, keys, run) for table, run in zip(tables, (first, second), strict=True)]
    common = [key for key in sides[0] if key in sides[1]]
    rows = [
        {name: sides[0][key][name] for name in keys} | pair
        for key in common
        for pair in _pairs(sides[0][key], sides[1][key], keys)
    ]
    alone = [len(side) - len(common) for side in sides]
    apart = sum(row["apart"] is True for row in rows)
    note = (
        f"{len(rows)} numbers in both runs, of which {apart} have intervals that do not overlap; "
        f"{alone[0]} rows only in {first.label}, {alone[1]} only in {second.label}"
    )
    if not rows:
        raise ConfigError(f"--compare: {note}")
    return pa.Table.from_pylist(rows), note


def _keys(tables: Sequence[pa.Table]) -> list[str]:
    """Columns that say what a row is about: of a table of scores all but what was measured.

    Of other tables those that hold no real numbers, and as many of the others as make rows unique.
    """
    names = tables[0].column_names
    if "value" in names:
        return [name for name in names if name not in (*_MEASURED, *_ABOUT)]
    real = [n for n in names if pa.types.is_floating(tables[0].schema.field(n).type)]
    keys = [name for name in names if name not in real]
    for name in real:
        rows = [table.select(keys).to_pylist() if keys else [] for table in tables]
        if keys and all(len({str(row) for row in found}) == len(found) for found in rows):
            break
        keys.append(name)
    return keys


def _by_key(table: pa.Table, keys: Sequence[str], run: Run) -> dict[tuple[Any, ...], Any]:
    rows = table.to_pylist()
    found = {tuple(str(row[key]) for key in keys): row for row in rows}
    if len(found) < len(rows):
        raise ConfigError(f"--compare: {run.label} has several rows for one score")
    return found


def _pairs(
    first: Mapping[str, Any], second: Mapping[str, Any], keys: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """What was measured in both rows, number by number."""
    if "value" in first:
        yield _pair(first["value"], second["value"]) | {"apart": _apart(first, second)}
        return
    for name in first:
        if name not in keys:
            yield {"measured": name} | _pair(first[name], second[name]) | {"apart": None}


def _pair(first: float | None, second: float | None) -> dict[str, Any]:
    difference = None if first is None or second is None else second - first
    return {"first": first, "second": second, "difference": difference}


def _apart(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool | None:
    """Whether two intervals do not overlap; None if one is not known."""
    if any(row.get(end) is None for row in (first, second) for end in ("low", "high")):
        return None
    return bool(first["low"] > second["high"] or second["low"] > first["high"])


def as_text(table: pa.Table) -> str:
    """A table for the console: columns that say nothing are left out, long texts cut, addresses not."""
    values = {name: table[name].to_pylist()[:SHOWN_ROWS] for name in table.column_names}
    columns = {
        name: _cells(v) if name == "report" else [_cut(cell) for cell in _cells(v)]
        for name, v in values.items()
    }
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    widths = {n: max(len(n), *(len(c) for c in cells)) for n, cells in shown.items()}
    lines = ["  ".join(n.ljust(widths[n]) for n in shown)]
    lines += [
        "  ".join(c.ljust(widths[n]) for n, c in zip(shown, row)) for row in zip(*shown.values())
    ]
    if table.num_rows > SHOWN_ROWS:
        lines.append(f"... {table.num_rows - SHOWN_ROWS} more rows; --export writes all")
    return "\n".join(line.rstrip() for line in lines)


def _cells(values: Sequence[Any]) -> list[str]:
    return [_cell(value) for value in values]


def _cut(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(str(value).split())


def check_format(name: str) -> None:
    """Refuse a file name that does not say its format.

    Raises:
        ConfigError: if it ends otherwise.
    """
    if PurePosixPath(name).suffix not in FORMATS:
        raise ConfigError(f"--export {name}: expected a name that ends with {', '.join(FORMATS)}")


def export(table: pa.Table, target: str, title: str, note: str) -> None:
    """Write a table to a file, at a path or URI, in the format that its name says."""
    folder, _, name = target.rpartition("/")
    suffix = PurePosixPath(name).suffix
    if suffix == ".parquet":
        data = parquet_bytes(table)
    elif suffix == ".csv":
        sink = io.BytesIO()
        pa.csv.write_csv(table, sink)
        data = sink.getvalue()
    else:
        data = _html(table, title, note).encode()
    Location(folder or ("/" if target.startswith("/") else ".")).write(name, data)


def _html(table: pa.Table, title: str, note: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("regimes.report", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    columns = [_cells(table[name].to_pylist()) for name in table.column_names]
    used = [i for i, cells in enumerate(columns) if any(cells)]
    return environment.get_template("table.html.j2").render(
        title=title,
        note=note,
        names=[table.column_names[i] for i in used],
        numeric=[pa.types.is_floating(table.schema.field(i).type) for i in used],
        rows=list(zip(*(columns[i] for i in used))),
    )
