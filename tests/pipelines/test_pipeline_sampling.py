"""Samples of pipelines: those of diffusers for the same noise, whatever the batch."""

from __future__ import annotations

import diffusers
import made_pipelines
import numpy as np
import pytest
import torch

from regimes.denoisers.compute import Compute
from regimes.errors import ConfigError
from regimes.images.pixels import to_uint8
from regimes.pipelines.model import build_pipeline, prepare_pipeline
from regimes.pipelines.sampling import sample_pipeline
from regimes.pipelines.schedulers import SCHEDULERS, SchedulerConfig

SEEDS = [3, 7, 4_000_000_001]


def parts(pipeline):
    """Configurations and weights, as a checkpoint artifact holds them."""
    found = {
        "unet": made_pipelines.config(pipeline.unet),
        "scheduler": made_pipelines.config(pipeline.scheduler),
    }
    states = {"unet": pipeline.unet.state_dict()}
    if hasattr(pipeline, "vqvae"):
        found["vqvae"] = made_pipelines.config(pipeline.vqvae)
        states["vqvae"] = pipeline.vqvae.state_dict()
    return found, states


def built(pipeline):
    return build_pipeline(*parts(pipeline))


def ours(pipeline, config, seeds=SEEDS, **options):
    return sample_pipeline(built(pipeline), seeds, config, **options)


def theirs(pipeline, seeds=SEEDS, **options):
    """Images of diffusers' own loop, (N, H, W, C) in [0, 1]."""
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed % 2**32) for seed in seeds]
    options |= {"generator": generators, "batch_size": len(seeds), "output_type": "np"}
    return pipeline(**options).images


def assert_same_images(x, images):
    """Rounded to uint8 a value that lies at a half may go either way; no more than that."""
    levels = to_uint8(x).astype(int)
    difference = np.abs(levels - np.round(images * 255))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    assert levels.std() > 10  # images of one colour would agree with anything


@pytest.mark.parametrize("kind", [made_pipelines.pixel_pipeline, made_pipelines.latent_pipeline])
def test_ddim_is_the_pipelines_own_call_with_the_same_generators(kind):
    pipeline = kind(diffusers.DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False))
    x = ours(pipeline, SchedulerConfig(name="ddim", num_steps=6))
    assert x.dtype == torch.float32
    assert x.abs().max() <= 1
    assert_same_images(x, theirs(pipeline, num_inference_steps=6))


def test_stochastic_steps_draw_from_the_same_generators():
    pipeline = made_pipelines.pixel_pipeline(diffusers.DDIMScheduler())
    x = ours(pipeline, SchedulerConfig(name="ddim", num_steps=6, eta=0.7))
    assert_same_images(x, theirs(pipeline, num_inference_steps=6, eta=0.7))
    pipeline = made_pipelines.pixel_pipeline(diffusers.DDPMScheduler())
    x = ours(pipeline, SchedulerConfig(name="ddpm", num_steps=6))
    assert_same_images(x, theirs(pipeline, num_inference_steps=6))


@pytest.mark.parametrize("name", [n for n in SCHEDULERS if n not in ("ddim", "ddpm")])
def test_other_schedulers_are_those_of_the_latent_pipeline_given_them(name):
    kinds = {
        "plms": diffusers.PNDMScheduler,
        "dpm-solver++": diffusers.DPMSolverMultistepScheduler,
        "unipc": diffusers.UniPCMultistepScheduler,
        "euler": diffusers.EulerDiscreteScheduler,
        "heun": diffusers.HeunDiscreteScheduler,
    }
    pipeline = made_pipelines.latent_pipeline()
    x = ours(pipeline, SchedulerConfig(name=name, num_steps=6))
    schedule = made_pipelines.config(pipeline.scheduler)
    extra = {"skip_prk_steps": True} if name == "plms" else {}
    pipeline.scheduler = kinds[name].from_config(schedule, **extra)
    # LDMPipeline asks for the scale of the noise before it sets the steps; that of these steps is meant.
    pipeline.scheduler.set_timesteps(6)
    assert_same_images(x, theirs(pipeline, num_inference_steps=6))


@pytest.mark.parametrize("kind", [made_pipelines.pixel_pipeline, made_pipelines.latent_pipeline])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_sample_depends_on_its_seed_alone(kind, name):
    """uint8 images are equal but where rounding of 1e-4 crosses a level; another run is bit for bit."""
    pipeline = built(kind())
    config = SchedulerConfig(name=name, num_steps=5, eta=0.5 if name == "ddim" else 0)
    together = sample_pipeline(pipeline, SEEDS, config)
    assert torch.equal(sample_pipeline(pipeline, SEEDS, config), together)
    alone = torch.cat([sample_pipeline(pipeline, [seed], config) for seed in reversed(SEEDS)])
    torch.testing.assert_close(alone.flip(0), together, atol=1e-4, rtol=0)
    levels = np.abs(to_uint8(alone.flip(0)).astype(int) - to_uint8(together))
    assert levels.max() <= 1
    assert (levels > 0).mean() < 1e-2
    assert not torch.equal(together[0], together[1])


def test_euler_is_ddim_without_noise_and_all_others_differ():
    """Both are Euler steps along the same levels, if nothing is clipped on the way."""
    pipeline = built(made_pipelines.pixel_pipeline(diffusers.DDIMScheduler(clip_sample=False)))
    found = {
        name: sample_pipeline(pipeline, [0], SchedulerConfig(name=name, num_steps=4))
        for name in SCHEDULERS
    }
    torch.testing.assert_close(found.pop("euler"), found["ddim"], atol=1e-4, rtol=0)
    names = list(found)
    for i, name in enumerate(names):
        assert all((found[name] - found[other]).abs().max() > 0.1 for other in names[:i])


def test_classes_are_drawn_by_seeds_or_chosen():
    pipeline = built(made_pipelines.pixel_pipeline(num_class_embeds=3))
    config = SchedulerConfig(name="ddim", num_steps=2)
    drawn = sample_pipeline(pipeline, range(8), config)
    fixed = [sample_pipeline(pipeline, range(8), config, class_index=c) for c in range(3)]
    matches = torch.stack([(one == drawn).flatten(1).all(1) for one in fixed])
    assert matches.sum(0).tolist() == [1] * 8
    assert matches.any(1).all()
    with pytest.raises(ConfigError, match="class_index: expected 0 to 2, got 3"):
        sample_pipeline(pipeline, [0], config, class_index=3)


def test_bf16_changes_images_a_little(torch_rng):
    pipeline = built(made_pipelines.latent_pipeline())
    config = SchedulerConfig(name="ddim", num_steps=4)
    exact = sample_pipeline(pipeline, [0, 1], config)
    rough = sample_pipeline(
        prepare_pipeline(pipeline, Compute(precision="bf16"), "cpu"), [0, 1], config
    )
    assert not torch.equal(rough, exact)
    # bf16 keeps 8 bits; codes of the book may change, and with them single patches.
    assert (rough - exact).abs().mean() < 0.1 * exact.abs().mean()


def test_parts_that_do_not_fit_are_refused():
    config, states = parts(made_pipelines.latent_pipeline())
    for changed, words in (
        ({"vqvae": config["vqvae"] | {"latent_channels": 4}}, "latents of 3 channels"),
        (
            {"vqvae": config["vqvae"] | {"_class_name": "AutoencoderTiny"}},
            "vqvae: expected VQModel",
        ),
        ({"unet": config["unet"] | {"out_channels": 6}}, "as many channels out as in"),
        (
            {"unet": config["unet"] | {"_class_name": "UNet2DConditionModel"}},
            "expected UNet2DModel",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            build_pipeline(config | changed, states)
    with pytest.raises(ConfigError, match="vqvae: its parts do not fit together"):
        build_pipeline(config, states | {"vqvae": {}})
