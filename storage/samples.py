"""Sample artifacts: the images that a denoiser makes of a list of seeds.

Seeds are cut into fixed blocks, the work units. A unit is always computed the same way, as one
batch on one thread, so its bytes do not depend on who computes it or when.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch

from regimes.denoisers.compute import Compute
from regimes.errors import NotFiniteSamples
from regimes.images.pixels import to_uint8
from regimes.noise import SeedNoise
from regimes.samplers.edm import SamplerConfig, sample_seeds
from regimes.storage.artifacts import FileEntry, Recipe, Store
from regimes.storage.denoisers import DenoiserRecipe, Loaded
from regimes.storage.seeds import Seeds
from regimes.storage.tables import Values, left_over, shard_name, write_shard


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplesRecipe(Recipe):
    """Which denoiser, sampled how, for which seeds."""

    kind: ClassVar[str] = "samples"
    code_version: ClassVar[int] = 2

    denoiser: DenoiserRecipe
    sampler: SamplerConfig
    seeds: Seeds
    seeds_per_unit: int
    """Seeds per shard; also the batch size."""
    class_index: int | None = None
    """Class of all samples; None draws one per seed, if the denoiser knows classes."""
    noise_device: Literal["cpu", "cuda"] = "cpu"
    """Where noise is drawn: the two give different numbers for the same seed."""
    compute: Compute = field(default_factory=Compute)
    """Arithmetic of the network."""
    keep_float: bool = False
    """Whether float64 samples are kept beside the uint8 images."""

    @property
    def num_units(self) -> int:
        """Number of shards."""
        return -(-len(self.seeds) // self.seeds_per_unit)

    def unit_seeds(self, unit: int) -> list[int]:
        """Seeds of one unit."""
        start = unit * self.seeds_per_unit
        return self.seeds.block(start, start + self.seeds_per_unit)


def make_samples(
    store: Store, recipe: SamplesRecipe, unit: int, loaded: Loaded, *, device: str = "cpu"
) -> FileEntry:
    """Sample one unit and write its shard.

    Raises:
        NotFiniteSamples: if a sample is not finite; its seed is named.
    """
    seeds = recipe.unit_seeds(unit)
    x = sample_seeds(
        loaded.denoiser,
        seeds,
        loaded.image_shape,
        config=recipe.sampler,
        num_classes=loaded.num_classes,
        class_index=recipe.class_index,
        noise_device=recipe.noise_device,
        device=device,
    )
    if not bool(torch.isfinite(x).all()):
        bad = [s for s, row in zip(seeds, x, strict=True) if not bool(torch.isfinite(row).all())]
        raise NotFiniteSamples(
            f"{recipe.denoiser.label}: samples of seeds {bad[:5]} are not finite; the model has "
            "diverged, or does not fit these sampler options"
        )
    columns: dict[str, Values] = {"image": to_uint8(x)}
    if loaded.num_classes:
        columns["label"] = _labels(recipe, seeds, loaded)
    if recipe.keep_float:
        columns["sample"] = x.numpy()
    return write_shard(store.artifact(recipe), unit, np.array(seeds, np.int64), columns)


def _labels(recipe: SamplesRecipe, seeds: list[int], loaded: Loaded) -> Values:
    """The class of each sample, (B,) int64."""
    if recipe.class_index is not None:
        return np.full(len(seeds), recipe.class_index, np.int64)
    noise = SeedNoise(seeds, loaded.image_shape, device=recipe.noise_device)
    noise.latents()
    return noise.class_labels(loaded.num_classes).argmax(1).cpu().numpy()


def split_work(store: Store, recipe: SamplesRecipe) -> tuple[list[FileEntry], list[int]]:
    """Entries of the units that an earlier run left, and the units that are missing."""
    artifact = store.artifact(recipe)
    present = artifact.present()
    entries, missing = [], []
    for unit in range(recipe.num_units):
        name = shard_name(unit)
        ids = np.array(recipe.unit_seeds(unit), np.int64)
        entry = left_over(artifact, name, ids) if name in present else None
        entries += [entry] if entry else []
        missing += [] if entry else [unit]
    return entries, missing
