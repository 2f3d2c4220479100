"""What follows from the question of a guidance sweep: recipes, cells and trials."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from regimes.callables import PYTHON, load_callable, source_sha256
from regimes.descriptors.options import DescriptorOptions
from regimes.errors import ConfigError
from regimes.guidance.config import GuidanceConfig
from regimes.guidance.directions import moved
from regimes.guidance.sampler import check_together
from regimes.images.clips import ClipSource
from regimes.images.pixels import to_float
from regimes.images.sources import ImageSource, open_source
from regimes.images.split import Split
from regimes.jobs.support.chosen_descriptor import (
    DEFAULT_DESCRIPTOR,
    DEFAULT_RIDGE,
    ChosenDescriptor,
)
from regimes.jobs.support.guidance.experiment import GuidanceExperiment
from regimes.storage.artifacts import Recipe, Store
from regimes.storage.denoisers import DenoiserRecipe
from regimes.storage.descriptors import DescriptorRecipe
from regimes.storage.guidance import GuidedRecipe, OwnKernel, Part
from regimes.storage.guided_targets import (
    ClipTarget,
    ImageTarget,
    KnownTarget,
    Target,
    known_target,
)
from regimes.storage.images import Decoded, ImagesRecipe, Subset, decode_source
from regimes.storage.judges import JudgeRecipe
from regimes.storage.maps import MapRecipe
from regimes.storage.model_specs import identify_model
from regimes.storage.models import ModelRecipe
from regimes.storage.networks import NetworkRecipe
from regimes.studies.guidance import CellKey, baseline_key

_MAPPED = 1000  # real images on the map
_HELD_OUT = 6  # one image in so many sets the limits of the judge


class GuidancePlan:
    """Everything a sweep makes, by recipes.

    Args:
        experiment: what is asked.
        descriptor: what particles are compared by in space features.

    Raises:
        ConfigError, BadSource, BadDescriptor: if it cannot be had.
    """

    def __init__(
        self, experiment: GuidanceExperiment, descriptor: DescriptorOptions = DEFAULT_DESCRIPTOR
    ) -> None:
        self.experiment = experiment
        self.decoded: Decoded | None = None
        self.images: ImagesRecipe | None = None
        self.continued: Decoded | None = None
        self.continued_images: ImagesRecipe | None = None
        if experiment.target == "images":
            self.images, self.decoded = _decoded(open_source(experiment.source))
            self._check_classes()
        if experiment.target == "clips":
            clips = experiment.clips
            self.images, self.decoded = _decoded(ClipSource(replace(clips, part="train")))
            held = replace(clips, part="heldout", windows="changes", clips=experiment.groups)
            self.continued_images, self.continued = _decoded(ClipSource(held))
        self.descriptor = self._descriptor(descriptor)
        for recipe in self.cells.values():
            check_together(recipe.sampler, recipe.guidance)

    def _descriptor(self, options: DescriptorOptions) -> ChosenDescriptor | None:
        """What features are of, if particles are compared by features."""
        e = self.experiment
        if e.space != "features":
            if options != DEFAULT_DESCRIPTOR or e.ridge != DEFAULT_RIDGE:
                raise ConfigError(
                    "--descriptor: is of --space features; leave it out, or pass that"
                )
            return None
        if e.target not in ("images", "clips"):
            raise ConfigError(f"--space features: target {e.target} has no images to describe")
        chosen = ChosenDescriptor.find(options)
        chosen.check(ridge=e.ridge != DEFAULT_RIDGE, centre=False)
        if chosen.is_fitted and e.target == "clips":
            raise ConfigError(
                "--descriptor whitened-pixels: is fitted to images, not to windows of frames; choose pixels "
                "or a network"
            )
        return chosen

    @cached_property
    def features(self) -> DescriptorRecipe | None:
        """The descriptor whose features are compared."""
        if self.descriptor is None:
            return None
        return self.descriptor.recipe(self.train, ridge=self.experiment.ridge, centre=False)

    def _check_classes(self) -> None:
        assert self.decoded is not None
        labels = self.decoded.labels
        where = f"--source {self.experiment.source}"
        if labels is None:
            problem = self.decoded.label_problem or "the source has none"
            raise ConfigError(f"{where}: expected images with classes ({problem})")
        if len(np.unique(labels)) < 2 or len(np.unique(labels)) <= labels.max():
            raise ConfigError(f"{where}: expected classes 0 to K - 1, each of them there")
        if len(labels) < 100:
            raise ConfigError(f"{where}: expected at least 100 images, got {len(labels)}")

    @property
    def probabilities(self) -> list[float]:
        """Of the modes in the data."""
        if self.decoded is None:
            default = [1 / 8] * 8 if self.experiment.target == "jumps" else [0.1] * 10
            return list(self.experiment.mode_weights) or default
        if self.experiment.target == "clips":
            return list(self.experiment.clips.movement.probabilities)
        assert self.decoded.labels is not None
        return list(np.bincount(self.decoded.labels) / len(self.decoded.labels))

    @property
    def mode_names(self) -> Sequence[str]:
        """One word each."""
        if self.experiment.target == "clips":
            return self.experiment.clips.movement.mode_names
        return [str(k) for k in range(len(self.probabilities))]

    @property
    def train(self) -> Subset:
        """The images, or windows of frames, that the network and the judge learn from."""
        assert self.images is not None
        assert self.decoded is not None
        count = len(self.decoded.ids)
        if self.experiment.target == "clips":
            split = Split(num_images=count, seed=None, parts=1)
            return Subset(images=self.images, split=split, half="A", size=count)
        split = Split(num_images=count, seed=self.experiment.seed, parts=1)
        return Subset(images=self.images, split=split, half="A", size=count - count // _HELD_OUT)

    @cached_property
    def model(self) -> DenoiserRecipe | None:
        """What is sampled, for images and clips."""
        e = self.experiment
        if e.target == "clips":
            return NetworkRecipe(
                train=self.train,
                network=e.network,
                training=e.network_training,
                seed=e.seed,
                condition_channels=e.clips.window - 1,
            )
        if e.target != "images":
            return None
        if e.model is not None:
            return identify_model(e.model)
        assert self.decoded is not None
        return ModelRecipe(
            train=self.train,
            width=e.width,
            blocks=e.blocks,
            steps=e.steps,
            sigma_data=round(float(to_float(self.decoded.images).std()), 4),
            training=e.training,
            seed=e.seed,
            ensemble=(f"w{e.width}-{self.train.label}",),
        )

    @cached_property
    def judge(self) -> JudgeRecipe | None:
        """What tells the classes of images apart."""
        if self.experiment.target != "images":
            return None
        return JudgeRecipe(train=self.train, seed=self.experiment.seed)

    @property
    def target(self) -> Target:
        """What is sampled and judged."""
        e = self.experiment
        if e.target == "clips":
            assert isinstance(self.model, NetworkRecipe)
            assert self.continued_images is not None
            displacements = e.clips.movement.displacements
            return ClipTarget(
                denoiser=self.model, clips=self.continued_images, displacements=displacements
            )
        if e.target == "images":
            assert self.model is not None
            assert self.judge is not None
            return ImageTarget(denoiser=self.model, judge=self.judge)
        return KnownTarget(name=e.target, weights=tuple(self.probabilities))

    @cached_property
    def cells(self) -> dict[CellKey, GuidedRecipe]:
        """Every cell's recipe, baselines first."""
        return {key: self._recipe(key) for key in self._keys()}

    def _keys(self) -> Iterator[CellKey]:
        e = self.experiment
        places = list(itertools.product(e.group_sizes, e.churns))
        rows = [
            row
            for row in itertools.product(e.kernels, e.strengths, places)
            if row[0] != "published" or row[1] == e.strengths[0]  # it has a strength of its own
        ]
        guided = [
            CellKey(
                factor=f,
                s_churn=churn,
                group_size=size,
                kernel=kernel,
                strength="linear" if kernel == "published" else strength,
            )
            for kernel, strength, (size, churn) in rows
            for f in e.all_factors[1:]
        ]
        for size, churn in places:
            yield baseline_key(
                CellKey(factor=0, s_churn=churn, group_size=size, kernel="", strength="")
            )
        yield from guided

    def _recipe(self, key: CellKey) -> GuidedRecipe:
        e = self.experiment
        plain = GuidedRecipe(
            target=self.target,
            sampler=replace(e.sampler, s_churn=key.s_churn),
            guidance=GuidanceConfig(factor=0.0, group_size=key.group_size, eta=e.eta),
            groups=e.groups,
            first_seed=e.first_seed,
        )
        if key.is_baseline:
            return plain
        if key.kernel == "published":
            guidance = GuidanceConfig(factor=key.factor, group_size=key.group_size)
            return replace(plain, guidance=guidance, as_published=True)
        own = self._own_kernels.get(key.kernel)
        return replace(plain, guidance=self._guidance(key), features=self.features, own_kernel=own)

    @cached_property
    def _own_kernels(self) -> dict[str, OwnKernel]:
        """The user's kernels by name; a function that cannot be imported is refused here."""
        names = [k for k in self.experiment.kernels if k.startswith(PYTHON)]
        for name in names:
            load_callable(name.removeprefix(PYTHON), name)
        targets = [name.removeprefix(PYTHON) for name in names]
        hashes = [
            source_sha256(n, t.partition(":")[0]) for n, t in zip(names, targets, strict=True)
        ]
        return {
            name: OwnKernel(target=target, sha256=digest)
            for name, target, digest in zip(names, targets, hashes, strict=True)
        }

    def _guidance(self, key: CellKey) -> GuidanceConfig:
        e = self.experiment
        return GuidanceConfig(
            factor=key.factor,
            group_size=key.group_size,
            space=e.space,
            jacobian=e.jacobian,
            kernel="custom" if key.kernel.startswith(PYTHON) else key.kernel,  # type: ignore[arg-type]
            bandwidth=e.bandwidth,
            width=e.bandwidth_scale,
            average=e.average,
            strength=key.strength,  # type: ignore[arg-type]
            cap=e.cap,
            lowest=e.lowest,
            highest=e.highest,
            corrector=e.corrector,
            eta=e.eta,
        )

    @property
    def map(self) -> MapRecipe | None:
        """The map of real images that samples are placed on; of clips, of the last frames of windows."""
        if self.images is None or self.decoded is None:
            return None
        channels = 1 if self.continued is not None else self.decoded.images.shape[3]
        return MapRecipe(images=self.images, channels=channels, size=_MAPPED, seed=0)

    def trials(self, store: Store) -> list[list[Part]]:
        """Cells that are missing: those of a row together, but units of large cells on their own."""
        rows: dict[tuple[object, ...], list[Part]] = {}
        for key, recipe in self.cells.items():
            if not store.missing([recipe]):
                continue
            count = len(recipe.units)
            for unit in range(count):
                own = (key.factor, unit) if count > 1 else ()
                rows.setdefault((*key.row, key.s_churn, *own), []).append((recipe, unit))
        return list(rows.values())

    @property
    def artifacts(self) -> Sequence[Recipe]:
        """Everything that is made here; images and imported models are kept by other jobs too."""
        made: list[Recipe] = [*self.cells.values()]
        if self.experiment.trains and self.model is not None:
            made.append(self.model)
        return made if self.judge is None else [*made, self.judge]

    def plane(
        self,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Origin (D,), two directions (2, D) and real points (N, 2) of the plane for figures.

        The ring's own plane, or the principal plane of real images, fitted once (of jumps and clips: of the
        modes; of clips those of the first group).
        """
        target = self.target
        if isinstance(target, ClipTarget):
            real = self.next_frames(0)
        elif isinstance(target, KnownTarget):
            mixture = known_target(target)
            real = mixture.centres.flatten(1).numpy()
            if target.name == "ring":
                shown = mixture.draw(2000, torch.Generator().manual_seed(0)).flatten(1).numpy()
                return np.zeros(2), np.eye(2), shown
        else:
            assert self.decoded is not None
            real = to_float(self.decoded.images).flatten(1).double().numpy()
        origin = real.mean(0)
        axes = np.linalg.svd(real - origin, full_matrices=False)[2][:2]
        return origin, axes, (real - origin) @ axes.T

    def next_frames(self, group: int) -> npt.NDArray[np.float64]:
        """(K, H W) in [-1, 1]: the frames that can come behind those a group has seen."""
        assert self.continued is not None
        assert isinstance(self.target, ClipTarget)
        last = self.continued.images[group % len(self.continued.images)][..., -2]
        black_at_zero = to_float(last[None, :, :, None])[:, 0].double().numpy() + 1
        frames = [moved(black_at_zero, d)[0] - 1 for d in self.target.displacements]
        return np.stack(frames).reshape(len(frames), -1)


def _decoded(source: ImageSource) -> tuple[ImagesRecipe, Decoded]:
    recipe = ImagesRecipe(
        fingerprint=source.fingerprint, image_size=None, channels=None, skip_bad=False
    )
    return recipe, decode_source(source, recipe)
