"""Decoding: every mode of an image file obeys one rule."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from image_files import encode, ramp
from PIL import Image

from regimes.errors import BadImage
from regimes.images.decode import decode

FORMATS = ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"]


def test_gray_gives_one_channel():
    gray = ramp(4, 5)
    np.testing.assert_array_equal(decode(encode(Image.fromarray(gray)), "x")[..., 0], gray)


def test_bilevel_gives_black_and_white():
    bits = (ramp(4, 5) % 2).astype(bool)
    found = decode(encode(Image.fromarray(bits)), "x")
    np.testing.assert_array_equal(found[..., 0], bits * 255)


def test_rgb_is_kept():
    rgb = ramp(4, 5, 3)
    np.testing.assert_array_equal(decode(encode(rgb), "x"), rgb)


def over_white(colour, alpha):
    a = alpha.astype(float)[..., None] / 255
    return colour * a + 255 * (1 - a)


def test_alpha_is_composited_over_white():
    rgba = np.dstack([ramp(4, 5, 3), 255 - ramp(4, 5)])
    found = decode(encode(Image.fromarray(rgba)), "x")
    assert found.shape == (4, 5, 3)
    assert np.abs(found - over_white(rgba[..., :3], rgba[..., 3])).max() <= 1


def test_gray_with_alpha_is_composited_and_stays_gray():
    la = np.dstack([ramp(4, 5), 255 - ramp(4, 5)])
    found = decode(encode(Image.fromarray(la)), "x")
    assert found.shape == (4, 5, 1)
    assert np.abs(found - over_white(la[..., :1], la[..., 1])).max() <= 1


def test_gray_with_a_transparent_level_is_composited():
    gray = np.full((4, 4), 60, np.uint8)
    gray[0] = 10
    found = decode(encode(Image.fromarray(gray), transparency=10), "x")
    assert found[..., 0].tolist() == [[255] * 4, [60] * 4, [60] * 4, [60] * 4]


def palette_image():
    image = Image.fromarray((ramp(4, 4) % 3).astype(np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    return image


@pytest.mark.parametrize("fmt", ["PNG", "GIF"])
def test_palettes_are_expanded(fmt):
    table = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]])
    expected = table[ramp(4, 4) % 3]
    np.testing.assert_array_equal(decode(encode(palette_image(), fmt), "x"), expected)


def test_transparent_palette_entry_becomes_white():
    found = decode(encode(palette_image(), transparency=1), "x")
    assert (found[ramp(4, 4) % 3 == 1] == 255).all()
    assert (found[ramp(4, 4) % 3 == 0] == [10, 20, 30]).all()


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_16_bit_values_keep_their_high_byte(fmt):
    wide = (np.arange(20, dtype=np.uint16) * 3271).reshape(4, 5)
    found = decode(encode(Image.fromarray(wide), fmt), "x")
    np.testing.assert_array_equal(found[..., 0], wide >> 8)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_tiff_of_wider_values_is_refused(dtype):
    image = Image.fromarray(ramp(4, 5).astype(dtype))
    with pytest.raises(BadImage, match=r"x: not a readable image .*8 or 16 bits, found wider"):
        decode(encode(image, "TIFF"), "x")


def test_16_bit_ppm_keeps_its_high_byte():
    wide = (np.arange(20, dtype=np.uint16) * 3271).reshape(4, 5)
    found = decode(encode(Image.fromarray(wide), "PPM"), "x")
    np.testing.assert_array_equal(found[..., 0], wide >> 8)


def test_orientation_tags_are_not_followed():
    tag = Image.Exif()
    tag[0x0112] = 6  # to be shown turned by a quarter
    image = Image.fromarray(ramp(4, 5))
    assert decode(encode(image, "JPEG", exif=tag), "x").shape == (4, 5, 1)


def test_animation_gives_its_first_frame():
    frames = [Image.fromarray(np.full((4, 4), v, np.uint8)) for v in (40, 200)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert set(decode(data, "x").flatten().tolist()) == {40}


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_is_decoded_as_pillow_does(fmt, rng):
    data = encode(rng.integers(0, 256, (6, 4, 3), dtype=np.uint8), fmt)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode(data, "x"), expected)


@pytest.mark.parametrize(("height", "width"), [(10, 7), (7, 10), (8, 8), (3, 2)])
def test_centre_crop_and_resize_equal_pillow(rng, height, width):
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    side, size = min(height, width), 4
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(image[top : top + side, left : left + side])
    expected = np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode(encode(image), "x", image_size=size), expected)


@pytest.mark.parametrize("fmt", FORMATS)
def test_damaged_files_are_either_decoded_or_named(fmt, rng):
    data = encode(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), fmt)
    cases = [data[:cut] for cut in range(0, len(data), 11)]
    for _ in range(100):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 4):
            damaged[position] = rng.integers(256)
        cases.append(bytes(damaged))
    messages = []
    for case in cases:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert decode(case, "the-file").dtype == np.uint8
            except BadImage as error:
                messages.append(str(error))
    assert len(messages) > 10
    assert all(m.startswith("the-file: not a readable image (") for m in messages)
    assert not any(" at 0x" in m for m in messages)
