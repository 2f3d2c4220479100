"""Prompts as a text-conditional network reads them: the states of a CLIP text model.

The seed s is sampled with prompt number s mod P of a list of P prompts: a sample's prompt depends on its
seed and the list alone, and seeds 0 to k P - 1 sample every prompt k times.

Needs the ``transformers`` package (``pip install 'regimes[text]'``), of which the tokenizer's and the text
model's code is used; tables, numbers and weights come from the pipeline's folder, and nothing else of it
reaches that package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from regimes.errors import ConfigError

_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
)
"""What is taken from a text model's configuration. Others may name code to load."""
_SPECIAL = ("bos_token", "eos_token", "pad_token")


def prompt_index(seed: int, num_prompts: int) -> int:
    """Number of the prompt that a seed is sampled with."""
    return seed % num_prompts


class TextEncoder(nn.Module):
    """The states that a prompt becomes.

    Args:
        tokenizer: called on a list of prompts, gives ids padded to one length.
        model: a CLIP text model.
        masked: whether padding is hidden from the model, as a few ask for.
    """

    def __init__(self, tokenizer: Any, model: nn.Module, *, masked: bool) -> None:
        super().__init__()
        self.tokenizer, self.model, self.masked = tokenizer, model, masked

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """B prompts -> (B, L, E) float32; what is longer than the model reads is cut off."""
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        home = next(self.model.parameters()).device
        mask = tokens["attention_mask"].to(home) if self.masked else None
        states: Tensor = self.model(tokens["input_ids"].to(home), attention_mask=mask)[0]
        return states.to(torch.float32)


def build_text_encoder(
    config: Mapping[str, Any], tokenizer: Mapping[str, Any], state: Mapping[str, Tensor]
) -> TextEncoder:
    """The text encoder of a saved pipeline, on the CPU.

    Args:
        config: content of ``text_encoder/config.json``.
        tokenizer: as ``regimes.pipelines.folders.read_pipeline`` reads it.
        state: weights of the model.

    Raises:
        ConfigError: if transformers is not installed, the model is of another kind, or its parts do not
            fit together.
    """
    _check_kind(config)
    try:
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
    except ImportError as error:
        raise ConfigError(
            "this pipeline reads prompts, which needs the package transformers, version 5; pip install "
            "'transformers>=5'"
        ) from error
    tables = {k: v for k, v in tokenizer.items() if k not in ("max_length", "merges")}
    merges = [(first, second) for first, second in tokenizer["merges"]]
    # Old configurations have wrong ids of special tokens (they serve a pooled state, which is not used).
    ids = {f"{name}_id": tables["vocab"][tables[name]] for name in _SPECIAL}
    try:
        model = CLIPTextModel(
            CLIPTextConfig(**{k: config[k] for k in _FIELDS if k in config}, **ids)
        )
        model.load_state_dict(_renamed(state), strict=True)
        made = CLIPTokenizer(**tables, merges=merges, model_max_length=tokenizer["max_length"])
    except Exception as error:  # both packages have errors of their own
        detail = " ".join(str(error).split())
        raise ConfigError(f"text_encoder: its parts do not fit together: {detail:.400}") from error
    if len(made) > model.config.vocab_size or tokenizer["max_length"] > config.get(
        "max_position_embeddings", 77
    ):
        raise ConfigError(
            f"text_encoder: knows {model.config.vocab_size} tokens at "
            f"{model.config.max_position_embeddings} places, the tokenizer gives {len(made)} at "
            f"{tokenizer['max_length']}"
        )
    return TextEncoder(made, model, masked=bool(config.get("use_attention_mask")))


def _check_kind(config: Mapping[str, Any]) -> None:
    kinds = config.get("architectures")
    if kinds != ["CLIPTextModel"]:
        raise ConfigError(f"text_encoder: expected a CLIPTextModel, got {kinds!r:.60}")


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as transformers 5 has them; older files have a prefix, and a table of places."""
    names = {k: k.removeprefix("text_model.") for k in state}
    return {new: state[old] for old, new in names.items() if not new.endswith("position_ids")}
