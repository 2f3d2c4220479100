"""Guided samples as artifacts: one per cell of a sweep.

A cell holds the seeds, the samples, the mode that each was found to be of (-1: rejected), its distance from
the data, and for continued clips what else was measured of it. Groups are independent of each other, so a
cell of many is made in units of whole groups, a shard each, by whoever is free; what a unit took stands
beside its shard.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regimes.callables import load_callable
from regimes.descriptors.differentiable import FeatureMap, feature_map
from regimes.errors import NotFiniteSamples
from regimes.guidance.config import GuidanceConfig
from regimes.guidance.kernels import Dissimilarity
from regimes.guidance.published import sample_as_published
from regimes.guidance.sampler import OnStep, guided_sample
from regimes.guidance.targets import MixtureDenoiser
from regimes.later import LATER
from regimes.noise import SeedNoise, keyed_generator
from regimes.samplers.edm import SampledDenoiser, SamplerConfig
from regimes.storage.artifacts import FileEntry, Recipe, Store, to_json
from regimes.storage.descriptors import DescriptorRecipe, load_descriptor
from regimes.storage.guided_targets import Target, judgement, target_of
from regimes.storage.tables import left_over, read_rows, shard_name, write_shard

COST = "cost.json"
_ROWS = 1000  # particles that are sampled together; whole groups, whatever their number
_UNIT = (
    5000  # particles of a unit of work, likewise; a multiple of _ROWS, for batches to be the same
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnKernel:
    """A user's dissimilarity, for kernel custom."""

    target: str
    """MODULE:CALLABLE."""
    sha256: str
    """Of its source, so that cells of another version are made anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidedRecipe(Recipe):
    """One cell: groups of guided samples."""

    kind: ClassVar[str] = "guided"
    code_version: ClassVar[int] = 1

    target: Target
    sampler: SamplerConfig
    guidance: GuidanceConfig
    groups: int
    first_seed: int
    features: DescriptorRecipe | None = field(default=None, metadata=LATER)
    """What particles are compared by in space features."""
    own_kernel: OwnKernel | None = field(default=None, metadata=LATER)
    """The kernel custom."""
    as_published: bool = field(default=False, metadata=LATER)
    """Follow the code of the thesis instead; of the guidance, factor and group size count."""

    @property
    def seeds(self) -> range:
        """Of all samples, group after group."""
        return range(self.first_seed, self.first_seed + self.groups * self.guidance.group_size)

    @property
    def units(self) -> list[range]:
        """The groups of every unit of work."""
        size = self.guidance.group_size
        step = max(1, _ROWS // size) * (_UNIT // _ROWS)
        starts = range(0, self.groups, step)
        return [range(start, min(start + step, self.groups)) for start in starts]


@dataclass(frozen=True, slots=True)
class GuidedCell:
    """A complete cell."""

    samples: npt.NDArray[np.float64]
    """(G B, C, H, W)."""
    modes: npt.NDArray[np.int64]
    """(G, B); -1 for rejected ones."""
    quality: npt.NDArray[np.float64]
    """(G, B), distance from the data."""
    seconds: float
    """It took to sample them, on one CPU or GPU."""
    measures: Mapping[str, npt.NDArray[np.float64]]
    """(G, B) each, by name; see ``guided_targets.Judged``."""


def sample_cell(
    store: Store,
    recipe: GuidedRecipe,
    *,
    device: str = "cpu",
    groups: range | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """The samples of a cell, (G B, C, H, W) float64 on the CPU.

    Args:
        store: where the model is.
        recipe: the cell.
        device: where the model computes.
        groups: only these, consecutive ones.
        on_step: see ``guided_sample``.
    """
    target = target_of(store, recipe.target, device)
    size = recipe.guidance.group_size
    groups = range(recipe.groups) if groups is None else groups
    seeds = recipe.seeds[groups.start * size : groups.stop * size]
    step = max(1, _ROWS // size) * size
    parts = _Parts.of(store, recipe, device)
    batches = []
    for start in range(0, len(seeds), step):
        batch = seeds[start : start + step]
        of_group = [groups.start + (start + row) // size for row in range(len(batch))]
        noise = SeedNoise(batch, target.image_shape)
        latents = noise.latents().double()
        denoiser = target.denoiser(of_group)
        if isinstance(denoiser, MixtureDenoiser):
            latents = _exact_latents(denoiser, latents, batch, recipe.sampler.sigma_range[1])
        with torch.no_grad():
            x = _sampled(recipe, parts, denoiser, latents.to(device), noise, on_step)
        batches.append(x.cpu())
    return torch.cat(batches)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What guidance needs beside numbers."""

    features: FeatureMap | None
    dissimilarity: Dissimilarity | None

    @classmethod
    def of(cls, store: Store, recipe: GuidedRecipe, device: str) -> _Parts:
        features, own = None, recipe.own_kernel
        if recipe.features is not None:
            features = feature_map(load_descriptor(store, recipe.features, device=device), device)
        return cls(
            features, None if own is None else load_callable(own.target, f"python:{own.target}")
        )


def _sampled(
    recipe: GuidedRecipe,
    parts: _Parts,
    denoiser: SampledDenoiser,
    latents: Tensor,
    noise: SeedNoise,
    on_step: OnStep | None,
) -> Tensor:
    if recipe.as_published:
        return sample_as_published(
            denoiser,
            latents,
            config=recipe.sampler,
            factor=recipe.guidance.factor,
            group_size=recipe.guidance.group_size,
            step_noise=noise.step,
            on_step=on_step,
        )
    return guided_sample(
        denoiser,
        latents,
        config=recipe.sampler,
        guidance=recipe.guidance,
        step_noise=noise.step,
        features=parts.features,
        dissimilarity=parts.dissimilarity,
        on_step=on_step,
    )


def _exact_latents(
    mixture: MixtureDenoiser, noise: Tensor, seeds: Sequence[int], sigma: float
) -> Tensor:
    """The mixture at the first noise level; what each seed draws does not depend on the others."""
    rows = []
    for seed, row in zip(seeds, noise, strict=True):
        start = int(keyed_generator("mixture", seed).integers(2**62))
        generator = torch.Generator().manual_seed(start)
        rows.append(mixture.latents(row[None], sigma, generator))
    return torch.cat(rows)


def make_cell(store: Store, recipe: GuidedRecipe, *, device: str = "cpu") -> None:
    """Sample and judge a cell and write its artifact, unless it is there; raises as ``make_unit``."""
    for unit in range(len(recipe.units)):
        make_unit(store, recipe, unit, device=device)


def make_unit(store: Store, recipe: GuidedRecipe, unit: int, *, device: str = "cpu") -> None:
    """Sample and judge a unit of a cell, unless it is there; the last one completes the artifact.

    Raises:
        NotFiniteSamples: if samples hold NaN or infinite values.
        BrokenArtifact: if a shard that was left is damaged.
    """
    artifact = store.artifact(recipe)
    if artifact.is_complete():
        return
    if not set(_files(recipe, unit)) <= artifact.present():
        _make_unit(store, recipe, unit, device)
    names = {name for u in range(len(recipe.units)) for name in _files(recipe, u)}
    if names <= artifact.present():
        artifact.finish(_entries(store, recipe))


def _make_unit(store: Store, recipe: GuidedRecipe, unit: int, device: str) -> None:
    artifact, groups = store.artifact(recipe), recipe.units[unit]
    started = time.perf_counter()
    x = sample_cell(store, recipe, device=device, groups=groups)
    seconds = time.perf_counter() - started
    if not bool(x.isfinite().all()):
        raise NotFiniteSamples(
            f"factor {recipe.guidance.factor:g}, kernel {recipe.guidance.kernel}: the samples hold NaN "
            "or infinite values; pass smaller --factors, or a --cap"
        )
    size = recipe.guidance.group_size
    found = judgement(store, recipe.target)(x, np.arange(len(x)) // size + groups.start)
    columns = {"sample": x.numpy(), "mode": found.modes, "quality": found.quality}
    write_shard(artifact, unit, _seeds_of(recipe, unit), columns | found.measures)
    artifact.write(_cost_name(recipe, unit), to_json({"seconds": seconds}).encode())


def _seeds_of(recipe: GuidedRecipe, unit: int) -> npt.NDArray[np.int64]:
    size, groups = recipe.guidance.group_size, recipe.units[unit]
    return np.array(recipe.seeds[groups.start * size : groups.stop * size])


def _cost_name(recipe: GuidedRecipe, unit: int) -> str:
    return COST if len(recipe.units) == 1 else f"cost-{unit:06d}.json"


def _files(recipe: GuidedRecipe, unit: int) -> tuple[str, str]:
    return shard_name(unit), _cost_name(recipe, unit)


def _entries(store: Store, recipe: GuidedRecipe) -> Iterator[FileEntry]:
    """Entries of all files, each read once."""
    artifact = store.artifact(recipe)
    for unit in range(len(recipe.units)):
        shard, cost = _files(recipe, unit)
        entry = left_over(artifact, shard, _seeds_of(recipe, unit))
        assert entry is not None  # it was listed a moment ago
        yield entry
        yield FileEntry.of(cost, artifact.location.read(cost))


Part = tuple[GuidedRecipe, int]
"""A cell and the number of one of its units."""


def make_units(
    store: Store,
    parts: Sequence[Part],
    device: str,
    report: Callable[[int, dict[str, float]], None],
) -> None:
    """The body of a trial: units of cells of a sweep; those that are there are kept."""
    for step, (recipe, unit) in enumerate(parts, start=1):
        make_unit(store, recipe, unit, device=device)
        report(step, {"units": 1.0})


def read_cell(store: Store, recipe: GuidedRecipe) -> GuidedCell:
    """A complete cell, checked."""
    artifact = store.artifact(recipe)
    samples, modes, quality = (
        read_rows(artifact, column)[1] for column in ("sample", "mode", "quality")
    )
    shape = recipe.groups, recipe.guidance.group_size
    measures = {
        name: read_rows(artifact, name)[1].reshape(shape) for name in recipe.target.measures
    }
    costs = [artifact.read(_cost_name(recipe, unit)) for unit in range(len(recipe.units))]
    return GuidedCell(
        samples=samples,
        modes=modes.reshape(shape),
        quality=quality.reshape(shape),
        seconds=sum(float(json.loads(cost)["seconds"]) for cost in costs),
        measures=measures,
    )
