"""Descriptors as differentiable functions of float images, for guidance by features.

The same features as of stored images, but for their rounding to 256 levels, and for a resizing that is
torch's antialiased one instead of PIL's, whose roundings have no derivative.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regimes.descriptors.network import NetworkDescriptor
from regimes.descriptors.pixels import Descriptor, Pixels, WhitenedPixels
from regimes.descriptors.resize import Preprocessing
from regimes.errors import ConfigError

FeatureMap = Callable[[Tensor], Tensor]
_TINY = 1e-9


def feature_map(descriptor: Descriptor, device: str = "cpu") -> FeatureMap:
    """A descriptor as a function (B, C, H, W) in [-1, 1] -> (B, D) unit rows, differentiable.

    Args:
        descriptor: pixels, or a network that does not resize by itself.
        device: where images come from; a network must be there.

    Raises:
        ConfigError: if it takes stored images alone.
    """
    if isinstance(descriptor, Pixels):
        return lambda x: _unit(_row_major(x) - _row_major(x).mean(1, keepdim=True))
    if isinstance(descriptor, WhitenedPixels):
        mean, transform = (_tensor(a, device) for a in (descriptor.mean, descriptor.transform))
        return lambda x: _unit((_row_major(x) - mean) @ transform)
    if isinstance(descriptor, NetworkDescriptor):
        return _of_network(descriptor, device)
    raise ConfigError(f"{descriptor.name}: no derivative is known; choose another --descriptor")


def _of_network(descriptor: NetworkDescriptor, device: str) -> FeatureMap:
    rule = descriptor.config.preprocessing
    if rule is None:
        raise ConfigError(
            f"{descriptor.name}: takes images of whole levels, which have no derivative; choose another "
            "--descriptor"
        )
    centre = None if descriptor.centre is None else _tensor(descriptor.centre, device)

    def features(x: Tensor) -> Tensor:
        raw = descriptor.network(_prepared(x, rule)).flatten(1).double()
        return _unit(raw if centre is None else raw - centre)

    return features


def _prepared(x: Tensor, rule: Preprocessing) -> Tensor:
    """What the network sees, (B, C, H, W) in [-1, 1] -> (B, channels, h, w) float32."""
    levels = ((x.float() + 1) / 2).clamp(0, 1)
    size = rule.target(*levels.shape[2:])
    if tuple(levels.shape[2:]) != size:
        levels = functional.interpolate(levels, size, mode=rule.filter, antialias=True)
    channels = len(rule.mean)
    if levels.shape[1] != channels:
        if levels.shape[1] != 1:
            raise ConfigError(f"images: expected {channels} channel, got {levels.shape[1]}")
        levels = levels.expand(-1, channels, -1, -1)
    mean, std = (levels.new_tensor(v)[:, None, None] for v in (rule.mean, rule.std))
    return (levels - mean) / std


def _row_major(x: Tensor) -> Tensor:
    """As stored images are flattened: (B, C, H, W) -> (B, H W C) float64."""
    return x.permute(0, 2, 3, 1).flatten(1).double()


def _unit(rows: Tensor) -> Tensor:
    """Rows of length 1; one without a direction stays 0, and its derivative finite."""
    return rows / rows.square().sum(1, keepdim=True).clamp(min=_TINY**2).sqrt()


def _tensor(values: np.ndarray, device: str) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float64)).to(device)
