"""Result folders: found, chosen by name, their tables as text, CSV, Parquet and HTML."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from regimes.errors import BrokenArtifact, ConfigError
from regimes.jobs.support.result_folder import (
    CONFIG,
    METRICS,
    REPORT,
    SCORES,
    TABLE,
    parquet_bytes,
)
from regimes.storage.artifacts import MANIFEST
from regimes.storage.filesystem import Location
from regimes.words import counted

FORMATS = (".csv", ".parquet", ".html")
EXPORT_ALL = "--export FILE.csv (or .parquet, .html) writes all"
SHOWN_ROWS = 40
"""On a terminal; a file or a pipe gets all."""
_NOT_JOBS = {"artifacts", "checkpoints"}
_OF_IMAGES = {"audit", "diverse"}
"""Jobs whose table has one row per generated image; their scores are a table of their own."""


@dataclass(frozen=True, slots=True)
class Run:
    """A result folder."""

    label: str
    """``<job>/<name>``"""
    location: Location
    files: Mapping[str, float | None]
    """When they were written, in seconds since 1970 where it is known."""

    @property
    def job(self) -> str:
        """The job that made it."""
        return self.label.partition("/")[0]

    @property
    def name(self) -> str:
        """Without the job."""
        return self.label.partition("/")[2]

    @property
    def is_complete(self) -> bool:
        """Whether all its files were written."""
        return MANIFEST in self.files

    @property
    def report(self) -> str:
        """Where its report is."""
        return self.location.child(REPORT).uri if REPORT in self.files else ""

    @property
    def has_images(self) -> bool:
        """Whether it says something of every generated image."""
        return self.job in _OF_IMAGES and TABLE in self.files

    def table(self, *, images: bool = False) -> pa.Table:
        """Its table of scores, or the one with a row per generated image.

        Raises:
            ConfigError: if it has none (yet).
            BrokenArtifact: if it cannot be read.
        """
        if images and self.job not in _OF_IMAGES:
            raise ConfigError(
                f"--images: expected a run of {' or '.join(sorted(_OF_IMAGES))}, got {self.label}; "
                "leave it out"
            )
        name = METRICS if self.job in _OF_IMAGES and not images else TABLE
        if name not in self.files:
            raise ConfigError(
                f"{self.location.uri}: has no {name}; "
                + ("see its report" if self.is_complete else "the run is not complete yet")
            )
        try:
            # Not by read_table: its threads, still there at the end, aborted the process once in 40 times.
            data = pa.BufferReader(self.location.read(name))
            return pq.ParquetFile(data).read(use_threads=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise BrokenArtifact(
                f"{self.location.child(name).uri}: not readable as Parquet ({error}); delete the folder "
                "and run the job again"
            ) from error

    def summary(self) -> str:
        """The answer in words, if the job gives one."""
        found = self._json(SCORES).get("answer", "")
        return found if isinstance(found, str) else " ".join(str(part) for part in found)

    def config(self) -> dict[str, Any]:
        """What it was asked, and the versions it ran with; empty if that is not readable."""
        return self._json(CONFIG)

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
            files = folder.child(name).times()
            if CONFIG in files or MANIFEST in files:
                found.append(Run(f"{job}/{name}", folder.child(name), files))
    if not found:
        raise ConfigError(
            f"{root.uri}: no results here; expected the folder or URI that a job was given as --output"
            + _output_above(root)
        )
    return sorted(found, key=lambda run: run.label)


def _output_above(root: Location) -> str:
    """What to pass instead, if a folder is that of a job, or a run."""
    levels = 0
    if CONFIG in root.times():
        levels = 2
    elif any(CONFIG in root.child(name).times() for name in root.folders()):
        levels = 1
    base, mark, query = (root.uri, "", "") if root.is_local else root.uri.partition("?")
    above = base.rsplit("/", levels)[0]
    if levels == 0 or not above or above.endswith((":", ":/")):  # nothing is above a bucket
        return ""
    return f", here {above}{mark}{query}"


def choose(runs: Sequence[Run], name: str) -> Run:
    """The run of this name, or whose name begins so; the job may be left out. It must be clear which.

    Raises:
        ConfigError: if there is none, or several.
    """
    name = name.strip("/")
    rules: tuple[Callable[[Run], bool], ...] = (
        lambda run: run.label == name,
        lambda run: run.name == name,
        lambda run: name != "" and (run.label.startswith(name) or run.name.startswith(name)),
    )
    found = next(filter(None, ([run for run in runs if rule(run)] for rule in rules)), [])
    if len(found) == 1:
        return found[0]
    listed = ", ".join(run.label for run in found or runs)
    raise ConfigError(
        f"{name}: expected one run, found {len(found)} of this name; there are {listed}"
    )


def as_text(table: pa.Table, most: int | None = None) -> str:
    """A table for the console: columns that say nothing are left out, long texts cut, addresses not.

    Args:
        table: what to show.
        most: rows, at most; a line says how many are missing and how to have all.
    """
    values = {name: table[name].to_pylist()[:most] for name in table.column_names}
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
    if most is not None and table.num_rows > most:
        more = counted(table.num_rows - most, "more row")
        lines.append(f"... {more}; {EXPORT_ALL}")
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
