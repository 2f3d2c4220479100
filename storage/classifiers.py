"""Classifier artifacts: one per arm and seed, with its weights, curve and test predictions.

The weights are those of the evaluation with the highest balanced accuracy on the validation images
(of equal ones, that of the lowest loss, then the first). The test images are classified once, by
these weights, when training is over.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from regimes.checkpoints.pickles import read_checkpoint
from regimes.checkpoints.tensors import StoredTensor
from regimes.classifiers.networks import build_classifier
from regimes.classifiers.scores import Predictions, balanced_accuracy
from regimes.classifiers.sets import Arm, Mixing, Part, arm_name, compose, num_listed
from regimes.classifiers.training import ClassifierTrainer, ClassifierTrainingConfig
from regimes.errors import BadCheckpoint, BrokenArtifact, NotFiniteSamples
from regimes.images.pixels import Images
from regimes.storage.artifacts import Recipe, Store
from regimes.storage.filesystem import Location
from regimes.storage.images import ImagesRecipe, read_images
from regimes.storage.tables import Ids, Values, decode_rows, encode_rows, read_rows

WEIGHTS, CURVE, PREDICTIONS = "weights.safetensors", "training.parquet", "predictions.parquet"
_STATE = "state.safetensors"
CHECKPOINT_S = 30.0
"""Least time between two checkpoints; it changes nothing but what a kill costs."""

CurvePoint = dict[str, float]
Progress = Callable[[int, CurvePoint], None]
COLUMNS = ("loss", "val_loss", "val_accuracy", "val_balanced_accuracy")


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainedRecipe(Recipe):
    """Weights that were trained elsewhere, such as ImageNet's."""

    kind: ClassVar[str] = "pretrained"
    code_version: ClassVar[int] = 1

    sha256: str
    """Of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierRecipe(Recipe):
    """One trained classifier."""

    kind: ClassVar[str] = "classifier"
    code_version: ClassVar[int] = 1

    arm: Arm
    sets: tuple[ImagesRecipe, ...]
    """The images of each part of the arm."""
    counts: tuple[int, ...]
    """Images of each class that are drawn from every part."""
    mixing: Mixing
    validation: ImagesRecipe
    test: ImagesRecipe
    network: str
    pretrained: PretrainedRecipe | None
    training: ClassifierTrainingConfig
    seed: int

    @property
    def label(self) -> str:
        """Short name, such as real+generated-seed0."""
        return f"{arm_name(self.arm)}-seed{self.seed}"

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.counts)

    @property
    def num_steps(self) -> int:
        """Length of training; the same for all arms."""
        return self.training.num_steps(num_listed(self.counts, self.mixing))


def identify_pretrained(path: str | Path) -> PretrainedRecipe:
    """The recipe of a file of weights.

    Raises:
        BadCheckpoint: if it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return PretrainedRecipe(sha256=hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise BadCheckpoint(f"--weights {path}: cannot be read ({error.strerror})") from error


def import_pretrained(store: Store, path: str | Path) -> PretrainedRecipe:
    """Bring a state dict into the store, as safetensors; nothing in the file is executed.

    Args:
        store: where it goes.
        path: a .safetensors file, or what ``torch.save`` made of a state dict, such as the .pth files
            of torchvision.

    Raises:
        BadCheckpoint: if it is damaged or holds something else.
    """
    recipe = identify_pretrained(path)
    if store.missing([recipe]):
        artifact, state = store.artifact(recipe), read_state_dict(path)
        artifact.finish([artifact.write(WEIGHTS, safetensors.torch.save(state))])
    return recipe


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a state dict in a file, see ``import_pretrained``."""
    if Path(path).suffix == ".safetensors":
        try:
            return dict(safetensors.torch.load_file(path))
        except (OSError, safetensors.SafetensorError) as error:
            raise BadCheckpoint(f"{path}: not a readable safetensors file ({error})") from error
    found, _ = read_checkpoint(path)
    if not isinstance(found, dict) or not all(isinstance(v, StoredTensor) for v in found.values()):
        raise BadCheckpoint(f"{path}: expected a state dict, names and tensors alone")
    return {str(name): value.read() for name, value in found.items()}


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The images of an arm in memory."""

    images: Images
    labels: npt.NDArray[np.int64]
    listed: npt.NDArray[np.int64]
    """(M,) positions; an image may be listed more than once."""


def read_training_set(store: Store, recipe: ClassifierRecipe) -> TrainingSet:
    """The images that an arm lists with a seed."""
    images = dict(zip(recipe.arm, recipe.sets, strict=True))
    labels: dict[Part, npt.NDArray[np.int64]] = {p: _labels(store, r) for p, r in images.items()}
    chosen = compose(labels, recipe.arm, recipe.counts, mixing=recipe.mixing, seed=recipe.seed)
    pixels, classes, listed, start = [], [], [], 0
    for part, positions in chosen.items():
        used, places = np.unique(positions, return_inverse=True)
        pixels.append(read_images(store, images[part])[1][used])
        classes.append(labels[part][used])
        listed.append(places + start)
        start += len(used)
    return TrainingSet(np.concatenate(pixels), np.concatenate(classes), np.concatenate(listed))


def _labels(store: Store, recipe: ImagesRecipe) -> npt.NDArray[np.int64]:
    return np.asarray(read_rows(store.artifact(recipe), "label")[1])


def read_labelled(store: Store, recipe: ImagesRecipe) -> tuple[Ids, Images, npt.NDArray[np.int64]]:
    """Ids (N,), images (N, H, W, C) uint8 and classes (N,) of an images artifact that has classes."""
    ids, images = read_images(store, recipe)
    return ids, images, _labels(store, recipe)


def read_predictions(store: Store, recipe: ClassifierRecipe) -> Predictions:
    """What a complete classifier says about the test images."""
    artifact = store.artifact(recipe)
    data, where = artifact.read(PREDICTIONS), artifact.location.child(PREDICTIONS).uri
    ids, labels = decode_rows(data, where, "label")
    return Predictions(
        ids=ids, labels=labels, probabilities=decode_rows(data, where, "probability")[1]
    )


def read_classifier_curve(store: Store, recipe: ClassifierRecipe) -> Mapping[str, npt.NDArray]:
    """Training curve: arrays (T,) ``step`` and those of ``COLUMNS``, by name."""
    table = pq.read_table(pa.BufferReader(store.artifact(recipe).read(CURVE)))
    return {name: table[name].to_numpy() for name in table.column_names}


def classifier_checkpoint(store: Store, recipe: ClassifierRecipe) -> Location:
    """Where an unfinished classifier keeps its state."""
    return store.root.child(f"checkpoints/{recipe.address}")


def train_classifier(
    store: Store,
    recipe: ClassifierRecipe,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    checkpoint_s: float = CHECKPOINT_S,
) -> None:
    """Train a classifier and write its artifact; one that is complete is left as it is.

    Checkpoints are written during the run. If one is found, training continues from it, and on a CPU
    ends with the bytes of an uninterrupted run.

    Args:
        store: where images are, and where the classifier goes.
        recipe: what to train.
        device: where to compute.
        progress: called with (step, point of the curve) after every evaluation.
        checkpoint_s: seconds between checkpoints.

    Raises:
        ConfigError: if the network does not fit the images.
        BadCheckpoint: if the pretrained weights are not of this network.
        BrokenArtifact: if images or checkpoint are damaged.
        StorageFailure: if the store cannot be written to.
    """
    checkpoint = classifier_checkpoint(store, recipe)
    if store.missing([recipe]):
        run = _Run(store, recipe, device)
        run.resume(checkpoint)
        run.train(checkpoint, progress, checkpoint_s)
        run.finish()
    checkpoint.remove()


class _Run:
    """A trainer, its curve, and the best weights so far."""

    def __init__(self, store: Store, recipe: ClassifierRecipe, device: str) -> None:
        self.store, self.recipe = store, recipe
        data = read_training_set(store, recipe)
        self.trainer = ClassifierTrainer(
            _network(store, recipe),
            data.images,
            data.labels,
            data.listed,
            recipe.training,
            seed=recipe.seed,
            device=device,
        )
        self.validation = read_labelled(store, recipe.validation)
        self.curve: list[list[float]] = []  # step, then COLUMNS
        self.best: dict[str, Tensor] = {}
        self.best_rank = (-1.0, 0.0)  # balanced accuracy, -loss: compared in this order

    def resume(self, checkpoint: Location) -> None:
        """Continue from the checkpoint, if there is one."""
        try:
            state = safetensors.torch.load(checkpoint.read(_STATE))
        except FileNotFoundError:
            return
        except safetensors.SafetensorError as error:
            raise BrokenArtifact(
                f"{checkpoint.child(_STATE).uri}: not a readable checkpoint ({error}); delete it and run "
                "the same command again to train from the start"
            ) from error
        self.curve = state.pop("curve").tolist()
        self.best_rank = tuple(state.pop("best_rank").tolist())
        self.best = {k[5:]: state.pop(k) for k in list(state) if k.startswith("best.")}
        self.trainer.load_state(state)

    def save(self, checkpoint: Location) -> None:
        """Write everything that ``resume`` needs."""
        state = self.trainer.state() | {f"best.{k}": v for k, v in self.best.items()}
        state["curve"] = torch.tensor(self.curve, dtype=torch.float64)
        state["best_rank"] = torch.tensor(self.best_rank, dtype=torch.float64)
        checkpoint.write(_STATE, safetensors.torch.save(state))

    def train(self, checkpoint: Location, progress: Progress | None, checkpoint_s: float) -> None:
        """Train to the end, evaluating and saving on the way."""
        trainer, saved = self.trainer, time.monotonic()
        for stop in trainer.config.evaluation_steps(len(trainer.listed)):
            losses = []
            while trainer.step_count < stop:
                losses.append(trainer.step())
            if not losses:
                continue  # before the checkpoint
            self.evaluate(float(torch.stack(losses).mean()))
            if progress is not None:
                progress(stop, dict(zip(COLUMNS, self.curve[-1][1:], strict=True)))
            if stop < trainer.steps and time.monotonic() - saved >= checkpoint_s:
                self.save(checkpoint)
                saved = time.monotonic()

    def evaluate(self, loss: float) -> None:
        """Classify the validation images; keep the weights if they are the best so far.

        Raises:
            NotFiniteSamples: if training has diverged.
        """
        ids, images, labels = self.validation
        p = Predictions(ids=ids, labels=labels, probabilities=self.trainer.probabilities(images))
        if not np.isfinite(p.probabilities).all():
            raise NotFiniteSamples(
                f"classifier {self.recipe.label}: training has diverged by step "
                f"{self.trainer.step_count}; choose a lower --training.learning-rate"
            )
        chosen = p.probabilities[np.arange(len(labels)), labels].astype(np.float64)
        val_loss = float(-np.log(np.maximum(chosen, 1e-12)).mean())
        score = balanced_accuracy(p)
        self.curve.append(
            [float(self.trainer.step_count), loss, val_loss, float(p.correct.mean()), score]
        )
        if (score, -val_loss) > self.best_rank:
            self.best_rank, self.best = (score, -val_loss), self.trainer.weights()

    def finish(self) -> None:
        """Classify the test images with the best weights, once, and write the artifact."""
        self.trainer.load_weights(self.best)
        ids, images, labels = read_labelled(self.store, self.recipe.test)
        columns: dict[str, Values] = {"label": labels}
        columns["probability"] = self.trainer.probabilities(images)
        artifact = self.store.artifact(self.recipe)
        artifact.finish(
            [
                artifact.write(WEIGHTS, safetensors.torch.save(self.best)),
                artifact.write(CURVE, _curve_bytes(self.curve), num_rows=len(self.curve)),
                artifact.write(PREDICTIONS, encode_rows(ids, columns), num_rows=len(ids)),
            ]
        )


def _network(store: Store, recipe: ClassifierRecipe) -> torch.nn.Module:
    start = None
    if recipe.pretrained is not None:
        start = safetensors.torch.load(store.artifact(recipe.pretrained).read(WEIGHTS))
    return build_classifier(recipe.network, recipe.num_classes, seed=recipe.seed, pretrained=start)


def _curve_bytes(curve: list[list[float]]) -> bytes:
    points = np.array(curve)
    columns = {"step": points[:, 0].astype(np.int64)}
    columns |= {name: points[:, 1 + i] for i, name in enumerate(COLUMNS)}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())
