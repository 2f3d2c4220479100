"""What the C library does with memory that a process frees."""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8  # of glibc's mallopt
_MOST, _STEP = 2**31 - 1, 2**26


def keep_freed_memory() -> None:
    """Let this process keep what it frees, for its next batch.

    glibc gives large blocks back at once, and asks the system for them again with the next layer: on a CPU
    half of the time of a network on large images went into clearing the same pages over and over
    (SqueezeNet at 224 x 224, batch of 64: 1.55 s, and .75 s with this). The process stays as large as its
    largest batch, so it is for workers that compute one batch after the other, not for drivers. Without
    glibc it does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in (
            (_MMAP_THRESHOLD, _MOST),
            (_TRIM_THRESHOLD, _MOST),
            (_TOP_PAD, _STEP),
            (_ARENA_MAX, 1),  # those of other threads cannot hold large blocks
        ):
            mallopt(parameter, value)
