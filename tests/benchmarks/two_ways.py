"""The same work done by bare processes and by Ray: time, CPU time and memory of both.

The rounds alternate, and the least of each is compared: other work on the machine only slows down. Of two
sizes the difference is compared as well: what is left when the start (of processes, torch's import and,
for Ray, the cluster's) is paid.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil


class Watch:
    """Samples this process and all below it while the block runs: memory four times a second, else once."""

    def __init__(self, *, memory: bool) -> None:
        self.memory, self.peak_mib = memory, 0.0
        self._before, self._seconds = 0.0, {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        own = psutil.Process().cpu_times()
        self._before = own.user + own.system
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def cpu_s(self) -> float:
        """CPU time of all processes, as last seen of each."""
        return sum(self._seconds.values()) - self._before

    def _run(self) -> None:
        while not self._stop.wait(0.25 if self.memory else 1.0):
            here, pss = psutil.Process(), 0
            for process in [here, *here.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    key = process.pid, process.create_time()
                    self._seconds[key] = times.user + times.system
                    pss += process.memory_full_info().pss if self.memory else 0
            self.peak_mib = max(self.peak_mib, pss / 2**20)


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds by the clock, and of CPU by all processes."""

    clock_s: float = math.inf
    cpu_s: float = math.inf

    def least(self, other: Spent) -> Spent:
        """The less of each."""
        return Spent(min(self.clock_s, other.clock_s), min(self.cpu_s, other.cpu_s))

    def beyond(self, other: Spent) -> Spent:
        """What this is more."""
        return Spent(self.clock_s - other.clock_s, self.cpu_s - other.cpu_s)


def measure(run: Callable[[], None]) -> Spent:
    """One run."""
    start = time.monotonic()
    with Watch(memory=False) as watch:
        run()
    return Spent(time.monotonic() - start, watch.cpu_s)


def compare(
    sizes: Mapping[int, Mapping[str, Callable[[], None]]],
    *,
    before: Callable[[int], None],
    rounds: int,
    unit: str = "images",
) -> None:
    """Print what the ways "bare" and "ray" spend on one size or more.

    Args:
        sizes: number of units -> way -> what does them.
        before: called with the size before every run, to undo the last.
        rounds: of both ways in turn.
        unit: what is counted.
    """
    spent: dict[int, dict[str, Spent]] = {}
    for count, ways in sizes.items():
        spent[count] = {name: Spent() for name in ways}
        for _ in range(rounds):
            for name, run in ways.items():
                before(count)
                now = measure(run)
                spent[count][name] = spent[count][name].least(now)
                print(
                    f"  {name:4} {count:7d} {unit}: {now.clock_s:7.1f} s, CPU {now.cpu_s:6.1f} s",
                    flush=True,
                )
        _say(f"{count} {unit}", spent[count])
    counts = sorted(spent)
    for fewer, more in itertools.pairwise(counts):
        rest = {name: spent[more][name].beyond(spent[fewer][name]) for name in spent[more]}
        _say(f"{unit} {fewer} to {more}", rest)


def _say(what: str, spent: Mapping[str, Spent]) -> None:
    bare, ray = spent["bare"], spent["ray"]
    print(
        f"Ray against bare, {what}: {bare.clock_s / ray.clock_s:.2f} of the rate, overhead "
        f"{ray.clock_s / bare.clock_s - 1:+.1%} by the clock, {ray.cpu_s / bare.cpu_s - 1:+.1%} of CPU"
    )
