"""A job that is told to stop while Ray's processes end, for a test."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from regimes.actors.runtime import RayRuntime
from regimes.jobs.support.console import run_job


def body() -> int:
    """Start Ray and end it, with a signal in the middle of that."""
    runtime = RayRuntime(1)
    runtime.start()
    from ray._private.node import Node

    kill = Node.kill_all_processes

    def interrupted(self: Node, *args: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        kill(self, *args, **options)

    Node.kill_all_processes = interrupted
    try:
        runtime.close()
    finally:
        Node.kill_all_processes = kill
        print("left:", runtime._folder is not None and runtime._folder.exists())
    return 0


if __name__ == "__main__":
    sys.exit(run_job(body))
