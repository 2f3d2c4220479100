"""Generation by replicas, against bare processes that do the same; and memory as seeds grow.

    python tests/benchmarks/generation.py [--units 24] [--workers 2]
    python tests/benchmarks/generation.py --memory 20000 200000

Equal work: both sides sample the same units of the same recipe by the same functions. The model is the
empirical denoiser of 32x32 images, which takes as long per image as a network of EDM's size class takes on
a GPU with ``--images`` of them. Two overheads are printed: of the whole run, with the start of processes
and of Ray, and of the work alone, between the first and the last finished unit. The rounds alternate,
and the best of each is compared: other work on the machine only slows down.

``--memory`` generates that many 32x32 images and describes them, and prints the peak memory of the driver
and everything below it (proportional set size: shared pages are counted once).
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from extraction import Watch

from regimes.actors.extraction import extract
from regimes.actors.replicas import ReplicaOptions, generate
from regimes.actors.runtime import RayRuntime
from regimes.samplers.edm import SamplerConfig
from regimes.storage.artifacts import Store
from regimes.storage.features import DescriptorRecipe, FeaturesRecipe, fit_descriptor
from regimes.storage.model_specs import import_model
from regimes.storage.samples import SamplesRecipe, load_model, make_samples
from regimes.storage.seeds import Seeds


def recipe_of(store: Store, folder: Path, *, images: int, seeds: int, unit: int) -> SamplesRecipe:
    """Samples of the empirical denoiser of random 32x32 images, in three steps."""
    source = folder / f"images-{images}.npy"
    if not source.exists():
        pixels = np.random.default_rng(0).integers(0, 256, (images, 32, 32, 1), dtype=np.uint8)
        np.save(source, pixels)
    return SamplesRecipe(
        denoiser=import_model(store, f"empirical:{source}"),
        sampler=SamplerConfig(num_steps=3),
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
        done.put((time.time(), entry))


def run_bare(store: Store, recipe: SamplesRecipe, workers: int) -> list[float]:
    """Times at which units were finished."""
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    processes = [
        context.Process(target=bare_process, args=(store.root.uri, recipe, (i, workers), done))
        for i in range(workers)
    ]
    for process in processes:
        process.start()
    found = [done.get() for _ in range(recipe.num_units)]
    for process in processes:
        process.join()
    store.artifact(recipe).finish([entry for _, entry in found])
    return [at for at, _ in found]


def run_ray(store: Store, recipe: SamplesRecipe, workers: int) -> list[float]:
    """Times at which units were finished."""
    times: list[float] = []
    runtime = RayRuntime(workers)
    options = ReplicaOptions(count=workers, device="cpu")
    try:
        generate(
            runtime, store, [recipe], options=options, on_unit=lambda: times.append(time.time())
        )
    finally:
        runtime.close()
    return times


def compare(folder: Path, asked: argparse.Namespace) -> None:
    """Both sides, in alternating rounds."""
    store = Store(str(folder / "store"))
    recipe = recipe_of(store, folder, images=asked.images, seeds=asked.units * 64, unit=64)
    best: dict[str, list[float]] = {"bare": [1e9, 1e9, 1e9], "ray": [1e9, 1e9, 1e9]}
    for _ in range(asked.rounds):
        for name, run in (("bare", run_bare), ("ray", run_ray)):
            store.artifact(recipe).remove()
            start = time.time()
            with Watch(memory=False) as watch:
                times = sorted(run(store, recipe, asked.workers))
            found = [time.time() - start, times[-1] - times[0], watch.cpu_s]
            best[name] = [min(a, b) for a, b in zip(best[name], found, strict=True)]
            print(
                f"{name:<5} whole {found[0]:6.1f} s  work {found[1]:6.1f} s  CPU {found[2]:6.1f} s"
            )
    ratios = [ray / bare - 1 for ray, bare in zip(best["ray"], best["bare"], strict=True)]
    print("Ray's overhead: whole {:+.1%}, work alone {:+.1%}, CPU {:+.1%}".format(*ratios))


def memory(folder: Path, seeds: int, workers: int) -> None:
    """Peak memory of one run that generates and describes."""
    store = Store(str(folder / f"store-{seeds}"))
    recipe = recipe_of(store, folder, images=64, seeds=seeds, unit=250)
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
    parser.add_argument("--units", type=int, default=24)
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
            compare(Path(folder), asked)


if __name__ == "__main__":
    main()
