"""Pipelines conditional on classes and prompts: the images of diffusers' own calls for the same noise."""

from __future__ import annotations

import diffusers
import made_pipelines
import numpy as np
import pytest
import safetensors.torch
import torch

from regimes.errors import ConfigError
from regimes.images.pixels import to_uint8
from regimes.noise import SeedNoise
from regimes.pipelines.folders import read_pipeline
from regimes.pipelines.model import build_pipeline
from regimes.pipelines.sampling import sample_pipeline
from regimes.pipelines.schedulers import GuidedConfig, SchedulerConfig

SEEDS = [3, 8, 4_000_000_003]
PROMPTS = ["a cat", "dog, running!", "?"]
"""Seed 3 takes the first, 8 the last, 4,000,000,003 the second."""
OWN = [PROMPTS[0], PROMPTS[2], PROMPTS[1]]


def built(folder):
    """The pipeline of a folder, by way of its files."""
    saved = read_pipeline(folder)
    states = {part: safetensors.torch.load(data) for part, data in saved.weights.items()}
    return build_pipeline(saved.config, states)


@pytest.fixture(scope="module")
def dit(tmp_path_factory):
    """Ours, and diffusers'."""
    made = made_pipelines.class_pipeline()
    return built(made_pipelines.save(made, tmp_path_factory.mktemp("dit"))), quiet(made)


@pytest.fixture(scope="module")
def stable(tmp_path_factory):
    """Ours, and diffusers'."""
    made = made_pipelines.text_pipeline()
    return built(made_pipelines.save(made, tmp_path_factory.mktemp("stable"))), quiet(made)


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def guided(name="ddim", guidance=4.0, **options):
    return GuidedConfig(name=name, num_steps=5, guidance=guidance, **options)


def generators():
    return [torch.Generator().manual_seed(seed % 2**32) for seed in SEEDS]


def classes_of(seeds, num_classes=1000, channels=4):
    noise = SeedNoise(seeds, (channels, 8, 8))
    noise.latents()
    return noise.class_labels(num_classes).argmax(1).tolist()


def assert_same_images(x, images):
    """Rounded to uint8 a value that lies at a half may go either way; no more than that."""
    levels = to_uint8(x).astype(int)
    difference = np.abs(levels - np.round(images * 255))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    assert levels.std() > 10  # images of one colour would agree with anything


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_dit_makes_the_images_of_its_own_call(dit, guidance):
    ours, theirs = dit
    labels = classes_of(SEEDS)
    assert len(set(labels)) == 3
    images = theirs(
        class_labels=labels,
        guidance_scale=guidance,
        generator=generators(),
        num_inference_steps=5,
        output_type="np",
    ).images
    assert_same_images(sample_pipeline(ours, SEEDS, guided(guidance=guidance)), images)


def test_dit_without_learned_variances_and_of_few_classes(tmp_path):
    made = made_pipelines.class_pipeline(num_classes=3, learned=False)
    ours = built(made_pipelines.save(made, tmp_path / "saved"))
    images = quiet(made)(
        class_labels=[2] * 3,
        guidance_scale=1.0,
        generator=generators(),
        num_inference_steps=5,
        output_type="np",
    ).images
    x = sample_pipeline(ours, SEEDS, guided(guidance=1.0), class_index=2)
    assert_same_images(x, images)
    with pytest.raises(ConfigError, match="class_index: expected 0 to 2, got 3"):
        sample_pipeline(ours, SEEDS, guided(), class_index=3)


def test_classes_and_guidance_move_the_images(dit):
    ours, _ = dit
    usual = sample_pipeline(ours, SEEDS, guided(), class_index=7)
    for other in (
        sample_pipeline(ours, SEEDS, guided(), class_index=8),
        sample_pipeline(ours, SEEDS, guided(guidance=1.0), class_index=7),
    ):
        assert (other - usual).abs().mean() > 0.02


def test_guidance_is_linear_in_its_scale(dit):
    """F(null) + w (F(given) - F(null)): the class for none at 0, the given one at 1."""
    ours, _ = dit
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(500)
    labels = torch.tensor([5, 6])
    at = {w: ours.predict(x, t, ours.by_class(labels, float(w))) for w in (0, 1, 3)}
    torch.testing.assert_close(at[3], at[0] + 3 * (at[1] - at[0]), atol=1e-4, rtol=1e-4)
    none = ours.predict(x, t, ours.by_class(torch.full_like(labels, 1000), 1.0))
    torch.testing.assert_close(at[0], none, atol=1e-5, rtol=1e-5)
    assert (at[1] - at[0]).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (guided("plms", 7.5), {"guidance_scale": 7.5}),
        (guided("plms", 1.0), {"guidance_scale": 1.0}),
        (
            guided("ddim", 3.0, eta=0.6, prompts="x", negative_prompt="a dog"),
            {"guidance_scale": 3.0, "eta": 0.6, "negative_prompt": ["a dog"] * 3},
        ),
        (guided("dpm-solver++", 7.5), {"guidance_scale": 7.5}),
        (guided("euler", 7.5), {"guidance_scale": 7.5}),
    ],
)
def test_stable_diffusion_makes_the_images_of_its_own_call(stable, config, options):
    ours, theirs = stable
    kinds = {
        "plms": diffusers.PNDMScheduler,
        "ddim": diffusers.DDIMScheduler,
        "dpm-solver++": diffusers.DPMSolverMultistepScheduler,
        "euler": diffusers.EulerDiscreteScheduler,
    }
    theirs.scheduler = kinds[config.name].from_config(ours.scheduler)
    images = theirs(
        prompt=OWN, generator=generators(), num_inference_steps=5, output_type="np", **options
    ).images
    assert_same_images(sample_pipeline(ours, SEEDS, config, prompts=PROMPTS), images)


def test_guidance_of_zero_is_the_negative_prompt_by_itself(stable):
    ours, _ = stable
    none = sample_pipeline(ours, SEEDS, guided(guidance=0.0), prompts=PROMPTS)
    alone = sample_pipeline(ours, SEEDS, guided(guidance=1.0), prompts=[""])
    torch.testing.assert_close(none, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["dit", "stable"])
def test_a_sample_and_its_condition_depend_on_its_seed_alone(kind, request):
    ours, _ = request.getfixturevalue(kind)
    prompts = PROMPTS if kind == "stable" else ()
    config = guided("ddim", 4.0, eta=0.5)
    together = sample_pipeline(ours, SEEDS, config, prompts=prompts)
    assert torch.equal(sample_pipeline(ours, SEEDS, config, prompts=prompts), together)
    alone = [sample_pipeline(ours, [s], config, prompts=prompts) for s in reversed(SEEDS)]
    levels = np.abs(to_uint8(torch.cat(alone[::-1])).astype(int) - to_uint8(together))
    assert levels.max() <= 1
    assert (levels > 0).mean() < 1e-2
    fixed = sample_pipeline(ours, SEEDS, config, prompts=PROMPTS[:1]) if prompts else None
    if fixed is not None:  # the first takes the first prompt in both lists
        torch.testing.assert_close(fixed[0], together[0], atol=1e-4, rtol=0)
        assert (fixed[1] - together[1]).abs().max() > 1e-2


def test_latents_of_an_autoencoder_kl_are_scaled_as_its_configuration_says(tmp_path):
    """LDMPipeline takes either kind of autoencoder."""
    network = made_pipelines.unet(in_channels=4, out_channels=4)
    schedule = diffusers.DDIMScheduler(clip_sample=False)
    images, ours = [], []
    for factor in (0.18215, 0.9):
        vae = made_pipelines.vae(scaling_factor=factor)
        made = diffusers.LDMPipeline(vqvae=vae, unet=network, scheduler=schedule)
        found = built(made_pipelines.save(made, tmp_path / str(factor)))
        assert found.decoder.scaling_factor == factor
        ours.append(sample_pipeline(found, SEEDS, SchedulerConfig(name="ddim", num_steps=5)))
        own = quiet(made)(
            batch_size=3, generator=generators(), num_inference_steps=5, output_type="np"
        )
        images.append(own.images)
    for x, image in zip(ours, images, strict=True):
        assert_same_images(x, image)
    assert (ours[0] - ours[1]).abs().mean() > 0.02


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"guidance": -1.0}, "guidance: expected a number from 0"),
        ({"guidance": float("nan")}, "guidance: expected a number from 0"),
        ({"negative_prompt": "blurry"}, "negative_prompt: of pipelines that read prompts"),
        (
            {"negative_prompt": "blurry", "prompts": "x", "guidance": 1.0},
            "negative_prompt: of pipelines that read prompts, with guidance other than 1",
        ),
        ({"eta": 2.0}, "eta: expected a number from 0 to 1"),
    ],
)
def test_options_without_effect_or_sense_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        guided(**options)


def test_guided_networks_are_called_twice_per_step():
    assert guided(guidance=4.0).num_evaluations == 10
    assert guided(guidance=1.0).num_evaluations == 5
    assert guided("heun", 0.0).num_evaluations == 18


def test_conditions_that_a_pipeline_does_not_take_are_refused(dit, stable):
    plain = build_pipeline(
        {
            "unet": made_pipelines.config(made_pipelines.unet(num_class_embeds=3)),
            "scheduler": made_pipelines.config(diffusers.DDIMScheduler()),
        },
        {"unet": made_pipelines.unet(num_class_embeds=3).state_dict()},
    )
    for pipeline, config, prompts, words in (
        (dit[0], guided(), PROMPTS, "prompts: expected none, which this pipeline does not read"),
        (stable[0], guided(), (), "prompts: expected one or more, got 0"),
        (plain, guided(), (), "guidance: this network knows no unconditional class"),
    ):
        with pytest.raises(ConfigError, match=words):
            sample_pipeline(pipeline, [0], config, prompts=prompts)
