"""What sampling a model costs: from one timed call of its network, on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from regimes.pipelines.model import Condition, Pipeline
from regimes.samplers.edm import check_class
from regimes.storage.artifacts import Store
from regimes.storage.denoisers import Loaded
from regimes.storage.gaussians import LoadedMixture, draw
from regimes.storage.samples import Model, SamplesRecipe, load_model
from regimes.threads import torch_threads
from regimes.words import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingCost:
    """The cost of all samples of a recipe."""

    about: str
    """The model's size, in words."""
    image_shape: tuple[int, int, int]
    """(C, H, W) of one sample."""
    seconds: float
    """On one thread of this machine."""
    num_bytes: int
    """At most: a shard, and an exported file of the same size."""


def sampling_cost(store: Store, recipe: SamplesRecipe) -> SamplingCost:
    """The cost of a recipe whose model is in the store; nothing is written.

    Raises:
        ConfigError: if the model does not have the class that is asked for.
    """
    loaded, count = load_model(store, recipe), len(recipe.seeds)
    if not isinstance(loaded, LoadedMixture):
        check_class(recipe.class_index, loaded.num_classes)
    channels, height, width = loaded.image_shape
    size = channels * height * width * (9 if recipe.keep_float else 1)
    return SamplingCost(
        about=_parameters(loaded),
        image_shape=loaded.image_shape,
        seconds=_seconds_per_sample(loaded, recipe) * count,
        num_bytes=2 * size * count,
    )


def _parameters(loaded: Model) -> str:
    if isinstance(loaded, LoadedMixture):
        count = sum(g.factor.size + g.mean.size for g in loaded.mixture.components)
        return f"{counted(len(loaded.mixture.components), 'Gaussian')}, {count:,} numbers"
    model = loaded.denoiser if isinstance(loaded, Loaded) else loaded
    if not isinstance(model, torch.nn.Module):
        return "known in closed form"
    return f"{sum(p.numel() for p in model.parameters()):,} parameters"


def _seconds_per_sample(loaded: Model, recipe: SamplesRecipe, batch: int = 4) -> float:
    if isinstance(loaded, LoadedMixture):
        return _seconds(lambda: draw(loaded, list(range(64)), recipe.class_index)) / 64
    if isinstance(loaded, Pipeline):
        z = torch.zeros(batch, *loaded.noise_shape)
        decoding = _seconds(lambda: loaded.decode(z)) if loaded.decoder is not None else 0.0
    else:
        decoding = 0.0
    evaluations = recipe.sampler.num_evaluations
    return (evaluations * _seconds(_evaluation(loaded, batch)) + decoding) / batch


def _seconds(call: Callable[[], object]) -> float:
    """Of the second call, on one thread."""
    with torch_threads(1), torch.inference_mode():
        call()
        started = time.perf_counter()
        call()
        return time.perf_counter() - started


def _evaluation(loaded: Loaded | Pipeline, batch: int) -> Callable[[], object]:
    """One call of the network."""
    labels = torch.zeros(batch, loaded.num_classes) if loaded.num_classes else None
    if isinstance(loaded, Loaded):
        x, sigma = torch.zeros(batch, *loaded.image_shape), torch.tensor(1.0)
        return lambda: loaded.denoiser(x, sigma, labels)
    x, condition = torch.zeros(batch, *loaded.noise_shape), None
    if loaded.text is not None:
        condition = loaded.by_prompt([""] * batch, 1.0, "")
    elif labels is not None:
        condition = Condition(labels.argmax(1))
    return lambda: loaded.predict(x, torch.tensor(1), condition)
