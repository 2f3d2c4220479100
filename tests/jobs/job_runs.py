"""Running jobs: in this process on a Ray that tests share, or as a user does, in one of their own."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from shared_ray import joined

from regimes.jobs.support.asked import apart
from regimes.jobs.support.browsing.comparison import compare
from regimes.jobs.support.browsing.listing import listing
from regimes.jobs.support.browsing.runs import find_runs
from regimes.storage.filesystem import Location

ROOT = Path(__file__).parents[2]
STARTED: list[subprocess.Popen[str]] = []
SMALL = ("--preset", "digits-smoke", "--cpus", "2")


def environment() -> dict[str, str]:
    """The environment of a user's shell: none of pytest's, no cluster."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "RAY_"))}


def start(
    output: Path | str, *options: str, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start the memorization job; its standard output and error come together."""
    return start_job("memorization", *SMALL, "--output", str(output), *options, cwd=cwd, env=env)


def start_job(
    job: str, *options: str, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start any job."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment() | (env or {}),
        cwd=cwd,
    )
    STARTED.append(process)
    return process


def run(output: Path | str, *options: str, expect: int = 0) -> str:
    """Run the memorization job to its end in this process; returns what it printed."""
    return run_job("memorization", *SMALL, "--output", str(output), *options, expect=expect)


def run_job(job: str, *options: str, expect: int = 0) -> str:
    """Run any job to its end in this process, on the shared Ray; returns what it printed."""
    main = importlib.import_module(f"regimes.jobs.{job}").main
    said = io.StringIO()
    with joined(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = main(list(options))
    assert status == expect, said.getvalue()
    return said.getvalue()


def finish(process: subprocess.Popen[str], expect: int = 0) -> str:
    """Wait for a job to end with this exit status; returns what it printed."""
    text, _ = process.communicate(timeout=600)
    assert process.returncode == expect, text
    return text


def artifact_bytes(output: Path) -> dict[str, str]:
    """SHA-256 of every file of every artifact, by path.

    But for what nobody reads: an actor killed while it writes leaves a file under a temporary name.
    """
    found = sorted(p for p in (output / "artifacts").rglob("*") if p.is_file())
    files = [path for path in found if ".tmp-" not in path.name]
    assert files
    return {
        p.relative_to(output).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }


def counts(text: str, stage: str) -> tuple[int, int]:
    """(kept, done now) as the stage's line says."""
    match = re.search(rf"^{stage} .*?: (\d+)\D*kept, (\d+) ", text, re.MULTILINE)
    assert match, f"no line of stage {stage} in:\n{text}"
    return int(match[1]), int(match[2])


def check_comparison(output: Path, job: str) -> None:
    """Compared with itself, a run has no row without a partner, and no number that differs.

    And whatever its recipe holds, it is listed, and differs in nothing from itself.
    """
    run = next(run for run in find_runs(Location(str(output))) if run.job == job)
    (row,) = listing([run]).to_pylist()
    assert row["differs in"] == ""
    recipe = run.config()["recipe"]
    assert apart(recipe, recipe) == "what it rests on has another content or version"
    found = compare(run, run)
    assert found.table.num_rows > 0
    assert found.changed.num_rows == 0
    assert f"0 rows only in {run.label}, 0 rows only in {run.label}" in found.note


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str], limit_s: float = 120):
    """Poll until the condition holds; fails if the process ends first."""
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert process.poll() is None, f"ended too early:\n{process.stdout.read()}"
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.02)
    return found


def workers(process: subprocess.Popen[str], pattern: str) -> list[psutil.Process]:
    """Live Ray workers of this run whose title matches."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if re.search(pattern, " ".join(child.cmdline())):
                found.append(child)
        except psutil.Error:
            continue
    return found


def shards(output: Path, kind: str) -> list[Path]:
    """Shards of one kind of artifact that exist now."""
    return list((output / "artifacts" / kind).glob("*/shard-*.parquet"))
