"""Resizing on the device equals PIL's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from regimes.descriptors.resize import Preprocessing, parse_rule, resize_levels
from regimes.errors import ConfigError

SIDES = [1, 2, 3, 7, 8, 17, 28, 32, 64, 99, 128, 224, 300]
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def pil(image, size, filter):
    plain = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    resized = np.asarray(plain.resize((size[1], size[0]), FILTERS[filter]))
    return resized.reshape(*size, image.shape[2])


def ours(image, size, filter):
    levels = torch.from_numpy(image)[None].permute(0, 3, 1, 2).float()
    return resize_levels(levels, size, filter)[0].permute(1, 2, 0).numpy()


def random_image(rng, height, width, channels):
    image = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return (image > 127).astype(np.uint8) * 255 if rng.random() < 0.3 else image


def is_rows_first(height, width, size):
    """Wide images not reduced more in height than in width: every Pillow resizes rows first."""
    return height <= width and size[0] * width >= size[1] * height


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
def test_resizing_is_pils_bit_for_bit_up_and_down(rng, filter, channels):
    compared = 0
    while compared < 60:
        height, width, *size = (int(s) for s in rng.choice(SIDES, 4))
        if is_rows_first(height, width, size):
            image = random_image(rng, height, width, channels)
            np.testing.assert_array_equal(ours(image, size, filter), pil(image, size, filter))
            compared += 1


def test_bilinear_is_pils_within_one_level_whichever_pass_comes_first(rng):
    for _ in range(100):
        height, width, *size = (int(s) for s in rng.choice(SIDES, 4))
        image = random_image(rng, height, width, 3)
        difference = np.abs(ours(image, size, "bilinear") - pil(image, size, "bilinear"))
        assert difference.max() <= 1, (image.shape, size)


@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("side", "target"), [(8, 224), (32, 224), (32, 320), (64, 299), (256, 224), (300, 28)]
)
def test_squares_are_pils_bit_for_bit(rng, filter, side, target):
    image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    size = (target, target)
    np.testing.assert_array_equal(ours(image, size, filter), pil(image, size, filter))


def test_bicubic_clips_between_the_passes_as_pil_does(rng):
    image = (rng.integers(0, 2, (40, 30, 3)) * 255).astype(np.uint8)
    size = (288, 216)
    np.testing.assert_array_equal(ours(image, size, "bicubic"), pil(image, size, "bicubic"))
    both = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None].permute(0, 3, 1, 2).float(),
        size=size, mode="bicubic", antialias=True,
    )  # fmt: skip
    once = both.round().clamp(0, 255)[0].permute(1, 2, 0).numpy()
    assert np.abs(once - pil(image, size, "bicubic")).max() > 5  # one pass would not do


def test_results_are_whole_levels_and_the_batch_does_not_matter(rng):
    images = torch.from_numpy(rng.integers(0, 256, (5, 3, 20, 24))).float()
    together = resize_levels(images, (33, 40), "bicubic")
    assert torch.equal(together, together.round())
    assert 0 <= together.min() < 20
    assert 235 < together.max() <= 255
    for i in range(5):
        assert torch.equal(resize_levels(images[i : i + 1], (33, 40), "bicubic")[0], together[i])


def test_preprocessing_is_torchvisions(rng):
    from torchvision import transforms

    images = rng.integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    for rule, size in (("skew", (32, 32)), ("short-edge", 32)):
        reference = transforms.Compose([
            transforms.Resize(size),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ])  # fmt: skip
        expected = torch.stack([reference(Image.fromarray(image)) for image in images])
        found = Preprocessing(size=32, rule=rule)(torch.from_numpy(images))
        assert found.shape == expected.shape
        # The levels are equal; two float32 divisions remain, of values up to 2.7.
        assert (found - expected).abs().max() < 1e-6


@pytest.mark.parametrize(("shape", "target"), [((40, 50), (32, 40)), ((50, 33), (48, 32))])
def test_short_edge_keeps_the_shape_rounding_down(shape, target):
    assert Preprocessing(size=32, rule="short-edge").target(*shape) == target


def test_gray_images_are_gray_colour_images(rng):
    gray = torch.from_numpy(rng.integers(0, 256, (2, 9, 9, 1), dtype=np.uint8))
    see = Preprocessing(size=12)
    assert torch.equal(see(gray), see(gray.expand(-1, -1, -1, 3)))
    assert Preprocessing(size=12, mean=(0.5,), std=(0.5,))(gray).shape == (2, 1, 12, 12)


def test_colour_images_are_refused_where_one_channel_is_expected():
    colour = torch.zeros((1, 4, 4, 3), dtype=torch.uint8)
    with pytest.raises(ConfigError, match="expected 1 channel, got 3"):
        Preprocessing(size=4, mean=(0.5,), std=(0.5,))(colour)


def test_rules_are_read_from_their_names():
    assert parse_rule("skew-320") == ("skew", 320)
    assert parse_rule("short-edge-288") == ("short-edge", 288)
    assert Preprocessing(size=288, rule="short-edge").name == "short-edge-288"


@pytest.mark.parametrize("text", ["320", "skew", "skew-", "crop-224", "skew-32x"])
def test_other_rules_are_refused(text):
    with pytest.raises(ConfigError, match="expected skew-SIZE or short-edge-SIZE"):
        parse_rule(text)


@pytest.mark.parametrize(
    "changes",
    [{"size": 0}, {"mean": (0.5, 0.5)}, {"std": (1.0, 0.0, 1.0)}, {"mean": (0.5,)}],
)
def test_impossible_preprocessing_is_refused(changes):
    with pytest.raises(ConfigError):
        Preprocessing(**({"size": 8} | changes))
