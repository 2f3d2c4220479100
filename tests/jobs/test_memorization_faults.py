"""The main job disturbed: workers and drivers die, signals come, and nothing is lost or done twice."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import ending_run
import psutil
import pytest
from chaos import VICTIMS, check_seeds
from job_runs import (
    ROOT,
    artifact_bytes,
    counts,
    environment,
    finish,
    run,
    shards,
    start,
    wait_for,
    workers,
)

MODELS = 8


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """An undisturbed run, long enough to be disturbed; and its options."""
    options = ("--steps", "1500", "1000", "--num-samples", "400", "--seeds-per-unit", "20")
    output = tmp_path_factory.mktemp("longer")
    run(output, *options)
    return output, options


@pytest.fixture(scope="module")
def disturbed(
    longer: tuple[Path, tuple[str, ...]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int, str, str]:
    """A run whose trials, a replica and driver are killed, and the run after it, whose extraction is.

    Its folder, the shards that the first left, and what both printed.
    """
    _, options = longer
    output = tmp_path_factory.mktemp("disturbed")
    process = start(output, *options)
    wait_for(lambda: list(output.glob("checkpoints/*/state.safetensors")), process)
    for worker in wait_for(lambda: workers(process, VICTIMS["trial"]), process):
        worker.kill()
    wait_for(lambda: len(shards(output, "samples")) > 20, process)
    wait_for(lambda: workers(process, VICTIMS["replica"]), process)[0].kill()
    wait_for(lambda: len(shards(output, "samples")) > 60, process)
    process.kill()
    said, _ = process.communicate(timeout=120)
    left = len(shards(output, "samples"))
    process = start(output, *options)
    wait_for(lambda: len(shards(output, "features")) > 10, process)
    wait_for(lambda: workers(process, VICTIMS["extraction"]), process)[0].kill()
    return output, left, said, finish(process, 0)


def test_killed_trials_replicas_extraction_and_driver_leave_no_trace_in_the_results(
    longer: tuple[Path, tuple[str, ...]], disturbed: tuple[Path, int, str, str]
) -> None:
    assert artifact_bytes(disturbed[0]) == artifact_bytes(longer[0])
    assert check_seeds(disturbed[0], 400) == 16 * 400


def test_deaths_are_told_in_a_line_each(disturbed: tuple[Path, int, str, str]) -> None:
    said = disturbed[2]
    assert "a training trial died: it goes on from its last checkpoint\n" in said
    assert "a replica failed (The actor is dead because its worker process has died." in said
    assert "A worker died or was killed" not in said + disturbed[3]
    assert max(map(len, said.splitlines())) < 300


def test_after_a_killed_driver_the_same_command_does_the_rest_only(
    disturbed: tuple[Path, int, str, str],
) -> None:
    _, left, _, text = disturbed
    assert counts(text, "train") == (MODELS, 0)
    kept, made = counts(text, "sample")
    assert kept >= left > 60  # what ran when the driver died could still end
    assert kept + made == 16 * 400 // 20


def test_two_drivers_on_one_output_at_once_leave_what_one_would(
    longer: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    reference, options = longer
    shutil.copytree(reference / "artifacts" / "model", tmp_path / "artifacts" / "model")
    both = [start(tmp_path, *options) for _ in range(2)]
    for process in both:
        finish(process, 0)
    assert artifact_bytes(tmp_path) == artifact_bytes(reference)


def test_every_listening_socket_is_on_loopback(tmp_path: Path) -> None:
    found = [a for addresses in psutil.net_if_addrs().values() for a in addresses]
    if all(a.address.startswith("127.") for a in found if a.family == socket.AF_INET):
        pytest.skip("this machine has loopback addresses alone, so that there is nothing to tell")
    hostile = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", "RAY_AUTH_MODE": "disabled"}
    process = start(tmp_path, env=hostile)
    wait_for(lambda: workers(process, r"^ray::"), process)
    pids = {p.pid for p in psutil.Process(process.pid).children(recursive=True)} | {process.pid}
    sockets = [c for c in psutil.net_connections() if c.pid in pids and c.status == "LISTEN"]
    process.terminate()
    process.communicate(timeout=60)
    assert sockets
    assert {c.laddr.ip for c in sockets} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_ray_starts_stops_as_at_any_other_time(tmp_path: Path, number: int) -> None:
    """Ray takes both signals meanwhile: the process ended with status 15, or was aborted."""
    process = start(tmp_path)
    wait_for(lambda: workers(process, "gcs_server"), process)
    process.send_signal(number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, text
    assert "the same command goes on from here" in text


def test_sigterm_while_ray_ends_is_heard_and_nothing_is_left() -> None:
    """Its core gives the signal to the system, which ended the process with status -15."""
    done = subprocess.run(
        [sys.executable, ending_run.__file__],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
        cwd=ROOT,
    )
    assert done.returncode == 143, done.stderr
    assert "terminated; the same command goes on from here" in done.stderr
    assert "Traceback" not in done.stderr
    assert "left: False" in done.stdout


def test_sigterm_while_results_are_written_is_heard_although_ray_has_ended(
    longer: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    """Ray's end takes the handler away."""
    reference, options = longer
    shutil.copytree(reference / "artifacts", tmp_path / "artifacts")
    shutil.rmtree(next((tmp_path / "artifacts" / "samples").iterdir()))  # so that Ray starts
    process = start(tmp_path, *options)
    wait_for(lambda: list(tmp_path.glob("memorization/*/*")), process)
    process.terminate()
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 143, text
    assert "the same command goes on from here" in text
    assert "complete" not in run(tmp_path, *options)


@pytest.mark.parametrize("stage", ["train", "sample", "describe"])
def test_ctrl_c_reaches_every_process_and_the_next_run_ends_as_if_nothing_had_been(
    longer: tuple[Path, tuple[str, ...]], tmp_path: Path, stage: str
) -> None:
    reference, options = longer
    kept = {"train": (), "sample": ("model",), "describe": ("images", "model", "samples")}
    for kind in kept[stage]:
        shutil.copytree(reference / "artifacts" / kind, tmp_path / "artifacts" / kind)
    process = start(tmp_path, *options)
    begun = {
        "train": lambda: list(tmp_path.glob("checkpoints/*/state.safetensors")),
        "sample": lambda: len(shards(tmp_path, "samples")) > 20,
        "describe": lambda: len(shards(tmp_path, "features")) > 10,
    }
    wait_for(begun[stage], process)
    for each in [*psutil.Process(process.pid).children(recursive=True), process]:
        with contextlib.suppress(psutil.Error):
            each.send_signal(signal.SIGINT)  # as a terminal does
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert "the same command goes on from here" in text
    assert "Traceback" not in text
    run(tmp_path, *options)
    assert artifact_bytes(tmp_path) == artifact_bytes(reference)


@pytest.mark.parametrize("stage", ["train", "sample"])
def test_sigterm_stops_with_a_word_on_how_to_go_on(tmp_path: Path, stage: str) -> None:
    long = {"train": ("--steps", "20000", "20000"), "sample": ("--num-samples", "100000")}
    process = start(tmp_path, *long[stage])
    begun = {
        "train": lambda: list(tmp_path.glob("checkpoints/*/state.safetensors")),
        "sample": lambda: shards(tmp_path, "samples"),
    }
    wait_for(begun[stage], process)
    process.terminate()
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 143, text
    assert "the same command goes on from here" in text
    assert "Traceback" not in text
    # Loss curves are there while models are trained: TensorBoard shows them.
    assert list(tmp_path.glob("memorization/*/tensorboard/w*-n*-*/events*"))


def test_sigterm_while_images_are_described_loses_what_is_begun_only(
    longer: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    reference, options = longer
    for kind in ("images", "model", "samples"):
        shutil.copytree(reference / "artifacts" / kind, tmp_path / "artifacts" / kind)
    process = start(tmp_path, *options)
    wait_for(lambda: len(shards(tmp_path, "features")) > 10, process)
    process.terminate()
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 143, text
    assert "the same command goes on from here" in text
    assert "Traceback" not in text
    left = len(shards(tmp_path, "features"))
    kept, made = counts(run(tmp_path, *options), "describe")
    assert kept >= left > 10
    assert made > 0
    assert artifact_bytes(tmp_path) == artifact_bytes(reference)
