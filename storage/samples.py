"""Sample artifacts: the images that a denoiser makes of a range of seeds.

Seeds are cut into fixed blocks, the work units. A unit is always computed the same way, as one
batch on one thread, so its bytes do not depend on who computes it or when.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from regimes.images.pixels import to_uint8
from regimes.samplers.edm import SampledDenoiser, SamplerConfig, sample_seeds
from regimes.storage.artifacts import FileEntry, Recipe, Store
from regimes.storage.models import DenoiserRecipe
from regimes.storage.tables import left_over, shard_name, write_shard


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplesRecipe(Recipe):
    """Which denoiser, sampled how, for which seeds."""

    kind: ClassVar[str] = "samples"
    code_version: ClassVar[int] = 1

    denoiser: DenoiserRecipe
    sampler: SamplerConfig
    first_seed: int
    num_seeds: int
    seeds_per_unit: int
    """Seeds per shard; also the batch size."""

    @property
    def num_units(self) -> int:
        """Number of shards."""
        return -(-self.num_seeds // self.seeds_per_unit)

    def seeds(self, unit: int) -> range:
        """Seeds of one unit."""
        start = self.first_seed + unit * self.seeds_per_unit
        return range(start, min(start + self.seeds_per_unit, self.first_seed + self.num_seeds))


def make_samples(
    store: Store,
    recipe: SamplesRecipe,
    unit: int,
    denoiser: SampledDenoiser,
    image_shape: tuple[int, int, int],
    *,
    device: str = "cpu",
) -> FileEntry:
    """Sample one unit and write its shard."""
    seeds = recipe.seeds(unit)
    x = sample_seeds(denoiser, seeds, image_shape, config=recipe.sampler, device=device)
    if not bool(torch.isfinite(x).all()):
        bad = [s for s, row in zip(seeds, x, strict=True) if not bool(torch.isfinite(row).all())]
        raise FloatingPointError(
            f"{recipe.denoiser.label}: samples of seeds {bad[:5]} are not finite"
        )
    artifact = store.artifact(recipe)
    return write_shard(artifact, unit, np.array(seeds, np.int64), to_uint8(x), "image")


def split_work(store: Store, recipe: SamplesRecipe) -> tuple[list[FileEntry], list[int]]:
    """Entries of the units that an earlier run left, and the units that are missing."""
    artifact = store.artifact(recipe)
    present = artifact.present()
    entries, missing = [], []
    for unit in range(recipe.num_units):
        name = shard_name(unit)
        ids = np.array(recipe.seeds(unit), np.int64)
        entry = left_over(artifact, name, ids) if name in present else None
        entries += [entry] if entry else []
        missing += [] if entry else [unit]
    return entries, missing
