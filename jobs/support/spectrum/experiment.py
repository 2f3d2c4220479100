"""What a study of spectra is made of: its options, its sets, and the model that is trained for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from regimes.descriptors.options import DescriptorOptions
from regimes.errors import ConfigError
from regimes.gaussians.fit import FitConfig
from regimes.images.fingerprints import hash_parts
from regimes.images.pixels import to_float
from regimes.images.sources import ImageSource
from regimes.images.split import Split
from regimes.jobs.support.chosen_descriptor import DEFAULT_RIDGE
from regimes.jobs.support.sample_sets import open_images, set_names
from regimes.jobs.support.set_features import SetFeatures
from regimes.samplers.config import SamplerConfig
from regimes.spectra.files import read_spectrum
from regimes.spectra.matrix import Spectrum
from regimes.storage.artifacts import Store
from regimes.storage.images import Decoded, ImagesRecipe, Subset, decode_source
from regimes.storage.model_specs import identify_model, is_model
from regimes.storage.models import ModelRecipe
from regimes.storage.samples import SamplesRecipe
from regimes.storage.seeds import Seeds
from regimes.studies.spectrum import AS_IMAGES, MIXTURE, OTHER_HALF, REAL, SpectrumConfig
from regimes.training.ensemble import TrainingConfig

FLAT = tyro.conf.arg(name="")
TRAINED = "trained"
PIXELS = DescriptorOptions(descriptor="pixels")
LARGEST_TRAINED = 1024
"""Values per image up to which the small network is trained: it is a multilayer perceptron."""
_TRAINED_LEVELS = (0.02, 20.0)
"""First and last noise level that the small network is sampled at; those of others are EDM's."""


def plain_name(name: str) -> str:
    """A name as files have it."""
    return name.replace(", ", "-").replace(" ", "-")


_RESERVED = {plain_name(name) for name in (REAL, OTHER_HALF, MIXTURE, AS_IMAGES)}
_UNIT = 500
_WIDTH, _STEPS = 128, 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumExperiment:
    """What is compared."""

    real: str = "digits"
    """Real images: "digits" (built in), a folder, .zip, .npy, .npz, .parquet, CIFAR-10's archive, a
    Hugging Face dataset on disk, or the folder of a samples or images artifact."""
    sets: tuple[str, ...] = (TRAINED,)
    """Sets of samples of the same kinds; models as of the generate job, which are sampled first; or the
    word trained: a small network, trained here on half A of the real images (small images only)."""
    names: tuple[str, ...] = ()
    """Names of the sets, and of --spectra behind them; by default the last parts of their paths."""
    spectra: tuple[str, ...] = ()
    """Spectra that exist: .npz of this job, or NAME_nN_gramian_eigenvalues.npy of the published scripts
    (with --normalisation raw); of as many images as are compared."""
    seeds: str | None = None
    """Seeds that models among the sets are sampled for; by default as many from 0 as are compared."""
    with_mixture: bool = True
    """Whether a Gaussian mixture of half A is compared too, with its control."""
    mixture: FitConfig = field(default_factory=FitConfig)
    per_class: bool = False
    """Whether every class is studied besides, where images say theirs."""
    classifier_sizes: tuple[int, ...] = ()
    """Training images per class at which linear and two-layer classifiers trained on every set and on one
    Gaussian per class are compared, as in 5 20 80; none by default."""
    principal: int = 8
    """Principal images that are drawn of every set; 0 for none."""
    solver: Literal["randomised", "lanczos"] = "randomised"
    """How those are found."""
    published_names: bool = False
    """Whether raw eigenvalues, vectors and norms are saved under the published .npy names too."""
    image_size: int | None = None
    """Crop the centre square of every image and resize it to this side, in pixels."""
    channels: Literal[1, 3] | None = None
    """Convert all images to gray (1) or colour (3)."""
    skip_bad_images: bool = False
    """Leave out images that cannot be decoded (and count them) instead of stopping."""
    width: int = _WIDTH
    """Of the trained network."""
    steps: int = _STEPS
    """Training steps of it."""
    measure: Annotated[SpectrumConfig, FLAT] = field(default_factory=SpectrumConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    """Of models among the sets; the noise levels of the trained network are .02 to 20 by default."""

    count_flips: ClassVar[bool] = False
    centre_images: ClassVar[int] = 0
    ridge: ClassVar[float] = DEFAULT_RIDGE

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        if not (self.sets or self.spectra or self.with_mixture):
            raise ConfigError(
                "--sets: expected a set, --spectra, or the mixture; nothing is compared"
            )
        for name in ("width", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name}: expected at least 1, got {getattr(self, name)}")
        if any(size < 1 for size in self.classifier_sizes):
            raise ConfigError(
                f"--classifier-sizes: expected numbers above 0, got {self.classifier_sizes}"
            )
        if self.principal < 0:
            raise ConfigError(f"--principal: expected at least 0, got {self.principal}")
        if self.image_size is not None and self.image_size < 1:
            raise ConfigError(f"--image-size: expected at least 1, got {self.image_size}")
        if not self.with_mixture and self.mixture != FitConfig():
            raise ConfigError("--mixture: no mixture is fitted; leave --no-with-mixture out")
        self._check_unused()
        taken = [name for name in self.set_names if plain_name(name) in _RESERVED]
        if taken:
            raise ConfigError(f"--names {taken[0]}: taken by the study; choose another name")

    def _check_unused(self) -> None:
        """Refuse what would change nothing."""
        trains = TRAINED in self.sets
        untold = self.measure.control not in (0, SpectrumConfig().control)
        for name, is_changed, is_used, why in (
            ("control", untold, self.with_mixture, "no mixture is fitted"),
            ("width", self.width != _WIDTH, trains, "nothing is trained here"),
            ("steps", self.steps != _STEPS, trains, "nothing is trained here"),
            ("solver", self.solver != "randomised", self.principal > 0, "no principal images"),
        ):
            if is_changed and not is_used:
                raise ConfigError(f"--{name}: {why}; leave it out")

    @property
    def set_names(self) -> tuple[str, ...]:
        """One per set and file."""
        specs = (*self.sets, *self.spectra)
        found = set_names(specs, self.names) if specs else ()
        if self.names:
            return found
        files = found[len(self.sets) :]  # those of another run may be called real or mixture
        saved = (f"saved {name}" if plain_name(name) in _RESERVED else name for name in files)
        return (*found[: len(self.sets)], *saved)


@dataclass(frozen=True)
class SpectrumSets:
    """The real images, decoded, and what the other sets are.

    Raises:
        BadSource, BadCheckpoint, ConfigError: if one is missing, of no known kind, or does not fit.
    """

    store: Store
    experiment: SpectrumExperiment

    @cached_property
    def real_source(self) -> ImageSource:
        """The real images, not decoded."""
        return open_images(self.experiment.real)

    def recipe_of(self, source: ImageSource) -> ImagesRecipe:
        """A source as an artifact."""
        e = self.experiment
        return ImagesRecipe(
            fingerprint=source.fingerprint,
            image_size=e.image_size,
            channels=e.channels,
            skip_bad=e.skip_bad_images,
        )

    @cached_property
    def real(self) -> Decoded:
        """The real images."""
        return decode_source(self.real_source, self.recipe_of(self.real_source))

    @property
    def num_compared(self) -> int:
        """Images per set, if none has fewer."""
        return min(len(self.real.images) // 2, self.experiment.measure.num_images)

    @cached_property
    def sources(self) -> dict[str, ImageSource]:
        """Sets of images that exist, by name."""
        pairs = zip(self.experiment.set_names, self.experiment.sets)
        return {n: open_images(s) for n, s in pairs if s != TRAINED and not is_model(s)}

    @cached_property
    def models(self) -> dict[str, SamplesRecipe]:
        """Sets that are sampled first, by name; nothing is written."""
        return {
            name: self._sampled(spec)
            for name, spec in zip(self.experiment.set_names, self.experiment.sets)
            if spec == TRAINED or is_model(spec)
        }

    def _sampled(self, spec: str) -> SamplesRecipe:
        e = self.experiment
        seeds = Seeds.first(self.num_compared) if e.seeds is None else Seeds.parse(e.seeds)
        sampler = e.sampler
        if spec == TRAINED:
            low, high = (
                own if given is None else given
                for own, given in zip(_TRAINED_LEVELS, (sampler.sigma_min, sampler.sigma_max))
            )
            sampler = replace(sampler, sigma_min=low, sigma_max=high)
        return SamplesRecipe(
            denoiser=self.trained if spec == TRAINED else identify_model(spec),
            sampler=sampler,
            seeds=seeds,
            seeds_per_unit=_UNIT,
        )

    @cached_property
    def trained(self) -> ModelRecipe:
        """The network that is trained on half A."""
        e, images = self.experiment, self.real.images
        if images[0].size > LARGEST_TRAINED:
            raise ConfigError(
                f"--sets {TRAINED}: images of {images[0].size} values are too large for the small network "
                f"(at most {LARGEST_TRAINED}); pass samples or a model, or --image-size"
            )
        split = Split(num_images=len(images), seed=e.measure.seed)
        half = Subset(
            images=self.recipe_of(self.real_source), split=split, half="A", size=len(images) // 2
        )
        recipe = ModelRecipe(
            train=half,
            width=e.width,
            blocks=4,
            steps=e.steps,
            sigma_data=round(float(to_float(images).std()), 4),
            training=TrainingConfig(),
            seed=e.measure.seed,
            ensemble=(f"w{e.width}-{half.label}",),
        )
        assert recipe.ensemble == (recipe.label,)
        return recipe

    @cached_property
    def saved(self) -> dict[str, Spectrum]:
        """Spectra that exist, by name."""
        names = self.experiment.set_names[len(self.experiment.sets) :]
        files = zip(names, self.experiment.spectra)
        return {name: read_spectrum(Path(file))[0] for name, file in files}

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of everything, for the results' recipe."""
        made = {name: recipe.address for name, recipe in self.models.items()}
        found = {name: source.fingerprint for name, source in self.sources.items()}
        values = {name: hash_parts([s.values.tobytes()]) for name, s in self.saved.items()}
        return {REAL: self.real_source.fingerprint} | made | found | values


@dataclass(frozen=True)
class _Opened:
    specs: dict[str, str]
    sources: dict[str, ImageSource]

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of every set."""
        return {name: source.fingerprint for name, source in self.sources.items()}


@dataclass(frozen=True)
class SpectrumFeatures(SetFeatures):
    """Features of a network as it gives them, neither centred nor divided by their length."""

    base: ClassVar[str] = REAL
    base_name: ClassVar[str] = "real images"

    @property
    def raw(self) -> bool:
        """Lengths count: they are part of the covariance."""
        return True

    @classmethod
    def of(
        cls,
        sets: SpectrumSets,
        choice: DescriptorOptions,
        opened: Mapping[str, tuple[str, ImageSource]],
    ) -> SpectrumFeatures:
        """Of opened sets: (spec, source) by name."""
        specs = {name: spec for name, (spec, _) in opened.items()}
        sources = {name: source for name, (_, source) in opened.items()}
        return cls(sets.store, sets.experiment, choice, _Opened(specs, sources))
