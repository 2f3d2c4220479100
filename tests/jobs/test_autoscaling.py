"""Nodes come when a job asks for replicas, and go when it is done: the autoscaler itself, on one machine."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from job_runs import ROOT, environment, run_job

pytestmark = pytest.mark.slow

# A pid, network and mount namespace: nothing of it is seen from, or left on, the machine.
ALONE = ("unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc")
INSIDE = 'ip link set lo up && mount -t tmpfs -o size=4g tmpfs /tmp && exec "$@"'


@pytest.fixture(scope="module")
def watched():
    """What the script saw."""
    able = subprocess.run(
        [*ALONE, "sh", "-c", INSIDE, "sh", "true"], capture_output=True, text=True
    )
    if able.returncode:
        pytest.skip(f"needs namespaces of its own: {able.stderr.strip()}")
    script = ROOT / "tests" / "jobs" / "autoscaling_run.py"
    done = subprocess.run(
        [*ALONE, "sh", "-c", INSIDE, "sh", sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=400,
        env=environment() | {"RAY_AUTH_MODE": "disabled"},  # there is no network to come from
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_one_node_becomes_three_for_a_job_and_one_again_after_it(watched):
    counts = [alive for _, alive in watched["nodes"]]
    assert watched["rc"] == 0
    assert counts[0] == counts[-1] == 1
    assert max(counts) == 3
    third = next(at for at, alive in watched["nodes"] if alive == 3)
    assert third < watched["done_at"] <= watched["nodes"][-1][0] + 0.3


def test_samples_are_those_of_a_run_without_a_cluster(watched, tmp_path: Path):
    run_job(
        "generate", "--model", "empirical:digits", "--seeds", "0-7999", "--batch-size", "50",
        "--num-steps", "250", "--format", "npz", "--output", str(tmp_path), "--device", "cpu",
    )  # fmt: skip
    found = hashlib.sha256((tmp_path / "samples.npz").read_bytes()).hexdigest()
    assert found == watched["sha256"]
