"""A Ray for tests, on loopback: started once by a test process, joined by one job after another.

Run as a script it starts that Ray, prints its address, and ends with its standard input.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Iterator

from regimes.actors.runtime import RayRuntime, _loopback_environment


@functools.cache
def _cluster() -> dict[str, str]:
    """What a process needs in its environment to join; starts the cluster when first asked."""
    private = _loopback_environment()
    found = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    here = os.pathsep.join([os.path.dirname(__file__), *filter(None, found)])
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | private | {"PYTHONPATH": here},  # workers import what tests define
    )
    assert process.stdin is not None
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address, "no Ray could be started"
    atexit.register(process.wait, 30)
    atexit.register(process.stdin.close)
    return private | {"RAY_ADDRESS": address}


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Within it, jobs that this process runs join the shared Ray."""
    before = dict(os.environ)
    os.environ.update(_cluster())
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _serve() -> None:
    import ray  # its settings are in the environment already

    runtime = RayRuntime(2)
    runtime.start()
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
    runtime.close()


if __name__ == "__main__":
    _serve()
