"""Decoding one image file, by one rule.

Gray modes (1, L, LA) give one channel; every other mode gives three. Alpha is composited over
white. 16-bit values keep their high byte; wider and floating ones, whose white is unknown, are
refused. Palettes are expanded. Animated files give their first frame. Orientation tags (EXIF) are
not followed. An optional size crops the centre square and resizes it, bilinear with antialiasing.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from regimes.errors import BadImage, ConfigError
from regimes.images.pixels import Images

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})


def decode(data: bytes, name: str, *, image_size: int | None = None) -> Images:
    """Decode one file.

    Args:
        data: the file's content.
        name: what to call it in an error.
        image_size: side of the square to crop and resize to, or None to keep the size.

    Returns:
        (H, W, C) uint8, C = 1 or 3.

    Raises:
        BadImage: if the content is not an image or is cut short.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            image = _plain(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow's own message for an unknown format holds a memory address.
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "unknown format" if unknown else str(error).strip() or type(error).__name__
        raise BadImage(
            f"{name}: not a readable image ({reason}); replace or remove the file"
        ) from error
    if image_size is not None:
        image = centre_square(image, image_size)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _plain(image: Image.Image) -> Image.Image:
    """Mode L or RGB, by the module's rule."""
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise ValueError("expected values of 8 or 16 bits, found wider, signed or floating ones")
    if image.mode.startswith("I"):
        high_byte = (np.asarray(image, dtype=np.int64) >> 8).clip(0, 255)
        return Image.fromarray(high_byte.astype(np.uint8))
    gray = image.mode in ("1", "L", "LA")
    if "A" in image.mode or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    return image.convert("L" if gray else "RGB")


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """Crop the centre square and resize it to ``size``, bilinear with antialiasing.

    Raises:
        ConfigError: if ``size`` is below 1.
    """
    if size < 1:
        raise ConfigError(f"--image-size: expected at least 1, got {size}")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # Not resize(box=...): its filter reaches past the box, into what is cropped away.
    square = image.crop((left, top, left + side, top + side))
    return square.resize((size, size), Image.Resampling.BILINEAR)
