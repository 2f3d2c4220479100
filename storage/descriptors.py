"""Descriptor artifacts: which descriptor, its weights, and what it was fitted to.

Weights travel to workers through the store, as an artifact of their own that all descriptors with the
same file share: a state dict as safetensors, a TorchScript file as it is. So no worker downloads
anything, or needs to see the disk of the machine that did.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import safetensors.numpy

from regimes.descriptors.families import stored_weights
from regimes.descriptors.network import NetworkConfig, NetworkDescriptor
from regimes.descriptors.pixels import Descriptor, Pixels, WhitenedPixels
from regimes.descriptors.registry import Family
from regimes.errors import ConfigError, DescriptorMismatch
from regimes.images.sources import ImageSource
from regimes.later import LATER
from regimes.storage.artifacts import Recipe, Store
from regimes.storage.blocks import SourceRecipe, mean_feature
from regimes.storage.images import Subset, read_subset
from regimes.storage.tables import iter_shards

_PARAMETERS = "parameters.safetensors"
_WEIGHTS = "weights"
_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsRecipe(Recipe):
    """A file of weights that was made elsewhere."""

    kind: ClassVar[str] = "weights"
    code_version: ClassVar[int] = 1

    sha256: str
    """Of the file."""
    family: Family
    """The kind of network, which decides in which form it is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorRecipe(Recipe):
    """A descriptor, and the images that it is fitted to.

    Raises:
        ConfigError: if the parts do not belong together.
    """

    kind: ClassVar[str] = "descriptor"
    code_version: ClassVar[int] = 2

    name: str
    """pixels, whitened-pixels, or that of the network."""
    fit: Subset | None = None
    """Real images that whitened-pixels is fitted to."""
    also: Subset | None = dataclasses.field(default=None, metadata=LATER)
    """Images that it is fitted to together with those, such as generated ones: it then knows the images of
    both alike, so that none seem near because they are new to it."""
    ridge: float | None = None
    """Strength of the ridge of whitened-pixels."""
    network: NetworkConfig | None = None
    """The network, if it is one."""
    centre: Subset | SourceRecipe | None = None
    """Images whose mean feature is subtracted from the features of a network: some of an artifact, or
    a source that is read where it is."""

    def __post_init__(self) -> None:
        """Each kind has its own parts."""
        whitened = self.name == "whitened-pixels"
        if whitened != (self.fit is not None) or whitened != (self.ridge is not None):
            raise ConfigError(
                f"{self.name}: fit and ridge belong to whitened-pixels, and it to them"
            )
        if self.also is not None and self.fit is None:
            raise ConfigError(f"{self.name}: also goes with fit; leave it out")
        plain = whitened or self.name == "pixels"
        if plain == (self.network is not None):
            raise ConfigError(f"{self.name}: expected a network, or the name of a pixel descriptor")
        if self.centre is not None and self.network is None:
            raise ConfigError(
                f"{self.name}: only features of networks are centred; leave centre out"
            )

    @property
    def label(self) -> str:
        """Features of equal labels can be compared."""
        if self.network is None:
            return self.name if self.fit is None else f"{self.name}@{self.address[-8:]}"
        if self.centre is None:
            return self.network.label
        # The batch size changes nothing but rounding: equal centres have equal names without it.
        network = dataclasses.replace(self.network, batch_size=1)
        unbatched = dataclasses.replace(self, network=network)
        name = self.centre.label if isinstance(self.centre, Subset) else "source"
        return f"{self.network.label} centre:{name}@{unbatched.address[-8:]}"

    @property
    def weights(self) -> WeightsRecipe | None:
        """The artifact of its weights, if it has any."""
        if self.network is None or self.network.family == "python":
            return None
        return WeightsRecipe(sha256=self.network.weights_sha256, family=self.network.family)


def require_same(first: DescriptorRecipe, second: DescriptorRecipe) -> None:
    """Raise ``DescriptorMismatch``, which names what differs, unless features can be compared."""
    if first.label == second.label:
        return
    one, two = dict(_leaves("", first)), dict(_leaves("", second))
    differences = [
        f"{name} ({one.get(name)!s:.{_SHOWN}} and {two.get(name)!s:.{_SHOWN}})"
        for name in sorted(one.keys() | two.keys())
        if one.get(name) != two.get(name) and not name.endswith("batch_size")
    ]
    raise DescriptorMismatch(
        f"cannot compare features of {first.name} with {second.name}: they differ in "
        f"{', '.join(differences)}; describe both with the same descriptor"
    )


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The plain values of nested dataclasses, by dotted path."""
    if not dataclasses.is_dataclass(value):
        yield path, value
        return
    for field in dataclasses.fields(value):
        inner = f"{path}.{field.name}" if path else field.name
        yield from _leaves(inner, getattr(value, field.name))


def import_weights(store: Store, recipe: DescriptorRecipe, path: Path | None) -> None:
    """Bring the weights of a network into the store; those that are there are kept.

    Args:
        store: where they go.
        recipe: the descriptor.
        path: their file, as ``find_network`` gives it.

    Raises:
        BadDescriptor: if the file is none of the kind, or does not fit the network.
    """
    if recipe.weights is None or path is None or not store.missing([recipe.weights]):
        return
    data = stored_weights(recipe.weights.family, path)
    if recipe.network is not None:  # weights that do not fit are refused before anything is written
        NetworkDescriptor.load(recipe.network, data)
    artifact = store.artifact(recipe.weights)
    artifact.finish([artifact.write(_WEIGHTS, data)])


def fit_descriptor(
    store: Store,
    recipe: DescriptorRecipe,
    *,
    device: str = "cpu",
    background: ImageSource | None = None,
) -> None:
    """Fit a descriptor and write its artifact (one without parameters is empty).

    Args:
        store: where its images and weights are.
        recipe: what to fit.
        device: where a network computes the features whose mean is its centre.
        background: the images of ``centre``, if that is a ``SourceRecipe``.

    Raises:
        ValueError: if whitening cannot be fitted, or ``background`` is missing.
        BadSource, BadDescriptor: if the images of ``centre`` cannot be described.

    Cost: one pass over the images, one shard or block at a time for ``centre``.
    """
    artifact = store.artifact(recipe)
    parameters: dict[str, np.ndarray] = {}
    if recipe.fit is not None and recipe.ridge is not None:
        parts = (part for part in (recipe.fit, recipe.also) if part is not None)
        images = np.concatenate([read_subset(store, part)[1] for part in parts])
        fitted = WhitenedPixels.fit(images, ridge=recipe.ridge)
        parameters = {"mean": fitted.mean, "transform": fitted.transform}
    elif recipe.network is not None and recipe.centre is not None:
        plain = _load_network(store, recipe, device, centre=None)
        parameters = {"centre": _centre_of(store, recipe.centre, plain, background)}
    data = safetensors.numpy.save(parameters)
    artifact.finish([artifact.write(_PARAMETERS, data)] if parameters else [])


def _centre_of(
    store: Store,
    centre: Subset | SourceRecipe,
    network: NetworkDescriptor,
    background: ImageSource | None,
) -> np.ndarray:
    if isinstance(centre, Subset):
        return _mean_feature(store, centre, network)
    if background is None:
        raise ValueError("the centre of a SourceRecipe needs its source")
    return mean_feature(background, centre, network)


def _mean_feature(store: Store, subset: Subset, network: NetworkDescriptor) -> np.ndarray:
    """Mean over a subset of what a network gives, (D,) float64."""
    chosen = subset.split.subset(subset.half, subset.size)
    total, start = np.zeros(()), 0
    for _, images in iter_shards(store.artifact(subset.images), "image"):
        inside = chosen[(chosen >= start) & (chosen < start + len(images))] - start
        if len(inside):
            total = total + network.raw(images[np.sort(inside)]).sum(0, dtype=np.float64)
        start += len(images)
    return total / len(chosen)


def read_centre(store: Store, recipe: DescriptorRecipe) -> np.ndarray | None:
    """The mean feature (D,) float64 that a complete descriptor subtracts, if it does."""
    return None if recipe.centre is None else _parameters(store, recipe)["centre"]


def load_descriptor(store: Store, recipe: DescriptorRecipe, *, device: str = "cpu") -> Descriptor:
    """The descriptor of a complete artifact.

    Args:
        store: where it is.
        recipe: which.
        device: where a network computes.
    """
    if recipe.network is not None:
        return _load_network(store, recipe, device, centre=read_centre(store, recipe))
    if recipe.fit is None:
        return Pixels()
    parameters = _parameters(store, recipe)
    return WhitenedPixels(parameters["mean"], parameters["transform"])


def _load_network(
    store: Store, recipe: DescriptorRecipe, device: str, centre: np.ndarray | None
) -> NetworkDescriptor:
    assert recipe.network is not None
    data = None if recipe.weights is None else store.artifact(recipe.weights).read(_WEIGHTS)
    return NetworkDescriptor.load(recipe.network, data, device=device, centre=centre)


def _parameters(store: Store, recipe: DescriptorRecipe) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = safetensors.numpy.load(store.artifact(recipe).read(_PARAMETERS))
    return found
