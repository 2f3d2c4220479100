"""Trying again: what may work the next time, a bounded number of times, with growing pauses."""

from __future__ import annotations

import errno
import os

import pytest

from regimes.errors import StorageFailure
from regimes.storage import retries
from regimes.storage.filesystem import Location


@pytest.fixture
def pauses(monkeypatch):
    """Pauses that were made, without making them."""
    made = []
    monkeypatch.setattr(retries.time, "sleep", made.append)
    return made


def failing(times, error):
    calls = []

    def action():
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "done"

    return action, calls


def test_what_works_the_next_time_is_done(pauses):
    action, calls = failing(3, OSError("AWS Error SLOW_DOWN during PutObject"))
    assert retries.persist(action) == "done"
    assert len(calls) == 4
    assert [retries.pause(i) for i in range(3)] == [0.25, 0.5, 1.0]
    assert all(retries.pause(i) / 2 <= s <= retries.pause(i) for i, s in enumerate(pauses))


def test_the_last_error_is_raised_after_a_bounded_time(pauses):
    action, calls = failing(10**6, OSError(errno.EIO, "Input/output error"))
    with pytest.raises(OSError, match="Input/output"):
        retries.persist(action)
    assert len(calls) == retries.ATTEMPTS
    assert sum(pauses) < 30


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOENT])
def test_what_waiting_would_not_mend_fails_at_once(pauses, number):
    action, calls = failing(10**6, OSError(number, os.strerror(number)))
    with pytest.raises(OSError, match=os.strerror(number)):
        retries.persist(action)
    assert len(calls) == 1
    assert pauses == []


def test_what_a_store_cannot_do_at_all_fails_at_once_by_name(pauses, monkeypatch):
    location = Location("memory://read-only-test")

    def refuse(*_):
        raise NotImplementedError

    monkeypatch.setattr(location, "_put", refuse)
    with pytest.raises(
        StorageFailure,
        match=r"a: cannot be written \(Operation not supported\); such places can only be read: choose",
    ):
        location.write("a", b"1")
    assert pauses == []


def test_a_denied_bucket_fails_at_once(pauses):
    action, calls = failing(9, OSError("When uploading: AWS Error ACCESS_DENIED during PutObject"))
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        retries.persist(action)
    assert len(calls) == 1


def test_a_shared_file_system_that_hesitates_is_written_to_and_nothing_is_left(
    tmp_path, pauses, monkeypatch
):
    replace, calls = os.replace, []

    def hesitant(source, target):
        calls.append(source)
        if len(calls) < 3:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        replace(source, target)

    monkeypatch.setattr(os, "replace", hesitant)
    Location(str(tmp_path)).write("a", b"123")
    assert (tmp_path / "a").read_bytes() == b"123"
    assert os.listdir(tmp_path) == ["a"]
    assert len(pauses) == 2


def test_a_file_system_that_never_answers_is_named(tmp_path, pauses, monkeypatch):
    def gone(source, target):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "replace", gone)
    with pytest.raises(StorageFailure, match=r"/a: cannot be written .*[Ss]tale"):
        Location(str(tmp_path)).write("a", b"123")
    assert os.listdir(tmp_path) == []
