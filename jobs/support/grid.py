"""The memorization grid as recipes: every artifact that the study needs, before any is made."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from regimes.errors import ConfigError
from regimes.images.split import HALVES, Half, Split
from regimes.samplers.edm import SamplerConfig
from regimes.storage.artifacts import Recipe
from regimes.storage.features import DescriptorRecipe, FeaturesRecipe
from regimes.storage.images import ImagesRecipe, Subset
from regimes.storage.models import ClosedFormRecipe, DenoiserRecipe, ModelRecipe
from regimes.storage.samples import SamplesRecipe
from regimes.studies.memorization import Cell, ClosedCell
from regimes.training.ensemble import TrainingConfig

LEAST_ITEMS = 4  # precision looks at the third nearest other item


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorizationExperiment:
    """What determines the results of the memorization study."""

    source: str = "digits"
    """Images: "digits" (built in), a folder, .zip, .npy, .npz or .parquet."""
    image_size: int | None = None
    """Crop the centre square of every image and resize it to this side, in pixels."""
    channels: Literal[1, 3] | None = None
    """Convert all images to gray (1) or colour (3); by default they must agree."""
    skip_bad_images: bool = False
    """Leave out images that cannot be decoded (and count them) instead of stopping."""
    sizes: tuple[int, ...] = (16, 64, 256, 850)
    """Training-set sizes n; each is trained on two disjoint halves of the source."""
    widths: tuple[int, ...] = (128, 256)
    """Units per layer of the residual MLP."""
    steps: tuple[int, ...] = (6000, 2000)
    """Training steps, one number per width."""
    blocks: int = 4
    """Residual blocks."""
    seed: int = 0
    """Seed of the split, the initial weights and the training noise."""
    num_samples: int = 1000
    """Samples per model; all models get the same noise."""
    first_seed: int = 0
    """Seed of the first sample."""
    seeds_per_unit: int = 500
    """Seeds per work unit; also the batch size of sampling."""
    descriptor: Literal["whitened-pixels", "pixels"] = "whitened-pixels"
    """How images are compared."""
    ridge: float = 0.5
    """Regularisation of the whitening, in units of the mean eigenvalue."""
    calibration_quantile: float = 0.95
    """Fraction of real held-out images that must not count as copies."""
    published_threshold: float = 0.6
    """Fixed similarity at which scores are reported too, as in the papers."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sampler: SamplerConfig = field(
        default_factory=lambda: SamplerConfig(sigma_min=0.02, sigma_max=20.0)
    )

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        for name in ("sizes", "widths", "steps"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise ConfigError(f"--{name}: expected positive numbers, got {values}")
        if len(set(self.sizes)) < len(self.sizes) or len(set(self.widths)) < len(self.widths):
            raise ConfigError("--sizes, --widths: expected distinct numbers")
        if min(self.sizes) < 2:
            raise ConfigError("--sizes: expected at least 2 images (the ratio test needs two)")
        if len(self.steps) != len(self.widths):
            raise ConfigError(
                f"--steps: expected one number per width, got {len(self.steps)} for --widths "
                f"{' '.join(map(str, self.widths))}; pass --steps with {len(self.widths)}"
            )
        for name, least in (("num_samples", LEAST_ITEMS), ("seeds_per_unit", 1), ("blocks", 1)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"--{name.replace('_', '-')}: expected at least {least}, "
                    f"got {getattr(self, name)}"
                )
        if not 0 < self.calibration_quantile < 1:
            raise ConfigError("--calibration-quantile: expected a number inside (0, 1)")


@dataclass(frozen=True, kw_only=True)
class MemorizationGrid:
    """All recipes of one study.

    Args:
        experiment: what to study.
        images: recipe of the decoded source.
        num_images: how many it holds.
        sigma_data: standard deviation of its pixels in [-1, 1].
        left_out: messages of the images that could not be decoded.

    Raises:
        ConfigError: if a size is larger than half of the source, or the images cannot be compared.
    """

    experiment: MemorizationExperiment
    images: ImagesRecipe
    num_images: int
    sigma_data: float
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Fail before anything is computed."""
        if self.num_images < 2 * LEAST_ITEMS:
            raise ConfigError(
                f"--source: expected at least {2 * LEAST_ITEMS} images, got {self.num_images}"
            )
        if self.sigma_data == 0:
            raise ConfigError("--source: all images are one plain colour; nothing can be learned")
        for size in self.experiment.sizes:
            self.split.subset("A", size)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Training-set sizes, ascending."""
        return tuple(sorted(self.experiment.sizes))

    @cached_property
    def split(self) -> Split:
        """The two halves."""
        return Split(num_images=self.num_images, seed=self.experiment.seed)

    def subset(self, half: Half, size: int) -> Subset:
        """A training set."""
        return Subset(images=self.images, split=self.split, half=half, size=size)

    @cached_property
    def ensembles(self) -> list[list[ModelRecipe]]:
        """The cells of each width, trained together."""
        e = self.experiment
        cells = list(itertools.product(self.sizes, HALVES))
        return [
            [self._model(width, steps, n, half, cells) for n, half in cells]
            for width, steps in zip(e.widths, e.steps, strict=True)
        ]

    def _model(
        self, width: int, steps: int, n: int, half: Half, cells: list[tuple[int, Half]]
    ) -> ModelRecipe:
        e = self.experiment
        return ModelRecipe(
            train=self.subset(half, n),
            width=width,
            blocks=e.blocks,
            steps=steps,
            sigma_data=self.sigma_data,
            training=e.training,
            seed=e.seed,
            ensemble=tuple(f"w{width}-{self.subset(h, m).label}" for m, h in cells),
        )

    @cached_property
    def models(self) -> dict[Cell, ModelRecipe]:
        """Every cell's model, by (width, n, half)."""
        return {(m.width, m.train.size, m.train.half): m for group in self.ensembles for m in group}

    def closed_form(
        self, form: Literal["empirical", "wiener"]
    ) -> dict[ClosedCell, ClosedFormRecipe]:
        """The closed-form denoisers of every training set, by (n, half)."""
        return {
            (n, half): ClosedFormRecipe(form=form, train=self.subset(half, n))
            for n, half in itertools.product(self.sizes, HALVES)
        }

    def samples(self, denoiser: DenoiserRecipe) -> SamplesRecipe:
        """The samples of a denoiser."""
        e = self.experiment
        return SamplesRecipe(
            denoiser=denoiser,
            sampler=e.sampler,
            first_seed=e.first_seed,
            num_seeds=e.num_samples,
            seeds_per_unit=e.seeds_per_unit,
        )

    @cached_property
    def all_samples(self) -> list[SamplesRecipe]:
        """Samples of all models and closed forms."""
        denoisers: list[DenoiserRecipe] = [*self.models.values()]
        denoisers += [*self.closed_form("empirical").values(), *self.closed_form("wiener").values()]
        return [self.samples(d) for d in denoisers]

    @cached_property
    def descriptor(self) -> DescriptorRecipe:
        """The descriptor, fitted to the largest training set of half A."""
        e = self.experiment
        fitted = e.descriptor == "whitened-pixels"
        return DescriptorRecipe(
            name=e.descriptor,
            fit=self.subset("A", self.sizes[-1]) if fitted else None,
            ridge=e.ridge if fitted else None,
        )

    def features(self, images: Recipe) -> FeaturesRecipe:
        """The features of an image or sample artifact."""
        return FeaturesRecipe(images=images, descriptor=self.descriptor)

    @cached_property
    def all_features(self) -> list[FeaturesRecipe]:
        """Features of the real images and of all samples."""
        return [self.features(r) for r in (self.images, *self.all_samples)]

    @property
    def artifacts(self) -> list[Recipe]:
        """Every recipe, in the order in which they are made."""
        return [
            self.images,
            *self.models.values(),
            *self.all_samples,
            self.descriptor,
            *self.all_features,
        ]
