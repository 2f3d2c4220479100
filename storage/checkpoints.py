"""Checkpoints brought into the store: read once, kept as safetensors and JSON.

Whatever kind of file a model comes in, what workers load is an artifact that any node can reach and
that cannot hold code. Its address is the SHA-256 of the original, so the name and place of the file
do not matter.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import safetensors
import safetensors.torch
from torch import Tensor, nn

from regimes.checkpoints import read_edm
from regimes.checkpoints.weights import denoiser_from_bytes, read_safetensors, safetensors_bytes
from regimes.denoisers.pipelines import build_pipeline_denoiser, image_shape, num_classes
from regimes.denoisers.preconditioning import EDM, Denoiser
from regimes.denoisers.residual_mlp import ResidualMLP
from regimes.errors import BadCheckpoint, ConfigError
from regimes.pipelines.folders import (
    INDEX,
    PARTS,
    PipelineFormat,
    read_bytes,
    read_json,
    read_pipeline,
)
from regimes.pipelines.model import build_pipeline
from regimes.storage.artifacts import RECIPE, Recipe, Store, to_json

WEIGHTS, CONFIG = "weights.safetensors", "config.json"
NETWORK_FILES = (WEIGHTS, "model.safetensors")
"""What a folder of a trained network holds: an artifact, or the results of the train job."""

Format = PipelineFormat | Literal["unet", "residual-mlp"]
PIPELINES: tuple[Format, ...] = tuple(PARTS)
"""What schedulers sample."""
LATENT: tuple[Format, ...] = ("latent-pipeline", "class-pipeline", "text-pipeline")
"""What nothing else samples."""
Files = Mapping[str, bytes]
Network = tuple[Any, tuple[int, int, int], int]
"""Denoiser, (C, H, W) of its samples, number of classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRecipe(Recipe):
    """A model that was made elsewhere."""

    kind: ClassVar[str] = "checkpoint"
    code_version: ClassVar[int] = 1

    format: Format
    sha256: str
    """Of the file, or of all files of a folder that matter."""

    @property
    def label(self) -> str:
        """Short name, such as unet-1f0c9a3b."""
        return f"{self.format}-{self.sha256[:8]}"


@dataclass(frozen=True, slots=True)
class _Found:
    """A model outside of the store: what it is, and how to read its configuration and files of weights."""

    recipe: CheckpointRecipe
    read: Callable[[], tuple[dict[str, Any], Files]]


def identify_checkpoint(path: str | Path) -> CheckpointRecipe:
    """The recipe of a model outside of the store, from its content; see ``import_checkpoint``.

    Raises:
        BadCheckpoint: if it is missing or of an unknown kind.
    """
    return _find(Path(path)).recipe


def import_checkpoint(store: Store, path: str | Path) -> CheckpointRecipe:
    """Bring a model into the store; one that is there is not read again.

    Args:
        store: where it goes.
        path: EDM's ``network-snapshot-*.pkl`` or ``training-state-*.pt``, a .safetensors file of
            this project, a folder saved by a diffusers pipeline, or the folder of a model artifact.

    Returns:
        Its recipe; the artifact is complete.

    Raises:
        BadCheckpoint: if it is missing, damaged, or of an unknown kind.
    """
    found = _find(Path(path))
    if store.missing([found.recipe]):
        config, weights = found.read()
        try:  # weights that do not fit are refused before anything is written
            _check(found.recipe.format, config, weights, str(path))
        except ConfigError as error:
            raise BadCheckpoint(f"{path}: {error}") from error
        artifact = store.artifact(found.recipe)
        files = {**weights, CONFIG: to_json(config).encode()}
        artifact.finish([artifact.write(name, content) for name, content in files.items()])
    return found.recipe


def _find(path: Path) -> _Found:
    if path.is_dir():
        return _find_folder(path)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadCheckpoint(f"{path}: cannot be read ({error.strerror})") from error
    return _Found(
        CheckpointRecipe(format="unet", sha256=digest), functools.partial(_read_unet, path)
    )


def _read_unet(path: Path) -> tuple[dict[str, Any], Files]:
    is_ours = path.suffix == ".safetensors"
    config, state = read_safetensors(path) if is_ours else read_edm(path)
    return config, {WEIGHTS: safetensors_bytes((config, state))}


def _find_folder(path: Path) -> _Found:
    if (path / INDEX).exists():
        return _find_pipeline(path)
    if (path / "network.json").exists() and (path / RECIPE).exists():
        return _find_model(path)
    for name in NETWORK_FILES:
        if (path / name).exists():
            return _find(path / name)
    raise BadCheckpoint(
        f"{path}: expected a folder saved by a diffusers pipeline (with model_index.json), or that of "
        "a model artifact"
    )


def _find_pipeline(path: Path) -> _Found:
    saved = read_pipeline(path)
    if saved.format == "pipeline":
        return _found("pipeline", saved.config, saved.weights["unet"])

    def read() -> tuple[dict[str, Any], Files]:
        if saved.format != "latent-pipeline":
            return saved.config, {_part_file(part): data for part, data in saved.weights.items()}
        tensors = {
            f"{part}.{name}": tensor
            for part, data in saved.weights.items()
            for name, tensor in read_tensors(data, f"{path}/{part}").items()
        }
        return saved.config, {WEIGHTS: safetensors.torch.save(tensors)}

    digest = _digest(saved.config, *saved.weights.values())
    return _Found(CheckpointRecipe(format=saved.format, sha256=digest), read)


def _part_file(part: str) -> str:
    return f"{part}.safetensors"


def pipeline_states(
    format: Format, read: Callable[[str], bytes], name: str
) -> dict[str, dict[str, Tensor]]:
    """Weights of every network of a pipeline, by part.

    Args:
        format: of the pipeline. Pipelines of images and of ``LDMPipeline`` have one file, in which the
            latter's names begin with the part; the others have a file per part.
        read: content of a file by its name.
        name: what to call the pipeline in an error.

    Raises:
        BadCheckpoint: if a file is not readable.
    """
    if format in ("class-pipeline", "text-pipeline"):
        files = {part: _part_file(part) for part in PARTS[format]}
        return {part: read_tensors(read(f), f"{name}/{f}") for part, f in files.items()}
    tensors = read_tensors(read(WEIGHTS), f"{name}/{WEIGHTS}")
    if format == "pipeline":
        return {"unet": tensors}
    return {part: _named(tensors, f"{part}.") for part in PARTS["latent-pipeline"]}


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _find_model(path: Path) -> _Found:
    made, network = read_json(path / RECIPE), read_json(path / "network.json")
    try:
        config = {name: made[name] for name in ("width", "blocks", "sigma_data")}
        config["image_shape"] = network["image_shape"]
    except KeyError as error:
        raise BadCheckpoint(f"{path}: {RECIPE} lacks {error}; expected a model artifact") from error
    return _found("residual-mlp", config, read_bytes(path / WEIGHTS))


def _found(format: Format, config: dict[str, Any], data: bytes) -> _Found:
    recipe = CheckpointRecipe(format=format, sha256=_digest(config, data))
    return _Found(recipe, lambda: (config, {WEIGHTS: data}))


def _digest(config: dict[str, Any], *data: bytes) -> str:
    digest = hashlib.sha256()
    for part in (to_json(config).encode(), *data):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def load_checkpoint(store: Store, recipe: CheckpointRecipe) -> Network:
    """The denoiser of a complete artifact on the CPU, the shape of its samples, its classes.

    Raises:
        BrokenArtifact: if a file is missing or altered.
        ConfigError: if it is a pipeline of latents, which is no denoiser of images.
    """
    if recipe.format in LATENT:
        raise ConfigError(f"{recipe.label}: a latent pipeline, which only schedulers sample")
    artifact = store.artifact(recipe)
    data, config = artifact.read(WEIGHTS), json.loads(artifact.read(CONFIG))
    return _build(recipe.format, config, data, artifact.location.child(WEIGHTS).uri)


def _check(format: Format, config: dict[str, Any], files: Files, name: str) -> None:
    if format in LATENT:
        build_pipeline(config, pipeline_states(format, files.__getitem__, name))
    else:
        _build(format, config, files[WEIGHTS], name)


def _build(format: Format, config: dict[str, Any], data: bytes, name: str) -> Network:
    if format == "pipeline":
        return _pipeline(config, data, name)
    if format == "residual-mlp":
        return _residual_mlp(config, data, name)
    denoiser = denoiser_from_bytes(data, name)
    return denoiser, denoiser.image_shape, denoiser.label_dim


def _pipeline(config: dict[str, Any], data: bytes, name: str) -> Network:
    denoiser = build_pipeline_denoiser(
        config["unet"], config["scheduler"], read_tensors(data, name)
    )
    return denoiser, image_shape(config["unet"]), num_classes(config["unet"])


def _residual_mlp(config: dict[str, Any], data: bytes, name: str) -> Network:
    channels, height, width = config["image_shape"]
    shape = (channels, height, width)
    network: nn.Module = ResidualMLP(shape, config["width"], blocks=config["blocks"])
    try:
        network.load_state_dict(read_tensors(data, name))
    except RuntimeError as error:
        raise BadCheckpoint(f"{name}: {' '.join(str(error).split()):.400}") from error
    return Denoiser(network, EDM(sigma_data=config["sigma_data"])), shape, 0


def read_tensors(data: bytes, name: str) -> dict[str, Tensor]:
    """Tensors of the content of a safetensors file.

    Raises:
        BadCheckpoint: if it is not one.
    """
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise BadCheckpoint(f"{name}: not a readable safetensors file ({error})") from error
