"""The option --replicas bounds how many trials ask for room, which is what a cluster grows by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from job_runs import run_job

from regimes.errors import ConfigError


@pytest.mark.parametrize(
    ("job", "preset", "module"),
    [
        ("memorization", "digits-smoke", "regimes.actors.trials"),
        ("classifier", "smoke", "regimes.actors.classifiers"),
        ("molrg", "smoke", "regimes.actors.molrg"),
        ("guidance", "ring", "regimes.jobs.guidance"),
    ],
)
@pytest.mark.parametrize(("options", "expected"), [(["--replicas", "3"], 3), ([], None)])
def test_replicas_bound_the_trials_at_once(
    job: str,
    preset: str,
    module: str,
    options: list[str],
    expected: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def stop(*args: Any, at_once: int | None = None, **others: Any) -> None:
        asked.append(at_once)
        raise ConfigError("enough")

    monkeypatch.setattr(f"{module}.run_trials", stop)
    common = ("--preset", preset, "--device", "cpu", "--output", str(tmp_path))
    assert "enough" in run_job(job, *common, *options, expect=1)
    assert asked == [expected]
