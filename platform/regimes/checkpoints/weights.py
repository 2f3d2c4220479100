"""Denoisers as safetensors files: weights under EDM's names, the configuration as JSON.

    metadata["regimes.unet/1"] = the configuration, a JSON object

The configuration is that of ``regimes.denoisers.unet.build``. Neither part can hold code. Equal
denoisers give equal bytes (with more keys of metadata they would not: safetensors orders them at
random).
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from regimes.denoisers.unet.build import Config, UNetDenoiser, restore_denoiser
from regimes.errors import BadCheckpoint, ConfigError, StorageFailure

FORMAT = "regimes.unet/1"
Source = UNetDenoiser | tuple[Mapping[str, object], Mapping[str, Tensor]]
"""A denoiser, or a configuration and a state dict as ``read_edm`` returns them."""


def safetensors_bytes(source: Source) -> bytes:
    """The content of a safetensors file that holds a denoiser."""
    if isinstance(source, UNetDenoiser):
        source = (source.config, source.checkpoint_state())
    config, state = source
    metadata = {FORMAT: json.dumps(dict(config), sort_keys=True, allow_nan=False)}
    # A copy per tensor: safetensors refuses tensors that share memory.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    return bytes(safetensors.torch.save(tensors, metadata))


def save_safetensors(source: Source, path: str | Path) -> None:
    """Write a denoiser; the file appears whole or not at all.

    Args:
        source: what to write.
        path: the file to write; an existing one is replaced.

    Raises:
        StorageFailure: if the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(safetensors_bytes(source))
        os.replace(temporary, path)
    except OSError as error:
        raise StorageFailure(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_safetensors(path: str | Path) -> tuple[Config, dict[str, Tensor]]:
    """Configuration and state dict of a file written by ``save_safetensors``.

    Raises:
        BadCheckpoint: if the file is missing, damaged or of another kind.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BadCheckpoint(f"{path}: cannot be read ({error.strerror})") from error
    return parse_safetensors(data, str(path))


def parse_safetensors(data: bytes, name: str) -> tuple[Config, dict[str, Tensor]]:
    """Configuration and state dict of the content of such a file; ``name`` is for errors.

    Raises:
        BadCheckpoint: if the content is damaged or of another kind.
    """
    try:
        state = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header.get("__metadata__", {})
    except (ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise BadCheckpoint(f"{name}: not a readable safetensors file ({error})") from error
    if FORMAT not in metadata:
        found = sorted(key[:40] for key in metadata)[:10]
        raise BadCheckpoint(f"{name}: expected metadata {FORMAT!r}, found {found}")
    try:
        config = json.loads(metadata[FORMAT])
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{name}: the configuration is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise BadCheckpoint(f"{name}: the configuration is not a JSON object")
    return config, {key: _checked(f"{name}: {key}", value) for key, value in state.items()}


def _checked(name: str, tensor: Tensor) -> Tensor:
    """A tensor as the networks take it: float32, finite."""
    if not tensor.is_floating_point() or not tensor.isfinite().all():
        raise BadCheckpoint(f"{name}: expected finite floating-point numbers, found {tensor.dtype}")
    return tensor.to(torch.float32)


def load_safetensors(path: str | Path, device: str | torch.device = "cpu") -> UNetDenoiser:
    """The denoiser of a file written by ``save_safetensors``, as ``load_edm`` returns it.

    Raises:
        BadCheckpoint: if the file is damaged, or its weights do not fit its configuration.
    """
    return _restore(*read_safetensors(path), str(path)).to(device)


def denoiser_from_bytes(data: bytes, name: str) -> UNetDenoiser:
    """The denoiser in the content of such a file, on the CPU; ``name`` is for errors.

    Raises:
        BadCheckpoint: as ``load_safetensors``.
    """
    return _restore(*parse_safetensors(data, name), name)


def _restore(config: Config, state: Mapping[str, Tensor], name: str) -> UNetDenoiser:
    try:
        return restore_denoiser(config, state)
    except ConfigError as error:
        raise BadCheckpoint(f"{name}: {error}") from error
