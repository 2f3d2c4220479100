"""Which way a frame went: exact frames, blurs, other digits, jumps of the wrong length."""

from __future__ import annotations

import numpy as np
import pytest

from regimes.guidance.directions import centroids, moved, movements, radii
from regimes.images.clips import ClipConfig, ClipSource
from regimes.images.sources import load_images
from regimes.scores.modes import REJECTED

JUMPS = ClipConfig(canvas=16, digit=8, jump=3).movement.displacements


def windows(count=60, **options):
    """Last frames and next ones, (N, H, W) in [-1, 1]."""
    source = ClipSource(ClipConfig(canvas=16, digit=8, jump=3, window=2, clips=count, **options))
    images = load_images(source)[1].astype(float) / 127.5 - 1
    truth = [
        JUMPS.index(tuple((t.places[1] - t.places[0]).tolist()))
        for t in (source.clip(i).tracks[0] for i in range(count))
    ]
    return images[..., 0], images[..., 1], np.array(truth)


def test_real_frames_are_of_their_direction_and_at_no_distance():
    last, following, truth = windows()
    found = movements(following, last, JUMPS)
    assert (found.modes == truth).all()
    np.testing.assert_allclose(found.quality, 0, atol=1e-12)
    np.testing.assert_allclose(found.shifted_distance, 0, atol=1e-9)
    np.testing.assert_allclose(found.overlap, 1)
    np.testing.assert_allclose(found.shift, np.hypot(*np.array(JUMPS)[truth].T))


def test_blurs_other_digits_blank_frames_and_noise_are_rejected():
    last, following, _ = windows()
    opposite = (moved(last + 1, (3, 0)) + moved(last + 1, (-3, 0))) / 2 - 1
    noise = np.random.default_rng(0).uniform(-1, 1, last.shape)
    for wrong in (opposite, np.full_like(last, -1), noise, last):
        assert (movements(wrong, last, JUMPS).modes == REJECTED).all()
    other = movements(np.roll(following, 1, 0), last, JUMPS)
    assert (other.modes == REJECTED).mean() > 0.8  # few digits look alike


def test_a_jump_of_the_wrong_length_is_rejected_where_the_published_distance_sees_nothing():
    last, _, _ = windows()
    short = moved(last + 1, (-1, 0)) - 1
    found = movements(short, last, JUMPS)
    np.testing.assert_allclose(found.shifted_distance, 0, atol=1e-9)
    np.testing.assert_allclose(found.shift, 1)
    assert (found.modes == REJECTED).all()


def test_small_errors_are_accepted_and_order_does_not_matter():
    last, following, truth = windows()
    noisy = following + np.random.default_rng(1).normal(0, 0.05, following.shape)
    found = movements(noisy, last, JUMPS)
    assert (found.modes == truth).mean() > 0.95
    order = np.random.default_rng(2).permutation(len(last))
    again = movements(noisy[order], last[order], JUMPS)
    assert (again.modes == found.modes[order]).all()
    np.testing.assert_allclose(again.quality, found.quality[order])


def test_centroids_and_radii_beside_direct_sums():
    frames = np.random.default_rng(0).random((5, 6, 7))
    ys, xs = np.mgrid[:6, :7]
    for frame, (x, y) in zip(frames, centroids(frames), strict=True):
        assert x == pytest.approx((frame * xs).sum() / frame.sum())
        assert y == pytest.approx((frame * ys).sum() / frame.sum())
    exact = np.random.default_rng(1).random((4, 3, 6, 7))
    for n, radius in enumerate(radii(exact)):
        pairs = [np.linalg.norm(exact[i, n] - exact[j, n]) for i in range(4) for j in range(i)]
        assert radius == pytest.approx(min(pairs) / 2)
    blank = centroids(np.zeros((1, 4, 4)))
    assert blank.tolist() == [[0, 0]]
