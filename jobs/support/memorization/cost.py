"""What a run would do and cost: printed by ``--dry-run``, from a few timed steps on this machine."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from regimes.denoisers.closed_form import EmpiricalDenoiser
from regimes.denoisers.unet.build import restore_denoiser
from regimes.images.pixels import Images, to_float
from regimes.jobs.support.console import RunOptions, duration
from regimes.jobs.support.memorization.experiment import NetworkExperiment
from regimes.jobs.support.memorization.grid import MemorizationGrid
from regimes.jobs.support.memorization.results import Results
from regimes.samplers.edm import SampledDenoiser
from regimes.storage.artifacts import Store
from regimes.storage.denoisers import TrainedRecipe, load_denoiser, num_steps
from regimes.storage.images import Decoded
from regimes.storage.model_specs import import_model
from regimes.storage.models import ModelRecipe
from regimes.storage.networks import NetworkRecipe
from regimes.storage.samples import SamplesRecipe
from regimes.threads import torch_threads
from regimes.training.ensemble import EnsembleTrainer
from regimes.training.network import NetworkTrainer
from regimes.words import counted

_TIMED_STEPS = 3
_CPU_BATCH = 2  # images per timed step of a network: large ones take seconds each on a CPU
_TIMED_IMAGES = 1024  # training images of a timed closed form; its cost is linear in them
_BYTES_PER_WEIGHT = 4
_NOT_COUNTED = "descriptors, scores and report not counted"
_GPU_RATE = 1e13  # operations per second that a dry run without a GPU converts by, and says so


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one device, and what a model weighs."""

    train_s: float
    """To train a trial."""
    sample_s: float
    """To sample all its models."""
    num_weights: int
    """Per model."""
    operations: float = 0.0
    """Floating-point operations to train and sample a network; those of ensembles are not counted."""


def print_plan(
    store: Store,
    grid: MemorizationGrid,
    results: Results,
    decoded: Decoded | None,
    options: RunOptions,
) -> None:
    """Print stages, what is complete, and estimates of time and storage.

    Times are those of one thread, or one GPU, of this machine, measured here in seconds; a
    cluster's nodes will differ. Where there is no GPU, the operations of large networks are counted.
    """
    e = grid.experiment
    # Ensembles of small networks are trained on CPUs everywhere.
    is_large = isinstance(e, NetworkExperiment)
    on_gpu = is_large and torch.cuda.is_available() and options.device != "cpu"
    device = "cuda" if on_gpu else "cpu"
    print(f"results   {results.location.uri}")
    parts = "two halves" if e.parts == 2 else "one part"
    print(f"images    {grid.num_images} of {e.origin}, {parts}, n = {_listing(grid.sizes)}")
    seconds, images = _teacher(store, grid, device) if decoded is None else ([], decoded.images)
    costs = {trial[0].width: trial for trial in reversed(grid.trials)}
    measured = {w: _measure(t, images, grid, device) for w, t in sorted(costs.items())}
    for width, cost in measured.items():
        seconds += _print_training(store, grid, width, cost, device)
    closed = _closed_form_seconds(grid, images, device)
    seconds += [closed] if store.missing(grid.all_samples) else []
    samples, features = store.missing(grid.all_samples), store.missing(grid.all_features)
    print(
        f"sample    {counted(len(grid.all_samples), 'model')} x {e.num_samples} seeds, {len(samples)} "
        "missing; "
        f"closed forms {duration(closed)} on {_where(device)}"
    )
    print(f"describe  {counted(len(grid.all_features), 'image set')}, {len(features)} missing")
    operations = sum(measured[t[0].width].operations for t in grid.trials if store.missing(t))
    _print_total(seconds, operations, options.cpus or os.cpu_count() or 1, on_gpu)
    weights = sum(measured[m.width].num_weights for m in grid.models.values())
    print(f"storage   {_storage_bytes(grid, images, weights) / 1e6:,.0f} MB")


def _print_training(
    store: Store, grid: MemorizationGrid, width: int, cost: Cost, device: str
) -> list[float]:
    """One line for a width; returns the seconds of what is left to do of each trial."""
    trials = [t for t in grid.trials if t[0].width == width]
    models = sum(len(t) for t in trials)
    left = sum(len(store.missing(t)) for t in trials)
    print(
        f"train     width {width}: {counted(models, 'model')}, {left} missing, "
        f"{counted(num_steps(trials[0][0]), 'step')}, {duration(cost.train_s * len(trials))} on "
        f"{_where(device)}; "
        f"sampling {duration(cost.sample_s * len(trials))}"
    )

    def left_s(trial: Sequence[TrainedRecipe]) -> float:
        unsampled = store.missing([grid.samples(model) for model in trial])
        train_s = cost.train_s if store.missing(trial) else 0.0
        return train_s + cost.sample_s * len(unsampled) / len(trial)

    return [left_s(trial) for trial in trials]


def _print_total(seconds: Sequence[float], operations: float, cpus: int, on_gpu: bool) -> None:
    total = sum(seconds)
    if on_gpu:
        print(f"total     {total / 3600:,.1f} GPU-hours at the measured throughput; {_NOT_COUNTED}")
        return
    wall = max([total / cpus, *seconds])
    print(
        f"total     {duration(total)} of CPU; about {duration(wall)} on {counted(cpus, 'CPU')} here; "
        f"{_NOT_COUNTED}"
    )
    if total > 24 * 3600 and operations:
        print(
            f"          no GPU here: {operations:.1e} floating-point operations to train and sample "
            f"networks, which are {operations / _GPU_RATE / 3600:,.0f} GPU-hours at "
            f"{_GPU_RATE / 1e12:.0f} TFLOP/s; --dry-run on a machine with a GPU measures its own rate"
        )


def _where(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "one CPU"


def _listing(values: Sequence[int]) -> str:
    return ", ".join(str(v) for v in values)


def _teacher(store: Store, grid: MemorizationGrid, device: str) -> tuple[list[float], Images]:
    """Seconds to make a teacher's samples, and images of their shape; nothing is kept."""
    assert isinstance(grid.experiment, NetworkExperiment)
    assert isinstance(grid.images, SamplesRecipe)
    aside = Store(f"memory://{uuid.uuid4().hex}")
    try:
        recipe = import_model(aside, str(grid.experiment.teacher))
        loaded = load_denoiser(aside, recipe, device=device)
    finally:
        aside.root.remove()
    channels, height, width = loaded.image_shape
    evaluations = grid.images.sampler.num_evaluations * grid.num_images
    batch = grid.experiment.seeds_per_unit if device == "cuda" else _CPU_BATCH
    x = torch.zeros(batch, *loaded.image_shape, device=device)
    seconds = _seconds_per_call(loaded.denoiser, x) / batch * evaluations
    done = not store.missing([grid.images])
    print(
        f"teacher   {recipe.label}, {counted(grid.num_images, 'image')} {width}x{height}x{channels}, "
        + ("complete" if done else f"{duration(seconds)} on {_where(device)}")
    )
    rng = np.random.default_rng(0)
    count = min(grid.num_images, 2 * _CPU_BATCH)
    images = rng.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    return ([] if done else [seconds]), images


def _measure(
    trial: Sequence[TrainedRecipe], images: Images, grid: MemorizationGrid, device: str
) -> Cost:
    """Time a few steps of a trial, and a few calls of its denoiser."""
    first = trial[0]
    with torch_threads(1):
        if isinstance(first, NetworkRecipe):
            return _measure_network(first, images, grid, device)
        assert isinstance(first, ModelRecipe)
        return _measure_ensemble(len(trial), first, images, grid)


def _measure_network(
    recipe: NetworkRecipe, images: Images, grid: MemorizationGrid, device: str
) -> Cost:
    batch = recipe.training.batch_size
    batch = batch if device == "cuda" else min(batch, _CPU_BATCH)
    trainer = NetworkTrainer(
        images[: grid.sizes[0]],
        recipe.network,
        replace(recipe.training, batch_size=batch),
        seed=0,
        device=device,
    )
    step_s = _timed(trainer.step, device)
    x = torch.zeros(batch, *to_float(images[:1]).shape[1:], device=device)
    denoiser = restore_denoiser(trainer.denoiser.config, trainer.averaged_state()).to(device)
    call_s, sigma = _seconds_per_call(denoiser, x), torch.tensor(1.0, device=device)
    trained, evaluated = recipe.training.duration_kimg * 1000, _evaluations(grid)
    operations = _operations(trainer.step) * trained
    operations += _operations(lambda: denoiser(x, sigma)) * evaluated
    return Cost(
        train_s=step_s / batch * trained,
        sample_s=call_s / batch * evaluated,
        num_weights=trainer.num_parameters,
        operations=operations / batch,
    )


def _operations(action: Callable[[], object]) -> int:
    """Floating-point operations of the convolutions and products of a call."""
    with FlopCounterMode(display=False) as counter:
        action()
    return counter.get_total_flops()


def _measure_ensemble(
    members: int, recipe: ModelRecipe, images: Images, grid: MemorizationGrid
) -> Cost:
    some = to_float(images[: grid.sizes[0]])
    trainer = EnsembleTrainer(
        [str(i) for i in range(members)],
        [some] * members,
        width=recipe.width,
        blocks=recipe.blocks,
        steps=recipe.steps,
        sigma_data=recipe.sigma_data,
        seed=0,
        config=recipe.training,
    )
    batch = 16
    x = some[:1].expand(members, batch, *some.shape[1:])
    call_s = _seconds_per_call(trainer.denoiser, x)
    return Cost(
        train_s=_timed(trainer.step, "cpu") * recipe.steps,
        sample_s=call_s / batch * _evaluations(grid),
        num_weights=sum(p.numel() for p in trainer.network.parameters()) // members,
    )


def _evaluations(grid: MemorizationGrid) -> int:
    """Denoiser calls per model, counted in images."""
    return grid.experiment.sampler.num_evaluations * grid.experiment.num_samples


def _closed_form_seconds(grid: MemorizationGrid, images: Images, device: str) -> float:
    """To sample the closed forms of every training set: two products with all its images each."""
    count = min(_TIMED_IMAGES, grid.sizes[-1])
    y = torch.zeros(count, *to_float(images[:1]).shape[1:], device=device)
    call_s = _seconds_per_call(EmpiricalDenoiser(y), y[:1].expand(16, -1, -1, -1)) / 16 / count
    trained_on = sum(n for n, _ in grid.closed_form("empirical"))
    return 2 * call_s * trained_on * _evaluations(grid)


def _seconds_per_call(denoiser: SampledDenoiser, x: torch.Tensor) -> float:
    def call() -> object:
        with torch.inference_mode():
            return denoiser(x, torch.tensor(1.0, device=x.device))

    return _timed(call, x.device.type)


def _timed(action: Callable[[], object], device: str) -> float:
    """Seconds of one call, after one that allocates."""
    action()
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(_TIMED_STEPS):
        action()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / _TIMED_STEPS


def _storage_bytes(grid: MemorizationGrid, images: Images, weights: int) -> float:
    """Weights, samples and features, uncompressed."""
    rows = len(grid.all_samples) * grid.experiment.num_samples + grid.num_images
    return weights * _BYTES_PER_WEIGHT + rows * images[0].size * (1 + 4)
