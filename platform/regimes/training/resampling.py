"""Images under an affine map, without aliasing.

An image is enlarged to twice its resolution by a low-pass filter, read bilinearly where the map
leads, and brought back by another low-pass filter. The two filters are the biorthogonal pair of
Cohen, Daubechies and Feauveau (1992), with 7 and 9 taps: bringing back undoes enlarging, and both
are symmetric about a pixel. So shifts by whole pixels, mirrorings and quarter turns come out exact
up to rounding. Beyond its border an image continues as its own mirror image, as often as needed.
(Karras et al. use sym6, which undoes itself but is not symmetric, and a padding whose
width depends on the batch.)

Coordinates are in pixels from the centre of the image, x to the right and y down.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# Half of each filter, from its centre outwards. Sums over all taps: 2 (up), 1 (down).
_UP = (1.115087052456994, 0.591271763114250, -0.057543526228500, -0.091271763114250)
_DOWN = (
    0.602949018236360,
    0.266864118442875,
    -0.078223266528990,
    -0.016864118442875,
    0.026748757410810,
)
_MARGIN = len(_DOWN) - 1  # positions that the second filter reads beyond the image
LEAST_SIZE = 4


def affine_resample(images: Tensor, maps: Tensor) -> Tensor:
    """Move every image by a map of its own.

    Args:
        images: (B, C, S, S) float32, S at least 4.
        maps: (B, 2, 3) float32, from places in the output to places in the input.

    Returns:
        (B, C, S, S) float32.

    Raises:
        ValueError: if the images are not square, or too small.

    Cost: about 14 S^3 multiplications per channel; temporaries of 4 to 5 times the input.
    """
    size = images.shape[-1]
    if images.shape[-2] != size or size < LEAST_SIZE:
        raise ValueError(
            f"images: expected squares of side {LEAST_SIZE} or more, got {tuple(images.shape[-2:])}"
        )
    up, down = _matrices(size, images.device)
    enlarged = up @ images @ up.T  # (B, C, 2S-1, 2S-1): pixels, and the points half way between
    found = functional.grid_sample(
        enlarged, _grid(maps, size), padding_mode="reflection", align_corners=True
    )
    return down @ found @ down.T


def _grid(maps: Tensor, size: int) -> Tensor:
    """Where to read for every half pixel of the output and its margin, in units of grid_sample."""
    num = 2 * size - 1 + 2 * _MARGIN
    at = (torch.arange(num, device=maps.device, dtype=maps.dtype) - (num - 1) / 2) / 2
    x, y = at, at[:, None, None]  # along the columns, along the rows
    # Sums of products, element by element: a matrix product rounds differently in another batch.
    a, b, c = (column[:, None, None, :] for column in maps.unbind(dim=2))
    return (a * x[:, None] + b * y + c) * (2 / (size - 1))


@functools.lru_cache(maxsize=8)
def _matrices(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The filters as matrices, (2S-1, S) with mirrored borders and (S, 2S-1 + 2 margin)."""
    up = np.zeros((2 * size - 1, size))
    for row in range(2 * size - 1):
        for k in range(-3, 4):
            if (row + k) % 2 == 0:
                up[row, _mirror((row + k) // 2, size)] += _UP[abs(k)]
    down = np.zeros((size, 2 * size - 1 + 2 * _MARGIN))
    for row in range(size):
        for k in range(-_MARGIN, _MARGIN + 1):
            down[row, 2 * row + k + _MARGIN] = _DOWN[abs(k)]
    return (
        torch.from_numpy(up).to(device, torch.float32),
        torch.from_numpy(down).to(device, torch.float32),
    )


def _mirror(index: int, size: int) -> int:
    """A position beyond the border, reflected at the centre of the last pixel."""
    index = abs(index)
    return 2 * (size - 1) - index if index >= size else index
