"""What an audit compares: nearest training images, which of them are equal in every pixel, and repeats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from regimes.scores.features import Features, Index
from regimes.scores.neighbours import first_occurrences

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
SamePixels = Callable[[str, Index, Index, Flags], Flags]
"""(set, positions in it, positions of training images, which of them to flip) -> which are equal."""

LOOKALIKE = 0.99
"""Similarity from which pixels are compared: equal images have 1 but for rounding, also that of bf16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """The nearest training image of every image of a set; arrays of length M."""

    nearest: Index
    """Its position among the training images: the first of its duplicates."""
    flipped: Flags
    """Whether its flip is nearer than itself."""
    similarity: Floats
    """To the nearest, or to its flip."""
    unflipped: Floats
    """To the most similar training image, flips not counted."""
    d1: Floats
    """Distance to the nearest."""
    d2: Floats
    """Distance to the nearest that is another image."""

    @property
    def ratio(self) -> Floats:
        """d1 / d2, in [0, 1]; 1 where both are 0."""
        return np.divide(self.d1, self.d2, out=np.ones_like(self.d1), where=self.d2 > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """For every image the position of the first of its set that is the same."""

    generated: Index
    heldout: Index
    """Empty without held-out images."""

    @classmethod
    def of(cls, generated: Features, heldout: Features | None) -> Repeats:
        """Of equal rows."""
        rows = generated.values[:0] if heldout is None else heldout.values
        return cls(generated=first_occurrences(generated.values), heldout=first_occurrences(rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Compares look-alikes pixel by pixel, with every training image that counts as the same.

    Duplicates may differ in a few pixels: a copy of the second of them does not equal the first.
    """

    groups: Index
    same_pixels: SamePixels
    flips: bool

    def identical(self, name: str, matches: Matches) -> tuple[Matches, Flags]:
        """Which images equal a training image; their matches are with that very image."""
        found = np.zeros(len(matches.similarity), np.bool_)
        nearest, flipped = matches.nearest.copy(), matches.flipped.copy()
        for i in np.flatnonzero(matches.similarity >= LOOKALIKE):
            for j, flip in self._candidates(int(nearest[i]), bool(flipped[i])):
                asked = np.array([i]), np.array([j]), np.array([flip])
                if self.same_pixels(name, *asked)[0]:
                    found[i], nearest[i], flipped[i] = True, j, flip
                    break
        same = np.where(flipped, matches.unflipped, matches.similarity)
        unflipped = np.where(matches.flipped, same, matches.unflipped)
        return replace(matches, nearest=nearest, flipped=flipped, unflipped=unflipped), found

    def _candidates(self, nearest: int, flipped: bool) -> Iterator[tuple[int, bool]]:
        """The match itself first, then the others of its group, as they are before their flips."""
        yield nearest, flipped
        members = np.flatnonzero(self.groups == self.groups[nearest])
        for flip in (False, True) if self.flips else (False,):
            for j in members.tolist():
                if (j, flip) != (nearest, flipped):
                    yield j, flip
