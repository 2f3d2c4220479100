"""EDM's networks against outputs and images that the original code computed on a CPU.

tests/data/edm holds four small networks with random weights in EDM's own pickle format (their
embedded source text is replaced by a line that raises), and for each of them denoised inputs and
images sampled from seeds.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from edm_format import DATA, FILES, dump, save, snapshot

from regimes.checkpoints import load_edm, read_edm
from regimes.denoisers.preconditioning import EDM, IDDPM, VE, VP
from regimes.denoisers.unet import build_denoiser
from regimes.errors import BadCheckpoint
from regimes.noise import SeedNoise
from regimes.samplers.edm import SamplerConfig, sample_seeds

TINY = {
    "preconditioning": "EDMPrecond",
    "img_resolution": 8,
    "img_channels": 1,
    "model_type": "SongUNet",
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
}
OTHERS = {
    "iddpm-adm-cond": {
        "preconditioning": "iDDPMPrecond",
        "model_type": "DhariwalUNet",
        "label_dim": 3,
        "model_channels": 32,
        "M": 20,
    },
    "vp-adm-augment": {
        "preconditioning": "VPPrecond",
        "model_type": "DhariwalUNet",
        "augment_dim": 2,
    },
    "ve-ncsnpp-skip-skip": {
        "preconditioning": "VEPrecond",
        "embedding_type": "fourier",
        "encoder_type": "skip",
        "decoder_type": "skip",
        "resample_filter": [1, 3, 3, 1],
        "channel_mult_noise": 2,
    },
    "edm-ddpmpp-cond": {"label_dim": 5, "augment_dim": 9, "sigma_data": 0.7, "label_dropout": 0.1},
    "edm-residual-skip": {"encoder_type": "residual", "decoder_type": "skip"},
}


def relative(found, expected):
    """Norm of the difference over the norm, the larger of: over all, and worst sample."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    rows = found.reshape(len(found), -1) - expected.reshape(len(found), -1)
    norms = np.linalg.norm(expected.reshape(len(found), -1), axis=1)
    whole = np.linalg.norm(rows) / np.linalg.norm(expected)
    return max(whole, (np.linalg.norm(rows, axis=1) / norms).max())


@pytest.fixture(params=FILES)
def published(request):
    """(denoiser, description, arrays) of one of the four files."""
    description = json.loads((DATA / f"{request.param}.json").read_text())
    with np.load(DATA / f"{request.param}.npz") as arrays:
        return load_edm(DATA / f"{request.param}.pkl"), description, dict(arrays)


@pytest.fixture
def tiny():
    """A tiny denoiser with random weights (also where initialization is 0)."""

    def make(**changes):
        torch.manual_seed(7)
        denoiser = build_denoiser({**TINY, **changes})
        for parameter in denoiser.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        return denoiser.eval()

    return make


def call(denoiser, seed=3):
    """Outputs of a denoiser for fixed inputs, with labels if it knows any."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((2, *denoiser.image_shape), generator=generator)
    labels = torch.eye(denoiser.label_dim)[:2] if denoiser.label_dim else None
    with torch.inference_mode():
        return denoiser(x, torch.tensor([0.3, 4.0]), labels)


def test_denoised_outputs_are_those_of_the_original(published):
    denoiser, _, arrays = published
    labels = torch.from_numpy(arrays["class_labels"]) if "class_labels" in arrays else None
    x, sigma = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["sigma"])
    with torch.inference_mode():
        found = denoiser(x, sigma, labels)
        by_scalar = denoiser(x[2:3], float(sigma[2]), None if labels is None else labels[2:3])
    assert found.dtype == torch.float32
    assert relative(found, arrays["denoised"]) <= 1e-5
    assert relative(by_scalar, arrays["denoised"][2:3]) <= 1e-5


def test_sampled_images_are_those_of_the_original(published):
    denoiser, description, arrays = published
    assert description["cases"]
    for case in description["cases"]:
        options = {name.lower(): value for name, value in case["sampler"].items()}
        found = sample_seeds(
            denoiser,
            case["seeds"],
            denoiser.image_shape,
            config=SamplerConfig(**options),
            num_classes=denoiser.label_dim,
        ).numpy()
        assert relative(found, arrays[f"images_{case['index']}"]) <= 1e-4
        levels = (127.5 * found + 128).clip(0, 255).transpose(0, 2, 3, 1)
        differs = levels.astype(np.uint8) != arrays[f"uint8_{case['index']}"]
        assert (np.abs(levels - levels.round())[differs] <= 1e-3).all()


def test_latents_and_classes_are_those_of_the_original(published):
    denoiser, description, arrays = published
    for case in description["cases"]:
        noise = SeedNoise(case["seeds"], denoiser.image_shape)
        assert np.array_equal(noise.latents(), arrays[f"latents_{case['index']}"])
        if denoiser.label_dim:
            labels = noise.class_labels(denoiser.label_dim)
            assert np.array_equal(labels, arrays[f"class_labels_{case['index']}"])


def test_denoiser_describes_itself_as_its_file(published):
    denoiser, description, _ = published
    kinds = {"EDMPrecond": EDM, "VPPrecond": VP, "VEPrecond": VE}
    assert type(denoiser.preconditioning) is kinds[description["preconditioning"]]
    assert sum(p.numel() for p in denoiser.parameters()) == description["parameters"]
    assert denoiser.label_dim == description["label_dim"]
    assert denoiser.img_resolution == description["network"]["img_resolution"]
    assert denoiser.img_channels == 3
    assert {k: denoiser.config[k] for k in description["network"]} == description["network"]
    assert not denoiser.training
    assert not any(p.requires_grad for p in denoiser.parameters())


def test_configuration_and_state_rebuild_the_network(published):
    denoiser, description, _ = published
    config, state = read_edm(DATA / f"{description['name']}.pkl")
    assert config == denoiser.config
    rebuilt = build_denoiser(config)
    rebuilt.load_checkpoint_state(state)
    assert {k for k in state if not k.startswith("model.")} == set()
    assert torch.equal(call(rebuilt.eval()), call(denoiser))


def test_missing_labels_of_a_conditional_network_are_zeros():
    denoiser = load_edm(DATA / "adm-edm-cond.pkl")
    x = torch.randn((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    missing, one = denoiser(x, 1.0), denoiser(x, 1.0, torch.eye(4)[:1])
    assert torch.equal(missing, denoiser(x, 1.0, torch.zeros(2, 4)))
    assert torch.equal(one, denoiser(x, 1.0, torch.eye(4)[[0, 0]]))
    assert not torch.allclose(missing, one)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("container", ["protocol 2", "protocol 5", "zip", "stream"])
def test_every_network_survives_every_container(name, container, tiny, tmp_path):
    denoiser, path = tiny(**OTHERS[name]), tmp_path / "file"
    content = snapshot(denoiser)
    if container.startswith("protocol"):
        dump(content, path, protocol=int(container[-1]))
    else:
        state = {"net": content["ema"], "optimizer_state": {"state": {0: {"step": torch.ones(3)}}}}
        save(state, path, legacy=container == "stream")
    loaded = load_edm(path)
    assert loaded.config.items() >= denoiser.config.items()
    assert torch.equal(call(loaded), call(denoiser))


def test_half_precision_weights_become_float32(tiny, tmp_path):
    denoiser = tiny()
    denoiser.network.half()
    _, state = read_edm(dump(snapshot(denoiser), tmp_path / "file"))
    expected = denoiser.checkpoint_state()
    assert all(state[k].dtype == torch.float32 for k in state)
    assert all(torch.equal(state[k], expected[k].float()) for k in expected)


def test_stored_iddpm_levels_win_over_computed_ones(tiny, tmp_path):
    denoiser = tiny(**OTHERS["iddpm-adm-cond"])
    levels = tuple((IDDPM(M=20).u * 1.0001).tolist())
    denoiser.preconditioning = IDDPM(M=20, levels=levels)
    loaded = load_edm(dump(snapshot(denoiser), tmp_path / "file"))
    assert loaded.preconditioning.levels == levels
    assert loaded.sigma_max == pytest.approx(1.0001 * IDDPM(M=20).sigma_max, rel=1e-6)


def test_missing_arguments_come_from_the_attributes(tiny, tmp_path):
    denoiser, path = tiny(img_channels=3), tmp_path / "file"
    content = snapshot(denoiser)
    state = content["ema"].state
    state["img_channels"] = 3
    inner = {k: v for k, v in state["_init_kwargs"].items() if not k.startswith("img_")}
    inner |= {"img_resolution": 8, "in_channels": 3, "out_channels": 3}
    state["_modules"]["model"].state["_init_kwargs"] = inner
    inner.pop("model_type")
    state["_init_kwargs"] = {}
    assert torch.equal(call(load_edm(dump(content, path))), call(denoiser))


@pytest.mark.parametrize("version", [3, 5, 7])
def test_other_versions_are_read_with_a_warning(version, tiny, tmp_path):
    path = dump(snapshot(tiny(), version=version), tmp_path / "file")
    with pytest.warns(UserWarning, match=f"persistence versions .*{version}"):
        load_edm(path)


def refusal(path):
    """The one-line message with which a file is refused."""
    with pytest.raises(BadCheckpoint) as info:
        load_edm(path)
    message = str(info.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_old_versions_are_refused(tiny, tmp_path):
    assert "version 2" in refusal(dump(snapshot(tiny(), version=2), tmp_path / "file"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_channels": 16}, "size mismatch"),
        ({"num_blocks": 2}, "Missing key"),
        ({"channel_mult": [1]}, "Missing key"),
        ({"num_blocks": 10**9}, "num_blocks"),
        ({"model_channels": -8}, "model_channels"),
        ({"channel_mult": [1] * 17}, "channel_mult"),
        ({"colour": "blue"}, "colour"),
        ({"model_type": "Evil"}, "model_type"),
        ({"encoder_type": "evil"}, "encoder_type"),
        ({"dropout": 0.5}, "dropout"),
        ({"label_dim": 3}, "map_label"),
        ({"sigma_data": "x"}, "sigma_data"),
        ({"sigma_data": float("nan")}, "sigma_data"),
        ({"img_resolution": 7}, "img_resolution"),
        ({"img_resolution": 16}, "16x16"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(changes, words, tiny, tmp_path):
    assert words in refusal(dump(snapshot(tiny(), **changes), tmp_path / "file"))


def test_attributes_that_contradict_the_configuration_are_refused(tiny, tmp_path):
    content = snapshot(tiny())
    content["ema"].state["img_resolution"] = 16
    assert "root.img_resolution" in refusal(dump(content, tmp_path / "root"))
    content = snapshot(tiny())
    block = content["ema"].state["_modules"]["model"].state["_modules"]["enc"]._modules
    block["8x8_block0"].state["skip_scale"] = np.float64(0.9)
    assert "enc.8x8_block0.skip_scale" in refusal(dump(content, tmp_path / "block"))


def test_modules_of_another_class_are_refused(tiny, tmp_path):
    content = snapshot(tiny())
    content["ema"].state["_modules"]["model"].state["_modules"]["map_noise"].class_name = "Linear"
    message = refusal(dump(content, tmp_path / "file"))
    assert "map_noise: expected a PositionalEmbedding, found a Linear" in message


def test_diverged_weights_are_refused(tiny, tmp_path):
    denoiser = tiny()
    with torch.no_grad():
        denoiser.network.map_layer0.bias[0] = float("nan")
    message = refusal(dump(snapshot(denoiser), tmp_path / "file"))
    assert "model.map_layer0.bias: holds NaN" in message


@pytest.mark.parametrize("content", [{}, {"ema": None}, {"ema": {"a": 1}}, [1, 2], 7])
def test_files_without_a_network_are_refused(content, tmp_path):
    assert "EDM checkpoint" in refusal(dump(content, tmp_path / "file"))


def test_missing_files_and_folders_are_refused(tmp_path):
    assert "cannot be read" in refusal(tmp_path / "missing.pkl")
    assert "cannot be read" in refusal(tmp_path)
