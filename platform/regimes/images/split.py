"""Splits: two disjoint halves of a source, and nested subsets of each.

A seeded shuffle cuts the source into half A and half B. The subset of size n is the first n images
of its half, so subsets are nested: a bigger training set contains every smaller one. The other half
is held-out data for models trained on the first. A split of one part has nested subsets only, as
in the published grids, and the images behind the largest are held out.
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
    """How ``num_images`` images are divided into training sets and held-out images."""

    num_images: int
    seed: int | None
    """Seed of the shuffle; None keeps the order of the source."""
    parts: Literal[1, 2] = 2
    """2: halves A and B. 1: all images are "half" A, and those that no model saw are held out."""

    def indices(self, half: Half) -> npt.NDArray[np.int64]:
        """All positions of one half, in order; A has num_images // 2, B the rest."""
        if self.parts == 1 and half == "B":
            raise ValueError("half B of a split that has one part")
        order = np.arange(self.num_images)
        if self.seed is not None:
            order = keyed_generator("split", self.seed).permutation(self.num_images)
        if self.parts == 1:
            return order
        cut = self.num_images // 2
        return order[:cut] if half == "A" else order[cut:]

    @property
    def halves(self) -> tuple[Half, ...]:
        """The halves that models are trained on."""
        return HALVES[: self.parts]

    def heldout(self, half: Half, size: int) -> npt.NDArray[np.int64]:
        """Positions of the images that no model of ``half`` saw, if ``size`` is its largest set."""
        return self.indices(half)[size:] if self.parts == 1 else self.indices(other(half))

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
