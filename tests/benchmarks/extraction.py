"""Feature extraction through Ray Data, against bare torch processes that do the same.

    python tests/benchmarks/extraction.py [--images 20000] [--network tiny] [--workers 2] [--threads 1]
    python tests/benchmarks/extraction.py --images 1000 5000 --side 64 --network squeezenet
    python tests/benchmarks/extraction.py --memory 20000 200000

Equal work: the same shards are read, checked, decoded, described by the same network with the same
batches, encoded and written. The bare processes divide the shards among themselves beforehand; with
Ray, as many actors with as many threads take them. Printed are the seconds of the whole run, from its first
line to its last (with the start of processes, torch's import and, for Ray, the start of the cluster), and
the CPU seconds of all its processes, which depend less on what else the machine does. Given two sizes, also
what the images cost that the larger has more. Weights are random, which changes no duration.

Our workers keep the memory that they free (``KEEP_FREED_MEMORY``), bare ones do not, unless ``--keep`` is
given: then what is compared is Ray alone.

``--memory`` prints the peak of the memory of the driver and everything below it (proportional set
size: shared pages are counted once), for each number of images.

The rounds alternate, and the best of each is compared: other work on the machine only slows down.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from two_ways import Watch, compare

from regimes.actors.extraction import Hardware, extract
from regimes.actors.runtime import KEEP_FREED_MEMORY, RayRuntime
from regimes.descriptors.options import DescriptorOptions, find_network
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
    with mock.patch.dict(os.environ, KEEP_FREED_MEMORY if options.keep else {}):
        for name in () if options.keep else KEEP_FREED_MEMORY:
            os.environ.pop(name, None)  # from a run of Ray before
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
        work: dict[int, FeaturesRecipe] = {}
        for count in options.memory or options.images:
            images = make_images(store, count, options.side, unit)
            work[count] = FeaturesRecipe(images=images, descriptor=descriptor)
        if options.memory:
            for count, recipe in work.items():
                with Watch(memory=True) as watch:
                    run_ray(store, recipe, options)
                print(f"{count} images: peak {watch.peak_mib:.0f} MiB", flush=True)
            return
        print(f"{options.network}, images of {options.side}x{options.side}")
        ways = {"bare": run_bare, "ray": run_ray}
        compare(
            {
                count: {
                    name: functools.partial(run, store, recipe, options)
                    for name, run in ways.items()
                }
                for count, recipe in work.items()
            },
            before=lambda count: store.artifact(work[count]).remove(),
            rounds=options.rounds,
        )


if __name__ == "__main__":
    main()
