"""Object stores whose clients raise classes of their own: tried again while that may help, then named."""

from __future__ import annotations

import http
from types import SimpleNamespace

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from regimes.errors import StorageFailure
from regimes.storage import retries
from regimes.storage.filesystem import Location


class ClientError(Exception):
    """In the shape of botocore's."""

    def __init__(self, code, status):
        super().__init__(f"An error occurred ({code}) when calling the PutObject operation: {code}")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class HttpError(Exception):
    """In the shape of gcsfs'; the code is a number or its digits."""

    def __init__(self, code, message):
        super().__init__(f"{message}, {code}")
        self.code, self.message = code, message


class ClientResponseError(Exception):
    """In the shape of aiohttp's."""

    def __init__(self, status):
        super().__init__(f"{status}, message='', url='https://store/bucket'")
        self.status = status


class ServiceUnavailable(Exception):
    """In the shape of google.api_core's."""

    code = http.HTTPStatus.SERVICE_UNAVAILABLE


class ServerDisconnectedError(Exception):
    """Of aiohttp, which has no status."""


class NoCredentialsError(Exception):
    """Of botocore, which has no status either."""


class ProxyError(OSError):
    """Of requests: gcsfs raises it without a word."""


class RefusingFileSystem(MemoryFileSystem):
    """Meets what ``happens`` when a file is opened, looked at or deleted."""

    protocol = "refusing"
    happens: list[Exception] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("refusing://", "memory://"))

    def _open(self, path, *arguments, **options):
        self._meet()
        return super()._open(path, *arguments, **options)

    def find(self, path, **options):
        self._meet()
        return super().find(path, **options)

    def rm(self, path, **options):
        self._meet()
        return super().rm(path, **options)

    def _meet(self):
        if self.happens:
            raise self.happens.pop(0)


PASSING = [
    ClientError("SlowDown", 503),
    ClientError("InternalError", 500),
    ClientError("RequestTimeout", 400),
    HttpError(502, "Bad Gateway"),
    HttpError("429", "Too Many Requests"),
    HttpError(403, "rateLimitExceeded"),
    ClientResponseError(504),
    ServiceUnavailable("The service is unavailable"),
    ServerDisconnectedError(),
    ProxyError(),
]
FINAL = [
    ClientError("AccessDenied", 403),
    ClientError("ExpiredToken", 400),
    HttpError(401, "Invalid Credentials"),
    ClientResponseError(412),
    NoCredentialsError("Unable to locate credentials"),
    OSError("Forbidden: bucket/a\nmay not be written"),
]


def named(errors):
    return [f"{type(error).__name__}-{error!s:.40}" for error in errors]


@pytest.fixture
def pauses(monkeypatch):
    """Pauses that were made, without making them."""
    made = []
    monkeypatch.setattr(retries.time, "sleep", made.append)
    return made


@pytest.fixture
def location(monkeypatch):
    """A folder of a store that has a file b, and refuses from now on as told."""
    fsspec.register_implementation("refusing", RefusingFileSystem, clobber=True)
    monkeypatch.setattr(RefusingFileSystem, "happens", [])
    found = Location("refusing://regimes-refusing-test")
    found.write("b", b"there")
    yield found
    RefusingFileSystem.happens.clear()
    found.remove()


@pytest.mark.parametrize("error", PASSING, ids=named(PASSING))
def test_what_may_work_the_next_time_is_tried_again(location, pauses, error):
    actions = {
        "write": lambda: location.write("a", b"123"),
        "create": lambda: _create(location),
        "read": lambda: location.read("b"),
        "chunks": lambda: list(location.chunks("b", 2)),
        "list": location.names,
        "delete": lambda: location.delete("b"),
    }
    for number, (name, action) in enumerate(actions.items()):
        RefusingFileSystem.happens[:] = [error, error]
        action()
        assert len(pauses) == 2 * (number + 1), name
    assert location.read("a") == b"456"
    assert location.names() == ["a"]


def _create(location):
    with location.create("a") as stream:
        stream.write(b"456")


@pytest.mark.parametrize("error", PASSING, ids=named(PASSING))
def test_a_store_that_always_refuses_is_named_in_one_line_after_all_tries(location, pauses, error):
    RefusingFileSystem.happens[:] = [error] * 100
    with pytest.raises(StorageFailure, match=r"/a: cannot be written \(.+\); free") as caught:
        location.write("a", b"123")
    assert len(pauses) == retries.ATTEMPTS - 1
    assert type(error).__name__ in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", FINAL, ids=named(FINAL))
def test_what_waiting_would_not_mend_is_named_at_once(location, pauses, error):
    RefusingFileSystem.happens[:] = [error] * 100
    with pytest.raises(StorageFailure, match=r"/b: cannot be read \(.+\)$"):
        location.read("b")
    assert pauses == []


def test_a_file_that_a_store_does_not_have_is_a_missing_file(location, pauses):
    RefusingFileSystem.happens[:] = [ClientError("NoSuchKey", 404)]
    with pytest.raises(FileNotFoundError, match=r"refusing://.*/b"):
        location.read("b")
    assert pauses == []


def test_a_page_for_an_answer_is_cut_to_a_line(location, pauses):
    RefusingFileSystem.happens[:] = [HttpError(403, "<html>" + 5000 * "x" + "\n</html>")]
    with pytest.raises(StorageFailure) as caught:
        location.read("b")
    assert len(str(caught.value)) < 500
    assert "HttpError: <html>xxx" in str(caught.value)


@pytest.mark.parametrize("error", [TypeError("a defect"), StorageFailure("said already")])
def test_defects_and_what_was_said_already_are_left_as_they_are(location, pauses, error):
    RefusingFileSystem.happens[:] = [error]
    with pytest.raises(type(error), match=str(error)):
        location.read("b")
    assert pauses == []


def test_the_real_classes_of_two_clients_are_told_apart(pauses):
    """Those that are installed with other packages: their classes have the shapes above."""
    botocore = pytest.importorskip("botocore.exceptions")
    aiohttp = pytest.importorskip("aiohttp")

    def meets(error):
        calls = []

        def action():
            calls.append(1)
            raise error

        with pytest.raises(OSError):
            retries.persist(action)
        return len(calls)

    def refused(code, status):
        answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        return botocore.ClientError(answer, "GetObject")

    assert meets(refused("SlowDown", 503)) == retries.ATTEMPTS
    assert meets(refused("AccessDenied", 403)) == 1
    assert meets(botocore.NoCredentialsError()) == 1
    assert meets(botocore.EndpointConnectionError(endpoint_url="x")) == retries.ATTEMPTS
    assert meets(aiohttp.ServerDisconnectedError()) == retries.ATTEMPTS
    about = SimpleNamespace(real_url="https://store/b")
    assert meets(aiohttp.ClientResponseError(about, (), status=503)) == retries.ATTEMPTS
    assert meets(aiohttp.ClientResponseError(about, (), status=403)) == 1
