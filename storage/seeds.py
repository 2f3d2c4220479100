"""Lists of seeds, kept as ranges: ``0-49999,60000`` is a recipe, fifty thousand numbers are not."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from regimes.errors import ConfigError

_PART = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?")


@dataclass(frozen=True, slots=True)
class Seeds:
    """Distinct seeds in a fixed order.

    Args:
        ranges: (first, last) pairs, both included.

    Raises:
        ConfigError: if there is none, a range runs backwards, or two overlap.
    """

    ranges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        """A seed is an id: it may occur once."""
        if not self.ranges or any(first < 0 or last < first for first, last in self.ranges):
            raise ConfigError(f"seeds: expected ascending ranges of seeds from 0, got {self}")
        ordered = sorted(self.ranges)
        for (_, last), (first, _) in itertools.pairwise(ordered):
            if first <= last:
                raise ConfigError(f"seeds: {first} occurs twice in {self}; list every seed once")

    @classmethod
    def parse(cls, text: str) -> Seeds:
        """Read ``0-63`` or ``1,2,5-10``.

        Raises:
            ConfigError: if the text is anything else.
        """
        matches = [_PART.fullmatch(part.strip()) for part in text.split(",")]
        if not all(matches):
            raise ConfigError(f"seeds {text!r:.60}: expected numbers and ranges, as in 0-63,100")
        return cls(tuple((int(m[1]), int(m[2] or m[1])) for m in matches if m))

    @classmethod
    def first(cls, count: int, start: int = 0) -> Seeds:
        """``count`` seeds from ``start`` on."""
        return cls(((start, start + count - 1),))

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def __str__(self) -> str:
        return ",".join(f"{a}-{b}" if a != b else str(a) for a, b in self.ranges)

    def block(self, start: int, stop: int) -> list[int]:
        """Seeds number ``start`` to ``stop`` (excluded) of the list; cost: the block's length."""
        seeds: list[int] = []
        for first, last in self.ranges:
            length = last - first + 1
            seeds += range(first + max(start, 0), first + min(stop, length))
            start, stop = start - length, stop - length
        return seeds
