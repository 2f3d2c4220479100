"""Pools of actors that misbehave, in a process of its own, for tests: prints what happened as JSON.

python tests/actors/pool_run.py FOLDER
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from regimes.actors import pool as pools
from regimes.actors.pool import Pool
from regimes.actors.runtime import RayRuntime
from regimes.errors import NotFiniteSamples, StorageFailure


class Worker:
    """Writes down what it did; misbehaves as told."""

    def __init__(self, folder: str, how: str) -> None:
        self.folder, self.how = Path(folder), how
        if how == "never starts":
            raise RuntimeError("no such device in this computer")

    def ready(self) -> None:
        """Answers."""

    def make(self, i: int, unit: int) -> list[int]:
        """The unit, unless it is not to be."""
        first = not (self.folder / f"{i}-{unit}").exists()
        with (self.folder / f"{i}-{unit}").open("a") as file:
            file.write(f"{os.getpid()} {time.monotonic()}\n")
        getattr(self, f"_{self.how.replace(' ', '_')}", lambda *_: None)(unit + 10 * i, first)
        return [i, unit]

    def _dies_once(self, unit: int, first: bool) -> None:
        if unit % 10 == 3 and first:
            os.kill(os.getpid(), signal.SIGKILL)

    def _dies_at_five(self, unit: int, first: bool) -> None:
        if unit == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    def _always_dies(self, unit: int, first: bool) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _raises_at_five(self, unit: int, first: bool) -> None:
        if unit == 5:
            raise ValueError("five is right out")

    def _finds_no_room_for_a_second(self, unit: int, first: bool) -> None:
        if unit == 5 and first:
            raise ValueError("five is right out, for now")

    def _not_finite_at_five(self, unit: int, first: bool) -> None:
        if unit == 5:
            raise NotFiniteSamples("samples of seeds [5] are not finite")

    def _full_disk(self, unit: int, first: bool) -> None:
        if unit == 2:
            raise StorageFailure("out: cannot be written (No space left on device)")

    def _hangs_once(self, unit: int, first: bool) -> None:
        time.sleep(600 if unit == 0 and first else 0.05)

    def _short(self, unit: int, first: bool) -> None:
        time.sleep(0.002)


def main() -> None:
    """Every way to misbehave, on two actors."""
    base = Path(sys.argv[1])
    pools.BACKOFF_S, pools.START_S = 0.2, 2.0
    runtime, found = RayRuntime(2), {}
    ray = runtime.start()
    options = {"num_cpus": 1, "max_restarts": 0, "max_task_retries": 0}
    ways = (
        "dies once", "dies at five", "always dies", "raises at five", "never starts",
        "not finite at five", "full disk", "hangs once", "short",
        "finds no room for a second",
    )  # fmt: skip
    for how in ways:
        folder = base / how
        folder.mkdir()
        started, depths = [], []

        def start(folder: Path = folder, how: str = how, started: list = started) -> object:
            started.append(time.monotonic())
            nowhere = how == "finds no room for a second" and len(started) == 2
            place = {"resources": {"nowhere": 1.0}} if nowhere else {}
            return ray.remote(Worker).options(**options, **place).remote(str(folder), how)

        pool = Pool(ray, start, 2, lambda i, unit: f"unit {unit} of model {i}")
        work = [(i, unit) for i in (0, 1) for unit in range(100 if how == "short" else 10)]
        outcome: dict = {"done": [], "error": None}
        try:
            for i, entry in pool.run(lambda actor, i, unit: actor.make.remote(i, unit), work):
                assert entry[0] == i
                outcome["done"].append(entry)
                depths.append(pool._depth())
        except Exception as error:
            outcome["error"] = [type(error).__name__, str(error), str(error.__cause__)]
        tries = {p.name: p.read_text().split("\n")[:-1] for p in folder.iterdir()}
        outcome |= {"tries": tries, "started": [s - started[0] for s in started]}
        found[how] = outcome | {"depth": max(depths, default=0)}
    runtime.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
