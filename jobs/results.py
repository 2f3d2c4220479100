"""Results of all runs below a folder or URI: list them, show their tables, export or compare them.

regimes results s3://my-bucket/regimes                      # the runs
regimes results results --run memorization/digits-seed0     # one run's table
regimes results results --run memorization/digits-seed0 --export scores.csv      # or .parquet, .html
regimes results results --compare memorization/digits-seed0 memorization/digits-seed1
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import tyro

from regimes.errors import ConfigError
from regimes.jobs.support import browsing, console
from regimes.jobs.support.console import OUTPUT
from regimes.storage.filesystem import Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Browse:
    """What to show."""

    uri: tyro.conf.Positional[str] = field(
        default_factory=lambda: os.environ.get(OUTPUT, "results")
    )
    """Folder or URI that jobs were given as --output."""
    run: str | None = None
    """Show the table of one run, as in memorization/digits-seed0."""
    compare: tuple[str, str] | None = None
    """Join the tables of two runs of one job, and show where they differ."""
    export: str | None = None
    """Write what would be shown to a file: .csv, .parquet or .html."""

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if self.run is not None and self.compare is not None:
            raise ConfigError("--run and --compare: expected one of them, got both")
        if self.export is not None:
            browsing.check_format(self.export)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    (asked,) = console.read_options(argv, [Browse()], job="results", about=__doc__ or "")
    root = Location(asked.uri)
    runs = browsing.find_runs(root)
    if asked.compare is not None:
        first, second = (browsing.choose(runs, name) for name in asked.compare)
        title = f"{first.label} and {second.label}"
        table, note = browsing.compare(first, second)
    elif asked.run is not None:
        found = browsing.choose(runs, asked.run)
        title, table = found.label, found.table()
        note = f"{found.summary()}\nreport    {found.report}"
    else:
        title, table = f"Runs in {root.uri}", browsing.listing(runs)
        note = f"{len(runs)} runs in {root.uri}; --run NAME shows the table of one"
    if asked.export is None:
        print(browsing.as_text(table))
    else:
        browsing.export(table, asked.export, title, note)
        print(f"{table.num_rows} rows in {asked.export}")
    print(note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
