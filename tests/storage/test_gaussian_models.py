"""Gaussian models as artifacts: fitted once, read back, sampled in any batch, by class; refusals."""

import os

import numpy as np
import pytest

from regimes.denoisers.compute import Compute
from regimes.errors import BrokenArtifact, ConfigError
from regimes.gaussians.fit import FitConfig, fit_gaussian
from regimes.images.pixels import pixel_vectors
from regimes.images.sources import load_images, load_labels, open_source
from regimes.samplers.edm import SamplerConfig
from regimes.spectra.rows import Rows
from regimes.storage.artifacts import Store
from regimes.storage.gaussians import DirectSampler, load_mixture
from regimes.storage.model_specs import identify_model, import_mixture, is_model
from regimes.storage.samples import SamplesRecipe, load_model, make_samples
from regimes.storage.seeds import Seeds
from regimes.storage.tables import read_rows


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def digits():
    source = open_source("digits")
    ids, images, _ = load_images(source)
    return images, load_labels(source, ids)


def recipe(model, seeds="0-99", batch=50, **more):
    return SamplesRecipe(
        denoiser=model,
        sampler=DirectSampler(),
        seeds=Seeds.parse(seeds),
        seeds_per_unit=batch,
        keep_float=True,
        **more,
    )


def sampled(store, samples):
    loaded, artifact = load_model(store, samples), store.artifact(samples)
    artifact.finish(make_samples(store, samples, u, loaded) for u in range(samples.num_units))
    return {name: read_rows(artifact, name)[1] for name in ("sample", "image")}, artifact


def written(store, model):
    return os.stat(f"{store.artifact(model).location.path}/manifest.json").st_mtime_ns


def test_what_is_read_is_what_was_fitted_and_nothing_is_fitted_twice(store, digits):
    model = import_mixture(store, "gaussian:digits", FitConfig(shrinkage="ridge"))
    assert model.label == "gaussian-n1797-A"
    found = load_mixture(store, model)
    assert found.image_shape == (1, 8, 8)
    fitted = fit_gaussian(Rows(values=pixel_vectors(digits[0])), FitConfig(shrinkage="ridge"))
    (component,) = found.mixture.components
    np.testing.assert_allclose(component.mean, fitted.mean, atol=1e-6)
    np.testing.assert_allclose(component.covariance(), fitted.covariance(), atol=1e-6)
    assert component.num_fitted == 1797
    before = written(store, model)
    assert import_mixture(store, "gaussian:digits", FitConfig(shrinkage="ridge")) == model
    assert written(store, model) == before


def test_batches_do_not_change_samples(store):
    model = import_mixture(store, "gaussian:digits", FitConfig())
    whole, _ = sampled(store, recipe(model))
    parts, _ = sampled(store, recipe(model, "99,0-9", batch=3))
    order = [99, *range(10)]
    np.testing.assert_allclose(parts["sample"], whole["sample"][order], atol=1e-12)
    assert (parts["image"] == whole["image"][order]).mean() > 0.999


def test_a_mixture_of_classes_gives_labels_and_any_class_alone(store, digits):
    model = import_mixture(store, "gmm:digits", FitConfig())
    assert model.fit.by == "class"
    _, artifact = sampled(store, recipe(model, "0-299"))
    labels = read_rows(artifact, "label")[1]
    assert set(labels) == set(range(10))
    sevens, artifact = sampled(store, recipe(model, "0-299", class_index=7))
    assert set(read_rows(artifact, "label")[1]) == {7}
    images, real = digits
    mean = images[real == 7].mean(0).ravel() / 127.5 - 1
    deviation = (images[real == 7] / 127.5).std(0, ddof=1).ravel() / 300**0.5
    ours = sevens["sample"].transpose(0, 2, 3, 1).reshape(300, -1).mean(0)
    assert (np.abs(ours - mean) <= 4.5 * deviation + 1e-9).all()


def test_first_images_and_em(store):
    model = import_mixture(store, "gmm:digits", FitConfig(components=2), max_images=200)
    assert model.label == "gmm-n200-A"
    found = load_mixture(store, model)
    assert (len(found.mixture.components), found.num_classes) == (2, 0)


def test_what_a_mixture_cannot_do_is_refused(store, tmp_path):
    model = import_mixture(store, "gaussian:digits", FitConfig())
    loaded = load_mixture(store, model)
    with pytest.raises(ConfigError, match="which has none; leave it out"):
        make_samples(store, recipe(model, class_index=3), 0, loaded)
    with pytest.raises(ConfigError, match="drawn in float64 on CPUs"):
        load_model(store, recipe(model, compute=Compute(precision="bf16")))
    with pytest.raises(ConfigError, match="draw their samples themselves"):
        SamplesRecipe(
            denoiser=model, sampler=SamplerConfig(), seeds=Seeds.parse("0"), seeds_per_unit=1
        )
    assert is_model("gmm:digits")
    with pytest.raises(ConfigError, match="has no denoiser"):
        identify_model("gmm:digits")
    np.save(tmp_path / "a.npy", np.zeros((5, 4, 4, 1), np.uint8))
    with pytest.raises(ConfigError, match="do not say their classes"):
        import_mixture(store, f"gmm:{tmp_path / 'a.npy'}", FitConfig())


def test_a_damaged_model_is_named(tmp_path):
    store = Store(str(tmp_path))
    model = import_mixture(store, "gaussian:digits", FitConfig(), max_images=20)
    store.artifact(model).location.write("component-000.safetensors", b"x")
    with pytest.raises(BrokenArtifact, match="component-000"):
        load_mixture(store, model)
