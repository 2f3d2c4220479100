"""Image files made in a test."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def encode(image, fmt="PNG", **options):
    """A file of an array or a PIL image."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    sink = io.BytesIO()
    image.save(sink, fmt, **options)
    return sink.getvalue()


def ramp(*shape):
    """An array that counts up in steps of three."""
    return np.arange(np.prod(shape), dtype=np.uint8).reshape(shape) * 3
