"""Pipelines in the store: read safely, sampled from the store alone, by recipes that make sense."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import diffusers
import made_pipelines
import numpy as np
import pytest
import torch

from regimes.denoisers.compute import Compute
from regimes.errors import (
    BadCheckpoint,
    BadSource,
    ConfigError,
    NotFiniteSamples,
    UnsafeCheckpoint,
)
from regimes.images.pixels import to_uint8
from regimes.pipelines.sampling import sample_pipeline
from regimes.pipelines.schedulers import GuidedConfig, SchedulerConfig
from regimes.samplers.edm import SamplerConfig
from regimes.storage.artifacts import to_json
from regimes.storage.checkpoints import CheckpointRecipe, import_checkpoint, load_checkpoint
from regimes.storage.pipelines import Conditions, named_scheduler
from regimes.storage.prompts import keep_prompts, read_prompt_file, read_prompts
from regimes.storage.samples import (
    SamplesRecipe,
    load_model,
    make_samples,
    prompts_of,
    split_work,
)
from regimes.storage.seeds import Seeds
from regimes.storage.tables import read_rows

DDIM = SchedulerConfig(name="ddim", num_steps=3)
KINDS = {"pixel": made_pipelines.pixel_pipeline, "latent": made_pipelines.latent_pipeline}
PROMPTS = ("a cat", "a dog")


def samples(denoiser, **options) -> SamplesRecipe:
    usual = {"sampler": DDIM, "seeds": Seeds.first(5), "seeds_per_unit": 2}
    return SamplesRecipe(denoiser=denoiser, **(usual | options))


def sampled(store, recipe):
    """(ids, images) of all units."""
    loaded = load_model(store, recipe)
    entries = [make_samples(store, recipe, unit, loaded) for unit in range(recipe.num_units)]
    store.artifact(recipe).finish(entries)
    return read_rows(store.artifact(recipe), "image")


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_spread_over_devices_makes_the_same_samples(store, tmp_path, kind):
    folder = made_pipelines.save(KINDS[kind](), tmp_path / "saved")
    denoiser = import_checkpoint(store, folder)
    for sampler in (DDIM, SamplerConfig(num_steps=3))[: 2 if kind == "pixel" else 1]:
        recipe = samples(denoiser, keep_float=True, sampler=sampler)
        entries = [make_samples(store, recipe, 0, load_model(store, recipe))]
        loaded = load_model(store, recipe, others=["cpu"])
        assert entries == [make_samples(store, recipe, 0, loaded)]
    with pytest.raises(ConfigError, match="--compile"):
        load_model(store, replace(recipe, compute=Compute(compile=True)), others=["cpu"])


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_those_of_the_folder_and_survive_it(store, tmp_path, kind):
    folder = made_pipelines.save(KINDS[kind](), tmp_path / "saved")
    recipe = samples(import_checkpoint(store, folder), keep_float=True)
    again = diffusers.DiffusionPipeline.from_pretrained(folder)
    shutil.rmtree(folder)
    ids, images = sampled(store, recipe)
    assert ids.tolist() == list(range(5))
    again.scheduler = diffusers.DDIMScheduler.from_config(again.scheduler.config)
    again.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in range(5)]
    theirs = again(
        batch_size=5, generator=generators, num_inference_steps=3, output_type="np"
    ).images
    assert images.shape == theirs.shape
    assert np.abs(images - np.round(theirs * 255)).max() <= 1
    _, floats = read_rows(store.artifact(recipe), "sample")
    assert floats.dtype == np.float64
    np.testing.assert_array_equal(to_uint8(torch.from_numpy(floats)), images)


def test_units_that_exist_are_kept_and_units_of_another_size_hold_the_same_images(store, tmp_path):
    folder = made_pipelines.save(made_pipelines.latent_pipeline(), tmp_path / "saved")
    recipe = samples(import_checkpoint(store, folder))
    make_samples(store, recipe, 1, load_model(store, recipe))
    entries, missing = split_work(store, recipe)
    assert [e.num_rows for e in entries] == [2]
    assert missing == [0, 2]
    _, images = sampled(store, recipe)
    _, others = sampled(store, replace(recipe, seeds_per_unit=5))
    assert np.abs(images.astype(int) - others).max() <= 1


def test_labels_are_the_classes_that_were_sampled(store, tmp_path):
    folder = made_pipelines.save(made_pipelines.pixel_pipeline(num_class_embeds=3), tmp_path / "p")
    denoiser = import_checkpoint(store, folder)
    recipe = samples(denoiser)
    _, images = sampled(store, recipe)
    _, labels = read_rows(store.artifact(recipe), "label")
    assert len(set(labels.tolist())) > 1
    pipeline = load_model(store, recipe)
    for seed, label in enumerate(labels.tolist()):
        x = sample_pipeline(pipeline, [seed], DDIM, class_index=label)
        assert np.abs(to_uint8(x)[0].astype(int) - images[seed]).max() <= 1


def conditional(store, folder, **options):
    """Recipe of five samples of a saved pipeline, by its own scheduler."""
    denoiser = import_checkpoint(store, folder)
    sampler = named_scheduler(
        store, denoiser, name=None, num_steps=3, eta=0, conditions=Conditions(**options)
    )
    return samples(denoiser, sampler=sampler)


def test_dit_is_sampled_from_the_store_with_the_classes_that_seeds_draw(store, tmp_path):
    folder = made_pipelines.save(made_pipelines.class_pipeline(num_classes=5), tmp_path / "dit")
    recipe = conditional(store, folder)
    assert recipe.denoiser.format == "class-pipeline"
    assert recipe.sampler == GuidedConfig(name="ddim", num_steps=3, guidance=4.0)
    shutil.rmtree(folder)
    _, images = sampled(store, recipe)
    _, labels = read_rows(store.artifact(recipe), "label")
    assert len(set(labels.tolist())) > 1
    pipeline = load_model(store, recipe)
    for seed, label in enumerate(labels.tolist()):
        x = sample_pipeline(pipeline, [seed], recipe.sampler, class_index=label)
        assert np.abs(to_uint8(x)[0].astype(int) - images[seed]).max() <= 1


def test_prompts_are_part_of_the_recipe_and_kept_in_the_store(store, tmp_path):
    folder = made_pipelines.save(made_pipelines.text_pipeline(), tmp_path / "sd")
    recipe = conditional(store, folder, prompts=PROMPTS)
    assert recipe.sampler.guidance == 7.5
    assert recipe.sampler.name == "plms"
    shutil.rmtree(folder)
    _, images = sampled(store, recipe)
    _, numbers = read_rows(store.artifact(recipe), "prompt")
    assert numbers.tolist() == [0, 1, 0, 1, 0]
    assert prompts_of(store, recipe) == PROMPTS
    pipeline = load_model(store, recipe)
    x = sample_pipeline(pipeline, range(5), recipe.sampler, prompts=PROMPTS)
    assert np.abs(to_uint8(x).astype(int) - images).max() <= 1
    turned = named_scheduler(
        store,
        recipe.denoiser,
        name=None,
        num_steps=3,
        eta=0,
        conditions=Conditions(prompts=PROMPTS[::-1]),
    )
    other = replace(recipe, sampler=turned)
    assert other.address != recipe.address
    assert prompts_of(store, other) == PROMPTS[::-1]


def test_conditions_that_do_not_fit_the_model_are_refused(store, tmp_path):
    saved = {
        "latent": made_pipelines.latent_pipeline(),
        "class": made_pipelines.class_pipeline(num_classes=5),
        "text": made_pipelines.text_pipeline(),
    }
    folders = {k: made_pipelines.save(v, tmp_path / k) for k, v in saved.items()}
    for kind, options, words in (
        ("latent", {"guidance": 2.0}, "--guidance: of pipelines with a class or a prompt for none"),
        ("class", {"prompts": PROMPTS}, "--prompts: of pipelines that read text"),
        ("text", {}, "--prompts: text-pipeline-.* reads text; expected prompts"),
        ("class", {"negative_prompt": "x"}, "--negative-prompt: of pipelines that read text"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            conditional(store, folders[kind], **options)
        assert len(str(caught.value).splitlines()) == 1
    guided = GuidedConfig(name="ddim", num_steps=3, guidance=4.0)
    for format, sampler in (("latent", guided), ("class", DDIM), ("text", guided)):
        with pytest.raises(ConfigError, match="expected guidance for pipelines with a class"):
            samples(CheckpointRecipe(format=f"{format}-pipeline", sha256="0" * 64), sampler=sampler)
    with pytest.raises(ConfigError, match="a latent pipeline, which only schedulers sample"):
        samples(CheckpointRecipe(format="text-pipeline", sha256="0" * 64), sampler=SamplerConfig())


def test_prompts_are_read_line_by_line_and_guarded_by_their_hash(store, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\ufeffa cat\n\n  ein Bär  \n", encoding="utf-8")
    assert read_prompt_file(file) == ("a cat", "ein Bär")
    recipe = keep_prompts(store, ("a cat", "ein Bär"))
    assert read_prompts(store, recipe.sha256) == ("a cat", "ein Bär")
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(BadSource, match=r"prompts.txt: prompts: cannot be read \(not UTF-8\)"):
        read_prompt_file(file)
    file.write_text("\n \n")
    with pytest.raises(BadSource, match="expected one per line, found none"):
        read_prompt_file(file)


def test_samples_that_diverge_are_named(store, tmp_path):
    pipeline = made_pipelines.latent_pipeline()
    torch.nn.init.constant_(pipeline.vqvae.decoder.conv_out.bias, float("inf"))
    recipe = samples(import_checkpoint(store, made_pipelines.save(pipeline, tmp_path / "saved")))
    with pytest.raises(NotFiniteSamples, match=r"seeds \[0, 1\] are not finite"):
        make_samples(store, recipe, 0, load_model(store, recipe))


def test_pixel_pipelines_keep_their_address_and_that_of_their_samples():
    """Artifacts of earlier versions are found: a pixel pipeline by EDM's sampler."""
    denoiser = CheckpointRecipe(format="pipeline", sha256="0" * 64)
    recipe = samples(denoiser, sampler=SamplerConfig())
    text = json.loads(to_json(recipe))
    assert text["sampler"]["type"] == "SamplerConfig"
    assert (recipe.address, denoiser.address) == (
        "samples/10a7052da0f02b049df5",
        "checkpoint/bae2f5ac9848fe8ec9ab",
    )


def test_own_scheduler_is_taken_if_none_is_named(store, tmp_path):
    folder = made_pipelines.save(made_pipelines.latent_pipeline(), tmp_path / "saved")
    recipe = import_checkpoint(store, folder)
    assert named_scheduler(store, recipe, name=None, num_steps=3, eta=0) == DDIM
    with pytest.raises(ConfigError, match="num_steps: expected at most 1000"):
        named_scheduler(store, recipe, name="heun", num_steps=1001, eta=0)


def test_samplers_that_do_not_fit_the_model_are_refused():
    latent = CheckpointRecipe(format="latent-pipeline", sha256="0" * 64)
    with pytest.raises(ConfigError, match="a latent pipeline, which only schedulers sample"):
        samples(latent, sampler=SamplerConfig())
    with pytest.raises(ConfigError, match="scheduler ddim: samples folders of diffusers pipelines"):
        samples(CheckpointRecipe(format="unet", sha256="0" * 64))
    with pytest.raises(ConfigError, match="a latent pipeline"):
        load_checkpoint(None, latent)


def test_unsafe_and_unknown_folders_are_refused_in_one_line(store, tmp_path):
    saved = made_pipelines.save(made_pipelines.latent_pipeline(), tmp_path / "saved")
    name = "diffusion_pytorch_model"

    def copy(kind):
        return shutil.copytree(saved, tmp_path / kind)

    pickled = copy("pickled")
    (pickled / "vqvae" / f"{name}.safetensors").rename(pickled / "vqvae" / f"{name}.bin")
    (missing := copy("missing") / "unet" / f"{name}.safetensors").unlink()
    (copy("damaged") / "unet" / f"{name}.safetensors").write_bytes(b"\0" * 100)
    for kind in ("StableDiffusionXLPipeline", "DiTPipeline", "os.system"):
        index = json.loads((saved / "model_index.json").read_text())
        (copy(kind) / "model_index.json").write_text(json.dumps(index | {"_class_name": kind}))
    (copy("custom") / "unet" / "config.json").write_text('{"_class_name": "MyUNet"}')
    for folder, error, words in (
        ("pickled", UnsafeCheckpoint, rf"vqvae/{name}.bin: a pickle, which may hold code"),
        ("missing", BadCheckpoint, rf"expected unet/{missing.name}"),
        ("damaged", BadCheckpoint, "not a readable safetensors file"),
        ("StableDiffusionXLPipeline", BadCheckpoint, "got 'StableDiffusionXLPipeline'"),
        ("DiTPipeline", BadCheckpoint, r"expected transformer/diffusion_pytorch_model.safetensors"),
        ("os.system", BadCheckpoint, "got 'os.system'"),
        ("custom", BadCheckpoint, "expected UNet2DModel, got 'MyUNet'"),
    ):
        with pytest.raises(error, match=words) as caught:
            import_checkpoint(store, tmp_path / folder)
        assert len(str(caught.value).splitlines()) == 1
    assert store.root.child("artifacts/checkpoint").sizes() == {}
