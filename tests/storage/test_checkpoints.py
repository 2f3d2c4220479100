"""Models made elsewhere, brought into the store once."""

from __future__ import annotations

import shutil
from pathlib import Path

import diffusers
import pytest
import torch
from ingesting import ingest_source

from regimes.checkpoints import load_edm, save_safetensors
from regimes.denoisers.pipelines import build_pipeline_denoiser
from regimes.errors import BadCheckpoint, BrokenArtifact, UnsafeCheckpoint
from regimes.images.sources import open_source
from regimes.images.split import Split
from regimes.storage.artifacts import Store
from regimes.storage.checkpoints import import_checkpoint
from regimes.storage.denoisers import load_denoiser
from regimes.storage.images import ImagesRecipe, Subset
from regimes.storage.models import ModelRecipe, train_ensemble
from regimes.training.ensemble import TrainingConfig

EDM = Path(__file__).parents[1] / "data" / "edm"


def x_like(loaded, torch_rng):
    return torch.randn(2, *loaded.image_shape, generator=torch_rng)


def test_edm_pickle_and_its_safetensors_give_the_same_denoiser(store, tmp_path, torch_rng):
    path = EDM / "adm-edm-cond.pkl"
    denoiser = load_edm(path)
    save_safetensors(denoiser, tmp_path / "net.safetensors")
    for source in (path, tmp_path / "net.safetensors"):
        recipe = import_checkpoint(store, source)
        loaded = load_denoiser(store, recipe)
        x, labels = x_like(loaded, torch_rng), torch.eye(4)[[1, 3]]
        assert (loaded.image_shape, loaded.num_classes) == ((3, 16, 16), 4)
        assert torch.equal(loaded.denoiser(x, 0.7, labels), denoiser(x, 0.7, labels))


def test_name_and_place_of_the_file_do_not_matter_and_it_is_read_once(store, tmp_path):
    first = import_checkpoint(store, EDM / "ddpmpp-vp-uncond.pkl")
    shutil.copy(EDM / "ddpmpp-vp-uncond.pkl", tmp_path / "other.pkl")
    modified = store.artifact(first).location.read("manifest.json")
    assert import_checkpoint(store, tmp_path / "other.pkl") == first
    assert store.artifact(first).location.read("manifest.json") == modified
    assert first.label.startswith("unet-")
    assert import_checkpoint(store, EDM / "ncsnpp-ve-uncond.pkl") != first


def test_saved_pipeline_is_loaded_from_the_store_alone(store, tmp_path, torch_rng):
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
    )
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "pipeline")
    recipe = import_checkpoint(store, tmp_path / "pipeline")
    shutil.rmtree(tmp_path / "pipeline")
    loaded = load_denoiser(store, recipe)
    config = dict(unet.config) | {"_class_name": "UNet2DModel"}
    expected = build_pipeline_denoiser(config, dict(scheduler.config), unet.state_dict())
    x = x_like(loaded, torch_rng)
    assert loaded.image_shape == (3, 8, 8)
    assert torch.equal(loaded.denoiser(x, 2.0), expected(x, 2.0))


def test_folder_of_a_trained_model_can_be_sampled_elsewhere(store, tmp_path, torch_rng):
    source = open_source("digits")
    images = ImagesRecipe(
        fingerprint=source.fingerprint, image_size=None, channels=None, skip_bad=False
    )
    home = Store(str(tmp_path / "home"))
    ingest_source(home, source, images)
    train = Subset(images=images, split=Split(num_images=1797, seed=0), half="A", size=4)
    model = ModelRecipe(
        train=train,
        width=8,
        blocks=1,
        steps=3,
        sigma_data=0.5,
        training=TrainingConfig(batch_size=4),
        seed=0,
        ensemble=("w8-n4-A",),
    )
    train_ensemble(home, [model])
    recipe = import_checkpoint(store, home.artifact(model).location.path)
    loaded, expected = load_denoiser(store, recipe), load_denoiser(home, model)
    x = x_like(loaded, torch_rng)
    assert torch.equal(loaded.denoiser(x, 0.4), expected.denoiser(x, 0.4))


def test_what_cannot_be_a_model_is_refused_and_nothing_is_stored(store, tmp_path):
    (tmp_path / "text.pkl").write_text("hello")
    (tmp_path / "evil.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    (tmp_path / "empty").mkdir()
    (tmp_path / "latent" / "vae").mkdir(parents=True)
    (tmp_path / "latent" / "model_index.json").write_text("{}")
    for name, error, words in (
        ("text.pkl", BadCheckpoint, "text.pkl"),
        ("evil.pkl", UnsafeCheckpoint, "system"),
        ("missing.pkl", BadCheckpoint, "No such file"),
        ("empty", BadCheckpoint, "model_index.json"),
        ("latent", BadCheckpoint, "save_pretrained"),
    ):
        with pytest.raises(error, match=words):
            import_checkpoint(store, tmp_path / name)
    assert store.root.child("artifacts/checkpoint").sizes() == {}


def test_damaged_weights_are_refused(store):
    recipe = import_checkpoint(store, EDM / "ddpmpp-vp-uncond.pkl")
    location = store.artifact(recipe).location
    data = bytearray(location.read("weights.safetensors"))
    data[-1] ^= 1
    location.write("weights.safetensors", bytes(data))
    with pytest.raises(BrokenArtifact, match="its checksum differs"):
        load_denoiser(store, recipe)
