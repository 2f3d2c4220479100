"""Guided samples as artifacts: one per cell of a sweep, and the judge of a set of images.

A cell is one shard: the seeds, the samples, the mode that each was found to be of (-1: rejected) and
its distance from the data. What it took stands beside it, in ``cost.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor

from regimes.errors import NotFiniteSamples
from regimes.guidance.config import GuidanceConfig
from regimes.guidance.judge import Judge, fit_judge
from regimes.guidance.sampler import OnStep, guided_sample
from regimes.guidance.targets import MixtureDenoiser, jumps, ring
from regimes.images.pixels import to_float
from regimes.noise import SeedNoise, keyed_generator
from regimes.samplers.edm import SampledDenoiser, SamplerConfig
from regimes.scores.modes import REJECTED
from regimes.storage.artifacts import Recipe, Store, to_json
from regimes.storage.denoisers import DenoiserRecipe, load_denoiser
from regimes.storage.images import Subset, read_images, read_labels, read_subset
from regimes.storage.tables import read_rows, write_shard

WEIGHTS, LIMITS, COST = "weights.safetensors", "limits.json", "cost.json"
_FAR = 4.0  # standard deviations from a centre beyond which a sample of a mixture is rejected
_ROWS = 1000  # particles that are sampled together; whole groups, whatever their number
_POINT = 1.0  # distance from a mode that has no width of its own

Judgement = Callable[[Tensor], tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]
"""(N, C, H, W) samples -> modes or -1, (N,), and distances from the data, (N,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRecipe(Recipe):
    """What determines a judge."""

    kind: ClassVar[str] = "judge"
    code_version: ClassVar[int] = 1

    train: Subset
    """Labelled images; those that the subset's split holds out set the limits."""
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTarget:
    """A mixture whose denoiser and modes are exact."""

    name: Literal["ring", "jumps"]
    weights: tuple[float, ...]
    """Of the modes, in the data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTarget:
    """A model of images, and the judge of what it makes."""

    denoiser: DenoiserRecipe
    judge: JudgeRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidedRecipe(Recipe):
    """One cell: groups of guided samples."""

    kind: ClassVar[str] = "guided"
    code_version: ClassVar[int] = 1

    target: KnownTarget | ImageTarget
    sampler: SamplerConfig
    guidance: GuidanceConfig
    groups: int
    first_seed: int

    @property
    def seeds(self) -> range:
        """Of all samples, group after group."""
        return range(self.first_seed, self.first_seed + self.groups * self.guidance.group_size)


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


def make_judge(store: Store, recipe: JudgeRecipe) -> None:
    """Fit a judge and write its artifact, unless it is there."""
    artifact = store.artifact(recipe)
    if artifact.is_complete():
        return
    train, labels = read_subset(store, recipe.train)[1], read_labels(store, recipe.train)
    split = recipe.train.split
    unseen = split.heldout(recipe.train.half, recipe.train.size)
    images = read_images(store, recipe.train.images)[1]
    all_labels = read_rows(store.artifact(recipe.train.images), "label")[1]
    judge = fit_judge(
        to_float(train), labels, to_float(images[unseen]), all_labels[unseen], seed=recipe.seed
    )
    tensors = {**judge.weights, "reference": judge.reference}
    limits = {
        name: getattr(judge, name)
        for name in ("least_confidence", "largest_distance", "accuracy", "accepted")
    }
    artifact.finish(
        [
            artifact.write(WEIGHTS, safetensors.torch.save(tensors)),
            artifact.write(LIMITS, to_json(limits).encode()),
        ]
    )


def load_judge(store: Store, recipe: JudgeRecipe) -> Judge:
    """The judge of a complete artifact."""
    artifact = store.artifact(recipe)
    weights = safetensors.torch.load(artifact.read(WEIGHTS))
    reference = weights.pop("reference")
    return Judge(weights=weights, reference=reference, **json.loads(artifact.read(LIMITS)))


def known_target(target: KnownTarget) -> MixtureDenoiser:
    """The mixture itself."""
    if target.name == "jumps":
        return jumps(weights=target.weights)
    return ring(len(target.weights), weights=target.weights)


def sample_cell(
    store: Store,
    recipe: GuidedRecipe,
    *,
    device: str = "cpu",
    groups: int | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """The samples of a cell, (G B, C, H, W) float64 on the CPU.

    Args:
        store: where the model is.
        recipe: the cell.
        device: where the model computes.
        groups: only so many, the first.
        on_step: see ``guided_sample``.
    """
    denoiser, shape = _denoiser(store, recipe, device)
    size = recipe.guidance.group_size
    seeds = recipe.seeds[: None if groups is None else groups * size]
    step = max(1, _ROWS // size) * size
    batches = []
    for start in range(0, len(seeds), step):
        noise = SeedNoise(seeds[start : start + step], shape)
        latents = noise.latents().double()
        if isinstance(denoiser, MixtureDenoiser):
            sigma = recipe.sampler.sigma_range[1]
            latents = _exact_latents(denoiser, latents, seeds[start : start + step], sigma)
        with torch.no_grad():
            x = guided_sample(
                denoiser,
                latents.to(device),
                config=recipe.sampler,
                guidance=recipe.guidance,
                step_noise=noise.step,
                on_step=on_step,
            )
        batches.append(x.cpu())
    return torch.cat(batches)


def _denoiser(
    store: Store, recipe: GuidedRecipe, device: str
) -> tuple[SampledDenoiser, tuple[int, int, int]]:
    if isinstance(recipe.target, KnownTarget):
        mixture = known_target(recipe.target)
        return mixture, mixture.image_shape
    loaded = load_denoiser(store, recipe.target.denoiser, device=device)
    return loaded.denoiser, loaded.image_shape


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


def judgement(store: Store, target: KnownTarget | ImageTarget) -> Judgement:
    """What tells modes apart."""
    if isinstance(target, ImageTarget):
        return load_judge(store, target.judge)
    mixture = known_target(target)

    def nearest(x: Tensor) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        modes, distances = mixture.nearest(x)
        near = distances <= (_FAR * mixture.std or _POINT)
        return torch.where(near, modes, REJECTED).numpy(), distances.numpy()

    return nearest


def make_cell(store: Store, recipe: GuidedRecipe, *, device: str = "cpu") -> None:
    """Sample and judge a cell and write its artifact, unless it is there.

    Raises:
        NotFiniteSamples: if samples hold NaN or infinite values.
    """
    artifact = store.artifact(recipe)
    if artifact.is_complete():
        return
    started = time.perf_counter()
    x = sample_cell(store, recipe, device=device)
    seconds = time.perf_counter() - started
    if not bool(x.isfinite().all()):
        raise NotFiniteSamples(
            f"factor {recipe.guidance.factor:g}, kernel {recipe.guidance.kernel}: the samples hold NaN "
            "or infinite values; pass smaller --factors, or a --cap"
        )
    modes, quality = judgement(store, recipe.target)(x)
    columns = {"sample": x.numpy(), "mode": modes, "quality": quality}
    artifact.finish(
        [
            write_shard(artifact, 0, np.array(recipe.seeds), columns),
            artifact.write(COST, to_json({"seconds": seconds}).encode()),
        ]
    )


def make_cells(
    store: Store,
    recipes: Sequence[GuidedRecipe],
    device: str,
    report: Callable[[int, dict[str, float]], None],
) -> None:
    """The body of a trial: the cells of a row of the sweep; those that are there are kept."""
    for step, recipe in enumerate(recipes, start=1):
        make_cell(store, recipe, device=device)
        cell = read_cell(store, recipe)
        report(step, {"inliers": float((cell.modes != REJECTED).mean())})


def read_cell(store: Store, recipe: GuidedRecipe) -> GuidedCell:
    """A complete cell, checked."""
    artifact = store.artifact(recipe)
    samples, modes, quality = (
        read_rows(artifact, column)[1] for column in ("sample", "mode", "quality")
    )
    shape = recipe.groups, recipe.guidance.group_size
    return GuidedCell(
        samples=samples,
        modes=modes.reshape(shape),
        quality=quality.reshape(shape),
        seconds=float(json.loads(artifact.read(COST))["seconds"]),
    )
