"""Jacobian artifacts: singular values of a denoiser's Jacobians, of every point at every level.

Points (seeds, or couples of an image and a seed) are cut into fixed blocks, the work units. Spectra
are kept, not ranks: another rank rule needs no new Jacobian. A shard has one row per point:

    values     (T, R) float64, singular values at T levels, NaN where fewer were found
    rest       (T, 3), energy of the values not found, its ``rest_error``, and that of the values found
    sigma      (T), the noise levels
    outputs    (T, V, C, H, W) float32, leading left singular vectors
    denoised   (T, C, H, W) float32, D(x; sigma)
    group      the seed, or the number of the image: what intervals count
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regimes.denoisers.compute import Compute
from regimes.errors import BrokenArtifact, ConfigError, NotFiniteSamples
from regimes.images.pixels import Images, to_float
from regimes.jacobians.linearization import Linearization
from regimes.jacobians.ranks import Spectrum
from regimes.jacobians.spectra import Decomposition, SpectrumConfig, decompose
from regimes.jacobians.trajectories import known_levels, noise_of, trajectory
from regimes.noise import SeedNoise, keyed_generator
from regimes.samplers.edm import SamplerConfig
from regimes.storage.artifacts import FileEntry, Recipe, Store
from regimes.storage.denoisers import DenoiserRecipe, Loaded
from regimes.storage.images import ImagesRecipe
from regimes.storage.seeds import Seeds
from regimes.storage.tables import (
    Values,
    iter_shards,
    left_over,
    read_rows,
    shard_name,
    write_shard,
)
from regimes.studies.jacobian import ModelSpectra

Floats = npt.NDArray[np.float64]
VECTORS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryPoints:
    """Along sampled trajectories, one per seed."""

    seeds: Seeds
    sampler: SamplerConfig

    def __len__(self) -> int:
        return len(self.seeds)

    def ids(self) -> list[str]:
        """One per point."""
        return [str(seed) for seed in self.seeds.block(0, len(self))]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePoints:
    """At images plus noise, every image with every seed's noise."""

    images: ImagesRecipe
    num_images: int
    """Chosen at random from all, always the same ones."""
    seeds: Seeds
    sigmas: tuple[float, ...]

    def __len__(self) -> int:
        return self.num_images * len(self.seeds)

    def ids(self) -> list[str]:
        """One per point, as in 3+17: the fourth image with the noise of seed 17."""
        seeds = self.seeds.block(0, len(self.seeds))
        return [f"{image}+{seed}" for image in range(self.num_images) for seed in seeds]


@dataclass(frozen=True, slots=True, kw_only=True)
class JacobianRecipe(Recipe):
    """Which denoiser, at which points, and how its singular values are found."""

    kind: ClassVar[str] = "jacobian"
    code_version: ClassVar[int] = 4

    denoiser: DenoiserRecipe
    points: TrajectoryPoints | ImagePoints
    spectrum: SpectrumConfig
    points_per_unit: int
    """Points per shard; also the batch."""
    class_index: int | None = None
    """Class of all points; None takes the image's own, or one drawn per seed."""
    compute: Compute = field(default_factory=Compute)

    @property
    def num_units(self) -> int:
        """Number of shards."""
        return -(-len(self.points) // self.points_per_unit)

    def unit_ids(self, unit: int) -> list[str]:
        """Ids of the points of one unit."""
        start = unit * self.points_per_unit
        return self.points.ids()[start : start + self.points_per_unit]


@dataclass(frozen=True, slots=True)
class ChosenImages:
    """The images at which a denoiser is linearised; replicas share them."""

    images: Images
    """(N, H, W, C) uint8."""
    labels: npt.NDArray[np.int64] | None
    """(N,) their classes, if the source has any."""


def choose_images(store: Store, points: ImagePoints) -> ChosenImages:
    """Read the images of some points.

    Raises:
        ConfigError: if there are fewer.
    """
    artifact = store.artifact(points.images)
    ids, images = read_rows(artifact, "image")
    if points.num_images > len(ids):
        raise ConfigError(
            f"--num-images: expected at most {len(ids)}, the images of the source, got "
            f"{points.num_images}"
        )
    order = keyed_generator("jacobian images", len(ids)).permutation(len(ids))
    chosen = np.sort(order[: points.num_images])
    try:
        labels = read_rows(artifact, "label")[1][chosen]
    except BrokenArtifact:  # a source without classes
        labels = None
    return ChosenImages(images[chosen], labels)


def check_points(recipe: JacobianRecipe, loaded: Loaded, chosen: ChosenImages | None) -> None:
    """Refuse a class or images that do not fit the model; a job asks before it starts workers.

    Raises:
        ConfigError: if the images have another shape, or the model lacks a class, or is not told one.
    """
    index, count, label = recipe.class_index, loaded.num_classes, recipe.denoiser.label
    if index is not None and not count:
        raise ConfigError(f"--class: {label} is unconditional; leave it out")
    if index is not None and not 0 <= index < count:
        raise ConfigError(f"--class: expected 0 to {count - 1}, got {index}")
    if chosen is None:
        return
    height, width, channels = chosen.images.shape[1:]
    if (channels, height, width) != tuple(loaded.image_shape):
        raise ConfigError(
            f"--source: images of shape {(channels, height, width)}, but the model's are "
            f"{loaded.image_shape}; pass --image-size or --channels to convert them"
        )
    own = chosen.labels
    if count and index is None and (own is None or not ((own >= 0) & (own < count)).all()):
        raise ConfigError(
            f"{label}: the model has {count} classes and the images do not say theirs; pass --class"
        )


def measure_unit(
    store: Store,
    recipe: JacobianRecipe,
    unit: int,
    loaded: Loaded,
    chosen: ChosenImages | None,
    *,
    device: str = "cpu",
) -> FileEntry:
    """Linearise at the points of one unit and write its shard.

    Args:
        store: where the shard goes.
        recipe: what to measure.
        unit: which points.
        loaded: the denoiser, on ``device``.
        chosen: the images of ``ImagePoints``.
        device: where to compute.

    Raises:
        ConfigError: if the images do not fit the model, or it lacks a class.
        NotFiniteSamples: if a Jacobian is not finite.
    """
    check_points(recipe, loaded, chosen)
    ids = recipe.unit_ids(unit)
    if isinstance(recipe.points, TrajectoryPoints):
        levels, x, labels = _trajectories(recipe, recipe.points, ids, loaded, device)
    else:
        assert chosen is not None
        levels, x, labels = _at_images(recipe, recipe.points, ids, loaded, chosen, device)
    found: list[Decomposition] = []
    denoised = []
    for sigma, state in zip(levels, x, strict=True):
        local = Linearization(loaded.denoiser, state.to(device), sigma.to(device), labels)
        if not bool(torch.isfinite(local.value).all()):
            raise NotFiniteSamples(
                f"{recipe.denoiser.label}: not finite at sigma {float(sigma):g}, points {ids[:3]}; "
                "the model has diverged, or does not know this noise level"
            )
        vectors = min(VECTORS, local.shape[1])
        found.append(decompose(local, recipe.spectrum, seed=unit, vectors=vectors))
        denoised.append(local.value.cpu().float())
    columns = _columns(recipe, ids, levels, found, torch.stack(denoised, 1), loaded.image_shape)
    return write_shard(store.artifact(recipe), unit, np.array(ids), columns)


def _trajectories(
    recipe: JacobianRecipe,
    points: TrajectoryPoints,
    ids: Sequence[str],
    loaded: Loaded,
    device: str,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Levels (T,), states (T, P, C, H, W), classes (P, L) or None."""
    noise = SeedNoise([int(seed) for seed in ids], loaded.image_shape)
    latents = noise.latents().to(device)
    labels = None
    if loaded.num_classes:
        drawn = noise.class_labels(loaded.num_classes)
        labels = _one_hot(recipe, drawn.argmax(1).numpy(), drawn.shape[1]).to(device)
    levels, x = trajectory(loaded.denoiser, latents, config=points.sampler, class_labels=labels)
    return levels, x, labels


def _at_images(
    recipe: JacobianRecipe,
    points: ImagePoints,
    ids: Sequence[str],
    loaded: Loaded,
    chosen: ChosenImages,
    device: str,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Levels (T,), states (T, P, C, H, W), classes (P, L) or None."""
    keys = [(int(i), int(seed)) for i, seed in (name.split("+") for name in ids)]
    index = [i for i, _ in keys]
    y = to_float(chosen.images[index]).double()
    levels = known_levels(loaded.denoiser, points.sigmas)
    n = noise_of([(str(i), seed) for i, seed in keys], loaded.image_shape)
    labels = None
    if loaded.num_classes:
        own = np.zeros(len(ids), np.int64) if chosen.labels is None else chosen.labels[index]
        labels = _one_hot(recipe, own, loaded.num_classes).to(device)
    return levels, torch.stack([y + sigma * n for sigma in levels]), labels


def _one_hot(recipe: JacobianRecipe, own: npt.NDArray[np.int64], num_classes: int) -> Tensor:
    """(P, L) of the class asked for, or of each point's own (P,)."""
    asked = own if recipe.class_index is None else np.full(len(own), recipe.class_index)
    return torch.eye(num_classes)[torch.from_numpy(asked.astype(np.int64))]


def _columns(
    recipe: JacobianRecipe,
    ids: Sequence[str],
    levels: Tensor,
    found: Sequence[Decomposition],
    denoised: Tensor,
    image_shape: tuple[int, int, int],
) -> dict[str, Values]:
    points = len(ids)
    longest = max(len(s.values) for f in found for s in f.spectra)
    values = np.full((points, len(found), longest), np.nan)
    rest = np.zeros((points, len(found), 3))
    for t, decomposition in enumerate(found):
        for p, spectrum in enumerate(decomposition.spectra):
            values[p, t, : len(spectrum.values)] = spectrum.values
            rest[p, t] = spectrum.rest, spectrum.rest_error, spectrum.value_error
    outputs = torch.stack([f.outputs for f in found], 1).float().cpu()
    return {
        "values": values,
        "rest": rest,
        "sigma": levels.numpy()[None].repeat(points, 0),
        "outputs": outputs.reshape(points, len(found), -1, *image_shape).numpy(),
        "denoised": denoised.numpy(),
        "group": np.array([int(name.split("+")[0]) for name in ids], np.int64),
    }


def split_work(store: Store, recipe: JacobianRecipe) -> tuple[list[FileEntry], list[int]]:
    """Entries of the units that an earlier run left, and the units that are missing."""
    artifact = store.artifact(recipe)
    present = artifact.present()
    entries, missing = [], []
    for unit in range(recipe.num_units):
        name = shard_name(unit)
        ids = np.array(recipe.unit_ids(unit))
        entry = left_over(artifact, name, ids) if name in present else None
        entries += [entry] if entry else []
        missing += [] if entry else [unit]
    return entries, missing


def read_spectra(store: Store, recipe: JacobianRecipe, name: str) -> ModelSpectra:
    """All spectra of a complete artifact, checked, under the model's name."""
    artifact = store.artifact(recipe)
    _, sigmas = read_rows(artifact, "sigma")
    _, rest = read_rows(artifact, "rest")
    _, denoised = read_rows(artifact, "denoised")
    size = int(np.prod(denoised.shape[2:]))
    spectra = []
    for values, extra in zip(_padded_rows(store, recipe), rest, strict=True):
        spectra.append([_spectrum(v, e, size) for v, e in zip(values, extra, strict=True)])
    _, groups = read_rows(artifact, "group")
    return ModelSpectra(name=name, groups=groups, sigmas=sigmas[0], spectra=spectra)


def _padded_rows(store: Store, recipe: JacobianRecipe) -> list[Floats]:
    """Values (T, R) of every point; R differs from shard to shard."""
    return [row for _, rows in iter_shards(store.artifact(recipe), "values") for row in rows]


def _spectrum(values: Floats, rest: Floats, size: int) -> Spectrum:
    kept = values[~np.isnan(values)]
    energy, error, value_error = rest.tolist()
    return Spectrum(values=kept, size=size, rest=energy, rest_error=error, value_error=value_error)


@dataclass(frozen=True, slots=True)
class Pictures:
    """What one point looks like to a denoiser."""

    sigmas: Floats
    """(T,)"""
    denoised: npt.NDArray[np.float32]
    """(T, C, H, W)"""
    outputs: npt.NDArray[np.float32]
    """(T, V, C, H, W), leading left singular vectors."""
    values: Floats
    """(T, V), their singular values."""


def read_pictures(store: Store, recipe: JacobianRecipe, point: int = 0) -> Pictures:
    """Denoised images and singular vectors of one point."""
    artifact = store.artifact(recipe)
    _, sigmas = read_rows(artifact, "sigma")
    _, denoised = read_rows(artifact, "denoised")
    _, outputs = read_rows(artifact, "outputs")
    values = _padded_rows(store, recipe)[point][:, : outputs.shape[2]]
    return Pictures(sigmas[point], denoised[point], outputs[point], values)
