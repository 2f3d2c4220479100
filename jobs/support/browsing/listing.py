"""All runs as one table: what each answers, and what tells it from the other runs of its job."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from regimes.jobs.support.browsing.runs import Run
from regimes.jobs.support.result_folder import CONFIG
from regimes.storage.artifacts import MANIFEST

_ABOUT_THE_RECIPE = {"type", "kind", "code_version"}
_HASHES = {"artifacts", "fingerprint", "fingerprints", "fit_fingerprint", "weights_sha256"}


def listing(runs: Sequence[Run]) -> pa.Table:
    """One row per run, in the order given."""
    configs = {run.label: run.config() for run in runs}
    asked = {label: dict(_asked(config)) for label, config in configs.items()}
    rows = [
        {
            "run": run.label,
            "complete": run.is_complete,
            "written": _written(run),
            "regimes": str(configs[run.label].get("regimes", "")),
            "differs in": _differences(asked[run.label], [asked[r.label] for r in runs if r.job == run.job]),
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


def _asked(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What a run was asked, flat: the options of its experiment, and its descriptor."""
    recipe = config.get("recipe", {})
    descriptor = recipe.get("descriptor")
    if descriptor is not None:
        name = descriptor["name"] if isinstance(descriptor, dict) else descriptor
        yield "descriptor", name
    yield from _flat(
        recipe.get("experiment") or {k: v for k, v in recipe.items() if k != "descriptor"}
    )


def _flat(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in found.items():
        if key in _ABOUT_THE_RECIPE | _HASHES:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif not (isinstance(value, list) and any(isinstance(v, dict) for v in value)):
            yield f"{prefix}{key}", value


def _differences(mine: Mapping[str, Any], of_the_job: Sequence[Mapping[str, Any]]) -> str:
    """The options in which runs of a job differ, as this one has them."""
    names = dict.fromkeys(itertools.chain.from_iterable(of_the_job))
    told = [n for n in names if any(other.get(n) != of_the_job[0].get(n) for other in of_the_job)]
    return ", ".join(f"{name} {_words(mine[name])}" for name in told if name in mine)


def _words(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
