"""Training by Ray Tune trials, against bare processes that do the same.

    python tests/benchmarks/training.py [--steps 300 1500] [--rounds 2]

Equal work: the two ensembles of the digits study, eight models each, one process of one thread for each
ensemble, with the settings of memory that workers have; every run trains from nothing in a folder of its
own. With two numbers of steps, the overhead of the further steps is printed too: what is left when the
start (of processes, torch's import and, for Ray, the cluster's) is paid.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import multiprocessing
import os
import tempfile
from unittest import mock

import torch
from two_ways import compare

from regimes.actors.runtime import KEEP_FREED_MEMORY, RayRuntime
from regimes.actors.trials import train_grid
from regimes.images.pixels import to_float
from regimes.images.sources import open_source
from regimes.jobs.memorization import PRESETS
from regimes.jobs.support.chosen_descriptor import DEFAULT_DESCRIPTOR, ChosenDescriptor
from regimes.jobs.support.memorization.grid import MemorizationGrid
from regimes.storage.artifacts import Store
from regimes.storage.denoisers import TrainedRecipe, train
from regimes.storage.images import ImagesRecipe, decode_source, ingest


def plan(store: Store, steps: int) -> list[list[TrainedRecipe]]:
    """The models of each trial; their images are put into the store."""
    preset = PRESETS["digits"]
    experiment = dataclasses.replace(preset, steps=(steps,) * len(preset.widths))
    source = open_source("digits")
    images = ImagesRecipe(
        fingerprint=source.fingerprint, image_size=None, channels=None, skip_bad=False
    )
    decoded = decode_source(source, images)
    ingest(store, images, decoded)
    grid = MemorizationGrid(
        experiment=experiment,
        images=images,
        num_images=len(decoded.images),
        chosen=ChosenDescriptor.find(DEFAULT_DESCRIPTOR),
        sigma_data=round(float(to_float(decoded.images).std()), 4),
    )
    return grid.trials


def bare_process(root: str, trial: list[TrainedRecipe]) -> None:
    """One ensemble."""
    torch.set_num_threads(1)
    train(Store(root), trial, device="cpu", progress=lambda step, losses: None)


def run_bare(steps: int) -> None:
    """In processes of our own."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        processes = [
            context.Process(target=bare_process, args=(store.root.uri, trial))
            for trial in plan(store, steps)
        ]
        with mock.patch.dict(os.environ, KEEP_FREED_MEMORY):
            for process in processes:
                process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0


def run_ray(steps: int) -> None:
    """As jobs do."""
    with tempfile.TemporaryDirectory() as folder:
        store, runtime = Store(folder), RayRuntime()
        try:
            train_grid(runtime, store, plan(store, steps), on_report=lambda *point: None)
        finally:
            runtime.close()


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, nargs="+", default=[300, 1500])
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    ways = {"bare": run_bare, "ray": run_ray}
    compare(
        {
            steps: {name: functools.partial(run, steps) for name, run in ways.items()}
            for steps in asked.steps
        },
        before=lambda steps: None,
        rounds=asked.rounds,
        unit="steps",
    )


if __name__ == "__main__":
    main()
