"""What an experiment with classifiers is made of: its options, its presets, its command line."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from regimes.classifiers.networks import check_network_name
from regimes.classifiers.sets import Mixing
from regimes.classifiers.training import ClassifierTrainingConfig
from regimes.errors import ConfigError
from regimes.jobs.support import console


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierExperiment:
    """What is trained, on what, and how it is judged."""

    real: str | None = None
    """A folder with {train,val,test}/{CLASS} (val may be missing), CIFAR-10's archive, the word
    digits, or any other images with classes, of which a part is then held out for testing."""
    generated: str | None = None
    """Generated images with the same classes: a folder with {CLASS} folders (or with {train,val,test},
    of which train is taken), .zip, .npz or .parquet with labels. Or empirical (samples of the perfect
    memorizer of each class: copies) or wiener (of a Gaussian with each class's mean and covariance),
    made here from the training images."""
    diverse: str | None = None
    """More generated images of the same classes, such as those that a diversity audit kept."""
    image_size: int | None = 224
    """Crop the centre square of every image and resize it to this side, in pixels."""
    channels: Literal[1, 3] | None = None
    """Convert all images to gray (1) or colour (3); the networks see gray as three equal channels."""
    skip_bad_images: bool = False
    """Leave out images that cannot be decoded (and count them) instead of stopping."""
    per_class: int | None = None
    """Images of each class to draw from every set; as many as the smallest set has if not given."""
    mixed: Mixing = "added"
    """How sets of one and of two parts get one size. added: n + n images, and n listed twice where
    there is one part; replaced: n / 2 + n / 2 images, and n where there is one part."""
    repeat: bool = False
    """List images of a set more than once if it has fewer than --per-class, instead of stopping."""
    validation_per_class: int = 50
    """Least number of validation images of each class. If val has fewer, its images join those of
    train, of which so many (or --validation-fraction, if that is more) are held out."""
    validation_fraction: float = 0.1
    """Share of the training images to hold out for validation, where val has too few."""
    test_fraction: float = 0.2
    """Share of the images to hold out for testing, where --real has no test images of its own."""
    group: str | None = None
    """Regular expression; images in whose names it finds the same text (a patient) are held out
    together."""
    split_seed: int = 0
    """Seed of what is held out; the same for all classifiers."""
    network: str = "resnet50"
    """Any classifier of torchvision, by its name there."""
    weights: str | None = None
    """File to start from (.pth of torchvision, .safetensors), such as ImageNet's; its last layer is
    left out."""
    num_seeds: int = 5
    """Classifiers per arm."""
    first_seed: int = 0
    """Seed of the first one; it determines initial weights, order, and the images drawn."""
    training: ClassifierTrainingConfig = field(default_factory=ClassifierTrainingConfig)

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        least = {"image_size": 1, "per_class": 1, "validation_per_class": 2, "num_seeds": 1}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag}: expected at least {lowest}, got {value}")
        for name in ("validation_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(
                    f"--{name.replace('_', '-')}: expected a share inside (0, 1), got "
                    f"{getattr(self, name)}"
                )
        if self.repeat and self.per_class is None:
            raise ConfigError("--repeat: pass --per-class, or leave it out; nothing would repeat")
        if self.mixed == "replaced" and self.per_class is not None and self.per_class < 2:
            raise ConfigError("--per-class: expected at least 2 to be replaced in part, got 1")
        if self.group is not None:
            _check_pattern(self.group)
        if self.diverse is not None and self.generated is None:
            raise ConfigError("--diverse: pass --generated too; the two are compared")

    def require(self) -> None:
        """Raise ``ConfigError`` if it cannot be run yet, or the network is unknown."""
        for name in ("real", "generated"):
            if getattr(self, name) is None:
                raise ConfigError(f"--{name}: expected images, got none; see --help")
        check_network_name(self.network)

    @property
    def seeds(self) -> range:
        """Seeds of the classifiers of each arm."""
        return range(self.first_seed, self.first_seed + self.num_seeds)


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--group {pattern}: not a regular expression ({error})") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierOptions:
    """Where results go, and how the job runs; nothing here changes results by more than rounding."""

    output: str = field(default_factory=console.default_output)
    """Folder or URI (s3://..., gs://...) for artifacts and results; $REGIMES_OUTPUT if it is set."""
    name: str | None = None
    """Name of the result folder; made from the real images and the configuration if not given."""
    resume: bool = True
    """Keep what is complete; --no-resume deletes this run's artifacts first."""
    dry_run: bool = False
    """Print what would be done and what it would cost, and stop."""
    cpus: int | None = None
    """CPUs of the local Ray, one classifier on each; all by default. Ignored on a cluster."""
    replicas: int | None = None
    """Classifiers trained at once; as many as CPUs or GPUs hold by default. On a cluster, it bounds the nodes
    that are asked for."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where classifiers are trained: auto takes the GPUs that are there, gpu makes a cluster start
    some."""
    gpus_per_trial: float = 1.0
    """Share of a GPU per classifier."""

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        console.check_name(self.name)
        console.check_output(self.output)
        for name in ("cpus", "replicas"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name}: expected at least 1, got {value}")
        if not 0 < self.gpus_per_trial <= 1:
            raise ConfigError(
                f"--gpus-per-trial: expected a share in (0, 1], got {self.gpus_per_trial}"
            )


_DIGITS = ClassifierExperiment(
    real="digits",
    generated="empirical",
    diverse="wiener",
    image_size=32,
    validation_per_class=30,
    test_fraction=0.7,
    network="shufflenet_v2_x0_5",
    num_seeds=4,
    training=ClassifierTrainingConfig(
        learning_rate=0.01, schedule="cosine", batch_size=32, epochs=6, evaluations=5
    ),
)
PRESETS: dict[str, ClassifierExperiment] = {
    "digits": _DIGITS,
    "images": ClassifierExperiment(),
    "chest-xray": ClassifierExperiment(
        real="images",
        generated="gen_images",
        diverse="ds_images",
        channels=1,
        group=r"person\d+|IM-\d+",
    ),
    "smoke": ClassifierExperiment(
        real="digits",
        generated="empirical",
        diverse="wiener",
        image_size=32,
        per_class=4,
        validation_per_class=4,
        test_fraction=0.1,
        network="shufflenet_v2_x0_5",
        num_seeds=2,
        training=ClassifierTrainingConfig(
            learning_rate=0.01, batch_size=16, epochs=1, evaluations=2
        ),
    ),
}


def read_command(
    argv: Sequence[str] | None, about: str
) -> tuple[str, ClassifierExperiment, ClassifierOptions]:
    """Name of the preset, experiment, options; with ``--real`` the preset is images, not digits.

    Raises:
        ConfigError: if the preset is unknown or a value cannot be used.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    own = any(a.split("=")[0] == "--real" for a in arguments)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="images" if own else "digits")
    chosen, rest = first.parse_known_args(arguments)
    if chosen.preset not in PRESETS:
        raise ConfigError(
            f"--preset {chosen.preset}: no such preset; choose one of {', '.join(PRESETS)}"
        )
    experiment, options = console.read_options(
        rest,
        [PRESETS[chosen.preset], ClassifierOptions()],
        job="classifier",
        about=f"{about}\n\n--preset NAME: {', '.join(PRESETS)} (default digits; images with --real)",
    )
    return chosen.preset, experiment, options
