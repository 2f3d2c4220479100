"""Cells of continued clips, of features, of a user's kernel, and as published."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
import torch
from ingesting import ingest_source

from regimes.callables import source_sha256
from regimes.errors import ConfigError
from regimes.guidance.config import GuidanceConfig
from regimes.guidance.directions import movements
from regimes.guidance.published import sample_as_published
from regimes.images.clips import ClipConfig, ClipSource
from regimes.images.split import Split
from regimes.noise import SeedNoise
from regimes.samplers.edm import SamplerConfig
from regimes.storage.artifacts import Store, to_json
from regimes.storage.denoisers import load_denoiser
from regimes.storage.descriptors import DescriptorRecipe, fit_descriptor
from regimes.storage.guidance import (
    GuidedRecipe,
    OwnKernel,
    make_cell,
    read_cell,
    sample_cell,
)
from regimes.storage.guided_targets import ClipTarget, KnownTarget, seen_frames, target_of
from regimes.storage.images import ImagesRecipe, Subset
from regimes.storage.maps import MapRecipe, obtain_map
from regimes.storage.networks import NetworkRecipe, train_network
from regimes.training.architectures import NetworkConfig
from regimes.training.network import EDMTrainingConfig

CLIPS = ClipConfig(canvas=12, digit=6, jump=3, window=2, clips=12)
STEPS = SamplerConfig(num_steps=3)


def ingested(store, config):
    source = ClipSource(config)
    recipe = ImagesRecipe(
        fingerprint=source.fingerprint, image_size=None, channels=None, skip_bad=False
    )
    ingest_source(store, source, recipe)
    return recipe


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A store with clips and a network that saw them for two steps."""
    store = Store(str(tmp_path_factory.mktemp("clips")))
    images = ingested(store, CLIPS)
    held = ingested(store, dataclasses.replace(CLIPS, part="heldout", windows="changes", clips=3))
    network = NetworkRecipe(
        train=Subset(
            images=images, split=Split(num_images=12, seed=None, parts=1), half="A", size=12
        ),
        network=NetworkConfig(width=8, channel_mult=(1,), num_blocks=1, attn_resolutions=()),
        training=EDMTrainingConfig(
            batch_size=4, duration_kimg=0.008, augment=0.0, lr_rampup_kimg=0
        ),
        seed=0,
        condition_channels=1,
    )
    train_network(store, network)
    displacements = CLIPS.movement.displacements
    return store, ClipTarget(denoiser=network, clips=held, displacements=displacements)


def cell(target, **options):
    fields = {
        "target": target,
        "sampler": STEPS,
        "guidance": GuidanceConfig(factor=0.1, group_size=4),
        "groups": 3,
        "first_seed": 0,
    }
    return GuidedRecipe(**fields | options)


def test_a_group_continues_its_own_clip_whatever_the_batch(clips):
    store, target = clips
    recipe = cell(target)
    x = sample_cell(store, recipe)
    assert x.shape == (12, 1, 12, 12)
    frames = seen_frames(store, target)
    assert frames.shape == (3, 1, 12, 12)
    net = load_denoiser(store, target.denoiser, continues=True).denoiser
    noisy = torch.randn(12, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    given = target_of(store, target).denoiser([row // 4 for row in range(12)])
    expected = net(noisy, 2.0, condition=frames.repeat_interleave(4, 0))
    torch.testing.assert_close(given(noisy, 2.0), expected)
    torch.testing.assert_close(
        sample_cell(store, recipe, groups=range(1)), x[:4], rtol=1e-4, atol=1e-4
    )


def test_a_cell_of_clips_holds_directions_and_both_distances(clips):
    store, target = clips
    recipe = cell(target)
    make_cell(store, recipe)
    found = read_cell(store, recipe)
    assert set(found.measures) == {"shifted_distance", "overlap", "shift"}
    last = seen_frames(store, target)[:, 0].double().numpy().repeat(4, axis=0)
    judged = movements(found.samples[:, 0], last, target.displacements)
    assert (found.modes.ravel() == judged.modes).all()
    np.testing.assert_allclose(found.quality.ravel(), judged.quality)
    np.testing.assert_allclose(found.measures["overlap"].ravel(), judged.overlap)


def test_a_network_that_continues_clips_is_refused_where_there_is_no_clip(clips):
    store, target = clips
    with pytest.raises(
        ConfigError, match="model: continues clips, of which it has to see 1 frames"
    ):
        load_denoiser(store, target.denoiser)


def test_real_frames_are_placed_on_a_map_once(clips):
    store, target = clips
    recipe = MapRecipe(images=target.denoiser.train.images, channels=1, size=100, seed=0)
    first = obtain_map(store, recipe)
    assert first.places.shape == (12, 2)
    assert first.vectors.shape == (12, 144)
    assert first.images.shape == (12, 12, 12, 2)
    assert (obtain_map(store, recipe).places == first.places).all()


def test_features_of_estimates_guide_a_cell(clips):
    store, target = clips
    pixels = DescriptorRecipe(name="pixels")
    fit_descriptor(store, pixels)
    guidance = GuidanceConfig(factor=0.3, group_size=4, space="features", kernel="cosine")
    plain = sample_cell(store, cell(target, guidance=GuidanceConfig(group_size=4)))
    guided = sample_cell(store, cell(target, guidance=guidance, features=pixels))
    assert float((plain - guided).abs().max()) > 1e-3
    assert torch.isfinite(guided).all()


def test_a_users_kernel_guides_a_cell_and_its_source_is_part_of_the_address(
    clips, tmp_path, monkeypatch
):
    store, target = clips
    (tmp_path / "my_kernel.py").write_text(
        "def squared(z):\n    return (z[:, :, None] - z[:, None]).square().sum(-1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own = OwnKernel(target="my_kernel:squared", sha256=source_sha256("mine", "my_kernel"))
    guidance = GuidanceConfig(factor=0.1, group_size=4, kernel="custom")
    mine = cell(target, guidance=guidance, own_kernel=own)
    torch.testing.assert_close(sample_cell(store, mine), sample_cell(store, cell(target)))
    (tmp_path / "my_kernel.py").write_text("def squared(z):\n    return 0 * z @ z.mT\n")
    again = dataclasses.replace(own, sha256=source_sha256("mine", "my_kernel"))
    assert dataclasses.replace(mine, own_kernel=again).address != mine.address
    del sys.modules["my_kernel"]


def test_the_published_method_is_a_cell_like_any_other(clips):
    store, target = clips
    recipe = cell(target, as_published=True)
    latents = SeedNoise(recipe.seeds, (1, 12, 12)).latents().double()
    denoiser = target_of(store, target).denoiser([row // 4 for row in range(12)])
    with torch.no_grad():
        expected = sample_as_published(denoiser, latents, config=STEPS, factor=0.1, group_size=4)
    torch.testing.assert_close(sample_cell(store, recipe), expected)


def test_what_was_made_before_these_options_existed_keeps_its_address():
    """The address of a cell is that of the version before; a network's recipe names no later field."""
    guided = cell(KnownTarget(name="ring", weights=(0.5, 0.5)))
    assert guided.address == "guided/0fdbd8f115ce39ae0268"
    network = NetworkRecipe(
        train=Subset(
            images=ImagesRecipe(fingerprint="f", image_size=None, channels=None, skip_bad=False),
            split=Split(num_images=12, seed=None, parts=1),
            half="A",
            size=12,
        ),
        network=NetworkConfig(),
        training=EDMTrainingConfig(),
        seed=0,
    )
    later = ("condition_channels", "p_mean", "p_std")
    assert not any(name in to_json(network) for name in later)
    moved = dataclasses.replace(network.training, p_mean=0.0)
    assert "p_mean" in to_json(dataclasses.replace(network, training=moved))
