"""The audit on a planted truth: copies, noisy copies, flips and new images among 1000.

Images are smooth random fields of 8 x 8, so that no two are alike by chance; the descriptor is the
project's own, of pixels. The number of each kind is known, so every rate has one right answer.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from regimes.descriptors.pixels import Pixels
from regimes.images.pixels import pixel_vectors
from regimes.noise import keyed_generator
from regimes.scores.calibration import calibrate_threshold
from regimes.scores.features import Features
from regimes.scores.generalization import generalization_score, ratio_test

EACH = 50


def fields(count, key):
    """(count, 8, 8, 1) uint8: white noise, each pixel averaged a little with the next ones."""
    noise = keyed_generator("fields", key).standard_normal((count, 10, 10))
    smooth = noise[:, 1:-1, 1:-1] + 0.25 * (
        noise[:, 2:, 1:-1] + noise[:, :-2, 1:-1] + noise[:, 1:-1, 2:] + noise[:, 1:-1, :-2]
    )
    return (128 + 45 * smooth).clip(0, 255).astype(np.uint8)[..., None]


def flip(images):
    return np.ascontiguousarray(images[:, :, ::-1])


def described(images, start=0):
    return Features(np.arange(start, start + len(images)), Pixels()(images), "pixels")


def raw(images, start=0):
    return Features(np.arange(start, start + len(images)), pixel_vectors(images), "raw")


@pytest.fixture(scope="module")
def planted():
    """1000 training images; 50 copies, 50 noisy copies, 50 flipped copies and 850 new images."""
    train = fields(1000, 0)
    rng = keyed_generator("planted", 0)
    chosen = rng.permutation(1000)[: 3 * EACH]
    exact, noisy, flipped = (train[part] for part in chosen.reshape(3, EACH))
    noisy = (noisy + rng.normal(0, 8, noisy.shape)).clip(0, 255).astype(np.uint8)
    generated = np.concatenate([exact, noisy, flip(flipped), fields(850, 1)])
    return train, generated, fields(1000, 2), chosen


@pytest.mark.parametrize("with_flips", [False, True])
def test_gl_score_finds_exactly_the_planted_copies(planted, with_flips):
    train, generated, heldout, chosen = planted
    mirrored = described(flip(train)) if with_flips else None
    t, g, h = (described(x) for x in (train, generated, heldout))
    found = generalization_score(g, t, h, threshold=0.85, mirrored=mirrored)
    copies = (3 if with_flips else 2) * EACH
    assert found.value == 1 - copies / 1000
    assert found.null == 1.0
    hits = found.per_item["similarity"] > 0.85
    assert hits.tolist() == [True] * copies + [False] * (1000 - copies)
    np.testing.assert_array_equal(found.per_item["nearest_id"][:copies], chosen[:copies])


@pytest.mark.parametrize("with_flips", [False, True])
def test_ratio_test_finds_exactly_the_planted_copies(planted, with_flips):
    train, generated, heldout, chosen = planted
    mirrored = raw(flip(train)) if with_flips else None
    found = ratio_test(raw(generated), raw(train), raw(heldout), mirrored=mirrored)
    copies = (3 if with_flips else 2) * EACH
    assert found.value == copies / 1000
    assert found.null == 0.0
    assert (found.per_item["ratio"] < 1 / 3).tolist() == [True] * copies + [False] * (1000 - copies)
    np.testing.assert_array_equal(found.per_item["nearest_id"][:copies], chosen[:copies])


def test_duplicated_training_images_hide_no_copy(planted):
    train, generated, heldout, _ = planted
    twice = np.concatenate([train, train[::2]])
    found = ratio_test(raw(generated), raw(twice), raw(heldout))
    assert found.value == 2 * EACH / 1000


def test_calibrated_threshold_has_the_false_positive_rate_it_promises():
    # 100 worlds of one training set, held-out images to calibrate on, and new images.
    hits, per_world, size = 0, [], 60
    for world in range(100):
        images = fields(3 * size, 100 + world)
        train, heldout, new = (described(x) for x in np.split(images, 3))
        threshold = calibrate_threshold(heldout, train, quantile=0.9)
        found = generalization_score(new, train, heldout, threshold=threshold.value)
        per_world.append(1 - found.value)
        hits += found.low <= found.null <= found.high
    error = np.std(per_world) / 10
    # numpy's quantile interpolates between order statistics: (1 - q) (n - 1) / n + 1 / (n + 1) at
    # most off by 1 / n, on top of three standard errors.
    assert np.mean(per_world) == pytest.approx(0.1, abs=3 * error + 1 / size)
    # Wilson's interval covers the new images' choice, but not the calibration's: two equal
    # variances, so 83% instead of 95%.
    low, high = binom.ppf([0.001, 0.999], 100, 0.83)
    assert low <= hits <= high


def test_fixed_threshold_and_ratio_call_no_new_image_a_copy_more_often_than_held_out_ones():
    rates = []
    for world in range(100):
        train, heldout, new = np.split(fields(180, 300 + world), 3)
        sets = [described(x) for x in (new, train, heldout)]
        gl = generalization_score(*sets, threshold=0.5)
        ratio = ratio_test(*(raw(x) for x in (new, train, heldout)), threshold=0.9)
        rates.append((1 - gl.value, 1 - gl.null, ratio.value, ratio.null))
    rates = np.array(rates)
    for ours, null in ((0, 1), (2, 3)):
        difference = rates[:, ours] - rates[:, null]
        assert abs(difference.mean()) < 3 * difference.std() / 10
        assert rates[:, ours].mean() > 0.005  # the levels are such that chance does something
