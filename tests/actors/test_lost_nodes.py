"""A pool whose nodes go: they may take many actors with them, which is no fault of actors or units."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import lost_nodes_run
import pytest
from shared_ray import joined

from regimes.actors import pool as pools
from regimes.errors import WorkFailed

LOST = ("silent", "node died", "preempted", "node died error")


@pytest.fixture(scope="module")
def errors():
    """What Ray says, by what happened."""
    with joined():  # Ray keeps the settings that it finds when it is first imported
        from ray import exceptions
        from ray.core.generated.common_pb2 import ActorDiedErrorContext, NodeDeathInfo

    def died(message, **more):
        context = ActorDiedErrorContext(error_message=message, actor_id=bytes(16), **more)
        return exceptions.ActorDiedError(context)

    drained = NodeDeathInfo(reason="AUTOSCALER_DRAIN_PREEMPTED")
    return {
        "silent": exceptions.ActorUnavailableError("RpcError: Socket closed", bytes(16)),
        "node died": died(
            "The actor died because its node has died. Node Id: 96b1\n\tthe actor's node was terminated "
            "unexpectedly: health check failed due to missing too many heartbeats"
        ),
        "preempted": died("The actor is dead.", node_death_info=drained),
        "node died error": exceptions.NodeDiedError("gone"),
        "crashed": died("The actor is dead because its worker process has died. SYSTEM_ERROR"),
    }


@pytest.fixture
def at_once(monkeypatch):
    """Without pauses."""
    monkeypatch.setattr(pools, "BACKOFF_S", 0.0)


class ScriptedRay:
    """Its actors start and answer; units, or the deadly one, meet what ``happens``: errors, then no more.

    A reference is (unit, a number of its own).
    """

    def __init__(self, *happens, deadly=None):
        from ray import exceptions

        self.exceptions = exceptions
        self.happens, self.deadly, self.started = list(happens), deadly, 0

    def start(self):
        self.started += 1
        return SimpleNamespace(ready=SimpleNamespace(remote=lambda: ("ready", object())))

    def wait(self, references, num_returns, timeout):
        return references[:1], []

    def get(self, reference):
        meets = reference[0] != "ready" and self.deadly in (None, reference[0])
        if meets and self.happens:
            raise self.happens.pop(0)
        return reference[0]

    def kill(self, actor):
        """Nothing is left of it."""

    def run(self, size=1):
        """The four units as they are done."""
        pool = pools.Pool(self, self.start, size)
        work = [(0, unit) for unit in range(4)]
        return (entry for _, entry in pool.run(lambda actor, i, unit: (unit, object()), work))


@pytest.mark.parametrize("lost", LOST)
def test_a_slot_survives_the_loss_of_more_nodes_than_failures(errors, at_once, lost):
    ray = ScriptedRay(*[errors[lost]] * 2 * pools.FAILURES)
    assert list(ray.run()) == [0, 1, 2, 3]
    assert ray.started == 2 * pools.FAILURES + 1


@pytest.mark.parametrize("size", [1, 2])
def test_actors_that_crash_between_lost_nodes_still_end_the_run(errors, at_once, size):
    ray = ScriptedRay(*[errors["silent"], errors["crashed"]] * 50)
    with pytest.raises(RuntimeError, match=r"failed|given up") as caught:
        list(ray.run(size))
    assert caught.value.__cause__ is errors["crashed"]
    assert ray.started <= size * 2 * pools.FAILURES


def test_nodes_that_always_go_end_the_run_at_last(errors, at_once):
    ray = ScriptedRay(*[errors["silent"]] * 1000)
    with pytest.raises(RuntimeError, match=f"failed {pools.LOSSES} times"):
        list(ray.run())
    assert ray.started == pools.LOSSES


def test_a_unit_under_which_nodes_always_go_is_named_when_the_others_are_done(errors, at_once):
    ray = ScriptedRay(*[errors["node died"]] * pools.LOSSES, deadly=2)
    found = []
    with pytest.raises(WorkFailed, match="unit 2 of recipe 0: the actor's node was terminated"):
        found.extend(ray.run())
    assert found == [0, 1, 3]


def test_pauses_after_lost_nodes_grow_to_a_limit(errors, monkeypatch):
    clock, slept = [0.0], []

    def sleep(seconds):
        slept.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(pools, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    list(ScriptedRay(*[errors["silent"]] * 8).run())
    assert slept == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_a_pool_that_no_actor_answers_for_hours_says_so_once_then_ends(errors, monkeypatch, capsys):
    hours = iter(range(100))
    monkeypatch.setattr(pools, "time", SimpleNamespace(monotonic=lambda: 3600.0 * next(hours)))
    ray = ScriptedRay()
    ray.wait = lambda references, num_returns, timeout: ([], references)
    with pytest.raises(WorkFailed, match=r"no node had room for a replica for 6 hours; .* goes on"):
        list(ray.run())
    assert capsys.readouterr().err.count("no node has room for a replica yet") == 1


def test_an_actor_that_dies_after_hours_at_its_unit_was_no_silence(errors, monkeypatch, capsys):
    clock, ray = [0.0], ScriptedRay(errors["silent"])

    def sleep(seconds):
        clock[0] += seconds

    def wait(references, num_returns, timeout):
        sleep(0.0 if references[0][0] == "ready" else 7 * 3600.0)
        return references[:1], []

    ray.wait = wait
    monkeypatch.setattr(pools, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    assert list(ray.run()) == [0, 1, 2, 3]
    assert "no node has room" not in capsys.readouterr().err


def test_on_a_real_cluster_the_loss_of_a_node_after_the_other_is_survived():
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "RAY_"))}
    done = subprocess.run(
        [sys.executable, lost_nodes_run.__file__],
        capture_output=True,
        text=True,
        env=environment | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
        timeout=300,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert found["done"] == [0, 1]
    assert len(found["causes"]) == lost_nodes_run.LOSSES
    assert set(found["causes"]) <= {"ActorUnavailableError", "ActorDiedError"}
