"""What a comparison of sample sets is made of: its options and its descriptor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from regimes.descriptors.pixels import Descriptor, Pixels, WhitenedPixels
from regimes.errors import ConfigError
from regimes.images.pixels import Images
from regimes.samplers.edm import SamplerConfig
from regimes.studies.reproducibility import Rules, SampleSet

LARGEST_WHITENING = 12_288  # values per image (64x64x3): the transform takes their square
_RIDGE = 0.5
_FIT_BYTES = 2**28  # of the float64 pixels that a descriptor is fitted to


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
    descriptor: Literal["whitened-pixels", "pixels"] = "whitened-pixels"
    """How images are compared."""
    fit: str | None = None
    """Images that whitening is fitted to, such as real ones; by default the compared samples."""
    ridge: float = _RIDGE
    """Regularisation of the whitening, in units of the mean eigenvalue."""
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
        if self.descriptor == "pixels" and (self.fit is not None or self.ridge != _RIDGE):
            raise ConfigError(
                "--fit, --ridge: the descriptor pixels is not fitted to anything; leave them out"
            )

    @property
    def rules(self) -> Rules:
        """What counts as the same image."""
        return Rules(
            threshold=self.threshold,
            quantile=self.calibration_quantile,
            mae_threshold=self.mae_threshold,
        )


def fitted_descriptor(
    experiment: ReproducibilityExperiment, sets: Sequence[SampleSet], real: Images | None
) -> tuple[Descriptor, str]:
    """The descriptor, and what it is in words.

    Args:
        experiment: which, and how it is fitted.
        sets: aligned.
        real: (N, H, W, C) images of ``--fit``, or None to fit it to the samples.

    Raises:
        ConfigError: if it cannot describe these images.
    """
    return _DESCRIPTORS[experiment.descriptor](experiment, sets, real)


def _pixels(
    experiment: ReproducibilityExperiment, sets: Sequence[SampleSet], real: Images | None
) -> tuple[Descriptor, str]:
    return Pixels(), "pixels"


def _whitened(
    experiment: ReproducibilityExperiment, sets: Sequence[SampleSet], real: Images | None
) -> tuple[Descriptor, str]:
    width = sets[0].images[0].size
    if width > LARGEST_WHITENING:
        raise ConfigError(
            f"--descriptor whitened-pixels: images of {width} values are too large to whiten (at "
            f"most {LARGEST_WHITENING}); pass --image-size, or --descriptor pixels"
        )
    most = max(2, _FIT_BYTES // (8 * width))
    if real is None:
        each = max(1, most // len(sets))
        images = np.concatenate([one.images[:each] for one in sets])
        words = f"{min(each, len(sets[0].ids))} samples of each set"
    else:
        images = real[:most]
        words = f"{len(images)} images of {experiment.fit}"
    try:
        fitted = WhitenedPixels.fit(images, ridge=experiment.ridge)
    except ValueError as error:
        raise ConfigError(f"--descriptor whitened-pixels: {error}") from error
    if len(images) <= width:
        words += f", too few for their {width} values to be whitened well"
    return fitted, f"whitened-pixels, fitted to {words}"


_Builder = Callable[
    [ReproducibilityExperiment, Sequence[SampleSet], Images | None], tuple[Descriptor, str]
]
_DESCRIPTORS: dict[str, _Builder] = {"pixels": _pixels, "whitened-pixels": _whitened}
