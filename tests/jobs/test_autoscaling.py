"""A cluster that grows for a job and shrinks after it, with the autoscaler that starts machines in clouds."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from autoscaling_run import NAMESPACES
from job_runs import ROOT, environment, run_job, shards

OPTIONS = (
    "--model", "empirical:digits", "--seeds", "0-7999", "--batch-size", "50", "--num-steps", "250",
)  # fmt: skip

pytestmark = pytest.mark.slow


@functools.cache
def why_not() -> str:
    """Why this machine has no namespaces for us; empty if it has."""
    try:
        command = [*NAMESPACES, sys.executable, "-c", "import regimes"]  # may lie below /tmp
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return str(error)
    return tried.stderr.strip() if tried.returncode else ""


def test_nodes_come_and_go_with_a_job_and_leave_one_node_s_bytes(tmp_path: Path) -> None:
    if why_not():
        pytest.skip(f"no namespaces of its own here: {why_not()}")
    script = str(ROOT / "tests" / "jobs" / "autoscaling_run.py")
    done = subprocess.run(
        [*NAMESPACES, sys.executable, script, *OPTIONS, "--replicas", "3"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["exit"] == 0, found["output"]
    counts = [nodes for _, nodes in found["nodes"]]
    assert (counts[0], max(counts), counts[-1]) == (1, 3, 1), found["nodes"]
    run_job("generate", *OPTIONS, "--output", str(tmp_path / "local"))
    local = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in shards(tmp_path / "local", "samples")
    }
    assert len(local) == 160
    assert found["shards"] == local
