"""Descriptors: unit rows, invariances, and whitening against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from sklearn.decomposition import PCA

from regimes.descriptors.pixels import Pixels, WhitenedPixels, unit_rows
from regimes.images.sources import load_images, open_source


@pytest.fixture(scope="module")
def digits():
    return load_images(open_source("digits"))[1]


def test_unit_rows_have_length_1_and_zero_rows_stay_zero(rng):
    values = rng.standard_normal((5, 7)) * 10.0 ** np.arange(-4, 1)[:, None]
    values[2] = 0
    rows = unit_rows(values)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 0, 1, 1], abs=1e-6)
    assert not rows[2].any()


def test_pixel_similarity_is_the_correlation_of_two_images(digits):
    rows = Pixels()(digits[:50])
    expected = np.corrcoef(digits[:50].reshape(50, -1).astype(float))
    np.testing.assert_allclose(rows @ rows.T, expected, atol=1e-5)


def test_pixel_similarity_ignores_brightness_and_contrast(rng):
    image = rng.integers(0, 100, (1, 6, 6, 3), dtype=np.uint8)
    np.testing.assert_allclose(Pixels()(image), Pixels()(image * 2 + 30), atol=1e-6)


def test_image_without_contrast_is_described_by_zeros(digits):
    flat = np.full((2, 8, 8, 1), 37, np.uint8)
    assert not Pixels()(flat).any()


@pytest.mark.parametrize("ridge", [0.05, 0.5, 3.0])
def test_whitening_transform_is_the_inverse_root_of_the_ridged_covariance(digits, ridge):
    x = digits.reshape(len(digits), -1) / 127.5 - 1
    covariance = np.cov(x.T, bias=True)
    ridged = covariance + ridge * np.trace(covariance) / 64 * np.eye(64)
    fitted = WhitenedPixels.fit(digits, ridge=ridge)
    expected = np.linalg.inv(scipy.linalg.sqrtm(ridged).real)
    np.testing.assert_allclose(fitted.transform, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(fitted.mean, x.mean(0), atol=1e-6)


def test_whitening_with_a_vanishing_ridge_is_pca_whitening(rng):
    images = rng.integers(0, 256, (400, 4, 4, 1), dtype=np.uint8)
    rows = WhitenedPixels.fit(images, ridge=1e-9)(images).astype(float)
    white = PCA(whiten=True).fit_transform(images.reshape(400, -1).astype(float))
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    np.testing.assert_allclose(rows @ rows.T, white @ white.T, atol=1e-5)


def test_whitened_rows_have_unit_length_and_the_fit_ignores_order(digits, rng):
    fitted = WhitenedPixels.fit(digits)
    rows = fitted(digits[:100])
    assert (rows.shape, rows.dtype) == ((100, 64), np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    shuffled = WhitenedPixels.fit(digits[rng.permutation(len(digits))])
    np.testing.assert_allclose(shuffled(digits[:100]), rows, atol=1e-5)


def test_whitening_lowers_the_similarity_of_unrelated_images(digits):
    def typical(descriptor):
        rows = descriptor(digits[:300])
        return np.quantile((rows @ rows.T)[~np.eye(300, dtype=bool)], 0.99)

    # facts/digits-experiment: 99% quantile .89 for pixels; .58 and .51 around the default ridge
    assert typical(Pixels()) == pytest.approx(0.89, abs=0.03)
    assert typical(WhitenedPixels.fit(digits)) < 0.65


@pytest.mark.parametrize("describe", ["pixels", "whitened"])
def test_rows_do_not_depend_on_the_batch_they_are_in(digits, describe):
    descriptor = Pixels() if describe == "pixels" else WhitenedPixels.fit(digits)
    whole = descriptor(digits[:20])
    parts = np.concatenate([descriptor(digits[i : i + 1]) for i in range(20)])
    np.testing.assert_allclose(whole, parts, atol=1e-6)


def test_descriptors_have_their_names():
    assert (Pixels.name, WhitenedPixels.name) == ("pixels", "whitened-pixels")


@pytest.mark.parametrize("count", [1, 7])
def test_images_that_are_all_equal_cannot_be_whitened(count):
    with pytest.raises(ValueError, match="cannot whiten images that are all equal"):
        WhitenedPixels.fit(np.full((count, 3, 3, 1), 37, np.uint8))
