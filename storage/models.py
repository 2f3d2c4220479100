"""Model artifacts: the cells of a training grid of small networks.

Cells of one shape are trained together as an ensemble (``regimes.training.ensemble``), but each is
an artifact of its own. The recipe lists the whole ensemble, because the batched products of another
ensemble could round differently.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.torch
import torch

from regimes.denoisers.preconditioning import EDM, Denoiser
from regimes.denoisers.residual_mlp import ResidualMLP
from regimes.errors import BrokenArtifact
from regimes.images.pixels import to_float
from regimes.storage.artifacts import Artifact, Recipe, Store, to_json
from regimes.storage.filesystem import Location
from regimes.storage.images import Subset, read_subset
from regimes.storage.pace import Pace
from regimes.training.ensemble import EnsembleTrainer, TrainingConfig

WEIGHTS, NETWORK, CURVE = "weights.safetensors", "network.json", "training.parquet"
_STATE = "state.safetensors"
CURVE_POINTS = 100
CHECKPOINTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecipe(Recipe):
    """One cell of the training grid."""

    kind: ClassVar[str] = "model"
    code_version: ClassVar[int] = 1

    train: Subset
    width: int
    blocks: int
    steps: int
    sigma_data: float
    training: TrainingConfig
    seed: int
    ensemble: tuple[str, ...]
    """Labels of all cells trained together, this one included."""

    @property
    def label(self) -> str:
        """Short name, such as w128-n16-A."""
        return f"w{self.width}-{self.train.label}"


Progress = Callable[[int, npt.NDArray[np.float32]], None]


def load_model(store: Store, recipe: ModelRecipe) -> tuple[Denoiser, tuple[int, int, int]]:
    """The denoiser of a complete artifact on the CPU, and the (C, H, W) of its samples.

    Raises:
        BrokenArtifact: if a file it needs is missing or altered.
    """
    artifact = store.artifact(recipe)
    channels, height, width = json.loads(artifact.read(NETWORK))["image_shape"]
    shape = (channels, height, width)
    network = ResidualMLP(shape, recipe.width, blocks=recipe.blocks)
    network.load_state_dict(safetensors.torch.load(artifact.read(WEIGHTS)))
    return Denoiser(network, EDM(sigma_data=recipe.sigma_data)), shape


def read_curve(
    store: Store, recipe: ModelRecipe
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Training curve of a cell: steps (T,) and mean loss since the previous one (T,)."""
    table = pq.read_table(pa.BufferReader(store.artifact(recipe).read(CURVE)))
    return table["step"].to_numpy(), table["loss"].to_numpy()


def train_ensemble(
    store: Store, recipes: Sequence[ModelRecipe], progress: Progress | None = None
) -> None:
    """Train the cells of one ensemble and write their artifacts.

    A checkpoint is written 20 times during the run, and after every minute or so. If one is found, training
    continues from it and ends with the same bytes as an uninterrupted run.

    Args:
        store: where training images are, and where models go.
        recipes: all cells of the ensemble; they differ in their training images only.
        progress: called with (step, losses (E,)) at every point of the curve.
    """
    checkpoint = checkpoint_location(store, recipes)
    if not store.missing(recipes):
        checkpoint.remove()  # left by a kill between the last model and the line that removes it
        return
    trainer = _trainer(store, recipes)
    curve = _resume(trainer, checkpoint)
    _run(trainer, checkpoint, curve, progress)
    for member, recipe in enumerate(recipes):
        _write_model(store.artifact(recipe), trainer, member, curve)
    checkpoint.remove()


def _trainer(store: Store, recipes: Sequence[ModelRecipe]) -> EnsembleTrainer:
    first = recipes[0]
    return EnsembleTrainer(
        [r.label for r in recipes],
        [to_float(read_subset(store, r.train)[1]) for r in recipes],
        width=first.width,
        blocks=first.blocks,
        steps=first.steps,
        sigma_data=first.sigma_data,
        seed=first.seed,
        config=first.training,
    )


def checkpoint_location(store: Store, recipes: Sequence[ModelRecipe]) -> Location:
    """Where an unfinished ensemble keeps its state."""
    digest = hashlib.sha256("".join(r.address for r in recipes).encode()).hexdigest()
    return store.root.child(f"checkpoints/{digest[:20]}")


def _resume(trainer: EnsembleTrainer, checkpoint: Location) -> dict[int, torch.Tensor]:
    """Load the checkpoint, if there is one; returns the curve so far, losses (E,) by step."""
    try:
        state = safetensors.torch.load(checkpoint.read(_STATE))
    except FileNotFoundError:
        return {}
    except safetensors.SafetensorError as error:
        raise BrokenArtifact(
            f"{checkpoint.child(_STATE).uri}: not a readable checkpoint ({error}); delete it and run the "
            "same command again to train from the start"
        ) from error
    curve = {
        int(s): v for s, v in zip(state.pop("curve.steps"), state.pop("curve.losses"), strict=True)
    }
    trainer.load_state(state)
    return curve


def _run(
    trainer: EnsembleTrainer,
    checkpoint: Location,
    curve: dict[int, torch.Tensor],
    progress: Progress | None,
) -> None:
    point = max(1, trainer.steps // CURVE_POINTS)
    save = point * max(1, CURVE_POINTS // CHECKPOINTS)
    losses, pace = list[torch.Tensor](), Pace()
    while trainer.step_count < trainer.steps:
        losses.append(trainer.step())
        step = trainer.step_count
        if step % point == 0 or step == trainer.steps:
            curve[step] = torch.stack(losses).mean(0)
            losses = []
            if progress is not None:
                progress(step, curve[step].numpy())
            if (step % save == 0 or pace.is_due) and step < trainer.steps:
                with pace.writing():
                    _save_state(trainer, checkpoint, curve)


def _save_state(
    trainer: EnsembleTrainer, checkpoint: Location, curve: dict[int, torch.Tensor]
) -> None:
    state = trainer.state()
    state["curve.steps"] = torch.tensor(list(curve))
    state["curve.losses"] = torch.stack(list(curve.values()))
    checkpoint.write(_STATE, safetensors.torch.save(state))


def _write_model(
    artifact: Artifact, trainer: EnsembleTrainer, member: int, curve: dict[int, torch.Tensor]
) -> None:
    if artifact.is_complete():
        return
    table = pa.table({"step": list(curve), "loss": [float(v[member]) for v in curve.values()]})
    table = table.cast(pa.schema([("step", pa.int64()), ("loss", pa.float32())]))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    shape = {"network": "residual-mlp", "image_shape": trainer.network.image_shape}
    artifact.finish(
        [
            artifact.write(WEIGHTS, safetensors.torch.save(trainer.member_weights(member))),
            artifact.write(NETWORK, to_json(shape).encode()),
            artifact.write(CURVE, bytes(sink.getvalue()), num_rows=len(table)),
        ]
    )
