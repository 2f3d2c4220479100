"""Sample artifacts: units of fixed seeds whose bytes depend on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ingesting import ingest_source

from regimes.actors.replicas import ReplicaOptions, generate
from regimes.actors.runtime import RayRuntime
from regimes.errors import ConfigError, NotFiniteSamples
from regimes.images.pixels import to_float, to_uint8
from regimes.images.sources import ArraySource
from regimes.images.split import Split
from regimes.samplers.edm import SamplerConfig, sample_seeds
from regimes.storage.denoisers import ClosedFormRecipe, Loaded, load_denoiser
from regimes.storage.images import ImagesRecipe, Subset, read_images, read_subset
from regimes.storage.samples import SamplesRecipe, load_model, make_samples
from regimes.storage.seeds import Seeds
from regimes.storage.tables import decode_rows


def samples_recipe(store, form="wiener", first_seed=5, **sampler):
    rng = np.random.default_rng(0)
    source = ArraySource("mine", rng.integers(0, 256, (12, 3, 3, 1), dtype=np.uint8))
    images = ImagesRecipe(
        fingerprint=source.fingerprint, image_size=None, channels=None, skip_bad=False
    )
    ingest_source(store, source, images)
    subset = Subset(images=images, split=Split(num_images=12, seed=0), half="A", size=6)
    return SamplesRecipe(
        denoiser=ClosedFormRecipe(form=form, train=subset),
        sampler=SamplerConfig(num_steps=6, **sampler),
        seeds=Seeds.first(10, first_seed),
        seeds_per_unit=4,
    )


@pytest.mark.parametrize("form", ["wiener", "empirical"])
def test_a_closed_form_is_no_network_to_spread_over_devices(store, form):
    recipe = samples_recipe(store, form)
    with pytest.raises(ConfigError, match=f"spreads networks over GPUs, and {form}-.* is none"):
        load_model(store, recipe, others=["cpu"])
    options = ReplicaOptions(gpus_each=2)
    with pytest.raises(ConfigError, match="is none; leave it out"):
        generate(RayRuntime(1), store, [recipe], options=options, on_unit=lambda: None)


def make(store, recipe, units):
    loaded = load_denoiser(store, recipe.denoiser)
    entries = [make_samples(store, recipe, unit, loaded) for unit in units]
    return sorted(entries, key=lambda e: e.name)


def test_units_are_fixed_blocks_that_cover_every_seed_once(store):
    recipe = samples_recipe(store)
    assert recipe.num_units == 3
    assert [recipe.unit_seeds(u) for u in range(3)] == [[5, 6, 7, 8], [9, 10, 11, 12], [13, 14]]


@pytest.mark.parametrize("s_churn", [0.0, 3.0])
def test_bytes_are_the_same_when_repeated_and_in_any_order_of_units(store, s_churn):
    recipe = samples_recipe(store, s_churn=s_churn)
    first = make(store, recipe, [0, 1, 2])
    assert make(store, recipe, [0, 1, 2]) == first
    assert make(store, recipe, [2, 0, 1]) == first
    assert make(store, recipe, [1]) == first[1:2]


def test_samples_are_those_of_their_seeds(store):
    recipe = samples_recipe(store)
    store.artifact(recipe).finish(make(store, recipe, range(3)))
    ids, images = read_images(store, recipe)
    assert ids.tolist() == list(range(5, 15))
    loaded = load_denoiser(store, recipe.denoiser)
    expected = to_uint8(
        sample_seeds(loaded.denoiser, range(5, 15), loaded.image_shape, config=recipe.sampler)
    )
    assert np.abs(images.astype(int) - expected).max() <= 1  # the batch differs: rounding only
    assert len(np.unique(images.reshape(10, -1), axis=0)) == 10


def test_a_seed_gives_the_same_image_in_another_range(store):
    images = []
    for first_seed in (5, 6):
        recipe = samples_recipe(store, first_seed=first_seed)
        store.artifact(recipe).finish(make(store, recipe, range(3)))
        images.append(read_images(store, recipe)[1].astype(int))
    assert np.abs(images[0][1:] - images[1][:-1]).max() <= 1
    assert np.abs(images[0][:-1] - images[1][:-1]).max() > 20


def test_samples_of_the_empirical_denoiser_are_stored_training_images(store):
    recipe = samples_recipe(store, form="empirical")
    entry = make(store, recipe, [0])[0]
    location = store.artifact(recipe).location
    _, images = decode_rows(location.read(entry.name), "x")
    train = {i.tobytes() for i in read_subset(store, recipe.denoiser.train)[1]}
    assert len(train) == 6
    assert {i.tobytes() for i in images} <= train
    np.testing.assert_array_equal(to_uint8(to_float(images)), images)


def test_samples_that_are_not_finite_name_their_seeds(store):
    recipe = samples_recipe(store)

    class Overflowing:
        sigma_min, sigma_max = 0.0, float("inf")

        def round_sigma(self, sigma):
            return sigma

        def __call__(self, x, sigma, class_labels=None):
            return torch.where(torch.arange(len(x)).reshape(-1, 1, 1, 1) == 1, torch.nan, x)

    with pytest.raises(
        NotFiniteSamples, match=r"wiener-n6-A: samples of seeds \[6\] are not finite"
    ):
        make_samples(store, recipe, 0, Loaded(Overflowing(), (1, 3, 3)))
    assert store.artifact(recipe).present() == set()
