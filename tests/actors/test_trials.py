"""How often a trial may fail: as often as it likes, as long as it gets further in between."""

from __future__ import annotations

from types import SimpleNamespace

import deadly
import pytest
from shared_ray import joined

from regimes.actors import trials
from regimes.actors.runtime import RayRuntime
from regimes.actors.trials import MAX_FAILURES, run_trials
from regimes.storage.artifacts import Store


class Told:
    """A listener that is told of one trial, as Tune would do."""

    def __init__(self, monkeypatch):
        self.slept, self.points = [], []
        monkeypatch.setattr(trials, "time", SimpleNamespace(sleep=self.slept.append))
        with joined():
            self.listener = trials.listener(lambda *point: self.points.append(point), [], [])
        self.trial = SimpleNamespace(
            trial_id="a", num_failures=0, max_failures=MAX_FAILURES, config={"trial": 0}
        )

    def point(self, step, label="loss"):
        result = {"config": {"trial": 0}, "step": step, "values": {label: 1.0}}
        self.listener.on_trial_result(0, [], self.trial, result)

    def fail(self):
        """Whether Tune starts it again: its own rule."""
        self.trial.num_failures += 1
        again = self.trial.num_failures <= self.trial.max_failures
        hear = self.listener.on_trial_recover if again else self.listener.on_trial_error
        hear(0, [], self.trial)
        return again


@pytest.fixture
def told(monkeypatch):
    return Told(monkeypatch)


def test_a_trial_that_gets_nowhere_fails_for_good(told):
    assert [told.fail() for _ in range(MAX_FAILURES + 1)] == [True] * MAX_FAILURES + [False]
    assert told.slept == [1.0, 2.0, 4.0]


def test_a_trial_that_gets_further_may_fail_as_often_again(told):
    for step in range(1, 20):
        assert told.fail()
        assert told.fail()
        told.point(step)
    assert told.slept == [1.0, 2.0] * 19
    assert [step for _, step, _ in told.points] == list(range(1, 20))


def test_what_was_reached_before_is_not_further(told):
    told.point(50)
    found = []
    for step in (40, 50, 45, 50):
        found.append(told.fail())
        told.point(step)
    assert found == [True] * MAX_FAILURES + [False]


def test_another_model_of_the_trial_starts_at_its_own_beginning(told):
    told.point(50, "first")
    for _ in range(MAX_FAILURES):
        assert told.fail()
    told.point(1, "second")
    assert told.fail()


def test_a_trial_that_always_fails_is_named_when_the_others_are_done(monkeypatch, tmp_path):
    monkeypatch.setattr(trials, "BACKOFF_S", 0.0)
    points = []
    with joined():
        runtime = RayRuntime(2)
        try:
            with pytest.raises(RuntimeError, match=r"^bad: failed 4 times in a row") as caught:
                run_trials(
                    runtime,
                    Store(str(tmp_path)),
                    [deadly.Labelled(label) for label in ("good", "bad", "fine")],
                    deadly.work,
                    on_report=lambda *point: points.append(point),
                )
        finally:
            runtime.close()
    assert "no such luck" in str(caught.value.__cause__)
    assert sorted(points) == [(0, 1, {"good": 1.0}), (2, 1, {"fine": 1.0})]


@pytest.mark.parametrize(("at_once", "patience_s"), [(None, 60), (1, 6)])
def test_as_many_trials_run_at_once_as_are_allowed(tmp_path, at_once, patience_s):
    others = []
    with joined():
        runtime = RayRuntime(2)
        try:
            run_trials(
                runtime,
                Store(str(tmp_path)),
                [deadly.Labelled(str(patience_s))] * 2,
                deadly.meet,
                on_report=lambda trial, step, values: others.append(values["others"]),
                at_once=at_once,
            )
        finally:
            runtime.close()
    assert len(others) == 2
    assert max(others) == (0 if at_once else 1)
