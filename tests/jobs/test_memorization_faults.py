"""The main job disturbed: workers and drivers die, signals come, and nothing is lost or done twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from job_runs import artifact_bytes, counts, run, shards, start, wait_for, workers

MODELS = 8


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """An undisturbed run, long enough to be disturbed; and its options."""
    options = ("--steps", "1500", "1000", "--num-samples", "400", "--seeds-per-unit", "20")
    output = tmp_path_factory.mktemp("longer")
    run(output, *options)
    return output, options


def test_a_killed_trial_is_started_again_and_ends_the_same(
    longer: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    reference, options = longer
    process = start(tmp_path, *options)
    wait_for(lambda: list(tmp_path.glob("checkpoints/*/state.safetensors")), process)
    for worker in wait_for(lambda: workers(process, r"^ray::.*(trial|ImplicitFunc)"), process):
        worker.kill()
    text, _ = process.communicate(timeout=600)
    assert process.returncode == 0, text
    assert counts(text, "train") == (0, MODELS)
    assert artifact_bytes(tmp_path) == artifact_bytes(reference)


def test_a_killed_replica_is_replaced_and_the_samples_are_the_same(
    longer: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    reference, options = longer
    shutil.copytree(reference / "artifacts" / "model", tmp_path / "artifacts" / "model")
    process = start(tmp_path, *options)
    wait_for(lambda: len(shards(tmp_path, "samples")) > 20, process)
    wait_for(lambda: workers(process, r"^ray::Replica"), process)[0].kill()
    text, _ = process.communicate(timeout=600)
    assert process.returncode == 0, text
    assert artifact_bytes(tmp_path) == artifact_bytes(reference)


def test_after_a_killed_driver_the_same_command_does_the_rest_only(
    longer: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    reference, options = longer
    shutil.copytree(reference / "artifacts" / "model", tmp_path / "artifacts" / "model")
    process = start(tmp_path, *options)
    wait_for(lambda: len(shards(tmp_path, "samples")) > 20, process)
    process.kill()
    process.wait()
    text = run(tmp_path, *options)
    assert counts(text, "train") == (MODELS, 0)
    kept, made = counts(text, "sample")
    assert kept > 20
    assert kept + made == 16 * 400 // 20
    assert artifact_bytes(tmp_path) == artifact_bytes(reference)


def test_every_listening_socket_is_on_loopback(tmp_path: Path) -> None:
    import psutil

    hostile = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", "RAY_AUTH_MODE": "disabled"}
    process = start(tmp_path, env=hostile)
    wait_for(lambda: workers(process, r"^ray::"), process)
    pids = {p.pid for p in psutil.Process(process.pid).children(recursive=True)} | {process.pid}
    sockets = [c for c in psutil.net_connections() if c.pid in pids and c.status == "LISTEN"]
    process.terminate()
    process.communicate(timeout=60)
    assert sockets
    assert {c.laddr.ip for c in sockets} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


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
