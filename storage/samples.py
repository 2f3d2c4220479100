"""Sample artifacts: the images that a denoiser makes of a list of seeds.

Seeds are cut into fixed blocks, the work units. A unit is always computed the same way, as one
batch on one thread, so its bytes do not depend on who computes it or when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from regimes.denoisers.compute import Compute
from regimes.errors import ConfigError, NotFiniteSamples
from regimes.images.pixels import to_uint8
from regimes.noise import SeedNoise
from regimes.pipelines.model import Pipeline
from regimes.pipelines.sampling import sample_pipeline
from regimes.pipelines.schedulers import GuidedConfig, SchedulerConfig
from regimes.pipelines.text import prompt_index
from regimes.samplers.edm import SamplerConfig, sample_seeds
from regimes.storage.artifacts import FileEntry, Recipe, Store
from regimes.storage.checkpoints import LATENT, PIPELINES, CheckpointRecipe
from regimes.storage.denoisers import (
    SPREAD,
    ClosedFormRecipe,
    DenoiserRecipe,
    Loaded,
    load_denoiser,
)
from regimes.storage.gaussians import (
    DirectSampler,
    GaussianRecipe,
    LoadedMixture,
    draw,
    load_mixture,
)
from regimes.storage.pipelines import GUIDANCE, load_pipeline
from regimes.storage.prompts import read_prompts
from regimes.storage.seeds import Seeds
from regimes.storage.tables import Values, left_over, shard_name, write_shard

Sampler = SamplerConfig | SchedulerConfig | DirectSampler
Model = Loaded | Pipeline | LoadedMixture


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplesRecipe(Recipe):
    """Which denoiser, sampled how, for which seeds."""

    kind: ClassVar[str] = "samples"
    code_version: ClassVar[int] = 3  # 3: discretization iddpm visits the published levels

    denoiser: DenoiserRecipe | GaussianRecipe
    sampler: Sampler
    """EDM's samplers; for a pretrained pipeline one of its schedulers, guided where it can be; for a Gaussian
    none."""
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

    def __post_init__(self) -> None:
        """Schedulers sample pipelines, and latent pipelines are sampled by nothing else."""
        made = self.denoiser
        if isinstance(made, GaussianRecipe) != isinstance(self.sampler, DirectSampler):
            raise ConfigError(
                f"{made.label}: Gaussians and mixtures draw their samples themselves, and nothing else does; "
                "make their images by jobs/generate.py"
            )
        kind = made.format if isinstance(made, CheckpointRecipe) else None
        if isinstance(self.sampler, SchedulerConfig) and kind not in PIPELINES:
            raise ConfigError(
                f"scheduler {self.sampler.name}: samples folders of diffusers pipelines, got "
                f"{made.label}; leave it out"
            )
        if isinstance(self.sampler, SamplerConfig) and kind in LATENT:
            raise ConfigError(
                f"{made.label}: a latent pipeline, which only schedulers sample; make its images by "
                "jobs/generate.py --scheduler NAME"
            )
        is_guided = isinstance(self.sampler, GuidedConfig)
        if is_guided != (kind in GUIDANCE) or self.has_prompts != (kind == "text-pipeline"):
            raise ConfigError(
                f"{made.label}: expected guidance for pipelines with a class for none, and prompts besides "
                "for those that read text; make the recipe by named_scheduler"
            )

    @property
    def has_prompts(self) -> bool:
        """Whether every sample has a prompt."""
        return isinstance(self.sampler, GuidedConfig) and self.sampler.prompts is not None

    @property
    def num_units(self) -> int:
        """Number of shards."""
        return -(-len(self.seeds) // self.seeds_per_unit)

    def unit_seeds(self, unit: int) -> list[int]:
        """Seeds of one unit."""
        start = unit * self.seeds_per_unit
        return self.seeds.block(start, start + self.seeds_per_unit)


def check_spread(recipe: SamplesRecipe) -> None:
    """Refuse a model that cannot be spread over several devices.

    Raises:
        ConfigError: if it is no network, or is to be compiled.
    """
    made = recipe.denoiser
    if isinstance(made, (ClosedFormRecipe, GaussianRecipe)):
        raise ConfigError(SPREAD.format(made.label))
    if recipe.compute.compile:
        raise ConfigError("--compile: of a model on one GPU; leave it or --gpus-per-replica out")


def load_model(
    store: Store, recipe: SamplesRecipe, *, device: str = "cpu", others: Sequence[str] = ()
) -> Model:
    """What ``make_samples`` samples: a denoiser, a pipeline for its schedulers, or a mixture.

    Args:
        store: where it is.
        recipe: what is sampled.
        device: where it computes.
        others: more devices that it is spread over.

    Raises:
        BrokenArtifact, BadCheckpoint, ConfigError: as ``load_denoiser``, ``load_pipeline`` and
            ``check_spread``.
    """
    made = recipe.denoiser
    if others:
        check_spread(recipe)
    if isinstance(made, GaussianRecipe):
        if recipe.compute != Compute() or recipe.noise_device != "cpu":
            raise ConfigError(
                f"{made.label}: drawn in float64 on CPUs; leave precision and --noise-device be"
            )
        return load_mixture(store, made)
    if isinstance(recipe.sampler, SchedulerConfig):
        assert isinstance(made, CheckpointRecipe)  # the recipe has made sure
        return load_pipeline(store, made, device=device, compute=recipe.compute, others=others)
    return load_denoiser(store, made, device=device, compute=recipe.compute, others=others)


def make_samples(
    store: Store,
    recipe: SamplesRecipe,
    unit: int,
    loaded: Model,
    *,
    device: str = "cpu",
) -> FileEntry:
    """Sample one unit and write its shard.

    Args:
        store: where it goes.
        recipe: what to sample.
        unit: which part.
        loaded: by ``load_model``.
        device: where it computes.

    Raises:
        NotFiniteSamples: if a sample is not finite; its seed is named.
    """
    seeds = recipe.unit_seeds(unit)
    prompts = prompts_of(store, recipe)
    labels: Values
    if isinstance(loaded, LoadedMixture):
        x, labels = draw(loaded, seeds, recipe.class_index)
    else:
        x = _sample(recipe, seeds, loaded, device, prompts)
        labels = _labels(recipe, seeds, loaded) if loaded.num_classes else np.zeros(0)
    if not bool(torch.isfinite(x).all()):
        bad = [s for s, row in zip(seeds, x, strict=True) if not bool(torch.isfinite(row).all())]
        raise NotFiniteSamples(
            f"{recipe.denoiser.label}: samples of seeds {bad[:5]} are not finite; the model has "
            "diverged, or does not fit these sampler options"
        )
    columns: dict[str, Values] = {"image": to_uint8(x)}
    if loaded.num_classes:
        columns["label"] = labels
    if prompts:
        columns["prompt"] = np.array([prompt_index(s, len(prompts)) for s in seeds], np.int64)
    if recipe.keep_float:
        columns["sample"] = x.to(torch.float64).numpy()
    return write_shard(store.artifact(recipe), unit, np.array(seeds, np.int64), columns)


def prompts_of(store: Store, recipe: SamplesRecipe) -> tuple[str, ...]:
    """The list of prompts of a recipe; none if its model reads none.

    Raises:
        BrokenArtifact: if it is missing from the store or altered.
    """
    sampler = recipe.sampler
    if not isinstance(sampler, GuidedConfig) or sampler.prompts is None:
        return ()
    return read_prompts(store, sampler.prompts)


def _sample(
    recipe: SamplesRecipe,
    seeds: list[int],
    loaded: Loaded | Pipeline,
    device: str,
    prompts: tuple[str, ...],
) -> Tensor:
    """(B, C, H, W) on the CPU: float64 by EDM's samplers, float32 by schedulers."""
    if isinstance(loaded, Pipeline):
        assert isinstance(recipe.sampler, SchedulerConfig)
        return sample_pipeline(
            loaded,
            seeds,
            recipe.sampler,
            class_index=recipe.class_index,
            prompts=prompts,
            noise_device=recipe.noise_device,
        )
    assert isinstance(recipe.sampler, SamplerConfig)
    return sample_seeds(
        loaded.denoiser,
        seeds,
        loaded.image_shape,
        config=recipe.sampler,
        num_classes=loaded.num_classes,
        class_index=recipe.class_index,
        noise_device=recipe.noise_device,
        device=device,
    )


def _labels(recipe: SamplesRecipe, seeds: list[int], loaded: Loaded | Pipeline) -> Values:
    """The class of each sample, (B,) int64."""
    if recipe.class_index is not None:
        return np.full(len(seeds), recipe.class_index, np.int64)
    shape = loaded.noise_shape if isinstance(loaded, Pipeline) else loaded.image_shape
    noise = SeedNoise(seeds, shape, device=recipe.noise_device)
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
