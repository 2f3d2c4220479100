"""Parts of a source: the first images, and EDM's random draw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regimes.errors import ConfigError
from regimes.images.selection import first_images, sample_images
from regimes.images.sources import ArraySource, load_images, load_labels


def source(num_images=20):
    images = np.arange(num_images, dtype=np.uint8).repeat(12).reshape(num_images, 2, 2, 3)
    ids = [f"image-{i}" for i in range(num_images)]
    return ArraySource("mine", images, ids, labels=np.arange(num_images) % 7)


def test_first_images_are_the_first_of_the_list():
    part = first_images(source(), 4)
    ids, images, _ = load_images(part)
    assert ids == ["image-0", "image-1", "image-2", "image-3"]
    assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert part.labels == [0, 1, 2, 3]
    assert part.name == "mine"


@settings(deadline=None, derandomize=True, database=None)
@given(st.integers(2, 40), st.data(), st.integers(0, 2**31 - 1))
def test_sampled_images_are_those_of_numpy_s_legacy_shuffle_in_order(num_images, data, seed):
    count = data.draw(st.integers(1, num_images - 1))
    shuffled = list(range(num_images))
    order = np.array(shuffled)
    np.random.RandomState(seed).shuffle(order)
    ids, images, _ = load_images(sample_images(source(num_images), count, seed))
    expected = sorted(order[:count].tolist())
    assert ids == [f"image-{i}" for i in expected]
    assert images[:, 0, 0, 0].tolist() == expected
    labels = load_labels(sample_images(source(num_images), count, seed), ids)
    assert labels.tolist() == [i % 7 for i in expected]


def test_the_draw_of_seed_0_is_the_known_one():
    # RandomState(0).permutation(10) is 2 8 4 9 1 6 7 3 0 5, in every numpy.
    assert sample_images(source(10), 4, 0).ids == ["image-2", "image-4", "image-8", "image-9"]
    assert sample_images(source(10), 4, 2**31).ids == sample_images(source(10), 4, 0).ids


@pytest.mark.parametrize("count", [20, 21, 10**9])
def test_no_selection_is_the_source_itself(count):
    whole = source()
    assert first_images(whole, count) is whole
    assert sample_images(whole, count, 3) is whole


def test_fingerprints_tell_selections_apart():
    parts = [source(), first_images(source(), 4), first_images(source(), 5),
             sample_images(source(), 4, 0), sample_images(source(), 4, 1)]  # fmt: skip
    assert len({p.fingerprint for p in parts}) == 5
    assert first_images(source(), 4).fingerprint == first_images(source(), 4).fingerprint


def test_selections_can_be_selected_from_and_have_no_labels_if_the_source_has_none():
    images = np.zeros((9, 2, 2, 1), np.uint8)
    part = first_images(sample_images(ArraySource("x", images), 5, 1), 2)
    assert part.ids == sample_images(ArraySource("x", images), 5, 1).ids[:2]
    assert part.labels is None
    assert part.read(1, image_size=1).shape == (1, 1, 1)


@pytest.mark.parametrize("count", [0, -1])
def test_an_empty_selection_is_refused(count):
    for select in (first_images, lambda s, m: sample_images(s, m, 0)):
        with pytest.raises(ConfigError, match=f"--max-images: expected at least 1, got {count}"):
            select(source(), count)
