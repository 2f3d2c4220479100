"""Networks of any configuration that EDM's code accepts load from EDM's format, to the bit."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from edm_format import dump, edm_modules, save, snapshot
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from regimes.checkpoints import load_edm, load_safetensors, read_edm, save_safetensors, summarize
from regimes.denoisers.unet import build_denoiser
from regimes.errors import ConfigError

COMMON = {
    "preconditioning": st.sampled_from(["EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond"]),
    "img_resolution": st.sampled_from([4, 8]),
    "img_channels": st.sampled_from([1, 3]),
    "label_dim": st.sampled_from([0, 3]),
    "augment_dim": st.sampled_from([0, 9]),
    "use_fp16": st.booleans(),
    "channel_mult": st.sampled_from([[1], [1, 2], [2, 1, 1]]),
    "channel_mult_emb": st.sampled_from([1, 4]),
    "num_blocks": st.integers(1, 2),
    "attn_resolutions": st.sampled_from([[], [4], [8, 4]]),
    "dropout": st.sampled_from([0.0, 0.13]),
    "label_dropout": st.sampled_from([0, 0.1]),
}
SONG = {
    "model_type": st.just("SongUNet"),
    "model_channels": st.sampled_from([8, 16]),
    "embedding_type": st.sampled_from(["positional", "fourier"]),
    "channel_mult_noise": st.sampled_from([1, 2]),
    "encoder_type": st.sampled_from(["standard", "skip", "residual"]),
    "decoder_type": st.sampled_from(["standard", "skip"]),
    "resample_filter": st.sampled_from([[1, 1], [1, 3, 3, 1]]),
}
ADM = {"model_type": st.just("DhariwalUNet"), "model_channels": st.sampled_from([32, 64])}
CONFIGS = st.one_of(
    st.fixed_dictionaries(COMMON | SONG), st.fixed_dictionaries(COMMON | ADM)
)  # fmt: skip


def network(config):
    """A denoiser whose every weight is random, also where initialization is 0."""
    torch.manual_seed(3)
    made = build_denoiser(config)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


def outputs(denoiser):
    x = torch.randn((2, *denoiser.image_shape), generator=torch.Generator().manual_seed(1))
    labels = torch.eye(denoiser.label_dim)[:2] if denoiser.label_dim else None
    with torch.inference_mode():
        return denoiser(x, torch.tensor([0.5, 3.0]), labels)


@settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=25,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)
@given(CONFIGS, st.sampled_from(["pickle", "zip", "stream"]))
def test_networks_of_any_configuration_load_to_the_bit(tmp_path_factory, config, container):
    path = tmp_path_factory.mktemp("any") / "file"
    try:
        made = network(config)
    except ConfigError:
        assume(False)  # attention at a width that does not divide into heads, for instance
    if container == "pickle":
        dump(snapshot(made), path)
    else:
        save({"net": snapshot(made)["ema"]}, path, legacy=container == "stream")
    loaded = load_edm(path)
    assert torch.equal(outputs(loaded), outputs(made))
    assert loaded.config.items() >= made.config.items()
    save_safetensors(read_edm(path), path.with_suffix(".safetensors"))
    converted = load_safetensors(path.with_suffix(".safetensors"))
    assert torch.equal(outputs(converted), outputs(made))
    assert converted.config == loaded.config


PLAIN = {
    "preconditioning": "EDMPrecond", "model_type": "SongUNet", "img_resolution": 4,
    "img_channels": 1, "model_channels": 8, "channel_mult": [1], "num_blocks": 1,
}  # fmt: skip


def test_numpy_s_old_names_are_known(tmp_path):
    made = network(PLAIN)
    with edm_modules():
        content = pickle.dumps(snapshot(made), protocol=2)
    new, old = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    assert (content.count(new) > 0) != (content.count(old) > 0)
    for name in (new, old):
        (tmp_path / "file").write_bytes(content.replace(new, name).replace(old, name))
        assert torch.equal(outputs(load_edm(tmp_path / "file")), outputs(made))


def test_training_state_with_adam_s_state_loads_the_raw_weights(tmp_path):
    made = network(PLAIN)
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    made(torch.ones(1, 1, 4, 4), 1.0).sum().backward()
    optimizer.step()
    content = {"net": snapshot(made)["ema"], "optimizer_state": optimizer.state_dict()}
    for legacy in (False, True):
        loaded = load_edm(save(content, tmp_path / "training-state-000001.pt", legacy=legacy))
        assert torch.equal(outputs(loaded), outputs(made))


def test_snapshot_with_the_arguments_of_its_data_loads(tmp_path):
    made = network(PLAIN)
    content = snapshot(made) | {
        "dataset_kwargs": {
            "class_name": "training.dataset.ImageFolderDataset", "path": "data.zip",
            "use_labels": False, "xflip": False, "cache": True, "resolution": 4,
            "max_size": np.int64(50_000),
        }
    }  # fmt: skip
    assert torch.equal(outputs(load_edm(dump(content, tmp_path / "x.pkl"))), outputs(made))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "DDPM++, widths 8"),
        ({"channel_mult": [1, 2, 2]}, "DDPM++, widths 8, 16, 16"),
        ({"embedding_type": "fourier", "encoder_type": "residual"}, "NCSN++, widths 8"),
        (
            {"encoder_type": "skip", "decoder_type": "skip"},
            "SongUNet with positional embedding, skip encoder, skip decoder, widths 8",
        ),
        ({"model_type": "DhariwalUNet", "model_channels": 32}, "ADM, widths 32"),
    ],
)
def test_summary_names_the_architecture(changes, words):
    made = network(PLAIN | changes)
    summary = summarize(made)
    assert summary.architecture == words
    assert summary.parameters == sum(v.numel() for _, v in made.named_parameters())
    assert (summary.resolution, summary.channels, summary.classes) == (4, 1, 0)
