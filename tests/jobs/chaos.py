"""Killing at random what a job runs on, until it is done; and what that costs.

PYTHONPATH=tests python tests/jobs/chaos.py FOLDER           50,000 samples, 20 kills, and an undisturbed run
PYTHONPATH=tests python tests/jobs/chaos.py FOLDER 1600 2 1  fewer of both, and the seed of who and when
"""

from __future__ import annotations

import collections
import random
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
from job_runs import artifact_bytes, shards, start, workers
from made_networks import tiny_script

VICTIMS = {
    "trial": r"^ray::(ImplicitFunc|.*trial)",
    "replica": r"^ray::Replica",
    "extraction": r"^ray::.*(DescribeUnits|read_rows)",
}
SAMPLES, MODELS, KILLS = 50_000, 16, 20
DRIVER_SHARE = 0.15
RESTART_S = 6.0  # until who was killed works again; killed sooner, nobody would get further


def kill_one(process, rng: random.Random, done: list[str]) -> None:
    """Kill a worker of the job, or the job itself, if anything that can be lost is at work."""
    alive = {kind: workers(process, pattern) for kind, pattern in VICTIMS.items()}
    alive = {kind: found for kind, found in alive.items() if found}
    if not alive:
        return
    if rng.random() < DRIVER_SHARE:
        process.kill()
        done.append("driver")
        return
    kind = min(alive, key=lambda k: (done.count(k), k))  # every kind gets its turn
    victim = rng.choice(alive[kind])
    try:
        victim.kill()
    except psutil.Error:
        return
    done.append(kind)


def run_disturbed(
    output: Path, options: tuple[str, ...], *, kills: int, pause_s: float, seed: int = 0
) -> tuple[list[str], str]:
    """Run a job to its end, killing on the way; returns what was killed, and the last output."""
    rng, done = random.Random(seed), []
    while True:
        process = start(output, *options)
        due = time.monotonic() + rng.uniform(0.5, 1.5) * pause_s
        while process.poll() is None:
            time.sleep(0.05)
            before = len(done)
            if before < kills and time.monotonic() > due:
                kill_one(process, rng, done)
            if len(done) > before:  # else there was nobody to kill yet
                due = time.monotonic() + rng.uniform(0.5, 1.5) * pause_s
        text, _ = process.communicate(timeout=120)  # Ray's processes hold it open a little longer
        if process.returncode == 0:
            return done, text
        assert process.returncode == -9, text
        print(f"driver killed, started again after {len(done)} kills", flush=True)


def check_seeds(output: Path, per_model: int) -> int:
    """Every model has every seed exactly once; returns how many samples there are."""
    by_model = collections.defaultdict(list)
    for path in shards(output, "samples"):
        by_model[path.parent].append(pq.read_table(path, columns=["id"])["id"].to_numpy())
    for ids in by_model.values():
        found = np.sort(np.concatenate(ids))
        np.testing.assert_array_equal(found, np.arange(found[0], found[0] + per_model))
    return sum(len(ids) for parts in by_model.values() for ids in parts)


def main() -> None:
    """The numbers of LOG.md."""
    base = Path(sys.argv[1])
    given = [int(word) for word in sys.argv[2:5]]
    samples, kills, seed = (*given, *(SAMPLES, KILLS, 1)[len(given) :])
    base.mkdir(parents=True, exist_ok=True)
    each = samples // MODELS
    options = (  # each stage long enough to be hit several times
        "--num-samples", str(each), "--seeds-per-unit", str(min(125, each)), "--steps", "6000", "4500",
        "--sampler.num-steps", "300", "--descriptor", f"torchscript:{tiny_script(base / 'tiny.pt')}",
        "--resize", "skew-400",
    )  # fmt: skip
    began = time.monotonic()
    run_disturbed(base / "calm", options, kills=0, pause_s=1)
    calm_s = time.monotonic() - began
    print(f"undisturbed {calm_s:.0f} s", flush=True)
    began = time.monotonic()
    done, _ = run_disturbed(base / "wild", options, kills=kills, pause_s=RESTART_S, seed=seed)
    wild_s = time.monotonic() - began
    count = check_seeds(base / "wild", each)
    same = artifact_bytes(base / "wild") == artifact_bytes(base / "calm")
    print(f"killed {dict(collections.Counter(done))}: {count} samples, every seed once; ", end="")
    print(f"bytes {'identical' if same else 'DIFFER'}; {wild_s:.0f} s, {wild_s / calm_s:.2f}x")
    assert same
    assert len(done) == kills


if __name__ == "__main__":
    main()
