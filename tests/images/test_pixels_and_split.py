"""The two number formats of an image, and the split of a source."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regimes.errors import ConfigError
from regimes.images.pixels import pixel_vectors, to_float, to_uint8
from regimes.images.split import Split, other


@pytest.fixture
def pixels(rng):
    """Five RGB images."""
    return rng.integers(0, 256, (5, 6, 4, 3), dtype=np.uint8)


def test_uint8_survives_the_way_to_float_and_back():
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = to_float(values)
    assert x.dtype == torch.float32
    assert (float(x.min()), float(x.max())) == (-1.0, 1.0)
    np.testing.assert_array_equal(to_uint8(x), values)
    np.testing.assert_array_equal(to_uint8(x.double()), values)


def test_to_uint8_is_edm_s_truncation_with_clipping():
    x = torch.tensor([-5.0, -1.0, -1e-9, 0.0, 0.499 / 127.5, 0.99999, 1.0, 7.0]).reshape(
        1, 1, 1, -1
    )
    expected = np.clip(127.5 * x.numpy().astype(np.float64) + 128, 0, 255).astype(np.uint8)
    assert to_uint8(x.double()).flatten().tolist() == expected.flatten().tolist()
    assert expected.flatten().tolist() == [0, 0, 127, 128, 128, 255, 255, 255]


def test_to_float_moves_channels_first(pixels):
    x = to_float(pixels)
    assert x.shape == (5, 3, 6, 4)
    assert float(x[2, 1, 5, 3]) == pytest.approx(pixels[2, 5, 3, 1] / 127.5 - 1, abs=1e-6)
    np.testing.assert_array_equal(to_uint8(x), pixels)


def test_pixel_vectors_are_the_float_values_in_row_major_order(pixels):
    expected = to_float(pixels).permute(0, 2, 3, 1).flatten(1).numpy()
    np.testing.assert_allclose(pixel_vectors(pixels), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n", [1797, 10, 11])
def test_halves_are_disjoint_and_cover_everything(n):
    split = Split(num_images=n, seed=3)
    a, b = split.indices("A"), split.indices("B")
    assert sorted([*a, *b]) == list(range(n))
    assert (len(a), len(b)) == (n // 2, n - n // 2)


def test_subsets_are_nested_and_start_their_half():
    split = Split(num_images=100, seed=0)
    for half in ("A", "B"):
        for size in (1, 16, 50):
            subset = split.subset(half, size)
            assert len(subset) == size
            np.testing.assert_array_equal(subset, split.indices(half)[:size])


def test_split_depends_on_its_seed_and_is_shuffled():
    orders = [Split(num_images=100, seed=s).indices("A").tolist() for s in (0, 1, 0)]
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]
    assert max(orders[0]) > 60


@pytest.mark.parametrize("size", [0, 51])
def test_split_refuses_a_subset_larger_than_its_half(size):
    with pytest.raises(ConfigError, match=f"size {size}: expected 1 to 50, half A of 100 images"):
        Split(num_images=100, seed=0).subset("A", size)


def test_the_other_half_is_the_other():
    assert (other("A"), other("B")) == ("B", "A")
