"""The descriptors of image sets: which artifacts hold them, and how they are made.

Images are described where they are, a block at a time, whatever their sizes. Only descriptors made of
pixels, which need images of one size, and images that lie in artifacts go through the store first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np

from regimes.actors.extraction import Hardware, extract
from regimes.actors.runtime import RayRuntime
from regimes.descriptors.network import NetworkConfig
from regimes.descriptors.options import DescriptorOptions
from regimes.descriptors.pixels import unit_rows
from regimes.errors import BadSource, ConfigError
from regimes.images.pixels import Images
from regimes.images.selection import first_readable, sample_images
from regimes.images.sources import ImageSource
from regimes.images.split import Split
from regimes.jobs.support.chosen_descriptor import DEFAULT_RIDGE, ChosenDescriptor, check_whitening
from regimes.jobs.support.console import RunOptions, Stage
from regimes.jobs.support.sample_sets import is_artifact
from regimes.scores.features import Features
from regimes.storage import features
from regimes.storage.artifacts import Recipe, Store
from regimes.storage.descriptors import (
    DescriptorRecipe,
    fit_descriptor,
    import_weights,
    load_descriptor,
    read_centre,
)
from regimes.storage.features import FeaturesRecipe, SourceRecipe
from regimes.storage.images import ImagesRecipe, Subset, decode_source, ingest
from regimes.storage.tables import iter_shards
from regimes.words import counted

MIRRORED = "mirrored"
FIT_BYTES = 2**28  # of the float64 pixels that whitening is fitted to
RAW_DESCRIPTOR = "inception-fid"  # its distances are defined on features that are not normalised


class Described(Protocol):
    """What an experiment says about describing its images; see ``AuditExperiment``."""

    @property
    def image_size(self) -> int | None: ...
    @property
    def channels(self) -> Literal[1, 3] | None: ...
    @property
    def skip_bad_images(self) -> bool: ...
    @property
    def count_flips(self) -> bool: ...
    @property
    def centre_images(self) -> int: ...
    @property
    def ridge(self) -> float: ...


class OpenedSets(Protocol):
    """Image sets by name; a name is that of an option, or ``option/name`` if an option takes several."""

    @property
    def specs(self) -> dict[str, str]: ...
    @property
    def sources(self) -> dict[str, ImageSource]: ...
    @property
    def fingerprints(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class SetFeatures:
    """The features of several image sets.

    Args:
        store: where they are.
        experiment: how images are described.
        choice: by which descriptor.
        sets: opened.

    Raises:
        ConfigError, BadDescriptor: if the descriptor is unknown, its weights are not there, or an
            option does not apply to it.
        BadSource: if ids of a set repeat, or its first image cannot be read.
    """

    base: ClassVar[str] = "train"
    """The set that descriptors are fitted to."""
    base_name: ClassVar[str] = "training images"

    store: Store
    experiment: Described
    choice: DescriptorOptions
    sets: OpenedSets

    def __post_init__(self) -> None:
        """Refuse what could not be described, before anything is made."""
        self.chosen.check(
            ridge=self.experiment.ridge != DEFAULT_RIDGE,
            centre=self.experiment.centre_images > 0,
            centre_option="--centre-images",
        )
        for name, source in self.sets.sources.items():
            self._check_ids(name, source.ids)
        if self.network is None:
            self._check_shapes()

    def _check_ids(self, name: str, ids: Sequence[str]) -> None:
        """Results name images by id: every image needs its own."""
        if len(set(ids)) < len(ids):
            again, count = Counter(ids).most_common(1)[0]
            raise BadSource(
                f"{self._spec(name)}: expected ids that differ, found {again} {count} times; give "
                "every image its own name"
            )

    def _spec(self, name: str) -> str:
        """A set as it was asked for."""
        return f"--{name.partition('/')[0]} {self.sets.specs[name]}"

    def _first(self, source: ImageSource) -> Images:
        e = self.experiment
        return first_readable(
            source, image_size=e.image_size, channels=e.channels, skip_bad=e.skip_bad_images
        )

    def _check_shapes(self) -> None:
        """Pixels are compared one by one: the first images tell whether they can be."""
        base = self.base
        shapes = {name: self._first(source).shape for name, source in self.sets.sources.items()}
        for name, shape in shapes.items():
            if shape != shapes[base]:
                raise ConfigError(
                    f"{self._spec(name)}: images of shape {shape}, but "
                    f"{self.base_name} have {shapes[base]}; pass --image-size or --channels to convert "
                    "all, or a --descriptor that is a network"
                )
        width = int(np.prod(shapes[base]))
        if self.choice.descriptor == "whitened-pixels":
            check_whitening(width)

    @cached_property
    def chosen(self) -> ChosenDescriptor:
        """The descriptor, looked up."""
        return ChosenDescriptor.find(self.choice)

    @property
    def network(self) -> NetworkConfig | None:
        """The network, if the descriptor is one."""
        return self.chosen.network

    @property
    def weights_path(self) -> Path | None:
        """The file of its weights, if there is one."""
        return self.chosen.weights

    @cached_property
    def descriptor(self) -> DescriptorRecipe:
        """Of all sets; the images that it is fitted to must be in the store."""
        if self.network is not None:
            return DescriptorRecipe(
                name=self.network.name, network=self.network, centre=self._centre
            )
        if self.choice.descriptor == "pixels":
            return DescriptorRecipe(name="pixels")
        fit, *also = self._fitted_to
        return DescriptorRecipe(
            name="whitened-pixels",
            fit=fit,
            also=also[0] if also else None,
            ridge=self.experiment.ridge,
        )

    @property
    def fit_names(self) -> tuple[str, ...]:
        """The sets that a descriptor is fitted to together: one or two."""
        return (self.base,)

    @property
    def _fitted_to(self) -> list[Subset]:
        """Images of those sets, drawn at random if they are many: the same share of each."""
        artifacts = [self.store.artifact(self.images[name]) for name in self.fit_names]
        counts = [sum(entry.num_rows for entry in a.files) for a in artifacts]
        _, images = next(iter_shards(artifacts[0], "image"))
        share = min(1.0, FIT_BYTES // (8 * images[0].size) / sum(counts))
        return [
            Subset(
                images=self.images[name],
                split=Split(num_images=count, seed=0, parts=1),
                half="A",
                size=min(count, max(2, int(share * count))),
            )
            for name, count in zip(self.fit_names, counts, strict=True)
        ]

    @property
    def _centre(self) -> SourceRecipe | None:
        return self._where_it_is(self.background) if self.experiment.centre_images else None

    @cached_property
    def background(self) -> ImageSource:
        """Images of the base set whose mean feature is subtracted, unreadable ones among them."""
        return sample_images(self.sets.sources[self.base], self.experiment.centre_images, 0)

    def _ingested(self, source: ImageSource) -> ImagesRecipe:
        e = self.experiment
        return ImagesRecipe(
            fingerprint=source.fingerprint,
            image_size=e.image_size,
            channels=e.channels,
            skip_bad=e.skip_bad_images,
        )

    def _where_it_is(self, source: ImageSource) -> SourceRecipe:
        e = self.experiment
        return SourceRecipe.of(
            source, image_size=e.image_size, channels=e.channels, skip_bad=e.skip_bad_images
        )

    @cached_property
    def images(self) -> dict[str, ImagesRecipe | SourceRecipe]:
        """Of every set: an artifact of images, or the source itself."""
        return {name: self._images(name) for name in self.sets.sources}

    def _images(self, name: str) -> ImagesRecipe | SourceRecipe:
        source = self.sets.sources[name]
        if not self.choice.is_network or is_artifact(self.sets.specs[name]):
            return self._ingested(source)
        return self._where_it_is(source)

    @property
    def raw(self) -> bool:
        """Whether features are kept as the network gives them."""
        return self.choice.descriptor == RAW_DESCRIPTOR

    @cached_property
    def recipes(self) -> dict[str, FeaturesRecipe]:
        """Of every set, and of the flips of the base set where they count."""
        found = {
            name: FeaturesRecipe(images=images, descriptor=self.descriptor, raw=self.raw)
            for name, images in self.images.items()
        }
        if self.experiment.count_flips:
            found[MIRRORED] = replace(found[self.base], mirrored=True)
        return found

    def remove(self) -> None:
        """Delete what was made for these sets (--no-resume); weights stay."""
        if self.is_determined:
            made: list[Recipe] = [*self.recipes.values(), self.descriptor]
            for recipe in made:
                self.store.artifact(recipe).remove()
        for recipe in self._ingested_sets:
            self.store.artifact(recipe).remove()

    @property
    def is_determined(self) -> bool:
        """Whether recipes can be told: a fit to pixels depends on how many images could be read."""
        return self.choice.is_network or not self.store.missing(self._ingested_sets)

    @property
    def _ingested_sets(self) -> list[ImagesRecipe]:
        return [r for r in self.images.values() if isinstance(r, ImagesRecipe)]

    @property
    def words(self) -> str:
        """The descriptor, for people."""
        d = self.descriptor
        if d.fit is not None:
            also = f" and {d.also.size:,} generated ones" if d.also is not None else ""
            return f"whitened-pixels, fitted to {d.fit.size:,} {self.base_name}{also}"
        if d.network is None:
            return d.label
        if d.centre is None:
            return d.network.label
        readable = "those that can be read of " if self.experiment.skip_bad_images else ""
        count = len(self.background.ids)
        return f"{d.network.label}, minus the mean of {readable}{count:,} {self.base_name}"

    def ingest(self) -> None:
        """Bring images that need it into the store."""
        waiting = [n for n, r in self.images.items() if isinstance(r, ImagesRecipe)]
        with Stage("images", 0, "image") as stage:
            made = sum(self._ingest(name) for name in waiting)
            images = counted(sum(len(s.ids) for s in self.sets.sources.values()), "image")
            stage.done(f"{images}, {_read_words(made, len(waiting) - made)}")

    def _ingest(self, name: str) -> bool:
        recipe = self.images[name]
        if not isinstance(recipe, ImagesRecipe) or not self.store.missing([recipe]):
            return False
        ingest(self.store, recipe, decode_source(self.sets.sources[name], recipe))
        return True

    def fit(self) -> None:
        """Bring the weights into the store, and fit what is to be fitted."""
        if self.network is not None:
            import_weights(self.store, self.descriptor, self.weights_path)
        if self.store.missing([self.descriptor]):
            try:
                background = self.background if self.descriptor.centre else None
                fit_descriptor(self.store, self.descriptor, background=background)
            except ValueError as error:
                raise ConfigError(f"--descriptor {self.descriptor.name}: {error}") from error

    def missing_units(self) -> int:
        """Units that are still to be described."""
        sources = {self.images[n].address: s for n, s in self.sets.sources.items()}
        return sum(
            len(features.split_work(self.store, r, sources.get(r.images.address))[1])
            for r in self.store.missing(self._distinct)
        )

    @property
    def _distinct(self) -> list[FeaturesRecipe]:
        return list({r.address: r for r in self.recipes.values()}.values())

    def describe(self, runtime: RayRuntime, run: RunOptions) -> None:
        """Describe all sets; what is there is kept.

        Networks run on Ray. Pixels are described here: that is one matrix product, done before Ray
        has started.
        """
        waiting = self.store.missing(self._distinct)
        units = self.missing_units()
        with Stage("describe", units, "unit") as stage:
            if waiting and self.choice.is_network:
                extract(
                    runtime,
                    self.store,
                    waiting,
                    workers=run.replicas,
                    on_unit=stage.advance,
                    hardware=Hardware(device=run.device, gpus_each=run.gpus_per_replica),
                    sources=self._reachable(),
                )
            elif waiting:
                self._describe_here(waiting, stage)
            kept = len(self._distinct) - len(waiting)
            stage.done(
                f"{counted(len(self._distinct), 'image set')} by {self.descriptor.name}: {kept} kept, "
                f"{counted(units, 'unit')} made"
            )

    def _describe_here(self, recipes: Sequence[FeaturesRecipe], stage: Stage) -> None:
        descriptor = load_descriptor(self.store, self.descriptor)
        for recipe in recipes:
            entries, missing = features.split_work(self.store, recipe)
            for unit, name in missing:
                block = features.read_block(self.store, recipe, unit, name)
                rows = features.describe_block(descriptor, block, raw=recipe.raw)
                entries += features.write_block(self.store, recipe, unit, block, rows)
                stage.advance()
            features.finish(self.store, recipe, entries)

    def _reachable(self) -> dict[str, str]:
        """Sources that workers open, which have another working folder, by address."""
        return {
            recipe.address: spec if spec == "digits" else str(Path(spec).absolute())
            for name, spec in self.sets.specs.items()
            if isinstance(recipe := self.images[name], SourceRecipe)
        }

    def read(self) -> tuple[dict[str, Features], dict[str, Features]]:
        """Unit rows of every set, and features as the network gives them, where those are kept.

        Unit rows are centred, if the descriptor has a centre; the others never are.
        """
        found = {name: features.read_features(self.store, r) for name, r in self.recipes.items()}
        if not any(r.raw for r in self.recipes.values()):
            return found, {}
        centre = read_centre(self.store, self.descriptor)
        return {name: _unit(f, centre) for name, f in found.items()}, found


def _read_words(made: int, kept: int) -> str:
    """What became of the sets that go through the store."""
    if not made + kept:
        return "read where they are"
    parts = [
        f"{counted(number, 'set')} {what}" for number, what in ((made, "read"), (kept, "kept"))
    ]
    return ", ".join(part for part in parts if not part.startswith("0 "))


def _unit(rows: Features, centre: np.ndarray | None) -> Features:
    values = rows.values.astype(np.float64)
    moved = values if centre is None else values - centre
    return Features(rows.ids, unit_rows(moved), rows.descriptor)
