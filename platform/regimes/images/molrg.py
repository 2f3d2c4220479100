"""A mixture of low-rank Gaussians (MoLRG): data whose intrinsic dimension is known.

    class k uniform on K,   x = U_k a,   a ~ N(0, I_d),   U_k (n, d) orthonormal,  U_k^T U_l = 0

K subspaces of d dimensions each, mutually orthogonal, in n = C H W: random, but fixed by the seed.
Without noise every point lies in one of the subspaces. Values are about sqrt(d / n) in size and not
confined to [-1, 1]; they are never rounded to pixels.

Source: Wang et al. 2024 (arXiv 2409.02426), whose published code draws without a seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from regimes.errors import ConfigError
from regimes.noise import keyed_generator


@dataclass(frozen=True, slots=True, kw_only=True)
class MoLRG:
    """Which mixture.

    Raises:
        ConfigError: if the subspaces do not fit: K d <= n.
    """

    num_classes: int = 2
    """K."""
    dim: int = 6
    """d."""
    side: int = 4
    """H = W."""
    channels: int = 3
    """C."""
    seed: int = 0
    """Of the subspaces and of all points."""

    def __post_init__(self) -> None:
        """Refuse subspaces that cannot be orthogonal."""
        for name in ("num_classes", "dim", "side", "channels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.num_classes * self.dim > self.size:
            raise ConfigError(
                f"num_classes x dim: {self.num_classes} orthogonal subspaces of {self.dim} "
                f"dimensions do not fit into {self.size}; expected at most {self.size}"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.side, self.side

    @property
    def size(self) -> int:
        """Values per point, n."""
        return math.prod(self.image_shape)

    @property
    def std(self) -> float:
        """Standard deviation of a value, over classes and positions: sqrt(d / n)."""
        return math.sqrt(self.dim / self.size)

    def bases(self) -> Tensor:
        """(K, n, d) float64, orthonormal columns, classes mutually orthogonal."""
        draws = keyed_generator("molrg bases", self.seed, self.size).standard_normal(
            (self.size, self.size)
        )
        Q, R = np.linalg.qr(draws)
        Q = Q * np.sign(np.diag(R))  # uniform over rotations, and the same for every LAPACK
        used = Q[:, : self.num_classes * self.dim]
        return torch.from_numpy(used.reshape(self.size, self.num_classes, self.dim)).permute(
            1, 0, 2
        )

    def draw(self, per_class: int, part: str = "train") -> tuple[Tensor, Tensor]:
        """Points of every class.

        Args:
            per_class: M; the first M points of a longer draw are those of a shorter one.
            part: name of an independent set of points.

        Returns:
            x (K M, C, H, W) float32, classes interleaved; class (K M,) int64.
        """
        codes = np.stack(
            [
                keyed_generator("molrg points", self.seed, part, k).standard_normal(
                    (per_class, self.dim)
                )
                for k in range(self.num_classes)
            ]
        )
        x = torch.einsum("knd,kmd->mkn", self.bases(), torch.from_numpy(codes))
        labels = torch.arange(self.num_classes).repeat(per_class)
        return x.reshape(-1, *self.image_shape).float(), labels
