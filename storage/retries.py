"""Trying again what a file system or an object store may do the next time.

What waiting does not mend (a full disk, no permission, a bucket that is not there) fails at once; all
else is tried again, with growing and random pauses, so that many workers do not come back together.

Clients of object stores raise classes of their own (botocore's and aiohttp's ``ClientError``, gcsfs'
``HttpError``). These packages are optional, so what they raise is known by what it is not, a built-in
exception, and by the HTTP status that it carries; it is raised again as an ``OSError``.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

ATTEMPTS = 7
FIRST_PAUSE_S, LONGEST_PAUSE_S = (
    0.25,
    8.0,
)  # about 12 seconds altogether, and what an S3 client adds

_FINAL = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOSPC, errno.EDQUOT, errno.EFBIG,
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP,
    errno.ENOTSUP,
}  # fmt: skip
_FINAL_KINDS = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
NO_SUCH_DIRECTORY = "No such directory"  # Arrow of gs://, in words alone
_FINAL_WORDS = (
    "ACCESS_DENIED", "NO_SUCH_BUCKET", "NO_SUCH_KEY", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH",
    "INVALID_CLIENT_TOKEN_ID", "MISSING_AUTHENTICATION_TOKEN", "UNRECOGNIZED_CLIENT", "RESOURCE_NOT_FOUND",
    "Bucket does not exist", "does not exist", "ExpiredToken", "CredentialsError", "Forbidden",
    "is a directory", NO_SUCH_DIRECTORY, "Could not create a OAuth2 access token",
)  # fmt: skip
_PASSING_STATUS = (408, 425, 429)  # and all from 500 on
_PASSING_WORDS = ("RequestTimeout", "Throttl", "rateLimitExceeded")  # whatever the status: 400, 403
_OUR_OWN = ("builtins", "pyarrow.lib", "regimes.errors")  # modules of what no store's client raises

T = TypeVar("T")


class Refused(OSError):
    """What a store's client raised that was no ``OSError``."""

    status: int | None = None


def persist(action: Callable[[], T]) -> T:
    """Do something with files, several times if need be.

    Args:
        action: may be done any number of times.

    Raises:
        OSError: the last one, or at once if trying again would not mend it; ``Refused``, or
            ``FileNotFoundError``, for what a store's client raised.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return _translated(action)
        except OSError as error:
            if is_final(error):
                raise
            time.sleep(pause(attempt) * random.uniform(0.5, 1.0))
    return _translated(action)


def _translated(action: Callable[[], T]) -> T:
    try:
        return action()
    except OSError:
        raise
    except NotImplementedError as error:  # a store that is read-only, as http://
        raise OSError(errno.ENOTSUP, str(error) or os.strerror(errno.ENOTSUP)) from error
    except Exception as error:
        if type(error).__module__ in _OUR_OWN:
            raise
        words = f"{type(error).__name__}: {error}"
        status = _status(error)
        if status == 404:
            raise FileNotFoundError(words) from error
        refused = Refused(words)
        refused.status = status
        raise refused from error


def _status(error: Exception) -> int | None:
    """The HTTP status of an error, wherever a client keeps it; None if it has none."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):  # botocore's
        return answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    for holder, name in itertools.product((error, answer), ("status", "status_code", "code")):
        found = str(getattr(holder, name, None))
        if found.isdecimal() and 400 <= int(found) < 600:
            return int(found)
    return None


def pause(attempt: int) -> float:
    """Seconds to wait at most after a failure, the first being number 0."""
    return min(FIRST_PAUSE_S * 2.0**attempt, LONGEST_PAUSE_S)


def is_final(error: OSError) -> bool:
    """Whether trying again would not mend an error; some object stores say so in words alone."""
    if isinstance(error, _FINAL_KINDS):
        return True
    if error.errno is not None:
        return error.errno in _FINAL
    if any(word in str(error) for word in _PASSING_WORDS):
        return False
    status = _status(error)
    if status is not None:
        return status < 500 and status not in _PASSING_STATUS
    return any(word in str(error) for word in _FINAL_WORDS)
