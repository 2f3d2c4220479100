"""Text encoders of saved pipelines: read as data, in every layout, and refused in one line."""

from __future__ import annotations

import json
import shutil
import sys

import made_pipelines
import pytest
import safetensors.torch
import torch

from regimes.errors import BadCheckpoint, ConfigError, UnsafeCheckpoint
from regimes.pipelines.folders import read_pipeline
from regimes.pipelines.model import build_pipeline
from regimes.pipelines.text import build_text_encoder

PROMPTS = ["a cat", "Cats & dogs! <|endoftext|> no", "", "a much longer prompt than it reads"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return made_pipelines.save(made_pipelines.text_pipeline(), tmp_path_factory.mktemp("sd"))


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to change."""
    return shutil.copytree(saved, tmp_path / "copy")


def encoder(folder):
    found = read_pipeline(folder)
    state = safetensors.torch.load(found.weights["text_encoder"])
    return build_text_encoder(found.config["text_encoder"], found.config["tokenizer"], state).eval()


def states(folder):
    with torch.inference_mode():
        return encoder(folder)(PROMPTS)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_states_are_those_of_the_pipelines_own_call(saved):
    theirs = made_pipelines.text_pipeline()
    for prompt, own in zip(PROMPTS, states(saved), strict=True):
        embeds, _ = theirs.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)
        torch.testing.assert_close(own, embeds[0], atol=1e-5, rtol=1e-5)


def test_tables_in_files_of_their_own_give_the_same_states(saved, folder):
    """As published folders have them: vocab.json, merges.txt, special tokens with options."""
    path = folder / "tokenizer"
    model = json.loads((path / "tokenizer.json").read_text())["model"]
    (path / "tokenizer.json").unlink()
    (path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(merge) for merge in model["merges"])
    (path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    token = {"content": "<|endoftext|>", "lstrip": False, "normalized": True, "rstrip": False}
    edit(path / "tokenizer_config.json", unk_token=token)
    (path / "special_tokens_map.json").write_text('{"pad_token": "!", "unk_token": "!"}')
    assert torch.equal(
        states(folder), states(saved)
    )  # what the tokenizer's own file says comes first


def test_padding_is_the_tokenizers(saved, folder):
    """Stable Diffusion 2 fills up with exclamation marks."""
    edit(folder / "tokenizer" / "tokenizer_config.json", pad_token="!")
    assert not torch.allclose(states(folder), states(saved), atol=1e-3)
    tokens = encoder(folder).tokenizer(["a"], padding="max_length", max_length=12)["input_ids"][0]
    assert tokens[3:] == [0] * 9  # "!" is the first of the vocabulary


def test_names_and_places_of_older_files_are_read(saved, folder):
    path = folder / "text_encoder" / "model.safetensors"
    state = {f"text_model.{k}": v for k, v in safetensors.torch.load_file(path).items()}
    state["text_model.embeddings.position_ids"] = torch.arange(12)[None]
    safetensors.torch.save_file(state, path)
    assert torch.equal(states(folder), states(saved))


def test_padding_is_hidden_if_the_configuration_says_so(folder, saved):
    edit(folder / "text_encoder" / "config.json", use_attention_mask=True)
    ours, seen = states(folder), states(saved)
    torch.testing.assert_close(ours[0, :4], seen[0, :4])  # causal: what follows changes nothing
    assert not torch.allclose(ours[0, 6:], seen[0, 6:], atol=1e-4)


def test_what_a_configuration_names_is_not_loaded(saved, folder, monkeypatch):
    """Code on a hub, classes of other modules: nothing of it reaches the packages."""
    config = folder / "text_encoder" / "config.json"
    edit(
        config,
        attn_implementation="someone/kernel",
        _attn_implementation="someone/kernel",
        auto_map={"AutoModel": "evil.Evil"},
        quantization_config={"quant_method": "evil"},
    )
    edit(folder / "tokenizer" / "tokenizer_config.json", auto_map={"AutoTokenizer": "evil.Evil"})
    index = json.loads((folder / "model_index.json").read_text())
    edit(folder / "model_index.json", unet=["os", "system"], safety_checker=["evil", "Evil"])
    assert index["safety_checker"] == [None, None]
    assert torch.equal(states(folder), states(saved))
    assert "evil" not in sys.modules


def built(folder):
    found = read_pipeline(folder)
    parts = {part: safetensors.torch.load(data) for part, data in found.weights.items()}
    return build_pipeline(found.config, parts)


def refused(folder, error, words):
    with pytest.raises(error, match=words) as caught:
        built(folder)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("file", "changes", "error", "words"),
    [
        (
            "text_encoder/config.json",
            {"architectures": ["T5EncoderModel"]},
            ConfigError,
            "text_encoder: expected a CLIPTextModel",
        ),
        ("text_encoder/config.json", {"hidden_size": 8}, ConfigError, "do not fit together"),
        ("text_encoder/config.json", {"hidden_act": "evil"}, ConfigError, "do not fit together"),
        (
            "tokenizer/tokenizer_config.json",
            {"model_max_length": 10**30},
            BadCheckpoint,
            "model_max_length: expected a number of tokens",
        ),
        (
            "tokenizer/tokenizer_config.json",
            {"model_max_length": 77},
            ConfigError,
            "at 12 places, the tokenizer gives 192 at 77",
        ),
        (
            "tokenizer/tokenizer_config.json",
            {"pad_token": "<pad>"},
            BadCheckpoint,
            "pad_token: expected a token of the vocabulary",
        ),
        (
            "tokenizer/tokenizer_config.json",
            {"added_tokens_decoder": {"900": {"content": "<my-cat>"}}},
            BadCheckpoint,
            "added to the vocabulary are not supported, got '<my-cat>'",
        ),
        ("tokenizer/tokenizer.json", {"model": 3}, BadCheckpoint, "expected the vocabulary"),
        ("unet/config.json", {"time_cond_proj_dim": 4}, ConfigError, "time_cond_proj_dim is not"),
        (
            "unet/config.json",
            {"_class_name": "UNet2DModel"},
            ConfigError,
            "unet: expected UNet2DConditionModel",
        ),
        (
            "vae/config.json",
            {"_class_name": "VQModel"},
            ConfigError,
            "vae: expected AutoencoderKL, got 'VQModel'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(folder, file, changes, error, words):
    edit(folder / file, **changes)
    refused(folder, error, words)


def test_pickled_text_encoders_are_refused(folder):
    path = folder / "text_encoder"
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    refused(folder, UnsafeCheckpoint, r"text_encoder/pytorch_model.bin: a pickle")
    (path / "pytorch_model.bin").unlink()
    refused(folder, BadCheckpoint, r"expected text_encoder/model.safetensors")


def test_without_transformers_the_error_says_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(saved, ConfigError, "needs the package transformers, version 5; pip install")
