"""Network artifacts: U-Nets trained one by one, as EDM does (``regimes.training.network``).

The recipe holds what determines the weights. Where and how the work is done (device, microbatch,
workers, how often a checkpoint is written) changes them by rounding only, and is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.torch
import torch

from regimes.checkpoints.weights import denoiser_from_bytes, safetensors_bytes
from regimes.denoisers.unet.build import UNetDenoiser
from regimes.errors import BrokenArtifact, RegimesError
from regimes.later import LATER
from regimes.storage.artifacts import Artifact, FileEntry, Recipe, Store
from regimes.storage.filesystem import Location
from regimes.storage.images import Subset, read_labels, read_subset
from regimes.storage.pace import Pace
from regimes.storage.tables import read_rows
from regimes.training.architectures import NetworkConfig
from regimes.training.network import EDMTrainingConfig, NetworkTrainer
from regimes.training.workers import Alone, Workers, any_worker

WEIGHTS, CURVE = "weights.safetensors", "training.parquet"
_STATE = "state.safetensors"
CURVE_POINTS = 500
CHECKPOINTS = 20

Progress = Callable[[int, float], None]
T = TypeVar("T")


class StoppedElsewhere(RegimesError):
    """Another of the workers that train together could not go on; it says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRecipe(Recipe):
    """One trained network."""

    kind: ClassVar[str] = "network"
    code_version: ClassVar[int] = 2  # 2: half of all stretches are along an axis, as published

    train: Subset
    network: NetworkConfig
    training: EDMTrainingConfig
    seed: int
    condition_channels: int = field(default=0, metadata=LATER)
    """Channels of the images that the network sees and does not learn: the frames before."""

    def __post_init__(self) -> None:
        """Name every size of the network, so that two ways to ask for it give one artifact."""
        object.__setattr__(self, "network", self.network.resolved())

    @property
    def width(self) -> int:
        """Base channels."""
        assert self.network.width is not None  # resolved above
        return self.network.width

    @property
    def label(self) -> str:
        """Short name, such as w128-n64-A."""
        return f"w{self.width}-{self.train.label}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a network is trained; none of it changes the result by more than rounding."""

    device: str = "cpu"
    """Where to compute."""
    microbatch: int | None = None
    """Most images to compute at once; None takes a worker's whole share of a batch."""
    checkpoint_kimg: float | None = None
    """Thousands of images between checkpoints; None writes 20 during the run, and one after every minute or
    so (``regimes.storage.pace``)."""


def load_network(store: Store, recipe: NetworkRecipe, *, device: str = "cpu") -> UNetDenoiser:
    """The denoiser of a complete artifact, with averaged weights, in eval mode.

    Raises:
        BrokenArtifact: if its file is missing or altered.
    """
    artifact = store.artifact(recipe)
    data = artifact.read(WEIGHTS)
    return denoiser_from_bytes(data, artifact.location.child(WEIGHTS).uri).to(device)


def read_network_curve(
    store: Store, recipe: NetworkRecipe
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Training curve: steps (T,) and loss per pixel, averaged since the previous point (T,)."""
    table = pq.read_table(pa.BufferReader(store.artifact(recipe).read(CURVE)))
    return table["step"].to_numpy(), table["loss"].to_numpy()


def train_network(
    store: Store,
    recipe: NetworkRecipe,
    *,
    execution: Execution | None = None,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> None:
    """Train a network and write its artifact; one that is complete is left as it is.

    Checkpoints are written during the run. If one is found, training continues from it, and on one
    machine's CPU ends with the bytes of an uninterrupted run.

    Args:
        store: where training images are, and where the network goes.
        recipe: what to train.
        execution: how.
        workers: this process among those that train it together; each calls this function.
        progress: called in worker 0 with (step, loss) at every point of the curve.

    Raises:
        ConfigError: if the network does not fit the images.
        BrokenArtifact: if the images or the checkpoint are damaged.
        StorageFailure: if the store cannot be written to.
    """
    execution, workers = execution or Execution(), workers or Alone()
    checkpoint = network_checkpoint(store, recipe)
    if not store.missing([recipe]):
        if workers.rank == 0:
            checkpoint.remove()  # left by a kill between the manifest and the line that removes it
        return
    trainer = _agree(workers, lambda: make_trainer(store, recipe, execution, workers))
    curve = _agree(workers, lambda: _resume(trainer, checkpoint))
    _run(trainer, checkpoint, curve, progress, execution.checkpoint_kimg)
    _agree(workers, lambda: _first(workers, lambda: _finish(store, recipe, trainer, curve)))


def make_trainer(
    store: Store,
    recipe: NetworkRecipe,
    execution: Execution | None = None,
    workers: Workers | None = None,
) -> NetworkTrainer:
    """The trainer of a recipe before its first step."""
    execution = execution or Execution()
    labels, num_classes = None, None
    if recipe.network.conditional:
        labels = read_labels(store, recipe.train)
        # Of the whole source: a small subset may lack classes that a larger one has.
        everything = read_rows(store.artifact(recipe.train.images), "label")[1]
        num_classes = int(everything.max()) + 1
    return NetworkTrainer(
        read_subset(store, recipe.train)[1],
        recipe.network,
        recipe.training,
        seed=recipe.seed,
        labels=labels,
        num_classes=num_classes,
        condition_channels=recipe.condition_channels,
        device=execution.device,
        microbatch=execution.microbatch,
        workers=workers,
    )


def network_checkpoint(store: Store, recipe: NetworkRecipe) -> Location:
    """Where an unfinished network keeps its state."""
    return store.root.child(f"checkpoints/{recipe.address}")


def _agree(workers: Workers, action: Callable[[], T]) -> T:
    """Act in every worker; if one fails all stop, instead of waiting for it for ever."""
    failure: RegimesError | None = None
    try:
        result = action()
    except RegimesError as error:
        failure = error
    if any_worker(workers, failure is not None):
        raise failure or StoppedElsewhere("training stopped: another worker could not go on")
    return result


def _first(workers: Workers, action: Callable[[], None]) -> None:
    if workers.rank == 0:
        action()


def _resume(trainer: NetworkTrainer, checkpoint: Location) -> dict[int, float]:
    """Load the checkpoint, if there is one; returns the curve so far, loss by step."""
    try:
        state = safetensors.torch.load(checkpoint.read(_STATE))
    except FileNotFoundError:
        return {}
    except safetensors.SafetensorError as error:
        raise BrokenArtifact(
            f"{checkpoint.child(_STATE).uri}: not a readable checkpoint ({error}); delete it and run the "
            "same command again to train from the start"
        ) from error
    steps, losses = state.pop("curve.steps"), state.pop("curve.losses")
    trainer.load_state(state)
    return dict(zip(steps.tolist(), losses.tolist(), strict=True))


def _run(
    trainer: NetworkTrainer,
    checkpoint: Location,
    curve: dict[int, float],
    progress: Progress | None,
    checkpoint_kimg: float | None,
) -> None:
    workers, steps = trainer.workers, trainer.steps
    point = max(1, steps // CURVE_POINTS)
    period = steps / CHECKPOINTS
    if checkpoint_kimg is not None:
        period = checkpoint_kimg * 1000 / trainer.config.batch_size
    saved, pace, losses = trainer.step_count, Pace(), list[torch.Tensor]()
    while trainer.step_count < steps:
        losses.append(trainer.step())
        step = trainer.step_count
        if step % point and step < steps:
            continue
        curve[step] = float(torch.stack(losses).mean())
        losses = []
        if progress is not None and workers.rank == 0:
            progress(step, curve[step])
        if step == steps:
            break
        late = checkpoint_kimg is None and any_worker(workers, pace.is_due)
        if step - saved >= period or late:
            saved = step
            with pace.writing():
                _agree(workers, lambda: _first(workers, lambda: _save(trainer, checkpoint, curve)))


def _save(trainer: NetworkTrainer, checkpoint: Location, curve: dict[int, float]) -> None:
    state = trainer.state()
    state["curve.steps"] = torch.tensor(list(curve))
    state["curve.losses"] = torch.tensor(list(curve.values()))
    checkpoint.write(_STATE, safetensors.torch.save(state))


def _finish(
    store: Store, recipe: NetworkRecipe, trainer: NetworkTrainer, curve: dict[int, float]
) -> None:
    artifact = store.artifact(recipe)
    weights = safetensors_bytes((trainer.denoiser.config, trainer.averaged_state()))
    artifact.finish([artifact.write(WEIGHTS, weights), _write_curve(artifact, trainer, curve)])
    network_checkpoint(store, recipe).remove()


def _write_curve(artifact: Artifact, trainer: NetworkTrainer, curve: dict[int, float]) -> FileEntry:
    steps = np.array(list(curve), np.int64)
    losses = np.array(list(curve.values()), np.float32)
    kimg = steps * trainer.config.batch_size / 1000
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"step": steps, "kimg": kimg, "loss": losses}), sink)
    return artifact.write(CURVE, bytes(sink.getvalue()), num_rows=len(steps))
