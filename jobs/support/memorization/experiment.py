"""What a memorization study is asked: images, sizes and widths, and how models are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from regimes.errors import ConfigError
from regimes.samplers.edm import SamplerConfig
from regimes.training.architectures import NetworkConfig
from regimes.training.ensemble import TrainingConfig
from regimes.training.network import EDMTrainingConfig

LEAST_ITEMS = 4  # precision looks at the third nearest other item


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorizationExperiment:
    """What every study has in common."""

    source: str = "digits"
    """Images: "digits" (built in), a folder, .zip, .npy, .npz or .parquet, or CIFAR-10's archive
    (cifar-10-python.tar.gz)."""
    image_size: int | None = None
    """Crop the centre square of every image and resize it to this side, in pixels."""
    channels: Literal[1, 3] | None = None
    """Convert all images to gray (1) or colour (3); by default they must agree."""
    skip_bad_images: bool = False
    """Leave out images that cannot be decoded (and count them) instead of stopping."""
    sizes: tuple[int, ...] = (16, 64, 256, 850)
    """Training-set sizes n."""
    widths: tuple[int, ...] = (128, 256)
    """Width of each network: units per layer, or base channels."""
    parts: Literal[1, 2] = 2
    """2 trains on two disjoint halves of the images, which is what tells generalization; 1 on one set
    per size, and holds out what the largest leaves."""
    seed: int = 0
    """Seed of the split, the initial weights and the training noise."""
    num_samples: int = 1000
    """Samples per model; all models get the same noise."""
    first_seed: int = 0
    """Seed of the first sample."""
    seeds_per_unit: int = 500
    """Seeds per work unit; also the batch size of sampling."""
    ridge: float = 0.5
    """Regularisation of whitened-pixels, in units of the mean eigenvalue."""
    centre: bool = False
    """Subtract the mean feature of the largest training set from those of a network; class scores and
    pooled activations need it to tell images apart."""
    calibration_quantile: float = 0.95
    """Fraction of real held-out images that must not count as copies."""
    published_threshold: float = 0.6
    """Fixed similarity at which scores are reported too, as in the papers."""
    count_flips: bool | None = None
    """Whether the flip of a training image is a copy; by default where models are trained on flips.
    Scores that do not count them are reported too."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        for name in ("sizes", "widths"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise ConfigError(f"--{name}: expected positive numbers, got {values}")
        if len(set(self.sizes)) < len(self.sizes) or len(set(self.widths)) < len(self.widths):
            raise ConfigError("--sizes, --widths: expected distinct numbers")
        if min(self.sizes) < 2:
            raise ConfigError("--sizes: expected at least 2 images (the ratio test needs two)")
        check_least(self, {"num_samples": LEAST_ITEMS, "seeds_per_unit": 1})
        if not 0 < self.calibration_quantile < 1:
            raise ConfigError("--calibration-quantile: expected a number inside (0, 1)")

    @property
    def trains_on_flips(self) -> bool:
        """Whether models see mirrored images too."""
        return False

    @property
    def flips_are_copies(self) -> bool:
        """Whether the flip of a training image counts as one."""
        return self.trains_on_flips if self.count_flips is None else self.count_flips

    @property
    def origin(self) -> str:
        """Where the images come from, for titles and names."""
        return self.source


@dataclass(frozen=True, slots=True, kw_only=True)
class MLPExperiment(MemorizationExperiment):
    """Small residual multilayer perceptrons, the cells of a width trained as one ensemble."""

    steps: tuple[int, ...] = (6000, 2000)
    """Training steps, one number per width."""
    blocks: int = 4
    """Residual blocks."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sampler: SamplerConfig = field(
        default_factory=lambda: SamplerConfig(sigma_min=0.02, sigma_max=20.0)
    )

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        MemorizationExperiment.__post_init__(self)  # super() does not work in a class with slots
        if not self.steps or min(self.steps) < 1:
            raise ConfigError(f"--steps: expected positive numbers, got {self.steps}")
        if len(self.steps) != len(self.widths):
            raise ConfigError(
                f"--steps: expected one number per width, got {len(self.steps)} for --widths "
                f"{' '.join(map(str, self.widths))}; pass --steps with {len(self.widths)}"
            )
        check_least(self, {"blocks": 1})


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkExperiment(MemorizationExperiment):
    """U-Nets trained one by one, as the papers do."""

    source: str = "cifar-10-python.tar.gz"
    """Images: CIFAR-10's archive, a folder, .zip, .npy, .npz or .parquet."""
    teacher: str | None = None
    """A model whose samples are the images, in place of --source; as --model of the generate job."""
    teacher_seeds: str = "0-49999"
    """Seeds of the teacher's samples; the training set of size n are the first n."""
    teacher_sampler: SamplerConfig = field(default_factory=SamplerConfig)
    sizes: tuple[int, ...] = tuple(2**k for k in range(6, 16))
    widths: tuple[int, ...] = (64, 128, 256)
    parts: Literal[1, 2] = 1
    num_samples: int = 10_000
    first_seed: int = 100_000
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(precond="vp"))
    training: EDMTrainingConfig = field(
        default_factory=lambda: EDMTrainingConfig(batch_size=128, duration_kimg=50_000)
    )

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        MemorizationExperiment.__post_init__(self)
        if self.network.width is not None:
            raise ConfigError("--network.width: a study has --widths, one or more")
        if self.network.conditional:
            raise ConfigError("--network.conditional: the study compares unconditional models")

    @property
    def trains_on_flips(self) -> bool:
        """Whether models see mirrored images too."""
        return self.training.augment > 0 and self.training.xflip

    @property
    def origin(self) -> str:
        """Where the images come from, for titles and names."""
        return self.source if self.teacher is None else self.teacher


def check_least(experiment: object, least: dict[str, int]) -> None:
    """Raise ``ConfigError`` for a field below its least value."""
    for name, lowest in least.items():
        value = getattr(experiment, name)
        if value < lowest:
            raise ConfigError(
                f"--{name.replace('_', '-')}: expected at least {lowest}, got {value}"
            )
