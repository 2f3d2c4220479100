"""Results of all runs below a folder or URI: list them, show their tables, export or compare them.

regimes results s3://my-bucket/regimes                      # the runs; the same: --output s3://my-bucket/regimes
regimes results --run memorization/digits-seed0             # one run's table, below results
regimes results --run audit/samples-in-cifar10 --images --export images.csv      # or .parquet, .html
regimes results --compare memorization/digits-seed0 memorization/digits-seed1
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import tyro

from regimes.errors import ConfigError
from regimes.jobs.support import console
from regimes.jobs.support.browsing import comparison, runs
from regimes.jobs.support.browsing.listing import listing
from regimes.jobs.support.browsing.runs import Run
from regimes.storage.filesystem import Location
from regimes.words import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Browse:
    """What to show."""

    uri: tyro.conf.Positional[str | None] = None
    """Folder or URI that jobs were given as --output; $REGIMES_OUTPUT if it is set, or results."""
    output: str | None = None
    """The same, as other jobs are told."""
    run: str | None = None
    """Show the table of one run, as in memorization/digits-seed0."""
    images: bool = False
    """Of a run of audit or diverse: one row per generated image instead of its scores."""
    compare: tuple[str, str] | None = None
    """Show which numbers of two runs of one job differ, by how much, and whether their intervals do."""
    export: str | None = None
    """Write all rows to a file: .csv, .parquet or .html."""

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if self.run is not None and self.compare is not None:
            raise ConfigError("--run and --compare: expected one of them, got both")
        if self.uri is not None and self.output is not None:
            raise ConfigError(
                f"--output {self.output}: expected one folder, got {self.uri} too; leave out one"
            )
        if self.images and self.run is None:
            raise ConfigError("--images: of one run; pass --run NAME too")
        if self.export is not None:
            runs.check_format(self.export)

    @property
    def root(self) -> Location:
        """Where the runs are."""
        return Location(self.uri or self.output or console.default_output())


@dataclass(frozen=True, slots=True)
class _Shown:
    """What is shown, and what is written."""

    title: str
    note: str
    table: pa.Table
    whole: pa.Table


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    (asked,) = console.read_options(argv, [Browse()], job="results", about=__doc__ or "")
    found = runs.find_runs(asked.root)
    if asked.compare is not None:
        shown = _comparison(*(runs.choose(found, name) for name in asked.compare))
    elif asked.run is not None:
        shown = _one(runs.choose(found, asked.run), images=asked.images)
    else:
        note = (
            f"{counted(len(found), 'run')} in {asked.root.uri}; --run NAME shows the table of one"
        )
        table = listing(found)
        shown = _Shown(f"Runs in {asked.root.uri}", note, table, table)
    if asked.export is None:
        _print(shown)
    else:
        runs.export(shown.whole, asked.export, shown.title, shown.note)
        print(f"{counted(shown.whole.num_rows, 'row')} in {asked.export}")
    print(shown.note)
    return 0


def _one(run: Run, *, images: bool) -> _Shown:
    """The table of a run."""
    table = run.table(images=images)
    note = f"{run.summary()}\nreport    {run.report}"
    if run.has_images and not images:
        note += "\nimages    one row each with --images"
    return _Shown(run.label, note, table, table)


def _comparison(first: Run, second: Run) -> _Shown:
    """The numbers of two runs that differ; all of them in a file."""
    found = comparison.compare(first, second)
    title = f"{first.label} and {second.label}"
    return _Shown(title, found.note, found.changed, found.table)


def _print(shown: _Shown) -> None:
    most = runs.SHOWN_ROWS if sys.stdout.isatty() else None
    if shown.table.num_rows:
        print(runs.as_text(shown.table, most))
    equal = shown.whole.num_rows - shown.table.num_rows
    if equal:
        print(f"{counted(equal, 'equal number')} left out; {runs.EXPORT_ALL}")


if __name__ == "__main__":
    console.leave(main())
