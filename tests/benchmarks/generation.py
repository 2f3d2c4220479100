"""Generation by replicas, against bare processes that do the same; and memory as seeds grow.

    python tests/benchmarks/generation.py [--units 10 60] [--workers 2]
    python tests/benchmarks/generation.py --memory 20000 200000

Equal work: both sides sample the same units of the same recipe by the same functions, with the settings of
memory that workers have. The model is the empirical denoiser of ``--images`` images in EDM's 18 steps: one to
two seconds per unit of 64 seeds, as a network of EDM's size class (43 GFLOP per image and evaluation)
takes on a GPU that does 50 to 100 TFLOP/s. With two sizes, the overhead of the units that the larger has
more is printed too: what is left when the start is paid.

``--memory`` generates that many 32x32 images and describes them, and prints the peak memory of the driver
and everything below it (proportional set size: shared pages are counted once).
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from two_ways import Watch, compare

from regimes.actors.extraction import extract
from regimes.actors.replicas import ReplicaOptions, generate
from regimes.actors.runtime import KEEP_FREED_MEMORY, RayRuntime
from regimes.samplers.edm import SamplerConfig
from regimes.storage.artifacts import Store
from regimes.storage.features import DescriptorRecipe, FeaturesRecipe, fit_descriptor
from regimes.storage.model_specs import import_model
from regimes.storage.samples import SamplesRecipe, load_model, make_samples
from regimes.storage.seeds import Seeds

UNIT = 64  # seeds


def recipe_of(
    store: Store, folder: Path, *, images: int, seeds: int, unit: int, steps: int
) -> SamplesRecipe:
    """Samples of the empirical denoiser of random 32x32 images."""
    source = folder / f"images-{images}.npy"
    if not source.exists():
        pixels = np.random.default_rng(0).integers(0, 256, (images, 32, 32, 1), dtype=np.uint8)
        np.save(source, pixels)
    return SamplesRecipe(
        denoiser=import_model(store, f"empirical:{source}"),
        sampler=SamplerConfig(num_steps=steps),
        seeds=Seeds.first(seeds),
        seeds_per_unit=unit,
    )


def bare_process(root: str, recipe: SamplesRecipe, share: tuple[int, int], done: Any) -> None:
    """Every n-th unit, in a loop."""
    torch.set_num_threads(1)
    store = Store(root)
    model = load_model(store, recipe)
    for unit in range(share[0], recipe.num_units, share[1]):
        entry = make_samples(store, recipe, unit, model)
        done.put(entry)


def run_bare(store: Store, recipe: SamplesRecipe, workers: int) -> None:
    """In processes of our own."""
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    processes = [
        context.Process(target=bare_process, args=(store.root.uri, recipe, (i, workers), done))
        for i in range(workers)
    ]
    with mock.patch.dict(os.environ, KEEP_FREED_MEMORY):
        for process in processes:
            process.start()
    found = [done.get() for _ in range(recipe.num_units)]
    for process in processes:
        process.join()
    store.artifact(recipe).finish(found)


def run_ray(store: Store, recipe: SamplesRecipe, workers: int) -> None:
    """As jobs do."""
    runtime = RayRuntime(workers)
    options = ReplicaOptions(count=workers, device="cpu")
    try:
        generate(runtime, store, [recipe], options=options, on_unit=lambda: None)
    finally:
        runtime.close()


def overhead(folder: Path, asked: argparse.Namespace) -> None:
    """Both sides, in alternating rounds."""
    store = Store(str(folder / "store"))
    recipes = {
        units * UNIT: recipe_of(
            store, folder, images=asked.images, seeds=units * UNIT, unit=UNIT, steps=18
        )
        for units in asked.units
    }
    ways = {"bare": run_bare, "ray": run_ray}
    compare(
        {
            count: {
                n: functools.partial(run, store, recipe, asked.workers) for n, run in ways.items()
            }
            for count, recipe in recipes.items()
        },
        before=lambda count: store.artifact(recipes[count]).remove(),
        rounds=asked.rounds,
    )


def memory(folder: Path, seeds: int, workers: int) -> None:
    """Peak memory of one run that generates and describes."""
    store = Store(str(folder / f"store-{seeds}"))
    recipe = recipe_of(store, folder, images=64, seeds=seeds, unit=250, steps=3)
    pixels = DescriptorRecipe(name="pixels")
    fit_descriptor(store, pixels)
    runtime = RayRuntime(workers)
    try:
        with Watch(memory=True) as watch:
            options = ReplicaOptions(count=workers, device="cpu")
            generate(runtime, store, [recipe], options=options, on_unit=lambda: None)
        print(f"{seeds} generated: peak {watch.peak_mib:.0f} MiB", flush=True)
        with Watch(memory=True) as watch:
            wanted = [FeaturesRecipe(images=recipe, descriptor=pixels)]
            extract(runtime, store, wanted, workers=workers, on_unit=lambda: None)
        print(f"{seeds} described: peak {watch.peak_mib:.0f} MiB", flush=True)
    finally:
        runtime.close()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--units", type=int, nargs="+", default=[10, 60])
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory", type=int, nargs="*", default=[])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if asked.memory:
            for seeds in asked.memory:
                memory(Path(folder), seeds, asked.workers)
        else:
            overhead(Path(folder), asked)


if __name__ == "__main__":
    main()
