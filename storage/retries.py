"""Trying again what a file system or an object store may do the next time.

What waiting does not mend (a full disk, no permission, a bucket that is not there) fails at once; all
else is tried again, with growing and random pauses, so that many workers do not come back together.
"""

from __future__ import annotations

import errno
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
}  # fmt: skip
_FINAL_KINDS = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
_FINAL_WORDS = (
    "ACCESS_DENIED", "NO_SUCH_BUCKET", "NO_SUCH_KEY", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH",
    "INVALID_CLIENT_TOKEN_ID", "MISSING_AUTHENTICATION_TOKEN", "UNRECOGNIZED_CLIENT", "RESOURCE_NOT_FOUND",
    "Bucket does not exist", "does not exist", "ExpiredToken",
    "is a directory",
)  # fmt: skip

T = TypeVar("T")


def persist(action: Callable[[], T]) -> T:
    """Do something with files, several times if need be.

    Args:
        action: may be done any number of times.

    Raises:
        OSError: the last one, or at once if trying again would not mend it.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return action()
        except OSError as error:
            if is_final(error):
                raise
            time.sleep(pause(attempt) * random.uniform(0.5, 1.0))
    return action()


def pause(attempt: int) -> float:
    """Seconds to wait at most after a failure, the first being number 0."""
    return min(FIRST_PAUSE_S * 2.0**attempt, LONGEST_PAUSE_S)


def is_final(error: OSError) -> bool:
    """Whether trying again would not mend an error; object stores' say so in words alone."""
    if isinstance(error, _FINAL_KINDS):
        return True
    if error.errno is not None:
        return error.errno in _FINAL
    return any(word in str(error) for word in _FINAL_WORDS)
