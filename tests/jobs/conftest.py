"""No job outlives its test."""

from __future__ import annotations

from collections.abc import Iterator

import job_runs
import pytest


@pytest.fixture(autouse=True)
def no_job_is_left() -> Iterator[None]:
    """Kill what a failed test left running: a local Ray ends with its driver."""
    yield
    while job_runs.STARTED:
        process = job_runs.STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.wait()
