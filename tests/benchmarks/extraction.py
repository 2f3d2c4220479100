"""Feature extraction through Ray Data, against bare torch processes that do the same.

    python tests/benchmarks/extraction.py [--images 20000] [--network tiny] [--workers 2] [--threads 1]
    python tests/benchmarks/extraction.py --images 1000 5000 --side 64 --network squeezenet
    python tests/benchmarks/extraction.py --memory 20000 200000

Equal work: the same shards are read, checked, decoded, described by the same network with the same
batches, encoded and written. The bare processes divide the shards among themselves beforehand; with
Ray, as many actors with as many threads describe, and tasks beside them read. Two rates are printed:
of the whole run, from its first line to its last (with the start of processes, torch's import and,
for Ray, the start of the cluster), and of the work alone, between the first and the last finished
unit. Beside them stand the CPU seconds of all processes of the run, which depend less on what else the
machine does. Weights are random, which changes no duration.

``--memory`` prints the peak of the memory of the driver and everything below it (proportional set
size: shared pages are counted once), for each number of images.

The rounds alternate, and the best of each is compared: other work on the machine only slows down.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import multiprocessing
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from regimes.actors.extraction import Hardware, extract
from regimes.actors.runtime import RayRuntime
from regimes.descriptors.options import DescriptorOptions, find_network
from regimes.memory import keep_freed_memory
from regimes.storage.artifacts import Store
from regimes.storage.features import (
    DescriptorRecipe,
    FeaturesRecipe,
    describe_block,
    finish,
    fit_descriptor,
    import_weights,
    load_descriptor,
    read_block,
    write_block,
)
from regimes.storage.images import IMAGES_PER_SHARD, ImagesRecipe
from regimes.storage.tables import write_shard

Spent = dict[str, tuple[float, float]]
"""way -> seconds by the clock, and of CPU"""


class Tiny(nn.Module):
    """Three convolutions: 1.3 MFLOP per 32x32 image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean((2, 3))


def make_descriptor(store: Store, folder: Path, network: str, batch: int) -> DescriptorRecipe:
    """A descriptor with random weights, in the store."""
    torch.manual_seed(0)
    if network == "tiny":
        path = folder / "tiny.pt"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.script(Tiny().eval()).save(str(path))
        options = DescriptorOptions(
            descriptor=f"torchscript:{path}", resize="skew-32", descriptor_batch=batch
        )
    else:
        import torchvision

        path = folder / "squeezenet.pth"
        torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
        options = DescriptorOptions(descriptor=network, weights=str(path), descriptor_batch=batch)
    config, weights = find_network(options)
    recipe = DescriptorRecipe(name=config.name, network=config)
    import_weights(store, recipe, weights)
    fit_descriptor(store, recipe)
    return recipe


def make_images(store: Store, count: int, side: int, per_unit: int) -> ImagesRecipe:
    """An artifact of random images."""
    recipe = ImagesRecipe(
        fingerprint=f"random-{count}-{side}-{per_unit}", image_size=side, channels=3, skip_bad=False
    )
    rng, entries = np.random.default_rng(0), []
    for unit, start in enumerate(range(0, count, per_unit)):
        ids = np.array([f"{i:07d}" for i in range(start, min(start + per_unit, count))])
        images = rng.integers(0, 256, (len(ids), side, side, 3), dtype=np.uint8)
        entries.append(write_shard(store.artifact(recipe), unit, ids, {"image": images}))
    store.artifact(recipe).finish(entries)
    return recipe


def bare_process(
    root: str,
    recipe: FeaturesRecipe,
    share: tuple[int, int],
    options: argparse.Namespace,
    done: Any,
) -> None:
    """Describe every n-th unit in a plain loop."""
    torch.set_num_threads(options.threads)
    if options.keep:
        keep_freed_memory()
    store = Store(root)
    descriptor = load_descriptor(store, recipe.descriptor)
    names = [shard.name for shard in store.artifact(recipe.images).files]
    for unit in range(share[0], len(names), share[1]):
        block = read_block(store, recipe, unit, names[unit])
        entries = write_block(store, recipe, unit, block, describe_block(descriptor, block))
        done.put(entries)


def run_bare(store: Store, recipe: FeaturesRecipe, options: argparse.Namespace) -> None:
    """In processes of our own."""
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    processes = [
        context.Process(
            target=bare_process, args=(store.root.uri, recipe, (i, options.workers), options, done)
        )
        for i in range(options.workers)
    ]
    for process in processes:
        process.start()
    units = [done.get() for _ in store.artifact(recipe.images).files]
    for process in processes:
        process.join()
    finish(store, recipe, [entry for entries in units for entry in entries])


def run_ray(store: Store, recipe: FeaturesRecipe, options: argparse.Namespace) -> None:
    """As jobs do."""
    runtime = RayRuntime()
    hardware = Hardware(device="cpu", threads=options.threads)
    try:
        extract(
            runtime,
            store,
            [recipe],
            workers=options.workers,
            on_unit=lambda: None,
            hardware=hardware,
        )
    finally:
        runtime.close()


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


def compare(store: Store, recipe: FeaturesRecipe, count: int, options: argparse.Namespace) -> Spent:
    """Seconds by the clock and of CPU of both ways, the best of the rounds."""
    best = {"bare": (math.inf, math.inf), "ray": (math.inf, math.inf)}
    for _ in range(options.rounds):
        for name, run in (("bare", run_bare), ("ray", run_ray)):
            store.artifact(recipe).remove()
            start = time.monotonic()
            with Watch(memory=False) as watch:
                run(store, recipe, options)
            now = time.monotonic() - start, watch.cpu_s
            best[name] = min(best[name][0], now[0]), min(best[name][1], now[1])
            print(
                f"  {name:4}: {now[0]:7.1f} s, {count / now[0]:8.1f}/s, CPU {now[1]:6.1f} s",
                flush=True,
            )
    return best


def say(what: str, spent: Spent) -> None:
    """Ray's rate relative to the bare processes'."""
    (bare_s, bare_cpu_s), (ray_s, ray_cpu_s) = spent["bare"], spent["ray"]
    print(f"Ray / bare, {what}: rate {bare_s / ray_s:.2f}, CPU {ray_cpu_s / bare_cpu_s:.2f}")


def main() -> None:
    """Compare rates, or print memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=[20_000])
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--network", default="tiny", choices=("tiny", "squeezenet"))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--unit", type=int, default=None, help="images per unit")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="bare processes keep freed memory, too")
    parser.add_argument("--memory", type=int, nargs="*", default=[])
    options = parser.parse_args()
    unit = options.unit or (IMAGES_PER_SHARD if options.network == "tiny" else 64)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"{folder}/store")
        descriptor = make_descriptor(store, Path(folder), options.network, options.batch)
        spent: list[Spent] = []
        for count in options.memory or options.images:
            images = make_images(store, count, options.side, unit)
            recipe = FeaturesRecipe(images=images, descriptor=descriptor)
            print(f"{count} images of {options.side}x{options.side}, {options.network}")
            if not options.memory:
                spent.append(compare(store, recipe, count, options))
                say("whole run", spent[-1])
                continue
            with Watch(memory=True) as watch:
                run_ray(store, recipe, options)
            print(f"  peak {watch.peak_mib:.0f} MiB", flush=True)
        if len(spent) == 2:
            fewer, more = spent
            say(
                f"images {options.images[0]} to {options.images[1]}",
                {n: (more[n][0] - fewer[n][0], more[n][1] - fewer[n][1]) for n in more},
            )


if __name__ == "__main__":
    main()
