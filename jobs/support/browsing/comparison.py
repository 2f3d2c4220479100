"""Two runs of one job beside each other: which numbers changed, and whether by more than their intervals.

What a row of a job's table is about (its **keys**) and what was measured of that are different things:
rows of two runs are the same if their keys agree, whatever came of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from regimes.errors import ConfigError
from regimes.jobs.support.browsing.runs import Run
from regimes.words import counted

Row = Mapping[str, Any]
A, B = "A", "B"
"""Columns of the two runs, as in ``--compare A B``: names that no key has."""
_TWO_SIDED = 1.96  # standard errors of a 95% interval


@dataclass(frozen=True, slots=True)
class Measure:
    """A column of numbers, and the columns that hold its interval or its standard error."""

    name: str
    low: str | None = None
    high: str | None = None
    error: str | None = None

    def ends(self, row: Row) -> tuple[float, float] | None:
        """The 95% interval, or None if it is not known."""
        if self.error is not None:
            value, error = _number(row[self.name]), _number(row[self.error])
            if value is None or error is None:
                return None
            return value - _TWO_SIDED * error, value + _TWO_SIDED * error
        if self.low is None or self.high is None:
            return None
        low, high = _number(row[self.low]), _number(row[self.high])
        return None if low is None or high is None else (low, high)

    @property
    def columns(self) -> list[str]:
        """All that it reads."""
        return [name for name in (self.name, self.low, self.high, self.error) if name is not None]


@dataclass(frozen=True, slots=True)
class Kind:
    """The table of a job."""

    keys: tuple[str, ...]
    measures: tuple[Measure, ...] = (Measure("value", "low", "high"),)


def _ends(*names: str) -> tuple[Measure, ...]:
    return tuple(Measure(name, f"{name}_low", f"{name}_high") for name in names)


def _errors(*names: str) -> tuple[Measure, ...]:
    return tuple(Measure(name, error=f"{name}_error") for name in names)


KINDS: Mapping[str, Kind] = {
    "memorization": Kind(
        ("score", "n", "width", "half", "width_other", "half_other", "versus"),
    ),
    "audit": Kind(("metric",)),
    "diverse": Kind(("set", "rule", "is_control"), (Measure("fraction", "low", "high"),)),
    "classifier": Kind(("score", "arm", "minus", "class")),
    "spectrum": Kind(("group", "against", "set"), (*_ends("ks", "w1"), Measure("shift"))),
    "reproducibility": Kind(("score", "first", "second")),
    "guidance": Kind(
        ("factor", "kernel", "strength", "s_churn", "group_size"),
        (
            *_errors("distinct"),
            *_ends("gain"),
            *_errors("inliers", "distance"),
            Measure("total_variation"),
        ),
    ),
    "jacobian": Kind(("model", "rule", "sigma"), (Measure("ratio", "low", "high"),)),
    "molrg": Kind(
        ("model", "dim", "per_class"),
        (Measure("recovery_a"), Measure("recovery_b"), *_ends("gl", "rp")),
    ),
}
"""By job. Descriptors are no keys: the same score in two of them may well be compared."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every number that both runs have."""

    table: pa.Table
    """One row per number: its keys, both values, their difference B - A, the margin that this must exceed
    for the intervals not to overlap, and whether it does (null where an interval is not known)."""
    note: str
    """What came of it in words."""

    @property
    def changed(self) -> pa.Table:
        """The rows whose values differ: first those whose intervals are apart."""
        rows = [row for row in self.table.to_pylist() if row[A] != row[B]]
        rows.sort(key=lambda row: row["apart"] is not True)
        return pa.Table.from_pylist(rows, schema=self.table.schema)


def compare(first: Run, second: Run) -> Comparison:
    """Join the tables of two runs of one job.

    Raises:
        ConfigError: if they are of different jobs, lack a column, or have nothing in common.
    """
    if first.job != second.job or first.job not in KINDS:
        raise ConfigError(
            f"--compare: expected two runs of one job ({', '.join(KINDS)}), got {first.label} and "
            f"{second.label}"
        )
    kind, runs = KINDS[first.job], (first, second)
    tables = [run.table() for run in runs]
    sides = [_by_key(table, kind, run) for table, run in zip(tables, runs, strict=True)]
    common = [key for key in sides[0] if key in sides[1]]
    rows = [row for key in common for row in _numbers(kind, sides[0][key], sides[1][key])]
    alone = [
        f"{counted(len(side) - len(common), 'row')} only in {run.label}"
        for side, run in zip(sides, runs, strict=True)
    ]
    if not rows:
        raise ConfigError(f"--compare: nothing in common; {', '.join(alone)}")
    notes = [_summary(rows), ", ".join(alone), *_descriptors(tables)]
    note = f"{A} is {first.label}, {B} is {second.label}: {'; '.join(notes)}"
    if any(row["apart"] is not None for row in rows):
        note += "\napart: the difference exceeds the margin, so the 95% intervals do not overlap"
    return Comparison(pa.Table.from_pylist(rows), note)


def _by_key(table: pa.Table, kind: Kind, run: Run) -> dict[tuple[str, ...], Row]:
    """Rows by what they are about."""
    needed = [*kind.keys, *(name for m in kind.measures for name in m.columns)]
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise ConfigError(
            f"--compare: {run.label} has no column {missing[0]}: another version made it; run its job again"
        )
    rows = table.to_pylist()
    found = {tuple(str(row[key]) for key in kind.keys): row for row in rows}
    if len(found) < len(rows):
        raise ConfigError(f"--compare: {run.label} has several rows for one score")
    return found


def _numbers(kind: Kind, first: Row, second: Row) -> Iterator[dict[str, Any]]:
    """What was measured in both rows, number by number."""
    keys = {name: first[name] for name in kind.keys}
    for measure in kind.measures:
        named = {"measured": measure.name} if len(kind.measures) > 1 else {}
        yield keys | named | _number_row(measure, first, second)


def _number_row(measure: Measure, first: Row, second: Row) -> dict[str, Any]:
    a, b = _number(first[measure.name]), _number(second[measure.name])
    ends = measure.ends(first), measure.ends(second)
    row: dict[str, Any] = {A: a, B: b, "difference": None, "margin": None, "apart": None}
    if a is None or b is None:
        return row
    row["difference"] = b - a
    if ends[0] is not None and ends[1] is not None:
        (low, of_low), (high, of_high) = sorted([(a, ends[0]), (b, ends[1])])
        row["margin"] = of_low[1] - low + high - of_high[0]
        row["apart"] = of_low[1] < of_high[0]
    return row


def _number(value: float | None) -> float | None:
    """NaN and what is not there are the same."""
    return None if value is None or math.isnan(value) else float(value)


def _summary(rows: Sequence[Row]) -> str:
    """How many numbers changed, and by how much."""
    changed = [row["apart"] for row in rows if row[A] != row[B]]
    parts = {
        "differ by more than their intervals": changed.count(True),
        "differ within them": changed.count(False),
        "differ and have no intervals": changed.count(None),
        "are equal": len(rows) - len(changed),
    }
    found = ", ".join(f"{number} {what}" for what, number in parts.items() if number)
    return f"of {counted(len(rows), 'number')} in both, {found}"


def _descriptors(tables: Sequence[pa.Table]) -> list[str]:
    """That the two runs compared images in different spaces."""
    if any("descriptor" not in table.column_names for table in tables):
        return []
    used = [sorted(set(table["descriptor"].to_pylist())) for table in tables]
    if used[0] == used[1]:
        return []
    return [f"descriptors differ: {', '.join(used[0])} and {', '.join(used[1])}"]
