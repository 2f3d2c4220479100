"""EDM's augmentation pipe (Karras et al. 2022, appendix F.2, table 6).

    transformation      parameters                    with probability      condition
    mirror left-right   a0 in {0, 1}                  1 (or never)          a0
    mirror top-bottom   a1 in {0, 1}                  p                     a1
    scale               2^(0.2 a2), a2 ~ N(0, 1)      p                     a2
    rotate              a3 uniform on (-pi, pi)       p                     cos a3 - 1, sin a3
    stretch             2^(0.2 a5) along angle a4     p                     a5 cos a4, a5 sin a4
                        a5 ~ N(0, 1); a4 is 0 for half of them, the others' uniform on (-pi, pi)
    shift               (a6, a7) S/8, a6, a7 ~ N(0,1) p                     a6, a7

in this order, each independent of the others; the parameters of one that is left out are 0. So a
mirroring that is applied "with probability p" mirrors with probability p/2. Angles turn
counter-clockwise as one looks at the image; a stretch by s is a squeeze by 1/s across. The condition
tells the network what was done, so that without one it makes images that were not augmented.

Mirrorings are exact copies of pixels. The other four are one affine map, read by
``regimes.training.resampling``; an image that none of them concerns is not touched.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regimes.training.resampling import affine_resample

NUM_CONDITIONS = 9
_LOG2_SCALE = 0.2
_SHIFT = 1 / 8
_TURNED = 0.5  # of all stretches; the others are along an axis of the image

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What is done to each of B images."""

    xflip: npt.NDArray[np.bool_]
    """(B,), a0."""
    yflip: npt.NDArray[np.bool_]
    """(B,), a1."""
    scale: Values
    """(B,), a2."""
    rotation: Values
    """(B,), a3, radians."""
    stretch_angle: Values
    """(B,), a4, radians."""
    stretch: Values
    """(B,), a5."""
    shift: Values
    """(B, 2), a6 and a7: right and down, in eighths of the image."""

    @classmethod
    def draw(
        cls, rng: np.random.Generator, num: int, *, probability: float, xflip: bool
    ) -> Augmentation:
        """Draw parameters for ``num`` images.

        Args:
            rng: consumed by the same amount whatever the options are.
            num: B.
            probability: p, in [0, 1].
            xflip: whether half of the images are mirrored left-right.
        """
        gates = rng.random((5, num)) < probability
        coins = rng.integers(0, 2, (2, num)).astype(bool)
        angles = rng.uniform(-np.pi, np.pi, (2, num))
        normals = rng.standard_normal((4, num))
        turned = rng.random(num) < _TURNED
        return cls(
            xflip=coins[0] & xflip,
            yflip=coins[1] & gates[0],
            scale=normals[0] * gates[1],
            rotation=angles[0] * gates[2],
            stretch_angle=angles[1] * (gates[3] & turned),
            stretch=normals[1] * gates[3],
            shift=(normals[2:] * gates[4]).T,
        )

    def conditions(self) -> npt.NDArray[np.float32]:
        """The condition vectors, (B, 9) float32; all zeros means "not augmented"."""
        columns = [
            self.xflip,
            self.yflip,
            self.scale,
            np.cos(self.rotation) - 1,
            np.sin(self.rotation),
            self.stretch * np.cos(self.stretch_angle),
            self.stretch * np.sin(self.stretch_angle),
            *self.shift.T,
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    def is_warped(self) -> npt.NDArray[np.bool_]:
        """(B,), whether an image is more than mirrored."""
        warped = (self.scale != 0) | (self.rotation != 0) | (self.stretch != 0)
        return warped | (self.shift != 0).any(axis=1)

    def maps(self, size: int) -> Values:
        """From places in the output to places in the mirrored input, (B, 2, 3) in pixels."""
        direction = _rotation(self.stretch_angle)
        factor = np.exp2(_LOG2_SCALE * self.stretch)
        stretch = direction @ _diagonal(factor, 1 / factor) @ direction.transpose(0, 2, 1)
        scale = np.exp2(_LOG2_SCALE * self.scale)
        forward = stretch @ _rotation(self.rotation) @ _diagonal(scale, scale)
        backward = np.linalg.inv(forward)
        moved = self.shift[:, :, None] * size * _SHIFT
        return np.concatenate([backward, -backward @ moved], axis=2)

    def __getitem__(self, rows: slice) -> Augmentation:
        """What is done to some of the images."""
        return Augmentation(**{name: getattr(self, name)[rows] for name in _FIELDS})

    def apply(self, images: Tensor) -> Tensor:
        """Augment.

        Args:
            images: (B, C, S, S) float32 on any device.

        Returns:
            (B, C, S, S) float32; images to which nothing is done are the same to the last bit.

        Raises:
            ValueError: if images are to be warped that are not square, or smaller than 4.
        """
        for mirrored, axis in ((self.xflip, 3), (self.yflip, 2)):
            where = torch.from_numpy(mirrored).to(images.device)[:, None, None, None]
            images = torch.where(where, images.flip(axis), images)
        warped = np.flatnonzero(self.is_warped())
        if len(warped):
            index = torch.from_numpy(warped).to(images.device)
            maps = torch.from_numpy(self.maps(images.shape[-1])[warped])
            moved = affine_resample(images[index], maps.to(images.device, torch.float32))
            images = images.index_copy(0, index, moved)
        return images


_FIELDS = tuple(field.name for field in fields(Augmentation))


def concatenate(parts: list[Augmentation]) -> Augmentation:
    """One augmentation for the images of all parts, in order."""
    return Augmentation(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _FIELDS}
    )


def _rotation(angle: Values) -> Values:
    """Counter-clockwise as one looks at the image, whose y axis points down: (B, 2, 2)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)


def _diagonal(x: Values, y: Values) -> Values:
    zero = np.zeros_like(x)
    return np.stack([np.stack([x, zero], -1), np.stack([zero, y], -1)], -2)
