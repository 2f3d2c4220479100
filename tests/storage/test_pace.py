"""Checkpoints by the clock: after a minute, and writing takes a twentieth of the time at most."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from regimes.storage import pace


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets, in seconds."""
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


@pytest.mark.parametrize(("took_s", "next_s"), [(0.0, 60.0), (2.0, 60.0), (6.0, 120.0)])
def test_the_next_is_due_after_a_minute_or_twenty_times_what_the_last_took(clock, took_s, next_s):
    due = pace.Pace()
    clock.s = 59.9
    assert not due.is_due
    clock.s = 60.0
    assert due.is_due
    with due.writing():
        clock.s += took_s
    clock.s += next_s - 0.1
    assert not due.is_due
    clock.s += 0.1
    assert due.is_due
