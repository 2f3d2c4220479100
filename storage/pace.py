"""When an unfinished training is written down: what a stop or a lost node may cost is a minute's work."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

CHECKPOINT_S = 60.0
SPARING = 20.0  # times what the last one took: writing costs a twentieth of the time at most


class Pace:
    """Tells when the next checkpoint is due, by the time since the last and what that one took."""

    def __init__(self) -> None:
        self._written, self._took = time.monotonic(), 0.0

    @property
    def is_due(self) -> bool:
        """Whether the next should be written."""
        return time.monotonic() - self._written >= max(CHECKPOINT_S, SPARING * self._took)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Around the writing of one."""
        begun = time.monotonic()
        yield
        self._written = time.monotonic()
        self._took = self._written - begun
