"""What a comparison of sample sets is made of: its options and its descriptor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from regimes.descriptors.families import stored_weights
from regimes.descriptors.network import NetworkConfig, NetworkDescriptor
from regimes.descriptors.pixels import Descriptor, Pixels, WhitenedPixels
from regimes.errors import ConfigError
from regimes.images.pixels import Images
from regimes.jobs.support.chosen_descriptor import ChosenDescriptor, check_whitening
from regimes.samplers.edm import SamplerConfig
from regimes.studies.reproducibility import Rules, SampleSet
from regimes.words import counted

_RIDGE = 0.5
_FIT_BYTES = 2**28  # of the float64 pixels that a descriptor is fitted to
_CENTRE_IMAGES = 4096  # whose mean is subtracted: it is known to 1/64 of the spread of features


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproducibilityExperiment:
    """What is compared, and how."""

    sets: tuple[str, ...] = ()
    """Two sample sets or more, each a folder of images (EDM's, with or without --subdirs), .zip,
    .npy, .npz, .parquet, the folder of a samples artifact, or a model: a checkpoint, a folder saved
    by a diffusers pipeline, or empirical:IMAGES or wiener:IMAGES for a closed form."""
    names: tuple[str, ...] = ()
    """One name per set; made from the paths if not given."""
    seeds: str | None = None
    """Seeds to compare, as in 0-9999: models are sampled for them, and of other sets only their
    images are taken. All that there are if not given."""
    allow_partial: bool = False
    """Compare the seeds that all sets have, and count the others, instead of stopping."""
    image_size: int | None = None
    """Crop the centre square of every image and resize it to this side, in pixels."""
    channels: Literal[1, 3] | None = None
    """Convert all images to gray (1) or colour (3)."""
    skip_bad_images: bool = False
    """Leave out images that cannot be decoded (and count them) instead of stopping."""
    threshold: float = 0.6
    """Similarity above which two images are the same; 0.6 is that of the papers."""
    calibration_quantile: float = 0.95
    """Share of couples of images of different seeds that must not exceed the calibrated threshold."""
    mae_threshold: float = 15.0
    """Mean absolute pixel difference (0 to 255) below which two images are the same."""
    fit: str | None = None
    """Images that whitening is fitted to, or a network centred by, such as real ones; by default the
    compared samples."""
    ridge: float = _RIDGE
    """Regularisation of whitened-pixels, in units of the mean eigenvalue."""
    centre: bool = False
    """Subtract the mean feature of those images from the features of a network; class scores and pooled
    activations need it to tell images apart."""
    batch_size: int = 64
    """Seeds per batch where a model is sampled; changes its images by rounding only."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        for name in ("image_size", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')}: expected at least 1, got {value}")
        if not -1 <= self.threshold < 1:
            raise ConfigError(f"--threshold: expected a number in [-1, 1), got {self.threshold}")
        if not 0 < self.calibration_quantile < 1:
            raise ConfigError(
                "--calibration-quantile: expected a number inside (0, 1), got "
                f"{self.calibration_quantile}"
            )
        if not 0 < self.mae_threshold <= 255:
            raise ConfigError(
                f"--mae-threshold: expected a number in (0, 255], got {self.mae_threshold}"
            )
        if not self.ridge > 0:
            raise ConfigError(f"--ridge: expected a number above 0, got {self.ridge}")

    def check(self, chosen: ChosenDescriptor) -> None:
        """Refuse options that the descriptor has no use for.

        Raises:
            ConfigError: if there are any.
        """
        chosen.check(ridge=self.ridge != _RIDGE, centre=self.centre)
        if self.fit is not None and not (chosen.is_fitted or self.centre):
            raise ConfigError(f"--fit: {chosen.name} is not fitted to anything; leave it out")

    @property
    def rules(self) -> Rules:
        """What counts as the same image."""
        return Rules(
            threshold=self.threshold,
            quantile=self.calibration_quantile,
            mae_threshold=self.mae_threshold,
        )


def fitted_descriptor(
    experiment: ReproducibilityExperiment,
    chosen: ChosenDescriptor,
    sets: Sequence[SampleSet],
    real: Images | None,
    *,
    device: str = "cpu",
) -> tuple[Descriptor, str]:
    """The descriptor, and what it is in words.

    Args:
        experiment: how it is fitted.
        chosen: which.
        sets: aligned.
        real: (N, H, W, C) images of ``--fit``, or None to fit it to the samples.
        device: where a network computes.

    Raises:
        ConfigError: if it cannot describe these images.
        BadDescriptor: if a network fails.
    """
    if chosen.is_fitted:
        return _whitened(experiment, sets, real)
    if chosen.network is None:
        return Pixels(), chosen.name
    return _network(experiment, chosen, chosen.network, sets, real, device)


def _network(
    experiment: ReproducibilityExperiment,
    chosen: ChosenDescriptor,
    config: NetworkConfig,
    sets: Sequence[SampleSet],
    real: Images | None,
    device: str,
) -> tuple[Descriptor, str]:
    data = None if chosen.weights is None else stored_weights(config.family, chosen.weights)
    plain = NetworkDescriptor.load(config, data, device=device)
    if not experiment.centre:
        return plain, config.label
    images, words = _background(experiment, sets, real, _CENTRE_IMAGES)
    mean = plain.raw(images).mean(0, dtype=np.float64)
    centred = NetworkDescriptor.load(config, data, device=device, centre=mean)
    return centred, f"{config.label}, minus the mean of {words}"


def _background(
    experiment: ReproducibilityExperiment,
    sets: Sequence[SampleSet],
    real: Images | None,
    most: int,
) -> tuple[Images, str]:
    """Images that a descriptor is fitted to, at most so many; and what they are in words."""
    if real is not None:
        images = real[:most]
        return images, f"{counted(len(images), 'image')} of {experiment.fit}"
    each = max(1, most // len(sets))
    images = np.concatenate([one.images[:each] for one in sets])
    return images, f"{min(each, len(sets[0].ids))} samples of each set"


def _whitened(
    experiment: ReproducibilityExperiment, sets: Sequence[SampleSet], real: Images | None
) -> tuple[Descriptor, str]:
    width = sets[0].images[0].size
    check_whitening(width)
    most = max(2, _FIT_BYTES // (8 * width))
    images, words = _background(experiment, sets, real, most)
    try:
        fitted = WhitenedPixels.fit(images, ridge=experiment.ridge)
    except ValueError as error:
        raise ConfigError(f"--descriptor whitened-pixels: {error}") from error
    if len(images) <= width:
        words += f", too few for their {width} values to be whitened well"
    return fitted, f"whitened-pixels, fitted to {words}"
