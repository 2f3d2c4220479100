"""Jacobian artifacts: spectra of every point, whoever measured them, and nothing without its images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from ingesting import ingest_source

from regimes.denoisers.closed_form import WienerDenoiser
from regimes.errors import ConfigError
from regimes.images.pixels import to_float
from regimes.images.sources import ArraySource
from regimes.images.split import Split
from regimes.jacobians.ranks import numerical_rank
from regimes.jacobians.spectra import SpectrumConfig
from regimes.samplers.edm import SamplerConfig
from regimes.storage.denoisers import ClosedFormRecipe, Loaded, load_denoiser
from regimes.storage.images import ImagesRecipe, Subset, read_subset
from regimes.storage.jacobian import (
    ImagePoints,
    JacobianRecipe,
    TrajectoryPoints,
    choose_images,
    measure_unit,
    read_pictures,
    read_spectra,
    split_work,
)
from regimes.storage.seeds import Seeds

SIGMAS = (5.0, 0.5, 0.05)


def recipe_of(store, *, at="images", method="full", **changes):
    images = np.random.default_rng(0).integers(0, 256, (30, 3, 3, 1), dtype=np.uint8)
    source = ArraySource("mine", images)
    recipe = ImagesRecipe(
        fingerprint=source.fingerprint, image_size=None, channels=None, skip_bad=False
    )
    ingest_source(store, source, recipe)
    split = Split(num_images=30, seed=None, parts=1)
    train = Subset(images=recipe, split=split, half="A", size=30)
    points = ImagePoints(images=recipe, num_images=3, seeds=Seeds.parse("0,7"), sigmas=SIGMAS)
    if at == "trajectories":
        points = TrajectoryPoints(seeds=Seeds.parse("4-8"), sampler=SamplerConfig(num_steps=4))
    basic = JacobianRecipe(
        denoiser=ClosedFormRecipe(form="wiener", train=train),
        points=points,
        spectrum=SpectrumConfig(method=method, width=4, max_width=9),
        points_per_unit=4,
    )
    return dataclasses.replace(basic, **changes)


def measure(store, recipe, units=None):
    loaded = load_denoiser(store, recipe.denoiser)
    is_image = isinstance(recipe.points, ImagePoints)
    chosen = choose_images(store, recipe.points) if is_image else None
    units = range(recipe.num_units) if units is None else units
    return [measure_unit(store, recipe, u, loaded, chosen) for u in units]


@pytest.mark.parametrize("method", ["full", "randomised"])
@pytest.mark.parametrize("at", ["images", "trajectories"])
def test_spectra_of_the_wiener_filter_are_its_shrinkage(store, at, method):
    recipe = recipe_of(store, at=at, method=method)
    store.artifact(recipe).finish(measure(store, recipe))
    found = read_spectra(store, recipe, "wiener")
    denoiser = WienerDenoiser(to_float(read_subset(store, recipe.denoiser.train)[1]))
    assert len(found.spectra) == len(recipe.points)
    for point in found.spectra:
        assert len(point) == len(found.sigmas)
        for sigma, spectrum in zip(found.sigmas, point, strict=True):
            expected = (denoiser.variances / (denoiser.variances + sigma**2)).numpy()
            count = len(spectrum.values)
            # A random projection loses a little of its last values.
            atol = 1e-12 if count == 9 else 1e-3 * expected[0]
            leading = int(numerical_rank(spectrum, "energy").value) if count < 9 else 9
            np.testing.assert_allclose(spectrum.values[:leading], expected[:leading], atol=atol)
            assert spectrum.size == 9
    expected = [4, 5, 6, 7, 8] if at == "trajectories" else [0, 0, 1, 1, 2, 2]
    assert found.groups.tolist() == expected
    pictures = read_pictures(store, recipe)
    assert pictures.denoised.shape == (len(found.sigmas), 1, 3, 3)
    vector = torch.from_numpy(pictures.outputs[0, 0]).flatten().double()
    assert abs(float(vector @ denoiser.basis[0])) == pytest.approx(1, abs=1e-3)


def test_a_unit_has_the_same_bytes_in_any_order_and_what_is_there_is_kept(store):
    recipe = recipe_of(store)
    first = measure(store, recipe, [1, 0])
    entries, missing = split_work(store, recipe)
    assert (len(entries), missing) == (2, [])
    again = measure(store, recipe, [0, 1])
    assert (
        [e.sha256 for e in again]
        == [e.sha256 for e in reversed(first)]
        == [e.sha256 for e in entries]
    )
    other = recipe_of(store, at="trajectories")
    assert split_work(store, other) == ([], [0, 1])


def test_chosen_images_are_always_the_same_and_not_the_first(store):
    points = recipe_of(store).points
    one, more = (
        choose_images(store, dataclasses.replace(points, num_images=n)).images for n in (5, 30)
    )
    assert not np.array_equal(one, more[:5])
    assert all(any(np.array_equal(image, other) for other in more) for image in one)
    assert np.array_equal(
        one, choose_images(store, dataclasses.replace(points, num_images=5)).images
    )
    with pytest.raises(ConfigError, match="at most 30"):
        choose_images(store, dataclasses.replace(points, num_images=31))


def conditional(store, recipe):
    """The Wiener filter as a model of three classes that answers with the class's sign."""
    inner = load_denoiser(store, recipe.denoiser)

    class Signed:
        sigma_min, sigma_max = 0.0, float("inf")

        def __init__(self):
            self.seen = []

        def round_sigma(self, sigma):
            return sigma

        def __call__(self, x, sigma, class_labels=None):
            self.seen.append(class_labels.argmax(1).tolist())
            scale = 1 + class_labels.argmax(1).to(torch.float64)
            return inner.denoiser(x, sigma) * scale[:, None, None, None]

    return Loaded(Signed(), inner.image_shape, 3)


@pytest.mark.parametrize("at", ["images", "trajectories"])
def test_the_class_asked_for_is_that_of_all_points(store, at):
    recipe = recipe_of(store, at=at, class_index=2)
    loaded = conditional(store, recipe)
    chosen = choose_images(store, recipe.points) if at == "images" else None
    last = recipe.num_units - 1
    store.artifact(recipe).finish(
        [measure_unit(store, recipe, u, loaded, chosen) for u in range(last + 1)]
    )
    values = read_spectra(store, recipe, "a").spectra[-1][0].values
    plain = recipe_of(store, at=at)
    store.artifact(plain).finish(measure(store, plain))
    expected = read_spectra(store, plain, "b").spectra[-1][0].values
    if at == "images":  # the same points, three times the answer
        np.testing.assert_allclose(values, 3 * expected, rtol=1e-9)
    assert {k for batch in loaded.denoiser.seen for k in batch} == {2}


@pytest.mark.parametrize("k", [3, -1])
def test_a_class_that_does_not_exist_is_refused(store, k):
    recipe = recipe_of(store, at="trajectories", class_index=k)
    with pytest.raises(ConfigError, match="expected 0 to 2"):
        measure_unit(store, recipe, 0, conditional(store, recipe), None)
    with pytest.raises(ConfigError, match="unconditional"):
        measure(store, recipe, [0])


def test_images_without_classes_need_one(store):
    recipe = recipe_of(store)
    loaded, chosen = conditional(store, recipe), choose_images(store, recipe.points)
    with pytest.raises(ConfigError, match="pass --class"):
        measure_unit(store, recipe, 0, loaded, chosen)
    labelled = dataclasses.replace(chosen, labels=np.array([0, 1, 2]))
    measure_unit(store, recipe, 0, loaded, labelled)
    assert [0, 0, 1, 1] in loaded.denoiser.seen  # then their copies


def test_images_of_another_shape_are_refused(store):
    recipe = recipe_of(store)
    loaded = load_denoiser(store, recipe.denoiser)
    chosen = choose_images(store, recipe.points)
    larger = dataclasses.replace(chosen, images=np.zeros((3, 5, 5, 1), np.uint8))
    with pytest.raises(ConfigError, match=r"\(1, 5, 5\).*--image-size"):
        measure_unit(store, recipe, 0, loaded, larger)
