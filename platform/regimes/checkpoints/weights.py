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


def save_safetensors(
    source: UNetDenoiser | tuple[Mapping[str, object], Mapping[str, Tensor]], path: str | Path
) -> None:
    """Write a denoiser; the file appears whole or not at all.

    Args:
        source: a denoiser, or a configuration and a state dict as ``read_edm`` returns them.
        path: the file to write; an existing one is replaced.

    Raises:
        StorageFailure: if the file cannot be written.
    """
    if isinstance(source, UNetDenoiser):
        source = (source.config, source.checkpoint_state())
    config, state = source
    metadata = {FORMAT: json.dumps(dict(config), sort_keys=True, allow_nan=False)}
    # A copy per tensor: safetensors refuses tensors that share memory.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(safetensors.torch.save(tensors, metadata))
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
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise BadCheckpoint(f"{path}: not a readable safetensors file ({error})") from error
    if FORMAT not in metadata:
        found = sorted(key[:40] for key in metadata)[:10]
        raise BadCheckpoint(f"{path}: expected metadata {FORMAT!r}, found {found}")
    try:
        config = json.loads(metadata[FORMAT])
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{path}: the configuration is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise BadCheckpoint(f"{path}: the configuration is not a JSON object")
    return config, state


def load_safetensors(path: str | Path, device: str | torch.device = "cpu") -> UNetDenoiser:
    """The denoiser of a file written by ``save_safetensors``, as ``load_edm`` returns it.

    Raises:
        BadCheckpoint: if the file is damaged, or its weights do not fit its configuration.
    """
    config, state = read_safetensors(path)
    try:
        return restore_denoiser(config, state).to(device)
    except ConfigError as error:
        raise BadCheckpoint(f"{path}: {error}") from error
