"""What a Jacobian study is made of: its options, its models and its points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
import tyro

from regimes.errors import ConfigError
from regimes.images.pixels import Images, to_float
from regimes.images.sources import ImageSource, open_source
from regimes.jacobians.ranks import Rule, Spectrum
from regimes.jacobians.spectra import SpectrumConfig
from regimes.jobs.support.sample_sets import set_names
from regimes.samplers.config import SampledDenoiser
from regimes.samplers.edm import SamplerConfig
from regimes.storage.artifacts import Store
from regimes.storage.denoisers import DenoiserRecipe, Loaded, load_denoiser
from regimes.storage.images import ImagesRecipe, read_images
from regimes.storage.jacobian import ImagePoints, JacobianRecipe, TrajectoryPoints
from regimes.storage.model_specs import CLOSED_FORMS, import_model
from regimes.storage.seeds import Seeds
from regimes.words import counted

FLAT = tyro.conf.arg(name="")
PUBLISHED_SIGMAS = (100, 50, 25, 12.5, 8.3, 3.3, 1.1, 0.6, 0.1, 0.02, 0.008, 0.002)
"""Noise levels of the published figure, 1 / sigma from 0.01 to 500."""
LARGEST_REFERENCE = 4096
"""Values per image up to which the linear denoiser is drawn beside."""
_CHUNK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class JacobianExperiment:
    """What is linearised, where, and how ranks are counted."""

    model: tuple[str, ...] = ("empirical:digits", "wiener:digits")
    """One model or more, of one image size: EDM's .pkl or .pt, a .safetensors of this project, a folder
    saved by a diffusers pipeline or of a model artifact; or empirical:SOURCE or wiener:SOURCE."""
    source: str | None = None
    """Images at which models are linearised, x = image + sigma noise: a folder, .zip, .npy, .npz,
    .parquet, CIFAR-10's archive, or the word digits. Without it: along sampled trajectories."""
    num_images: int = 8
    """Images of the source, chosen at random, always the same ones."""
    seeds: str | None = None
    """Seeds, as in 0-63: one trajectory each (default 0-15), or one noise for every image (default 0)."""
    sigmas: tuple[float, ...] = ()
    """Noise levels at images; the published ones that the model knows if not given."""
    rank: Rule = "energy"
    """energy (as published: root energy above 0.99), effective (exp of the entropy) or stable."""
    class_index: Annotated[int | None, tyro.conf.arg(aliases=["--class"])] = None
    """Class of all points, for models with classes; by default the image's own, or drawn per seed."""
    image_size: int | None = None
    """Crop the centre square of every image and resize it to this side, in pixels."""
    channels: Literal[1, 3] | None = None
    """Convert all images to gray (1) or colour (3)."""
    max_images: int | None = None
    """Take only the first images of a closed form's source."""
    batch_size: int = 4
    """Points per batch, which is also the unit of work."""
    spectrum: Annotated[SpectrumConfig, FLAT] = field(default_factory=SpectrumConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        if not self.model or len(set(self.model)) != len(self.model):
            raise ConfigError("--model: expected one model or more, each once")
        for name in ("num_images", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"--{name.replace('_', '-')}: expected at least 1, got {getattr(self, name)}"
                )
        if any(not 0 < sigma < float("inf") for sigma in self.sigmas):
            raise ConfigError(f"--sigmas: expected numbers above 0, got {self.sigmas}")
        if len(set(self.sigmas)) != len(self.sigmas):
            raise ConfigError(f"--sigmas: expected every level once, got {self.sigmas}")
        self._check_points()

    def _check_points(self) -> None:
        """Options of images without images, and of trajectories with them, would do nothing."""
        if self.source is not None:
            if self.sampler != SamplerConfig():
                raise ConfigError("--sampler: with --source nothing is sampled; leave it out")
            return
        if self.sigmas:
            raise ConfigError(
                "--sigmas: trajectories are linearised at the sampler's levels; pass --source, or "
                "--sampler.num-steps"
            )
        for name, default in (("image_size", None), ("channels", None), ("num_images", 8)):
            if getattr(self, name) != default:
                raise ConfigError(f"--{name.replace('_', '-')}: for images; pass --source, too")

    @property
    def chosen_seeds(self) -> Seeds:
        """Of trajectories, or of noise."""
        return Seeds.parse(self.seeds or ("0-15" if self.source is None else "0"))

    @property
    def points(self) -> str:
        """Where models are linearised, in words."""
        count = len(self.chosen_seeds)
        if self.source is None:
            steps = self.sampler.num_steps
            paths = counted(count, "sampled trajectory", "sampled trajectories")
            return f"along {paths}, at the {steps} noise levels of the sampler"
        noises = "one noise" if count == 1 else f"{count} noises"
        return f"at {counted(self.num_images, 'image')} of {self.source}, {noises} each"


def image_recipe(experiment: JacobianExperiment, source: ImageSource) -> ImagesRecipe:
    """The images of ``--source`` as an artifact."""
    return ImagesRecipe(
        fingerprint=source.fingerprint,
        image_size=experiment.image_size,
        channels=experiment.channels,
        skip_bad=False,
    )


def import_models(
    store: Store, experiment: JacobianExperiment
) -> list[tuple[str, DenoiserRecipe, Loaded]]:
    """Bring the models into the store and load each once, to know what it takes.

    Returns:
        (name, recipe, denoiser) of each; names are the last parts of paths that tell them apart.

    Raises:
        ConfigError: if they are for images of different shapes.
    """
    found = []
    for name, spec in zip(set_names(experiment.model, ()), experiment.model, strict=True):
        closed = spec.startswith(CLOSED_FORMS)
        recipe = import_model(store, spec, max_images=experiment.max_images if closed else None)
        found.append((name, recipe, load_denoiser(store, recipe)))
    shapes = {loaded.image_shape for _, _, loaded in found}
    if len(shapes) > 1:
        raise ConfigError(f"--model: expected models of one image size, got {sorted(shapes)}")
    if experiment.max_images is not None and not any(
        spec.startswith(CLOSED_FORMS) for spec in experiment.model
    ):
        raise ConfigError("--max-images: for closed forms; no model is one")
    return found


def recipes(
    experiment: JacobianExperiment,
    models: Sequence[tuple[str, DenoiserRecipe, Loaded]],
    images: ImagesRecipe | None,
) -> dict[str, JacobianRecipe]:
    """What is to be measured, by model."""
    made = {}
    for name, recipe, loaded in models:
        points: TrajectoryPoints | ImagePoints
        if images is None:
            points = TrajectoryPoints(seeds=experiment.chosen_seeds, sampler=experiment.sampler)
        else:
            points = ImagePoints(
                images=images,
                num_images=experiment.num_images,
                seeds=experiment.chosen_seeds,
                sigmas=experiment.sigmas or _known(loaded.denoiser),
            )
        made[name] = JacobianRecipe(
            denoiser=recipe,
            points=points,
            spectrum=experiment.spectrum,
            points_per_unit=experiment.batch_size,
            class_index=experiment.class_index,
        )
    return made


def _known(denoiser: SampledDenoiser) -> tuple[float, ...]:
    low, high = denoiser.sigma_min, denoiser.sigma_max
    return tuple(float(s) for s in PUBLISHED_SIGMAS if low <= s <= high)


def linear_reference(
    store: Store, images: ImagesRecipe | None, sigmas: Sequence[float]
) -> Mapping[float, Spectrum]:
    """Spectra of the linear denoiser of the source's images, known in closed form.

    Empty without a source, and where images are too large or too few to say anything. Cost: O(N n^2)
    for N images of n values, and n^3.
    """
    if images is None:
        return {}
    _, y = read_images(store, images)
    n = y[0].size
    if n > LARGEST_REFERENCE or len(y) < n:
        return {}
    variances = _variances(y)
    return {float(s): Spectrum(values=variances / (variances + s**2), size=n) for s in sigmas}


def _variances(y: Images) -> npt.NDArray[np.float64]:
    """Eigenvalues of the covariance of all images (N, H, W, C), decreasing; a chunk at a time."""
    n, middle = y[0].size, to_float(y[:_CHUNK]).double().flatten(1).mean(0)
    first, second = torch.zeros(n).double(), torch.zeros(n, n).double()
    for start in range(0, len(y), _CHUNK):  # around the middle, so that little cancels
        part = to_float(y[start : start + _CHUNK]).double().flatten(1) - middle
        first += part.sum(0)
        second += part.T @ part
    mean = first / len(y)
    covariance = second / len(y) - torch.outer(mean, mean)
    return torch.linalg.eigvalsh(covariance).flip(0).clamp(min=0).numpy()


def source_of(experiment: JacobianExperiment) -> ImageSource | None:
    """The images of ``--source``, not decoded yet."""
    return None if experiment.source is None else open_source(experiment.source)
