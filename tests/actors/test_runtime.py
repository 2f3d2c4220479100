"""What a run keeps off the screen of what Ray says, what it must not, and a Ray that does not start."""

from __future__ import annotations

import os
import subprocess
import sys

ALARMING = (
    "[2026] core_worker.cc: Actor with class name: 'MapWorker(MapBatches(DescribeUnits))' and ID: 'ab' has "
    "constructor arguments in the object store and max_restarts > 0. If the arguments go out of scope ...\n"
)
SCRIPT = f"""
import os, sys
from regimes.actors.runtime import hushed

with hushed():
    os.write(2, {ALARMING.encode()!r})
    print("a warning of Python", file=sys.stderr)
    os.write(2, b"a check failed in C++\\n")
    if sys.argv[1] == "dies":
        os.abort()
print("afterwards", file=sys.stderr)
"""


def written(how: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, timeout=120
    )
    return ended.returncode, ended.stderr


def test_one_line_is_left_out_and_the_rest_passes_in_order() -> None:
    status, text = written("goes on")
    assert text.splitlines() == ["a warning of Python", "a check failed in C++", "afterwards"]
    assert status == 0


def test_the_last_words_of_a_process_that_dies_are_read() -> None:
    status, text = written("dies")
    assert text.splitlines() == ["a warning of Python", "a check failed in C++"]
    assert status < 0


ORPHANED = """
import logging, psutil
from regimes.actors.runtime import hushed

with hushed():
    for child in psutil.Process().children():
        child.kill()
        child.wait()
    logging.error("nobody reads this")
    raise ValueError("the real error")
"""


def test_errors_stay_what_they_are_when_the_reader_has_died() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ORPHANED], capture_output=True, text=True, timeout=120
    )
    assert ended.stderr.endswith("ValueError: the real error\n")
    assert ended.returncode == 1


def test_reading_goes_on_when_everybody_is_told_to_end() -> None:
    """As by a batch system, which tells all processes, while the driver unwinds."""
    told = SCRIPT.replace(
        "    if sys.argv",
        """    time.sleep(0.5)
    for child in psutil.Process().children():
        child.terminate()
    time.sleep(0.2)
    print("unwinding", file=sys.stderr)
    if sys.argv""",
    ).replace("import os, sys", "import os, psutil, sys, time")
    ended = subprocess.run(
        [sys.executable, "-c", told, "goes on"], capture_output=True, text=True, timeout=120
    )
    assert ended.stderr.splitlines()[-2:] == ["unwinding", "afterwards"]
    assert ended.returncode == 0


LATE = """
import itertools, time, types
from regimes.actors.runtime import RayRuntime
from regimes.errors import RegimesError

runtime = RayRuntime(1)

import ray._private.node, ray._private.services

def no_node(*of):
    raise RuntimeError("not there yet")

ray._private.services.get_node = no_node
hours = itertools.count(0, 3600)
ray._private.node.time = types.SimpleNamespace(**vars(time) | {"monotonic": lambda: next(hours)})
try:
    runtime.start()
except RegimesError as error:
    print(error)
"""


def test_a_ray_that_is_late_is_an_error_that_says_what_to_do() -> None:
    private = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "ab",
    }
    ended = subprocess.run(
        [sys.executable, "-c", LATE],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | private,
    )
    assert ended.stdout.startswith("Ray: expected its processes to start within half a minute"), (
        ended.stderr
    )
    assert ended.returncode == 0
