"""What a run would do and cost: printed by ``--dry-run``, from a few timed steps on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import torch

from regimes.images.pixels import Images, to_float
from regimes.jobs.support.console import duration
from regimes.jobs.support.grid import MemorizationGrid
from regimes.jobs.support.results import Results
from regimes.storage.artifacts import Store
from regimes.storage.models import ModelRecipe
from regimes.training.ensemble import EnsembleTrainer

_TIMED_STEPS = 5
_BYTES_PER_WEIGHT = 4


def print_plan(
    store: Store, grid: MemorizationGrid, results: Results, images: Images, cpus: int | None
) -> None:
    """Print stages, what is complete, and estimates of time and storage.

    Times are those of one thread on this machine, measured here on a few of the images (which takes
    seconds); a cluster's nodes will differ.
    """
    e = grid.experiment
    some = to_float(images[: grid.sizes[0]])
    print(f"results   {results.location.uri}")
    print(f"images    {grid.num_images} of {e.source}, two halves, n = {_listing(grid.sizes)}")
    training = []
    for group in grid.ensembles:
        train_s, sample_s = _measure(group, some, grid)
        missing = store.missing(group)
        training.append(train_s if missing else 0.0)
        print(
            f"train     width {group[0].width}: {len(group)} models, {len(missing)} missing, "
            f"{group[0].steps} steps, {duration(train_s)} on one CPU; "
            f"sampling {duration(sample_s)}"
        )
        training.append(sample_s if missing else 0.0)
    samples, features = store.missing(grid.all_samples), store.missing(grid.all_features)
    print(
        f"sample    {len(grid.all_samples)} models x {e.num_samples} seeds, {len(samples)} missing"
    )
    print(f"describe  {len(grid.all_features)} image sets, {len(features)} missing")
    cpus = cpus or os.cpu_count() or 1
    wall = max([sum(training) / cpus, *training])
    print(f"total     {duration(sum(training))} of CPU; about {duration(wall)} on {cpus} CPUs here")
    print(f"storage   {_storage_bytes(grid, some) / 1e6:.0f} MB")


def _listing(values: Sequence[int]) -> str:
    return ", ".join(str(v) for v in values)


def _measure(
    group: Sequence[ModelRecipe], images: torch.Tensor, grid: MemorizationGrid
) -> tuple[float, float]:
    """Seconds to train an ensemble and to sample all its members, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first = group[0]
        trainer = EnsembleTrainer(
            [r.label for r in group],
            [images] * len(group),
            width=first.width,
            blocks=first.blocks,
            steps=first.steps,
            sigma_data=first.sigma_data,
            seed=0,
            config=first.training,
        )
        trainer.step()  # the first one allocates
        step_s = _time(trainer.step) / _TIMED_STEPS
        return step_s * first.steps, _sampling_seconds(trainer, images, grid)
    finally:
        torch.set_num_threads(threads)


def _time(step: Callable[[], object], repeats: int = _TIMED_STEPS) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        step()
    return time.perf_counter() - started


def _sampling_seconds(
    trainer: EnsembleTrainer, images: torch.Tensor, grid: MemorizationGrid
) -> float:
    """One denoiser call of the ensemble on a small batch, times evaluations, times batches."""
    e = grid.experiment
    batch = images[:1].expand(16, -1, -1, -1)
    stacked = batch.expand(len(trainer.keys), *batch.shape)

    def call() -> object:
        with torch.inference_mode():
            return trainer.denoiser(stacked, 1.0)

    call()
    return _time(call, 3) / 3 * e.sampler.num_evaluations * e.num_samples / len(batch)


def _storage_bytes(grid: MemorizationGrid, images: torch.Tensor) -> float:
    """Weights, samples and features, uncompressed."""
    e = grid.experiment
    pixels = images[0].numel()
    per_width = (2 * pixels * w + 2 * e.blocks * w * (w + 64) for w in e.widths)
    weights = sum(per_width) * _BYTES_PER_WEIGHT * 2 * len(grid.sizes)
    rows = len(grid.all_samples) * e.num_samples + grid.num_images
    return weights + rows * pixels * (1 + 4)
