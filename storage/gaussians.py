"""Gaussian and mixture models of images as artifacts: fitted once, sampled by anyone.

They draw images by themselves, seed by seed, with no noise levels to go through: they are models, but no
denoisers. Their samples are artifacts of samples like any other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from torch import Tensor

from regimes.errors import ConfigError
from regimes.gaussians.fit import FitConfig, fit_mixture
from regimes.gaussians.model import Gaussian, Mixture
from regimes.gaussians.quantisation import QuantisationError, quantisation_error
from regimes.spectra.rows import symmetric_rows
from regimes.storage.artifacts import Recipe, Store, to_json
from regimes.storage.images import Subset, read_labels, read_subset
from regimes.threads import few_threads

ABOUT = "mixture.json"
_MEASURED = 1000
"""Samples that the error of clipping is measured on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianRecipe(Recipe):
    """A Gaussian, or a mixture of them, fitted to images in [-1, 1]."""

    kind: ClassVar[str] = "gaussian"
    code_version: ClassVar[int] = 1

    train: Subset
    fit: FitConfig

    @property
    def label(self) -> str:
        """Short name, such as gaussian-n1797-A or gmm-n1797-A."""
        single = self.fit.by == "pooled" and self.fit.components == 1
        return f"{'gaussian' if single else 'gmm'}-{self.train.label}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectSampler:
    """Samples are drawn from the law itself; there is nothing to choose."""

    @property
    def num_evaluations(self) -> int:
        """A sample costs one product."""
        return 1


@dataclass(frozen=True, slots=True)
class LoadedMixture:
    """A mixture ready to sample."""

    mixture: Mixture
    image_shape: tuple[int, int, int]
    """(C, H, W) of its samples."""

    @property
    def num_classes(self) -> int:
        """0 where components are no classes."""
        return 0 if self.mixture.labels is None else max(self.mixture.labels) + 1


def fit_gaussian_model(store: Store, recipe: GaussianRecipe) -> None:
    """Fit a mixture to images of the store and write its artifact.

    Raises:
        ConfigError: if the images do not allow that fit.
        BrokenArtifact: if they were written without classes, and classes are asked for.
    """
    images = read_subset(store, recipe.train)[1]
    labels = read_labels(store, recipe.train) if recipe.fit.by == "class" else None
    with few_threads(min(len(images), images[0].size)):
        mixture = fit_mixture(symmetric_rows(images), recipe.fit, labels)
    artifact = store.artifact(recipe)
    entries = [
        artifact.write(
            _component(k),
            safetensors.numpy.save({"mean": g.mean, "factor": np.ascontiguousarray(g.factor)}),
        )
        for k, g in enumerate(mixture.components)
    ]
    height, width, channels = images.shape[1:]
    about = {
        "image_shape": [channels, height, width],
        "weights": mixture.weights.tolist(),
        "labels": mixture.labels,
        "notes": mixture.notes,
        "components": [
            {name: getattr(g, name) for name in ("isotropic", "num_fitted", "shrinkage")}
            for g in mixture.components
        ],
    }
    artifact.finish([*entries, artifact.write(ABOUT, to_json(about).encode())])


def _component(k: int) -> str:
    return f"component-{k:03d}.safetensors"


def load_mixture(store: Store, recipe: GaussianRecipe) -> LoadedMixture:
    """The mixture of a complete artifact.

    Raises:
        BrokenArtifact: if a file it needs is missing or altered.
    """
    artifact = store.artifact(recipe)
    about = json.loads(artifact.read(ABOUT))
    arrays = [
        safetensors.numpy.load(artifact.read(_component(k)))
        for k in range(len(about["components"]))
    ]
    components = tuple(
        Gaussian(mean=a["mean"], factor=a["factor"], **numbers)
        for a, numbers in zip(arrays, about["components"], strict=True)
    )
    channels, height, width = about["image_shape"]
    mixture = Mixture(
        weights=np.array(about["weights"]),
        components=components,
        labels=None if about["labels"] is None else tuple(about["labels"]),
        notes=tuple(about["notes"]),
    )
    return LoadedMixture(mixture, (channels, height, width))


def draw(
    loaded: LoadedMixture, seeds: list[int], class_index: int | None
) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """The samples of some seeds.

    Args:
        loaded: by ``load_mixture``.
        seeds: B integers.
        class_index: class of all samples; None draws one per seed.

    Returns:
        (B, C, H, W) float64 around [-1, 1], not clipped, and the class or component of each (B,).

    Raises:
        ConfigError: if there is no such class.
    """
    mixture = loaded.mixture if class_index is None else _of_class(loaded.mixture, class_index)
    with few_threads(mixture.width):
        x, chosen = mixture.sample(seeds)
    channels, height, width = loaded.image_shape
    images = torch.from_numpy(x).reshape(len(seeds), height, width, channels).permute(0, 3, 1, 2)
    labels = chosen if mixture.labels is None else np.asarray(mixture.labels, np.int64)[chosen]
    return images.contiguous(), labels


def _of_class(mixture: Mixture, class_index: int) -> Mixture:
    known = mixture.labels or ()
    if class_index not in known:
        raise ConfigError(
            f"--class {class_index}: expected a class of the mixture, "
            + (f"{', '.join(map(str, known))}" if known else "which has none; leave it out")
        )
    component = mixture.components[known.index(class_index)]
    return Mixture(weights=np.ones(1), components=(component,), labels=(class_index,))


def clipping_error(
    store: Store, recipe: GaussianRecipe, seeds: list[int], class_index: int | None
) -> QuantisationError | None:
    """What clipping and rounding does to the samples of the first seeds; None for a single seed."""
    some = seeds[:_MEASURED]
    if len(some) < 2:
        return None
    x, _ = draw(load_mixture(store, recipe), some, class_index)
    return quantisation_error(x.flatten(1).numpy())
