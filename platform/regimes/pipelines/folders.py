"""Folders that ``save_pretrained`` of a diffusers pipeline wrote, read as data.

Read are JSON, safetensors and a tokenizer's tables by fixed names below the folder; nothing that a folder
names is imported, and its pickles (``.bin``) are refused. Which pipelines are known:

    DDPMPipeline, DDIMPipeline, PNDMPipeline   a UNet2DModel of images
    LDMPipeline                                a UNet2DModel of latents, and the autoencoder of these
    DiTPipeline                                a transformer of latents and classes, and an AutoencoderKL
    StableDiffusionPipeline                    a UNet2DConditionModel of latents, guided by the states of a
                                               CLIP text model; an AutoencoderKL. Its safety checker is
                                               neither read nor run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from regimes.errors import BadCheckpoint, UnsafeCheckpoint

INDEX = "model_index.json"
PipelineFormat = Literal["pipeline", "latent-pipeline", "class-pipeline", "text-pipeline"]
KINDS: dict[str, PipelineFormat] = {
    "DDPMPipeline": "pipeline",
    "DDIMPipeline": "pipeline",
    "PNDMPipeline": "pipeline",
    "LDMPipeline": "latent-pipeline",
    "DiTPipeline": "class-pipeline",
    "StableDiffusionPipeline": "text-pipeline",
}
PARTS: dict[PipelineFormat, tuple[str, ...]] = {
    "pipeline": ("unet",),
    "latent-pipeline": ("unet", "vqvae"),
    "class-pipeline": ("transformer", "vae"),
    "text-pipeline": ("unet", "vae", "text_encoder"),
}
"""Networks of a pipeline; the first is the one that denoises."""
_STEMS = {"text_encoder": "model"}  # transformers and diffusers name their files differently
_PICKLES = {"text_encoder": "pytorch_model.bin"}
_SCHEDULER = "scheduler/scheduler_config.json"
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True, slots=True)
class SavedPipeline:
    """A folder's content."""

    format: PipelineFormat
    config: dict[str, dict[str, Any]]
    """Configurations of the networks and of the scheduler; of a text pipeline, the tokenizer besides."""
    weights: dict[str, bytes]
    """safetensors of every network."""


def read_pipeline(path: Path) -> SavedPipeline:
    """The configurations and weights of a pipeline's folder.

    Args:
        path: a folder with ``model_index.json``.

    Raises:
        BadCheckpoint: if the pipeline is of another kind, or a file is missing.
        UnsafeCheckpoint: if its weights are pickles.
    """
    kind = read_json(path / INDEX).get("_class_name")
    if not isinstance(kind, str) or kind not in KINDS:
        raise BadCheckpoint(
            f"{path}: expected the save_pretrained folder of a {', '.join(KINDS)}, got {kind!r:.60}"
        )
    found = KINDS[kind]
    files = {part: _weights(path, part) for part in PARTS[found]}
    config = {part: read_json(path / part / "config.json") for part in files}
    config["scheduler"] = read_json(path / _SCHEDULER)
    if found == "text-pipeline":
        config["tokenizer"] = _tokenizer(path / "tokenizer")
    return SavedPipeline(found, config, {part: read_bytes(file) for part, file in files.items()})


def _weights(path: Path, part: str) -> Path:
    file = path / part / f"{_STEMS.get(part, 'diffusion_pytorch_model')}.safetensors"
    if file.exists():
        return file
    pickle = file.with_name(_PICKLES.get(part, "diffusion_pytorch_model.bin"))
    if pickle.exists():
        raise UnsafeCheckpoint(
            f"{pickle}: a pickle, which may hold code; save the pipeline by "
            "save_pretrained(..., safe_serialization=True)"
        )
    raise BadCheckpoint(
        f"{path}: expected {part}/{file.name}, as save_pretrained(..., safe_serialization=True) "
        "writes it"
    )


def _tokenizer(path: Path) -> dict[str, Any]:
    """A CLIP tokenizer: its tables, the names of its special tokens, and the longest prompt."""
    options = read_json(path / "tokenizer_config.json")
    names = path / "special_tokens_map.json"
    named = (read_json(names) if names.exists() else {}) | options
    vocab, merges = _tables(path)
    found: dict[str, Any] = {"vocab": vocab, "merges": merges}
    for name in _SPECIAL:
        token = named.get(name, "<|startoftext|>" if name == "bos_token" else "<|endoftext|>")
        found[name] = token.get("content") if isinstance(token, dict) else token
        if not isinstance(found[name], str) or found[name] not in vocab:
            raise BadCheckpoint(
                f"{path}: {name}: expected a token of the vocabulary, got {token!r:.60}"
            )
    found["max_length"] = options.get("model_max_length")
    if not isinstance(found["max_length"], int) or not 2 <= found["max_length"] <= 2**16:
        raise BadCheckpoint(
            f"{path}: model_max_length: expected a number of tokens, got {found['max_length']!r:.40}"
        )
    _check_added(path, options, vocab)
    return found


def _tables(path: Path) -> tuple[dict[str, int], list[list[str]]]:
    """Vocabulary and merges, of ``vocab.json`` and ``merges.txt``, or of ``tokenizer.json``."""
    if (path / "vocab.json").exists():
        vocab: Any = read_json(path / "vocab.json")
        text = read_bytes(path / "merges.txt").decode("utf-8", "replace")
        merges: Any = [m.split() for m in text.splitlines() if m and not m.startswith("#version")]
    else:
        model = read_json(path / "tokenizer.json").get("model")
        model = model if isinstance(model, dict) else {}
        vocab, merges = model.get("vocab"), model.get("merges")
        if isinstance(merges, list):
            merges = [m.split() if isinstance(m, str) else m for m in merges]
    is_vocab = isinstance(vocab, dict) and all(isinstance(v, int) for v in vocab.values())
    is_merges = isinstance(merges, list) and all(
        isinstance(m, list) and len(m) == 2 and all(isinstance(s, str) for s in m) for m in merges
    )
    if not is_vocab or not is_merges:
        raise BadCheckpoint(
            f"{path}: expected the vocabulary and merges of a CLIP tokenizer (vocab.json and "
            "merges.txt, or tokenizer.json)"
        )
    return vocab, merges


def _check_added(path: Path, options: dict[str, Any], vocab: dict[str, int]) -> None:
    """Tokens beside the vocabulary (textual inversion) would be split silently."""
    entries = options.get("added_tokens_decoder")
    added = entries.values() if isinstance(entries, dict) else ()
    names = [e.get("content") if isinstance(e, dict) else e for e in added]
    extra = [name for name in names if name not in vocab]
    if extra:
        raise BadCheckpoint(
            f"{path}: tokens that were added to the vocabulary are not supported, got {extra[0]!r:.40}"
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
