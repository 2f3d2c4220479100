"""The digits job by `ray job submit` on a Ray of several nodes, one of which vanishes."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from job_runs import ROOT, artifact_bytes, counts, environment, run, shards

OPTIONS = ("--num-samples", "400", "--seeds-per-unit", "10")
UNITS = 16 * 40

pytestmark = pytest.mark.slow


class Nodes:
    """A running cluster, and the command line that submits to it."""

    def __init__(self) -> None:
        bin_folder = Path(sys.executable).parent
        self.env = environment() | {
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",  # `python` of the entrypoint
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # keeps several nodes on loopback
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.env.pop("PYTHONPATH", None)
        self.ray = str(bin_folder / "ray")
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "jobs" / "many_nodes.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.env,
        )
        started = self._line()
        self.dashboard, self.folder = started["dashboard"], Path(started["folder"])

    def _line(self):
        """The next line of JSON that is ours."""
        while line := self.process.stdout.readline():
            try:
                return json.loads(line)
            except ValueError:
                continue
        raise AssertionError("the cluster did not start")

    def tell(self, word: str) -> None:
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        self._line()

    def job(self, verb: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.ray, "job", verb, "--address", self.dashboard, *arguments],
            cwd=ROOT,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def submit(self, name: str, output: Path) -> subprocess.Popen[str]:
        command = ("python", "jobs/memorization.py", "--preset", "digits-smoke", *OPTIONS)
        return self.job(
            "submit", "--submission-id", name, "--runtime-env", "runtime_env.yaml", "--",
            *command, "--output", str(output),
        )  # fmt: skip

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)


@pytest.fixture(scope="module")
def nodes():
    """Three nodes of one CPU each."""
    found = Nodes()
    yield found
    found.close()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The same job without a cluster."""
    output = tmp_path_factory.mktemp("local")
    run(output, *OPTIONS)
    return output


def drivers(nodes):
    """Processes that run the job within the cluster's folder of uploads."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd", "environ"]):
        line = process.info["cmdline"] or []
        is_driver = "jobs/memorization.py" in line and "submit" not in line
        if is_driver and str(process.info["cwd"]).startswith(str(nodes.folder)):
            found.append(process)
    return found


def wait_for_shards(process, output, least, limit_s=240):
    deadline = time.monotonic() + limit_s
    while len(shards(output, "samples")) < least:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, f"{len(shards(output, 'samples'))} shards"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def submitted(nodes, local, tmp_path_factory):
    """A job that is stopped, submitted again, and loses a node while another comes: what it printed."""
    output = tmp_path_factory.mktemp("cluster")
    shutil.copytree(local / "artifacts" / "model", output / "artifacts" / "model")
    first = nodes.submit("first", output)
    wait_for_shards(first, output, 40)
    (driver, *_) = drivers(nodes)
    about = {"cwd": driver.info["cwd"], "path": driver.info["environ"].get("PYTHONPATH")}
    about["upload"] = sorted(p.name for p in Path(about["cwd"]).iterdir())
    stopped, _ = nodes.job("stop", "first").communicate(timeout=60)
    text, _ = first.communicate(timeout=60)
    about |= {"stopped": stopped + text, "kept": len(shards(output, "samples"))}
    assert about["kept"] < UNITS
    again = nodes.submit("again", output)
    wait_for_shards(again, output, about["kept"] + 60)
    nodes.tell("remove")
    nodes.tell("add")
    assert len(shards(output, "samples")) < UNITS, "the job was too short to be disturbed"
    text, _ = again.communicate(timeout=400)
    assert again.returncode == 0, text
    return output, about | {"text": text}


def test_a_job_that_was_stopped_and_lost_a_node_ends_with_the_bytes_of_a_local_run(
    submitted, local
):
    assert artifact_bytes(submitted[0]) == artifact_bytes(local)


def test_the_job_runs_from_the_upload_without_results_tests_or_environments(submitted):
    about = submitted[1]
    assert "_ray_pkg_" in about["cwd"]
    assert "platform" in about["path"].split(os.pathsep)
    assert {"platform", "jobs", "actors", "storage"} <= set(about["upload"])
    assert not {".git", ".venv", "results", "tests"} & set(about["upload"])


def test_a_stopped_job_says_how_to_go_on_and_does_the_rest_only(submitted):
    about = submitted[1]
    assert "the same command goes on from here" in about["stopped"]
    kept, made = counts(about["text"], "sample")
    assert kept >= about["kept"] - 1
    assert kept + made == UNITS
