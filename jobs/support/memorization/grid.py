"""The memorization grid as recipes: every artifact that the study needs, before any is made."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from regimes.errors import ConfigError
from regimes.images.split import Half, Split
from regimes.jobs.support.chosen_descriptor import ChosenDescriptor
from regimes.jobs.support.memorization.experiment import (
    LEAST_ITEMS,
    MemorizationExperiment,
    MLPExperiment,
    NetworkExperiment,
)
from regimes.storage.artifacts import Recipe
from regimes.storage.denoisers import ClosedFormRecipe, DenoiserRecipe, TrainedRecipe
from regimes.storage.features import DescriptorRecipe, FeaturesRecipe
from regimes.storage.images import ImagesRecipe, Subset
from regimes.storage.models import ModelRecipe
from regimes.storage.networks import NetworkRecipe
from regimes.storage.samples import SamplesRecipe
from regimes.storage.seeds import Seeds
from regimes.studies.memorization import Cell, ClosedCell


@dataclass(frozen=True, kw_only=True)
class MemorizationGrid:
    """All recipes of one study.

    Args:
        experiment: what to study.
        images: recipe of the decoded source, or of a teacher's samples.
        num_images: how many it holds.
        chosen: the descriptor that was asked for.
        sigma_data: standard deviation of its pixels in [-1, 1], where models are told.
        left_out: messages of the images that could not be decoded.

    Raises:
        ConfigError: if a size is larger than half of the source, or the images cannot be compared.
    """

    experiment: MemorizationExperiment
    images: ImagesRecipe | SamplesRecipe
    num_images: int
    chosen: ChosenDescriptor
    sigma_data: float | None = None
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Fail before anything is computed."""
        e = self.experiment
        self.chosen.check(ridge=e.ridge != MemorizationExperiment().ridge, centre=e.centre)
        if self.num_images < 2 * LEAST_ITEMS:
            raise ConfigError(
                f"--source: expected at least {2 * LEAST_ITEMS} images, got {self.num_images}"
            )
        if self.sigma_data == 0:
            raise ConfigError("--source: all images are one plain colour; nothing can be learned")
        for size in self.experiment.sizes:
            self.split.subset("A", size)
        if len(self.split.heldout("A", self.sizes[-1])) < LEAST_ITEMS:
            raise ConfigError(
                f"--sizes {self.sizes[-1]}: leaves fewer than {LEAST_ITEMS} of {self.num_images} images "
                "to hold out; choose smaller sizes"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Training-set sizes, ascending."""
        return tuple(sorted(self.experiment.sizes))

    @cached_property
    def split(self) -> Split:
        """How images are divided. A teacher's samples keep the order of their seeds."""
        e = self.experiment
        listed = isinstance(self.images, SamplesRecipe)
        return Split(num_images=self.num_images, seed=None if listed else e.seed, parts=e.parts)

    @property
    def halves(self) -> tuple[Half, ...]:
        """The halves that models are trained on."""
        return self.split.halves

    def subset(self, half: Half, size: int) -> Subset:
        """A training set."""
        return Subset(images=self.images, split=self.split, half=half, size=size)

    @cached_property
    def trials(self) -> list[list[TrainedRecipe]]:
        """What is trained together: all cells of a width as an ensemble, or each network alone."""
        if isinstance(self.experiment, NetworkExperiment):
            return [[recipe] for recipe in self._networks(self.experiment)]
        assert isinstance(self.experiment, MLPExperiment)
        return [list(group) for group in self._ensembles(self.experiment)]

    @property
    def _cells(self) -> list[tuple[int, Half]]:
        return list(itertools.product(self.sizes, self.halves))

    def _networks(self, e: NetworkExperiment) -> Iterator[NetworkRecipe]:
        for width, (n, half) in itertools.product(e.widths, self._cells):
            yield NetworkRecipe(
                train=self.subset(half, n),
                network=dataclasses.replace(e.network, width=width),
                training=e.training,
                seed=e.seed,
            )

    def _ensembles(self, e: MLPExperiment) -> Iterator[list[ModelRecipe]]:
        for width, steps in zip(e.widths, e.steps, strict=True):
            labels = tuple(f"w{width}-{self.subset(half, n).label}" for n, half in self._cells)
            yield [self._model(e, width, steps, cell, labels) for cell in self._cells]

    def _model(
        self, e: MLPExperiment, width: int, steps: int, cell: ClosedCell, labels: tuple[str, ...]
    ) -> ModelRecipe:
        assert self.sigma_data is not None
        n, half = cell
        return ModelRecipe(
            train=self.subset(half, n),
            width=width,
            blocks=e.blocks,
            steps=steps,
            sigma_data=self.sigma_data,
            training=e.training,
            seed=e.seed,
            ensemble=labels,
        )

    @cached_property
    def models(self) -> dict[Cell, TrainedRecipe]:
        """Every cell's model, by (width, n, half)."""
        return {(m.width, m.train.size, m.train.half): m for trial in self.trials for m in trial}

    def closed_form(
        self, form: Literal["empirical", "wiener"]
    ) -> dict[ClosedCell, ClosedFormRecipe]:
        """The closed-form denoisers of every training set, by (n, half)."""
        return {
            (n, half): ClosedFormRecipe(form=form, train=self.subset(half, n))
            for n, half in self._cells
        }

    def samples(self, denoiser: DenoiserRecipe) -> SamplesRecipe:
        """The samples of a denoiser."""
        e = self.experiment
        return SamplesRecipe(
            denoiser=denoiser,
            sampler=e.sampler,
            seeds=Seeds.first(e.num_samples, e.first_seed),
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
        return self.chosen.recipe(self.subset("A", self.sizes[-1]), ridge=e.ridge, centre=e.centre)

    def features(self, images: Recipe, *, mirrored: bool = False) -> FeaturesRecipe:
        """The features of an image or sample artifact, or of the flips of its images."""
        return FeaturesRecipe(images=images, descriptor=self.descriptor, mirrored=mirrored)

    @cached_property
    def all_features(self) -> list[FeaturesRecipe]:
        """Features of the real images and of all samples."""
        flips = self.experiment.flips_are_copies
        mirrored = [self.features(self.images, mirrored=True)] if flips else []
        return [self.features(r) for r in (self.images, *self.all_samples)] + mirrored

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
