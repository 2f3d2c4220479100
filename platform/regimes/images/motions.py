"""How the digit of a clip moves: rules for the place of its top-left corner, frame by frame.

Places run from 0 to ``room`` = canvas - digit along both axes, y downward, and c = room / 2 is the
centre. A **change** is the number of a frame after which the direction is a new random one, so that the
frame behind it is what a model cannot foresee.

middle      stays at (c, c)
circle      even frames at (c, c), odd ones at (c, c) + a jump; a direction is drawn after each even frame
horizontal  y = c, a constant speed along x; walls turn it round, and where it reaches or crosses the
            centre it draws a new direction, unless it did so one frame before
free        any direction at integer speeds; at a wall the velocity away from it and the one along it
            are drawn anew (moving MNIST)

The rules are those of the clips of Kleutgens 2024. What is wrong in them can be had by name:

unequal-jumps   diagonal jumps move by as much along both axes as the others do along one: radius
                5.66 instead of 4. Without: by jump / sqrt(2), rounded to whole pixels
redrawn-bounce  "deterministic" bounces negate the velocity across the wall, but draw the one along it
short-wall      the far wall stops a digit one pixel early, which the near wall does not
zero-is-unset   a probability of 0 is taken for "not given", after a reversal has made 1 - p of it

Also there, and not offered: the published clips of a worker are one stream of numpy's global generator,
seeded once by whatever item is asked for first, so that an item has no content of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from regimes.errors import ConfigError

Motion = Literal["middle", "circle", "horizontal", "free"]
Defect = Literal["unequal-jumps", "redrawn-bounce", "short-wall", "zero-is-unset"]
DEFECTS: tuple[Defect, ...] = get_args(Defect)
DIRECTIONS = {
    "left": (-1, 0),
    "down-left": (-1, 1),
    "down": (0, 1),
    "down-right": (1, 1),
    "right": (1, 0),
    "up-right": (1, -1),
    "up": (0, -1),
    "up-left": (-1, -1),
}
"""(dx, dy), y downward."""
_OF_NUMBER = {
    8: tuple(DIRECTIONS),
    4: ("left", "down", "right", "up"),
    2: ("down", "up"),
}
_READ_BY: dict[str, tuple[Motion, ...]] = {
    "jump": ("circle",),
    "step": ("horizontal",),
    "top_speed": ("free",),
    "directions": ("circle",),
    "probability": ("circle", "horizontal"),
    "deterministic": ("free",),
    "unequal-jumps": ("circle",),
    "redrawn-bounce": ("free",),
    "short-wall": ("horizontal", "free"),
    "zero-is-unset": ("circle", "horizontal"),
}
"""Motions that an option or a defect is of."""
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionOptions:
    """A rule and its numbers; the defaults are the published ones for a digit of 16 on 32 pixels."""

    motion: Motion = "circle"
    """middle, circle, horizontal or free (moving MNIST)."""
    frames: int = 2
    """T, per clip."""
    jump: int = 4
    """Pixels of a jump of circle."""
    step: int = 2
    """Pixels per frame of horizontal."""
    top_speed: int = 4
    """Largest speed of free along an axis, in pixels per frame."""
    directions: int = 8
    """Of circle: 8, 4 or 2."""
    probability: float | None = None
    """Of the first direction of circle (left; of two, down), or of going right in horizontal; None makes
    all equal."""
    deterministic: bool = False
    """Walls of free reflect instead of drawing a velocity."""
    reverse: bool = False
    """Turn the clip round in time; a clip of horizontal then starts two steps before the centre, so that
    its last two frames come after a change. Of that change alone the law is ``probability``: a digit
    comes to an earlier one from the wall, so that turned round it follows the opposite law."""
    defects: tuple[Defect, ...] = ()
    """Published errors to keep: unequal-jumps, redrawn-bounce, short-wall, zero-is-unset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionConfig(MotionOptions):
    """A rule, its numbers, and the room that there is."""

    room: int = 16
    """Places along an axis are 0 to room: canvas - digit."""

    def __post_init__(self) -> None:
        """Refuse what could not move, or would leave the canvas."""
        if self.motion not in get_args(Motion):
            raise ConfigError(
                f"motion: expected one of {', '.join(get_args(Motion))}, got {self.motion!r:.40}"
            )
        unknown = sorted(set(self.defects) - set(DEFECTS))
        if unknown:
            raise ConfigError(f"defects: expected some of {', '.join(DEFECTS)}, got {unknown[0]}")
        self._check_unused()
        for name, least in {"room": 2, "frames": 1, "jump": 1, "step": 1, "top_speed": 1}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if self.directions not in _OF_NUMBER:
            raise ConfigError(f"directions: expected 8, 4 or 2, got {self.directions}")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ConfigError(f"probability: expected a number in [0, 1], got {self.probability}")
        reach = {"circle": self.jump, "horizontal": 2 * self.step}.get(self.motion, 0)
        if reach > self.room // 2:
            raise ConfigError(
                f"jump, step: a digit {reach} pixels from the centre leaves the canvas; expected at most "
                f"{self.room // 2}, half of canvas - digit"
            )

    def _check_unused(self) -> None:
        """Refuse what would change nothing."""
        usual = {f.name: f.default for f in fields(self) if f.name in _READ_BY}
        changed = [name for name, value in usual.items() if getattr(self, name) != value]
        for name in (*changed, *self.defects):
            if self.motion not in _READ_BY[name]:
                left = f", at {usual[name]}" if name in usual else ""
                raise ConfigError(
                    f"{name}: of motion {' or '.join(_READ_BY[name])}, and the motion is {self.motion}; "
                    f"leave it out{left}"
                )
        if "redrawn-bounce" in self.defects and not self.deterministic:
            raise ConfigError("redrawn-bounce: of deterministic bounces; others are drawn anyway")

    @property
    def centre(self) -> int:
        """Of a track, c."""
        return self.room // 2

    @property
    def mode_names(self) -> tuple[str, ...]:
        """Directions in which a change can lead, the one of ``probability`` first."""
        if self.motion == "circle":
            return _OF_NUMBER[self.directions]
        return ("right", "left") if self.motion == "horizontal" else ()

    @property
    def displacements(self) -> tuple[tuple[int, int], ...]:
        """(dx, dy) in pixels of each mode, from the frame of a change to the next."""
        size = self.jump if self.motion == "circle" else self.step
        diagonal = size if "unequal-jumps" in self.defects else round(size / math.sqrt(2))
        return tuple(
            (dx * (diagonal if dy else size), dy * (diagonal if dx else size))
            for dx, dy in (DIRECTIONS[name] for name in self.mode_names)
        )

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Of the modes: the law that a model should learn."""
        count = len(self.mode_names)
        p = self.probability
        # A clip of horizontal is made by 1 - p before it is turned round.
        unset = 1 if self.reverse and self.motion == "horizontal" else 0
        if p is None or (p == unset and "zero-is-unset" in self.defects):
            return (1 / count,) * count
        return (p, *((1 - p) / (count - 1) for _ in range(count - 1)))


@dataclass(frozen=True, slots=True)
class Track:
    """Where a digit is."""

    places: Places
    """(T, 2): x, y of its top-left corner."""
    changes: tuple[int, ...]
    """Frames after which the direction is a new one; after a reversal, those of the turned clip."""


def draw_track(config: MotionConfig, rng: np.random.Generator) -> Track:
    """The track of one digit."""
    track = _RULES[config.motion](config, rng)
    if not config.reverse:
        return track
    last = config.frames - 1
    return Track(track.places[::-1].copy(), tuple(sorted(last - t for t in track.changes)))


def _middle(config: MotionConfig, rng: np.random.Generator) -> Track:
    return Track(np.full((config.frames, 2), config.centre), ())


def _circle(config: MotionConfig, rng: np.random.Generator) -> Track:
    places = np.full((config.frames, 2), config.centre)
    changes = tuple(range(0, config.frames, 2))
    for t in changes:
        jump = config.displacements[rng.choice(len(config.probabilities), p=config.probabilities)]
        places[t + 1 : t + 2] += np.array(jump)
    return Track(places, changes)


def _horizontal(config: MotionConfig, rng: np.random.Generator) -> Track:
    p, centre, step = _right(config), config.centre, config.step
    velocity = step if rng.random() < p else -step
    # Towards the centre, so that it is reached behind the second step.
    x = centre - 2 * velocity if config.reverse else int(rng.integers(0, config.room))
    places, changes = np.full((config.frames, 2), centre), list[int]()
    before: int | None = None
    for t in range(config.frames):
        x, side = _walled(x, config)
        velocity = -side * step if side else velocity
        places[t, 0] = x
        crossed = before is not None and (before < centre <= x or before > centre >= x)
        if crossed and t - 1 not in changes:
            velocity = step if rng.random() < p else -step
            changes.append(t)
        before, x = x, x + velocity
    return Track(places, tuple(changes))


def _right(config: MotionConfig) -> float:
    """Probability of going right in the clip as it is made, before it is turned round."""
    p = 0.5 if config.probability is None else config.probability
    if config.reverse:
        p = 1 - p
    return 0.5 if p == 0 and "zero-is-unset" in config.defects else p


def _free(config: MotionConfig, rng: np.random.Generator) -> Track:
    top = config.top_speed
    place = rng.integers(0, config.room, 2)
    velocity = rng.integers(-top, top + 1, 2)
    places, changes = np.empty((config.frames, 2), np.int64), list[int]()
    for t in range(config.frames):
        for axis in (1, 0):
            place[axis], side = _walled(int(place[axis]), config)
            if side:
                _bounce(velocity, axis, side, config, rng)
                changes.append(t)
        places[t] = place
        place = place + velocity
    return Track(places, tuple(dict.fromkeys(changes)))


def _bounce(
    velocity: Places, axis: int, side: int, config: MotionConfig, rng: np.random.Generator
) -> None:
    """Change a velocity at the wall on a side (-1 near, 1 far) of an axis."""
    top = config.top_speed
    velocity[axis] = -velocity[axis] if config.deterministic else -side * rng.integers(1, top + 1)
    if not config.deterministic or "redrawn-bounce" in config.defects:
        velocity[1 - axis] = rng.integers(-top, top + 1)


def _walled(x: int, config: MotionConfig) -> tuple[int, int]:
    """The place within the walls, and the side on which one was hit: -1, 1, or 0 for none."""
    if x < 0:
        return 0, -1
    if "short-wall" in config.defects:
        return (config.room - 1, 1) if x >= config.room else (x, 0)
    return (config.room, 1) if x > config.room else (x, 0)


_RULES: dict[Motion, Callable[[MotionConfig, np.random.Generator], Track]] = {
    "middle": _middle,
    "circle": _circle,
    "horizontal": _horizontal,
    "free": _free,
}
