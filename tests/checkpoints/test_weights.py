"""Denoisers as safetensors files."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from edm_format import DATA, FILES

from regimes.checkpoints import load_edm, load_safetensors, read_edm, read_safetensors
from regimes.checkpoints import save_safetensors as save
from regimes.denoisers.preconditioning import IDDPM
from regimes.denoisers.unet import build_denoiser
from regimes.errors import BadCheckpoint, StorageFailure


def outputs(denoiser):
    x = torch.randn((2, *denoiser.image_shape), generator=torch.Generator().manual_seed(1))
    labels = torch.eye(denoiser.label_dim)[:2] if denoiser.label_dim else None
    with torch.inference_mode():
        return denoiser(x, torch.tensor([0.1, 9.0]), labels)


@pytest.mark.parametrize("name", FILES)
def test_converted_checkpoints_are_the_same_denoiser(name, tmp_path):
    source, path = DATA / f"{name}.pkl", tmp_path / "a.safetensors"
    denoiser = load_edm(source)
    save(read_edm(source), path)
    loaded = load_safetensors(path)
    assert torch.equal(outputs(loaded), outputs(denoiser))
    assert loaded.config == denoiser.config
    assert not loaded.training
    save(denoiser, tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == path.read_bytes()
    config, state = read_safetensors(path)
    expected_config, expected = read_edm(source)
    assert config == expected_config
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[k], expected[k]) for k in state)


def iddpm():
    torch.manual_seed(0)
    config = {
        "preconditioning": "iDDPMPrecond", "M": 10, "img_resolution": 4, "img_channels": 1,
        "model_channels": 16, "channel_mult": [1], "num_blocks": 1, "model_type": "SongUNet",
    }  # fmt: skip
    return build_denoiser(config).eval()


def test_noise_levels_of_iddpm_are_kept(tmp_path):
    denoiser, path = iddpm(), tmp_path / "a.safetensors"
    levels = tuple((IDDPM(M=10).u * 1.001).tolist())
    denoiser.preconditioning = IDDPM(M=10, levels=levels)
    save(denoiser, path)
    assert load_safetensors(path).preconditioning == denoiser.preconditioning


def test_the_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    save(iddpm(), path)
    assert load_safetensors(path).label_dim == 0
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(StorageFailure, match="cannot be written"):
        save(iddpm(), tmp_path / "missing" / "a.safetensors")


def test_tensors_that_share_memory_are_saved(tmp_path):
    denoiser, path = iddpm(), tmp_path / "a.safetensors"
    denoiser.network.map_layer0.bias = denoiser.network.map_layer1.bias
    save(denoiser, path)
    assert torch.equal(outputs(load_safetensors(path)), outputs(denoiser))


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (None, "expected metadata"),
        ({"format": "other"}, r"expected metadata .* found \['format'\]"),
        ({"regimes.unet/1": "blue"}, "not JSON"),
        ({"regimes.unet/1": "[" * 100_000}, "not JSON"),
        ({"regimes.unet/1": "[]"}, "not a JSON object"),
        ({"regimes.unet/1": "{}"}, "preconditioning"),
    ],
)
def test_other_safetensors_files_are_refused(metadata, words, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors.torch.save({"a": torch.ones(2)}, metadata))
    with pytest.raises(BadCheckpoint, match=words):
        load_safetensors(path)


def test_weights_that_do_not_fit_the_configuration_are_refused(tmp_path):
    path, denoiser = tmp_path / "a.safetensors", iddpm()
    save((denoiser.config | {"model_channels": 32}, denoiser.checkpoint_state()), path)
    with pytest.raises(BadCheckpoint, match="size mismatch"):
        load_safetensors(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(BadCheckpoint, match="not a readable safetensors file"):
        load_safetensors(path)
    with pytest.raises(BadCheckpoint, match="missing"):
        load_safetensors(tmp_path / "missing")


def test_the_configuration_is_readable_json(tmp_path):
    path = tmp_path / "a.safetensors"
    save(load_edm(DATA / "adm-edm-cond.pkl"), path)
    with safetensors.safe_open(path, framework="pt") as file:
        config = json.loads(file.metadata()["regimes.unet/1"], parse_constant=pytest.fail)
    assert config["preconditioning"] == "EDMPrecond"
    assert config["label_dim"] == 4


def test_weights_of_other_precision_are_float32_and_those_that_are_not_finite_refused(tmp_path):
    config, state = read_edm(DATA / "ddpmpp-vp-uncond.pkl")
    half = {name: value.to(torch.float16) for name, value in state.items()}
    save((config, half), tmp_path / "half.safetensors")
    loaded = load_safetensors(tmp_path / "half.safetensors")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert loaded(torch.zeros(1, *loaded.image_shape), 1.0).isfinite().all()
    first = next(iter(state))
    state[first] = torch.full_like(state[first], torch.nan)
    save((config, state), tmp_path / "nan.safetensors")
    with pytest.raises(BadCheckpoint, match=f"{first}: expected finite"):
        load_safetensors(tmp_path / "nan.safetensors")
