"""Curves of a training at work are where TensorBoard looks, grow, and never stop the run."""

from __future__ import annotations

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from regimes.errors import StorageFailure
from regimes.jobs.support import live
from regimes.jobs.support.live import LiveCurves, last_step
from regimes.storage import pace
from regimes.storage.filesystem import Location


@pytest.fixture
def folder(tmp_path):
    return Location(str(tmp_path / "run"))


@pytest.fixture
def hurry(monkeypatch):
    monkeypatch.setattr(pace, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(pace, "SPARING", 0.0)


def shown(folder, label):
    events = EventAccumulator(f"{folder.path}/tensorboard/{label}")
    events.Reload()
    return [(e.step, e.value) for e in events.Scalars(live.LOSS)]


def test_the_first_point_is_shown_at_once_and_later_ones_when_it_is_time(folder, monkeypatch):
    curves = LiveCurves(folder)
    curves.add(10, {"a": 0.5, "b": 2.0})
    assert (shown(folder, "a"), shown(folder, "b")) == ([(10, 0.5)], [(10, 2.0)])
    curves.add(20, {"a": 0.25})
    assert shown(folder, "a") == [(10, 0.5)]
    monkeypatch.setattr(pace, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(pace, "SPARING", 0.0)
    curves.add(30, {"a": 0.125})
    assert shown(folder, "a") == [(10, 0.5), (20, 0.25), (30, 0.125)]


def test_steps_that_are_trained_again_are_shown_once(folder, hurry):
    curves = LiveCurves(folder)
    for step in (10, 20, 30, 20, 30, 40):
        curves.add(step, {"a": 1.0 / step})
    assert [step for step, _ in shown(folder, "a")] == [10, 20, 30, 40]


def test_a_run_that_goes_on_continues_the_curves(folder, hurry):
    LiveCurves(folder).add(10, {"a": 0.5})
    again = LiveCurves(folder)
    for step in (5, 10, 20):
        again.add(step, {"a": 0.25})
    assert shown(folder, "a") == [(10, 0.5), (20, 0.25)]


def test_the_curves_of_complete_results_are_replaced(folder, hurry):
    LiveCurves(folder).add(10, {"a": 0.5})
    folder.write("manifest.json", b"{}")
    LiveCurves(folder).add(5, {"a": 0.25})
    assert shown(folder, "a") == [(5, 0.25)]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data[::-1], lambda data: data[:5]]
)
def test_a_damaged_file_does_not_stop_the_run(folder, hurry, damage):
    LiveCurves(folder).add(10, {"a": 0.5})
    name = "tensorboard/a/events.out.tfevents.0.a"
    folder.write(name, damage(folder.read(name)))
    LiveCurves(folder).add(20, {"a": 0.25})
    assert shown(folder, "a")[-1] == (20, 0.25)


def test_a_store_that_refuses_costs_the_curves_and_is_named_once(
    folder, hurry, monkeypatch, capsys
):
    curves = LiveCurves(folder)

    def refuse(*_):
        raise StorageFailure("s3://bucket: cannot be written (Access Denied)")

    monkeypatch.setattr(Location, "write", refuse)
    for step in (10, 20):
        curves.add(step, {"a": 0.5})
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "warning   no curves for TensorBoard until the end: s3://bucket: cannot be written (Access Denied)"
    ]


def test_the_last_step_of_a_file_without_points_is_none(folder):
    assert last_step(b"") == -1
