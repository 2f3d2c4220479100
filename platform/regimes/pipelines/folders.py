"""Folders that ``save_pretrained`` of a diffusers pipeline wrote, read as data.

Read are JSON and safetensors by fixed names below the folder; nothing that a folder names is imported,
and its pickles (``.bin``) are refused. Which pipelines are known:

    DDPMPipeline, DDIMPipeline, PNDMPipeline   a UNet2DModel of images
    LDMPipeline                                a UNet2DModel of latents, and the autoencoder of these
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regimes.errors import BadCheckpoint, UnsafeCheckpoint

INDEX = "model_index.json"
PIXEL_PIPELINES = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline")
LATENT_PIPELINES = ("LDMPipeline",)
_WEIGHTS, _PICKLE = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"
_SCHEDULER = "scheduler/scheduler_config.json"


@dataclass(frozen=True, slots=True)
class SavedPipeline:
    """A folder's content."""

    config: dict[str, dict[str, Any]]
    """Configurations of unet and scheduler, and of vqvae for latents."""
    weights: dict[str, bytes]
    """safetensors of unet, and of vqvae for latents."""

    @property
    def is_latent(self) -> bool:
        """Whether its network denoises latents."""
        return "vqvae" in self.config


def read_pipeline(path: Path) -> SavedPipeline:
    """The configurations and weights of a pipeline's folder.

    Args:
        path: a folder with ``model_index.json``.

    Raises:
        BadCheckpoint: if the pipeline is of another kind, or a file is missing.
        UnsafeCheckpoint: if its weights are pickles.
    """
    kind = read_json(path / INDEX).get("_class_name")
    if kind not in (*PIXEL_PIPELINES, *LATENT_PIPELINES):
        raise BadCheckpoint(
            f"{path}: expected the save_pretrained folder of a "
            f"{', '.join((*PIXEL_PIPELINES, *LATENT_PIPELINES))}, got {kind!r:.60}"
        )
    parts = ["unet", "vqvae"] if kind in LATENT_PIPELINES else ["unet"]
    for part in parts:
        _check_weights(path, part)
    config = {part: read_json(path / part / "config.json") for part in parts}
    config["scheduler"] = read_json(path / _SCHEDULER)
    return SavedPipeline(config, {part: read_bytes(path / part / _WEIGHTS) for part in parts})


def _check_weights(path: Path, part: str) -> None:
    if (path / part / _WEIGHTS).exists():
        return
    if (path / part / _PICKLE).exists():
        raise UnsafeCheckpoint(
            f"{path / part / _PICKLE}: a pickle, which may hold code; save the pipeline by "
            "save_pretrained(..., safe_serialization=True)"
        )
    raise BadCheckpoint(
        f"{path}: expected {part}/{_WEIGHTS}, as save_pretrained(..., safe_serialization=True) "
        "writes it"
    )


def read_bytes(path: Path) -> bytes:
    """Content of a file.

    Raises:
        BadCheckpoint: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadCheckpoint(f"{path}: cannot be read ({error.strerror})") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        BadCheckpoint: if it is anything else.
    """
    try:
        value = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path}: expected a JSON object")
    return value
