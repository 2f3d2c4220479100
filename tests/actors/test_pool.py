"""A pool of actors: every unit once, whatever its actors do; and an end if they always do it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pool_run
import pytest

from regimes.actors import pool as pools

ALL = [[i, unit] for i in (0, 1) for unit in range(10)]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What happened in each way to misbehave, of one process."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "RAY_"))}
    done = subprocess.run(
        [sys.executable, pool_run.__file__, str(tmp_path_factory.mktemp("pool"))],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("how", ["dies once", "hangs once", "finds no room for a second"])
def test_every_unit_is_done_once_although_actors_die_hang_or_never_start(ran, how):
    assert sorted(ran[how]["done"]) == ALL
    assert ran[how]["error"] is None


def test_a_unit_under_which_an_actor_died_is_done_by_another(ran):
    pids = [line.split()[0] for line in ran["dies once"]["tries"]["0-3"]]
    assert len(set(pids)) == len(pids) >= 2


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("dies at five", "WorkFailed", "unit 5 of model 0"),
        ("raises at five", "WorkFailed", "unit 5 of model 0: ValueError: five is right out"),
        ("not finite at five", "NotFiniteSamples", "seeds [5] are not finite"),
    ],
)
def test_a_deadly_unit_is_tried_elsewhere_then_named_and_all_others_are_done(ran, how, kind, words):
    assert sorted(ran[how]["done"]) == [u for u in ALL if u != [0, 5]]
    assert ran[how]["error"][0] == kind
    assert words in ran[how]["error"][1]
    assert len({line.split()[0] for line in ran[how]["tries"]["0-5"]}) >= 3


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("never starts", "RuntimeError: no such device in this computer"),
        ("always dies", "worker process has died"),
    ],
)
def test_actors_that_always_fail_end_the_run_with_their_traceback(ran, how, words):
    kind, message, cause = ran[how]["error"]
    assert ran[how]["done"] == []
    assert kind == "RuntimeError"
    assert words in message
    assert how == "always dies" or "pool_run.py" in cause  # its traceback


def test_actors_are_replaced_later_every_time_and_not_for_ever(ran):
    started = ran["never starts"]["started"]
    assert len(started) == 2 * 3
    firsts, seconds, thirds = started[:2], started[2:4], started[4:]
    assert min(seconds) - max(firsts) >= 0.2
    assert min(thirds) - min(seconds) >= 0.4


def test_what_no_other_actor_would_mend_ends_the_run_at_once(ran):
    kind, message, _ = ran["full disk"]["error"]
    assert "StorageFailure" in kind
    assert "No space left" in message
    assert len(ran["full disk"]["started"]) == 2
    assert len(ran["full disk"]["tries"]["0-2"]) == 1


def test_short_units_are_handed_out_several_at_once(ran):
    assert ran["short"]["depth"] > 2
    assert len(ran["short"]["done"]) == 200


@pytest.mark.parametrize(("patience_s", "said"), [(-1.0, 1), (60.0, 0)])
def test_a_pool_for_which_there_is_no_room_says_so_once(monkeypatch, capsys, patience_s, said):
    """On a Ray that answers the fourth time it is asked."""
    monkeypatch.setattr(pools, "START_S", patience_s)
    asked = []

    def wait(references, num_returns, timeout):
        asked.append(timeout)
        return references[: len(asked) > 3], []

    ray = SimpleNamespace(wait=wait, get=lambda reference: reference, kill=lambda actor: None)
    ray.exceptions = SimpleNamespace(TaskCancelledError=KeyError, RayError=OSError)
    actor = SimpleNamespace(ready=SimpleNamespace(remote=lambda: "ready"))
    pool = pools.Pool(ray, lambda: actor, 1)
    assert list(pool.run(lambda actor, recipe, unit: f"{unit}", [(0, 7)])) == [(0, "7")]
    assert capsys.readouterr().err.count("no node has room for a replica") == said
    assert said or None not in asked[:4]  # until it has said so, it must not wait for ever
