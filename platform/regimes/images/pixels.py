"""The two formats of an image, and the one way between them.

* stored: (N, H, W, C) uint8, C = 1 or 3
* computed: (N, C, H, W) float32 in [-1, 1]

uint8 -> float is v / 127.5 - 1. float -> uint8 is floor(clip(127.5 x + 128, 0, 255)), EDM's rule,
which sends every stored image back to itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

Images = npt.NDArray[np.uint8]


def to_float(images: Images) -> Tensor:
    """(N, H, W, C) uint8 -> (N, C, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def to_uint8(samples: Tensor) -> Images:
    """(N, C, H, W) float -> (N, H, W, C) uint8; values outside [-1, 1] are clipped."""
    levels = (samples * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def pixel_vectors(images: Images) -> npt.NDArray[np.float32]:
    """(N, H, W, C) uint8 -> (N, H W C) float32 in [-1, 1], row-major."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(127.5) - np.float32(1)


def with_channels(image: Images, channels: int | None) -> Images:
    """(H, W, C) uint8 with 1 or 3 channels; None keeps C.

    Colour becomes gray by ITU-R 601-2 luma, as in PIL; gray becomes three equal channels.
    """
    if channels is None or image.shape[2] == channels:
        return image
    if channels == 3:
        return image.repeat(3, axis=2)
    return np.asarray(Image.fromarray(image).convert("L"))[:, :, None]
