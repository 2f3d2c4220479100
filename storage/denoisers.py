"""Denoisers by recipe: trained here, read from a checkpoint, or known in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from regimes.denoisers.closed_form import EmpiricalDenoiser, WienerDenoiser
from regimes.denoisers.compute import Compute, prepare
from regimes.denoisers.spread import place
from regimes.errors import ConfigError
from regimes.images.pixels import to_float
from regimes.samplers.edm import SampledDenoiser
from regimes.storage.artifacts import Recipe, Store
from regimes.storage.checkpoints import CheckpointRecipe, load_checkpoint
from regimes.storage.filesystem import Location
from regimes.storage.images import Subset, read_subset
from regimes.storage.models import (
    ModelRecipe,
    checkpoint_location,
    load_model,
    read_curve,
    train_ensemble,
)
from regimes.storage.networks import (
    Execution,
    NetworkRecipe,
    load_network,
    network_checkpoint,
    read_network_curve,
    train_network,
)

SPREAD = "--gpus-per-replica: spreads networks over GPUs, and {} is none; leave it out"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedFormRecipe(Recipe):
    """A denoiser that is computed from its training images; it has no artifact of its own."""

    kind: ClassVar[str] = "closed-form"
    code_version: ClassVar[int] = 1

    form: Literal["empirical", "wiener"]
    train: Subset

    @property
    def label(self) -> str:
        """Short name, such as empirical-n16-A."""
        return f"{self.form}-{self.train.label}"


TrainedRecipe = ModelRecipe | NetworkRecipe
DenoiserRecipe = TrainedRecipe | CheckpointRecipe | ClosedFormRecipe


@dataclass(frozen=True, slots=True)
class Loaded:
    """A denoiser ready to sample."""

    denoiser: SampledDenoiser
    image_shape: tuple[int, int, int]
    """(C, H, W) of its samples."""
    num_classes: int = 0
    """0 for an unconditional one."""
    condition_channels: int = 0
    """Channels of the frames that it sees; see ``ContinuedFrames``."""


def load_denoiser(
    store: Store,
    recipe: DenoiserRecipe,
    *,
    device: str = "cpu",
    compute: Compute | None = None,
    continues: bool = False,
    others: Sequence[str] = (),
) -> Loaded:
    """The denoiser of a recipe on a device.

    Args:
        store: where the artifacts are.
        recipe: which one.
        device: where it computes.
        compute: arithmetic of its network.
        continues: whether the caller has frames for a network that continues clips.
        others: more devices that the network is spread over (``regimes.denoisers.spread``).

    Raises:
        BrokenArtifact: if a file it needs is missing or altered.
        ConfigError: if another arithmetic is asked of a closed form, which is float64, or several devices;
            if a network that continues clips has no frames to continue, or has too few modules.
    """
    compute = compute or Compute()
    if isinstance(recipe, ClosedFormRecipe):
        if compute != Compute():
            raise ConfigError(
                f"{recipe.label}: closed forms compute in float64; leave precision be"
            )
        if others:
            raise ConfigError(SPREAD.format(recipe.label))
        y = to_float(read_subset(store, recipe.train)[1]).to(device)
        form = EmpiricalDenoiser if recipe.form == "empirical" else WienerDenoiser
        return Loaded(form(y), (y.shape[1], y.shape[2], y.shape[3]))
    network, image_shape, num_classes = _load_network(store, recipe)
    seen = int(getattr(network, "condition_channels", 0))
    if seen and not continues:
        raise ConfigError(
            f"model: continues clips, of which it has to see {seen} frames; expected one that makes images "
            "from noise alone. The guidance job samples it (--preset circle)"
        )
    network = place(network.eval().requires_grad_(False), device, others)
    return Loaded(prepare(network, compute), image_shape, num_classes, seen)


def read_training_curve(
    store: Store, recipe: TrainedRecipe
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Training curve of a model: steps (T,) and mean loss since the previous one (T,)."""
    if isinstance(recipe, ModelRecipe):
        return read_curve(store, recipe)
    return read_network_curve(store, recipe)


def num_steps(recipe: TrainedRecipe) -> int:
    """Length of the training of a model."""
    return recipe.steps if isinstance(recipe, ModelRecipe) else recipe.training.steps


def checkpoint_of(store: Store, trial: Sequence[TrainedRecipe]) -> Location:
    """Where a trial that is not finished keeps its state."""
    first = trial[0]
    if isinstance(first, NetworkRecipe):
        return network_checkpoint(store, first)
    return checkpoint_location(store, [r for r in trial if isinstance(r, ModelRecipe)])


def train(
    store: Store,
    trial: Sequence[TrainedRecipe],
    *,
    device: str = "cpu",
    progress: Callable[[int, dict[str, float]], None],
) -> None:
    """Train what belongs together: the cells of an ensemble (on a CPU), or one network.

    Args:
        store: where training images are, and where models go.
        trial: the recipes.
        device: where a network is trained.
        progress: called with (step, loss by label) at every point of the curve.
    """
    first = trial[0]
    if isinstance(first, NetworkRecipe):
        label = first.label
        execution = Execution(device=device)
        train_network(
            store, first, execution=execution, progress=lambda s, x: progress(s, {label: x})
        )
        return
    members = [r for r in trial if isinstance(r, ModelRecipe)]

    def on_step(step: int, losses: npt.NDArray[np.float32]) -> None:
        progress(step, {r.label: float(x) for r, x in zip(members, losses, strict=True)})

    train_ensemble(store, members, on_step)


def _load_network(
    store: Store, recipe: TrainedRecipe | CheckpointRecipe
) -> tuple[Any, tuple[int, int, int], int]:
    if isinstance(recipe, ModelRecipe):
        return *load_model(store, recipe), 0
    if isinstance(recipe, CheckpointRecipe):
        return load_checkpoint(store, recipe)
    network = load_network(store, recipe)
    return network, network.image_shape, network.label_dim
