"""Splits: two disjoint halves of a source, and nested subsets of each.

A seeded shuffle cuts the source into half A and half B. The subset of size n is the first n images
of its half, so subsets are nested: a bigger training set contains every smaller one. The other half
is held-out data for models trained on the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from regimes.errors import ConfigError
from regimes.noise import keyed_generator

Half = Literal["A", "B"]
HALVES: tuple[Half, Half] = ("A", "B")


def other(half: Half) -> Half:
    """The half that is held out from models trained on ``half``."""
    return "B" if half == "A" else "A"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The two halves of ``num_images`` images under ``seed``."""

    num_images: int
    seed: int

    def indices(self, half: Half) -> npt.NDArray[np.int64]:
        """All positions of one half, shuffled; A has num_images // 2, B the rest."""
        order = keyed_generator("split", self.seed).permutation(self.num_images)
        cut = self.num_images // 2
        return order[:cut] if half == "A" else order[cut:]

    def subset(self, half: Half, size: int) -> npt.NDArray[np.int64]:
        """The first ``size`` positions of a half.

        Raises:
            ConfigError: if the half holds fewer images.
        """
        indices = self.indices(half)
        if not 1 <= size <= len(indices):
            raise ConfigError(
                f"size {size}: expected 1 to {len(indices)}, half {half} of {self.num_images} "
                f"images holds {len(indices)}; choose smaller --sizes or give more images"
            )
        return indices[:size]
