"""All runs as one table: what each answers, and what tells it from the other runs of its job."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from regimes.jobs.support.asked import asked, in_words
from regimes.jobs.support.browsing.runs import Run
from regimes.jobs.support.result_folder import CONFIG
from regimes.storage.artifacts import MANIFEST


def listing(runs: Sequence[Run]) -> pa.Table:
    """One row per run, in the order given."""
    configs = {run.label: run.config() for run in runs}
    options = {label: asked(config.get("recipe", {})) for label, config in configs.items()}
    of_a_job = {run.job: [options[r.label] for r in runs if r.job == run.job] for run in runs}
    rows = [
        {
            "run": run.label,
            "complete": run.is_complete,
            "written": _written(run),
            "regimes": str(configs[run.label].get("regimes", "")),
            "differs in": _differences(options[run.label], of_a_job[run.job]),
            "answer": run.summary(),
            "report": run.report,
        }
        for run in runs
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def _written(run: Run) -> str:
    """To the minute, in local time: a name says which run it is, this which came last."""
    times = [run.files.get(name) for name in (MANIFEST, CONFIG)]
    known = next((t for t in times if t is not None), None)
    return "" if known is None else f"{datetime.datetime.fromtimestamp(known):%Y-%m-%d %H:%M}"


def _differences(mine: Mapping[str, Any], of_the_job: Sequence[Mapping[str, Any]]) -> str:
    """The options in which runs of a job differ, as this one has them."""
    names = dict.fromkeys(itertools.chain.from_iterable(of_the_job))
    told = [n for n in names if any(other.get(n) != of_the_job[0].get(n) for other in of_the_job)]
    return ", ".join(f"{name} {in_words(mine[name])}" for name in told if name in mine)
