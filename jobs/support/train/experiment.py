"""What a training run makes, and what it would cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Annotated, Any, ClassVar, Literal

import torch
import tyro
from tensorboardX import summary

from regimes import __version__
from regimes.errors import ConfigError
from regimes.images.pixels import Images
from regimes.images.sources import open_source
from regimes.images.split import Split
from regimes.images.writing import encode_png
from regimes.jobs.support.console import duration
from regimes.jobs.support.tensorboard import Events, tile
from regimes.samplers.edm import SamplerConfig
from regimes.storage.artifacts import Recipe, Store, to_json
from regimes.storage.images import Decoded, ImagesRecipe, Subset, decode_source, read_images
from regimes.storage.networks import (
    CURVE,
    WEIGHTS,
    NetworkRecipe,
    read_network_curve,
)
from regimes.storage.samples import SamplesRecipe
from regimes.storage.seeds import Seeds
from regimes.training.architectures import NetworkConfig
from regimes.training.network import EDMTrainingConfig, NetworkTrainer
from regimes.words import counted

FLAT = tyro.conf.arg(name="")
NUM_SAMPLES, SAMPLES_PER_UNIT = 64, 16
_TIMED_STEPS, _CPU_BATCH = 2, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainExperiment:
    """What determines the network."""

    source: str = ""
    """Images: CIFAR-10's archive, a folder, .zip, .npy, .npz or .parquet, or the word digits."""
    max_images: int | None = None
    """Train on the first images of the source only."""
    image_size: int | None = None
    """Crop the centre square of every image and resize it to this side, in pixels."""
    channels: Literal[1, 3] | None = None
    """Convert all images to gray (1) or colour (3); by default they must agree."""
    skip_bad_images: bool = False
    """Leave out images that cannot be decoded (and count them) instead of stopping."""
    seed: int = 0
    """Seed of the initial weights, the order of the images, noise and augmentation."""
    network: Annotated[NetworkConfig, FLAT] = field(default_factory=NetworkConfig)
    training: Annotated[EDMTrainingConfig, FLAT] = field(default_factory=EDMTrainingConfig)

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        if self.max_images is not None and self.max_images < 1:
            raise ConfigError(f"--max-images: expected at least 1, got {self.max_images}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecipe(Recipe):
    """What determines the result folder of a training run."""

    kind: ClassVar[str] = "train"
    code_version: ClassVar[int] = 1

    network: NetworkRecipe
    samples: SamplesRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A training run before anything is made."""

    experiment: TrainExperiment
    decoded: Decoded
    images: ImagesRecipe
    recipe: RunRecipe

    @property
    def train_images(self) -> Images:
        """(n, H, W, C) uint8, what the network is trained on."""
        return self.decoded.images[: self.recipe.network.train.size]

    @property
    def num_classes(self) -> int:
        """Classes of the source; 0 if it knows none."""
        return 0 if self.decoded.labels is None else int(self.decoded.labels.max()) + 1

    def trainer(self, training: EDMTrainingConfig, device: str) -> NetworkTrainer:
        """A trainer of this run's network, without a store."""
        size, labels = self.recipe.network.train.size, self.decoded.labels
        return NetworkTrainer(
            self.train_images,
            self.experiment.network,
            training,
            seed=self.experiment.seed,
            labels=None if labels is None else labels[:size],
            num_classes=self.num_classes,
            device=device,
        )


def make_plan(experiment: TrainExperiment) -> Plan:
    """Read the source, and say what is to be made of it.

    Raises:
        ConfigError: if no network can be trained on these images as asked.
    """
    if not experiment.source:
        raise ConfigError("--source: expected images; CIFAR-10's archive, say, or the word digits")
    source = open_source(experiment.source)
    images = ImagesRecipe(
        fingerprint=source.fingerprint,
        image_size=experiment.image_size,
        channels=experiment.channels,
        skip_bad=experiment.skip_bad_images,
    )
    decoded = decode_source(source, images)
    _, height, width, _ = decoded.images.shape
    if height != width:
        raise ConfigError(
            f"--source: expected square images, found {width}x{height}; pass --image-size to crop"
        )
    if experiment.network.conditional and decoded.labels is None:
        raise ConfigError(
            f"--conditional: {decoded.label_problem or 'the source does not say the class of an image'}"
        )
    network = _network_recipe(experiment, images, len(decoded.images))
    return Plan(
        experiment=experiment,
        decoded=decoded,
        images=images,
        recipe=RunRecipe(network=network, samples=_samples_recipe(network)),
    )


def _network_recipe(
    experiment: TrainExperiment, images: ImagesRecipe, num_images: int
) -> NetworkRecipe:
    size = experiment.max_images or num_images
    if size > num_images:
        raise ConfigError(f"--max-images: expected at most {num_images}, all there are, got {size}")
    split = Split(num_images=num_images, seed=None, parts=1)
    return NetworkRecipe(
        train=Subset(images=images, split=split, half="A", size=size),
        network=experiment.network,
        training=experiment.training,
        seed=experiment.seed,
    )


def _samples_recipe(network: NetworkRecipe) -> SamplesRecipe:
    return SamplesRecipe(
        denoiser=network,
        sampler=SamplerConfig(),
        seeds=Seeds.first(NUM_SAMPLES),
        seeds_per_unit=SAMPLES_PER_UNIT,
    )


def print_plan(plan: Plan, device: str, workers: int) -> None:
    """Print what would be done and what it would cost, from a few timed steps on this machine."""
    training, recipe = plan.experiment.training, plan.recipe.network
    timed = replace(training, batch_size=min(training.batch_size, _CPU_BATCH))
    trainer = plan.trainer(training if device == "cuda" else timed, device)
    seconds = _seconds_per_image(trainer) * training.batch_size * training.steps
    images, parameters = plan.train_images, trainer.num_parameters
    each = f"{images.shape[2]}x{images.shape[1]}x{images.shape[3]}"
    network = recipe.network
    print(f"images    {len(images)} of {plan.experiment.source}, {each}")
    print(f"network   {network.arch}, {network.precond}, {parameters:,} parameters")
    print(
        f"train     {counted(training.steps, 'step')} of {training.batch_size} images, "
        f"{training.steps * training.batch_size / len(images):.0f} passes over the images"
    )
    there = f"{workers} x {device}" if workers > 1 else f"this machine's {device}"
    print(
        f"time      about {duration(seconds / workers)} on {there}, from {counted(_TIMED_STEPS, 'step')}; "
        "samples and results not counted"
    )
    needed = 8 * parameters + images.nbytes
    print(f"storage   {needed / 1e6:.0f} MB, and {16 * parameters / 1e6:.0f} MB while it trains")


def _seconds_per_image(trainer: NetworkTrainer) -> float:
    trainer.step()  # the first one allocates
    float(trainer.step())
    started = time.perf_counter()
    for _ in range(_TIMED_STEPS):
        loss = trainer.step()
    float(loss)  # waits for the device
    elapsed = time.perf_counter() - started
    return elapsed / _TIMED_STEPS / trainer.config.batch_size


def result_files(store: Store, plan: Plan) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files of a complete run."""
    network = store.artifact(plan.recipe.network)
    _, images = read_images(store, plan.recipe.samples)
    sheet = tile(images)
    yield "model.safetensors", network.read(WEIGHTS)
    yield CURVE, network.read(CURVE)
    yield "samples.png", encode_png(sheet)
    yield "config.json", _config(plan).encode()
    events = Events(plan.recipe.network.label)
    for step, loss in zip(*read_network_curve(store, plan.recipe.network), strict=True):
        events.add(summary.scalar("train/loss", float(loss)), int(step))
    events.add(summary.image("samples", sheet, dataformats="HWC"))
    yield events.name, events.data


def _config(plan: Plan) -> str:
    about: dict[str, Any] = {
        "recipe": plan.recipe,
        "source": plan.experiment.source,
        "regimes": __version__,
        "packages": {name: version(name) for name in ("torch", "numpy")},
    }
    return to_json(about)


def default_device() -> str:
    """The GPU, if this process sees one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
