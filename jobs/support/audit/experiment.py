"""What an audit is made of: its options, and the artifacts that they determine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from regimes.errors import ConfigError
from regimes.images.sources import ImageSource
from regimes.jobs.support.chosen_descriptor import DEFAULT_RIDGE
from regimes.jobs.support.console import RunOptions
from regimes.jobs.support.sample_sets import open_images
from regimes.jobs.support.set_features import SetFeatures
from regimes.studies.audit import FEWEST, Rules

SETS = ("train", "generated", "heldout")
SSCD_THRESHOLDS = (0.5, 0.6, 0.75)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditExperiment:
    """What is audited, and what counts as a copy."""

    train: str | None = None
    """Training images: a folder, .zip, .npy, .npz, .parquet, CIFAR-10's archive, a Hugging Face dataset
    on disk, or the folder of a samples or images artifact."""
    generated: str | None = None
    """Generated images, of the same kinds."""
    heldout: str | None = None
    """Real images that the model was not trained on, of the same kinds. Without them the threshold comes
    from the training images themselves, which is weaker."""
    image_size: int | None = None
    """Crop the centre square of every image and resize it to this side, in pixels."""
    channels: Literal[1, 3] | None = None
    """Convert all images to gray (1) or colour (3)."""
    skip_bad_images: bool = False
    """Leave out images that cannot be decoded (and count them) instead of stopping."""
    count_flips: bool = False
    """Copies of left-right flips of training images are copies: for models trained with flips."""
    calibration_quantile: float = 0.95
    """Share of held-out images that must not exceed the calibrated threshold."""
    published_thresholds: tuple[float, ...] = SSCD_THRESHOLDS
    """Similarities to report beside it; those of the literature are for SSCD."""
    ratio_threshold: float = 1 / 3
    """d1/d2 below which an image is far nearer to one training image than to all others."""
    index: Literal["exact", "ivf"] = "exact"
    """How the copy search finds the nearest training images: exactly, or by an inverted file, which is
    faster from some 100,000 images on and may miss some (the report says how many). Duplicates, AuthPct,
    C_T and the manifold scores are always exact, in this process."""
    duplicate_distance: float = 1e-3
    """Distance of descriptors up to which two images are duplicates."""
    manifold_images: int = 10_000
    """Images of each set, at most, for precision, recall, density, coverage, the Vendi score and the
    kernel distance (KID); duplicates, AuthPct, C_T and the Frechet distance take all."""
    gallery_pairs: int = 500
    """Pairs in the gallery, the most similar ones."""
    centre_images: int = 0
    """Training images, drawn at random, whose mean feature is subtracted from those of a network; class
    scores and pooled activations need it to tell images apart."""
    ridge: float = DEFAULT_RIDGE
    """Regularisation of whitened-pixels, in units of the mean eigenvalue."""

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        for name in ("image_size", "gallery_pairs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')}: expected at least 1, got {value}")
        if self.manifold_images < 16:
            raise ConfigError(
                f"--manifold-images: expected at least 16, got {self.manifold_images}"
            )
        for name in ("calibration_quantile", "ratio_threshold"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ConfigError(
                    f"--{name.replace('_', '-')}: expected a number inside (0, 1), got {value}"
                )
        if not all(-1 <= t < 1 for t in self.published_thresholds):
            raise ConfigError(
                f"--published-thresholds: expected numbers in [-1, 1), got {self.published_thresholds}"
            )
        if not 0 <= self.duplicate_distance < 1:
            raise ConfigError(
                f"--duplicate-distance: expected a number in [0, 1), got {self.duplicate_distance}"
            )
        if self.centre_images != 0 and self.centre_images < 2:
            raise ConfigError(
                f"--centre-images: expected 0 (none), or at least 2, got {self.centre_images}"
            )
        if not self.ridge > 0:
            raise ConfigError(f"--ridge: expected a number above 0, got {self.ridge}")

    @property
    def rules(self) -> Rules:
        """What counts as a copy."""
        return Rules(
            quantile=self.calibration_quantile,
            published=tuple(sorted(set(self.published_thresholds))),
            ratio=self.ratio_threshold,
        )

    def specs(self) -> Iterator[tuple[str, str]]:
        """(set, where it is) of the sets that are given.

        Raises:
            ConfigError: if training or generated images are not.
        """
        for name in SETS:
            spec = getattr(self, name)
            if spec is not None:
                yield name, spec
            elif name != "heldout":
                raise ConfigError(f"--{name}: expected a folder or a file of images, got nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions(RunOptions):
    """Where an audit puts its results, and how it runs."""

    shards: int = 1
    """Actors that the training images are spread over for the exact search of copies, on a cluster; 1
    searches in this process, as the other scores always do."""
    fail_on: Literal["nothing", "exact", "copies"] = "nothing"
    """For pipelines: end with exit status 3 if generated images equal a training image in every pixel
    (exact), or that or any other sign of copying that chance does not explain (copies)."""

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        RunOptions.__post_init__(self)  # super() does not work in a class with slots
        if self.shards < 1:
            raise ConfigError(f"--shards: expected at least 1, got {self.shards}")


class AuditedSets:
    """The sources of an audit, opened.

    Args:
        experiment: which.

    Raises:
        ConfigError, BadSource: if one is missing or of no known kind.
    """

    def __init__(self, experiment: AuditExperiment) -> None:
        self.specs = dict(experiment.specs())
        self.sources: dict[str, ImageSource] = {
            name: open_images(spec) for name, spec in self.specs.items()
        }
        for name, source in self.sources.items():
            if len(source.ids) < FEWEST:
                raise ConfigError(
                    f"--{name} {self.specs[name]}: expected at least {FEWEST} images, got "
                    f"{len(source.ids)}"
                )

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of every set."""
        return {name: source.fingerprint for name, source in self.sources.items()}

    def warnings(self) -> list[str]:
        """Sets that are the same, which is seldom what was meant."""
        found = []
        names = list(self.fingerprints)
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                if self.fingerprints[first] == self.fingerprints[second]:
                    found.append(
                        f"--{first} and --{second} hold the same images: "
                        f"{self.specs[first]}, {self.specs[second]}"
                    )
        return found

    def warn(self) -> None:
        """Print the warnings."""
        for text in self.warnings():
            print(f"warning   {text}", file=sys.stderr)


@dataclass(frozen=True)
class AuditFeatures(SetFeatures):
    """The features that an audit compares; arguments and errors as of ``SetFeatures``."""

    experiment: AuditExperiment
    sets: AuditedSets

    @property
    def fit_names(self) -> tuple[str, ...]:
        """Without held-out images the generated ones as well: the null is what training images give.

        A descriptor that knew only these would make them unlike one another, and so all others near.
        """
        return ("train",) if "heldout" in self.sets.sources else ("train", "generated")
