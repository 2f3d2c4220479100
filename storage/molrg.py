"""Models of mixtures of low-rank Gaussians, and what is measured of each.

A model is trained on M points per class of one half (A or B: disjoint draws of one mixture). Its
measures are one JSON file and its samples, so that figures need no model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor

from regimes.denoisers.molrg import LowRankMixture, MoLRGDenoiser, recovery_error
from regimes.images.molrg import MoLRG
from regimes.jacobians.linearization import Linearization, full_jacobian
from regimes.jacobians.ranks import numerical_rank
from regimes.jacobians.spectra import full_spectra
from regimes.jacobians.trajectories import noise_of
from regimes.samplers.edm import SampledDenoiser, SamplerConfig, sample_seeds
from regimes.storage.artifacts import Recipe, Store, to_json
from regimes.training.points import PointModel, build_point_model, train_point_model

WEIGHTS, MEASURES, SAMPLES = "weights.safetensors", "measures.json", "samples.safetensors"
RECOVERY_SIGMA = 0.3
"""Noise level at which a network's subspaces are read off its Jacobian: the exact denoiser's are
found there without error, and networks are still far from copying their input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointModelRecipe(Recipe):
    """One trained model."""

    kind: ClassVar[str] = "molrg-model"
    code_version: ClassVar[int] = 1

    data: MoLRG
    per_class: int
    half: Literal["A", "B"]
    model: PointModel
    batch_size: int
    seed: int

    @property
    def label(self) -> str:
        """Short name, such as mlp-d6-m350-A."""
        return f"{self.model.kind}-d{self.data.dim}-m{self.per_class}-{self.half}"

    def points(self) -> Tensor:
        """The training set, (K M, C, H, W)."""
        return self.data.draw(self.per_class, f"half {self.half}")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuresRecipe(Recipe):
    """What is measured of a model, or of the exact denoiser."""

    kind: ClassVar[str] = "molrg-measures"
    code_version: ClassVar[int] = 2

    data: MoLRG
    model: PointModelRecipe | None
    """None is the exact denoiser."""
    sigmas: tuple[float, ...]
    num_points: int
    """Held-out points at which the Jacobian is ranked."""
    num_samples: int
    """Seeds to sample; 0 for none."""


def train_model(
    store: Store, recipe: PointModelRecipe, progress: Callable[[int, float], None]
) -> None:
    """Train a model and write its artifact; one that is complete is left as it is."""
    if not store.missing([recipe]):
        return
    denoiser, loss = train_point_model(
        recipe.model,
        recipe.data,
        recipe.points(),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        name=recipe.label,
        progress=progress,
    )
    artifact = store.artifact(recipe)
    weights = {name: value.contiguous() for name, value in denoiser.state_dict().items()}
    files = {
        WEIGHTS: safetensors.torch.save(weights),
        "training.json": to_json({"loss": loss}).encode(),
    }
    artifact.finish([artifact.write(name, data) for name, data in files.items()])


def load_point_model(store: Store, recipe: PointModelRecipe) -> Any:
    """The denoiser of a complete artifact, in eval mode."""
    weights = safetensors.torch.load(store.artifact(recipe).read(WEIGHTS))
    denoiser = build_point_model(recipe.model, recipe.data, seed=recipe.seed, name="")
    denoiser.load_state_dict(weights)
    return denoiser.eval().requires_grad_(False)


def measure_model(store: Store, recipe: MeasuresRecipe) -> None:
    """Measure a model that is trained; measures that are complete are left as they are."""
    if not store.missing([recipe]):
        return
    data = recipe.data
    denoiser: Any = MoLRGDenoiser(data.bases(), data.image_shape)
    if recipe.model is not None:
        denoiser = load_point_model(store, recipe.model)
    values = {
        "ranks": [rank_ratios(denoiser, data, s, recipe.num_points) for s in recipe.sigmas],
        "recovery": recovery(denoiser, data, recipe.num_points),
    }
    artifact = store.artifact(recipe)
    entries = [artifact.write(MEASURES, to_json(values).encode())]
    if recipe.num_samples:
        seeds = range(recipe.num_samples)
        x = sample_seeds(denoiser, seeds, data.image_shape, config=SamplerConfig())
        samples = {"x": x.flatten(1).float()}
        entries.append(artifact.write(SAMPLES, safetensors.torch.save(samples)))
    artifact.finish(entries)


def _heldout(data: MoLRG, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points never trained on, their classes, and one noise each."""
    per_class = -(-count // data.num_classes)
    x, labels = data.draw(per_class, "heldout")
    noise = noise_of([("molrg", i) for i in range(count)], data.image_shape)
    return x[:count].double(), labels[:count], noise


def rank_ratios(
    denoiser: SampledDenoiser, data: MoLRG, sigma: float, num_points: int
) -> list[float]:
    """Energy rank over n of the Jacobian at held-out points plus noise."""
    x, _, noise = _heldout(data, num_points)
    local = Linearization(denoiser, x + sigma * noise, sigma)
    spectra = full_spectra(full_jacobian(local, local.value))
    return [numerical_rank(s, "energy").value / data.size for s in spectra]


def recovery(denoiser: Any, data: MoLRG, num_points: int) -> float:
    """How much of the true subspaces a denoiser misses, in [0, 1].

    Of the low-rank model, by its bases (``recovery_error``). Of any other, by its Jacobians at
    held-out points: 1 - ||U_k^T V||^2 / d, where V holds the d leading left singular vectors and k is
    the point's class, averaged over points.
    """
    if isinstance(denoiser, LowRankMixture):
        return recovery_error(denoiser.bases(), data.bases())
    x, labels, noise = _heldout(data, num_points)
    local = Linearization(denoiser, x + RECOVERY_SIGMA * noise, RECOVERY_SIGMA)
    U = torch.linalg.svd(full_jacobian(local, local.value).double()).U[:, :, : data.dim]
    overlap = (data.bases()[labels].mT @ U).square().sum((1, 2)) / data.dim
    return float((1 - overlap).clamp(min=0).mean())


@dataclass(frozen=True, slots=True)
class PointMeasures:
    """What was measured of one model."""

    ranks: npt.NDArray[np.float64]
    """(T, P), rank over n."""
    recovery: float
    samples: npt.NDArray[np.float32] | None
    """(N, n), or None."""


def read_measures(store: Store, recipe: MeasuresRecipe) -> PointMeasures:
    """The measures of a complete artifact, checked."""
    artifact = store.artifact(recipe)
    values = json.loads(artifact.read(MEASURES))
    samples = None
    if recipe.num_samples:
        samples = safetensors.torch.load(artifact.read(SAMPLES))["x"].numpy()
    return PointMeasures(np.array(values["ranks"]), float(values["recovery"]), samples)
