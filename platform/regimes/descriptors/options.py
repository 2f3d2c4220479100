"""From what a user asks for to a network and its weights."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regimes.callables import PYTHON, is_target, source_sha256
from regimes.descriptors.network import NetworkConfig, Precision
from regimes.descriptors.registry import (
    PIXEL_DESCRIPTORS,
    TORCHSCRIPT,
    Entry,
    find_entry,
)
from regimes.descriptors.resize import Filter, Preprocessing, parse_rule
from regimes.descriptors.weights import Weights, obtain, read_weights
from regimes.errors import BadDescriptor, ConfigError
from regimes.later import LATER


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorOptions:
    """Which descriptor, as on the command line. What is None is as the registry says."""

    descriptor: str = "sscd-disc-mixup"
    """A name of the registry, torchscript:FILE, or python:MODULE:CALLABLE, which runs your code: results
    are kept for as long as the .py files of its package are the same. Weights that it loads are not
    looked at: pass --no-resume once they have changed."""
    weights: str | None = None
    """File of weights, instead of the published one; a TorchScript file must have the known hash."""
    resize: str | None = None
    """skew-SIZE (square, shape not kept) or short-edge-SIZE (shape kept)."""
    filter: Filter | None = None
    """Kernel of the resizing."""
    mean: tuple[float, ...] | None = None
    """Subtracted from levels in [0, 1]: 3 numbers, or 1 for a gray network."""
    std: tuple[float, ...] | None = None
    """Divided by after that."""
    precision: Precision = "float32"
    """Arithmetic of the network."""
    channels_last: bool = False
    """Channels innermost: faster on GPUs with bf16 or fp16."""
    descriptor_batch: int = 64
    """Images per call of the network."""
    download: bool = True
    """Whether missing weights may be downloaded, if a hash of them is known."""
    download_unverified: bool = field(default=False, metadata=LATER)
    """Also those of which none is known (dinov2, clip): the hash they have is recorded with every result."""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.download_unverified and not self.download:
            raise ConfigError("--download-unverified: contradicts --no-download; leave out one")

    @property
    def is_network(self) -> bool:
        """False for descriptors made of pixels."""
        return self.descriptor not in PIXEL_DESCRIPTORS


def find_network(options: DescriptorOptions) -> tuple[NetworkConfig, Path | None]:
    """The network that is asked for, and the file of its weights, which is there.

    Returns:
        The configuration with the weights' hash, and the file (None for python:).

    Raises:
        ConfigError: if an option does not apply or the name is unknown.
        BadDescriptor: if weights are missing or have the wrong hash.
    """
    if options.descriptor.startswith(PYTHON):
        return _python(options), None
    if options.descriptor.startswith(TORCHSCRIPT):
        return _torchscript(options)
    entry = find_entry(options.descriptor)
    weights = _weights_of(entry, options)
    return (
        NetworkConfig(
            name=entry.name,
            family=entry.family,
            model=entry.model,
            layer=entry.layer,
            dimension=entry.dimension,
            weights_sha256=weights.sha256,
            preprocessing=_preprocessing(options, entry.preprocessing),
            precision=options.precision,
            channels_last=options.channels_last,
            batch_size=options.descriptor_batch,
        ),
        weights.path,
    )


def _weights_of(entry: Entry, options: DescriptorOptions) -> Weights:
    if options.weights is None:
        return obtain(
            entry.weights, download=options.download, unverified=options.download_unverified
        )
    weights = read_weights(options.weights)
    prefix = entry.weights.prefix
    if entry.family != "torchscript" or (prefix and weights.sha256.startswith(prefix)):
        return weights
    expected = (
        f"SHA-256 {prefix} of {entry.weights.name}"
        if prefix
        else (f"{entry.weights.name}, whose SHA-256 is not known")
    )
    raise BadDescriptor(
        f"{options.weights}: expected {expected}, found {weights.sha256}; a TorchScript file is a "
        f"program: if you trust this one, pass --descriptor {TORCHSCRIPT}{options.weights}"
    )


def _torchscript(options: DescriptorOptions) -> tuple[NetworkConfig, Path]:
    if options.weights is not None:
        raise ConfigError(f"--weights: {options.descriptor} names its file itself; leave it out")
    weights = read_weights(options.descriptor.removeprefix(TORCHSCRIPT))
    config = NetworkConfig(
        name=f"torchscript-{_word(weights.path.stem)}",
        family="torchscript",
        model="file",
        layer="output",
        dimension=None,
        weights_sha256=weights.sha256,
        preprocessing=_preprocessing(options, Preprocessing(size=224)),
        precision=options.precision,
        channels_last=options.channels_last,
        batch_size=options.descriptor_batch,
    )
    return config, weights.path


def _python(options: DescriptorOptions) -> NetworkConfig:
    target = options.descriptor.removeprefix(PYTHON)
    if not is_target(target):
        raise ConfigError(f"--descriptor {options.descriptor}: expected python:MODULE:CALLABLE")
    if options.weights is not None:
        raise ConfigError(f"--weights: {options.descriptor} loads its own; leave it out")
    return NetworkConfig(
        name=f"python-{_word(target)}",
        family="python",
        model=target,
        layer="output",
        dimension=None,
        weights_sha256=source_sha256(options.descriptor, target.partition(":")[0]),
        preprocessing=_preprocessing(options, None),
        precision=options.precision,
        channels_last=options.channels_last,
        batch_size=options.descriptor_batch,
    )


def _preprocessing(options: DescriptorOptions, usual: Preprocessing | None) -> Preprocessing | None:
    """The usual preprocessing with what the options change."""
    given = {
        "--resize": options.resize,
        "--filter": options.filter,
        "--mean": options.mean,
        "--std": options.std,
    }
    if usual is None:
        named = [flag for flag, value in given.items() if value is not None]
        if named:
            raise ConfigError(
                f"{', '.join(named)}: {options.descriptor} takes images as they are; leave it out"
            )
        return None
    changes: dict[str, Any] = {
        flag.removeprefix("--"): value for flag, value in given.items() if value is not None
    }
    rule = changes.pop("resize", None)
    if rule is not None:
        changes["rule"], changes["size"] = parse_rule(rule)
    return dataclasses.replace(usual, **changes)


def _word(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text)[:60]
