"""Clips of moving digits, made on the fly: circle jumping, horizontal movement, moving MNIST.

Digits are resized to ``digit`` pixels (bilinear, antialiased), pasted on a black canvas, and added where
they overlap, up to white. Clip i of a seed is the same whoever asks for it, and in which order.

    clips:circle                                    as an image source: every frame an image
    clips:horizontal,clips=200,frames=16,window=4   every four consecutive frames one image of four channels
    clips:middle,frames=1,digits=mnist/             digits from MNIST's files, in the middle of the canvas
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from regimes.errors import BadSource, ConfigError
from regimes.images.arrays import ArraySource, open_digits
from regimes.images.fingerprints import hash_parts
from regimes.images.idx import is_idx, open_idx
from regimes.images.motions import MotionConfig, MotionOptions, Track, draw_track
from regimes.images.pixels import Images
from regimes.noise import keyed_generator

PREFIX = "clips:"
Part = Literal["all", "train", "heldout"]
Windows = Literal["all", "changes"]
_HELD_OUT = 6  # one digit in so many is none of part "train"
_KEPT = 64  # clips in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig(MotionOptions):
    """Which clips; the numbers of the published ones for a canvas of 32 pixels."""

    digits: str = "digits"
    """Images of digits: the word digits (built in), a file of MNIST's, or the folder that holds them."""
    keep: tuple[int, ...] = ()
    """Digits to take; all by default."""
    part: Part = "all"
    """train leaves out every sixth image of a digit, heldout takes those alone."""
    canvas: int = 32
    """Side of a frame in pixels."""
    digit: int = 16
    """Side of a digit."""
    num_digits: int = 1
    """Per clip, each with a track of its own."""
    clips: int = 1000
    """How many."""
    window: int = 1
    """Consecutive frames that are one image, its channels in the order of time."""
    windows: Windows = "all"
    """all, or changes: of every clip the first (turned round: the last) that ends behind a change."""
    seed: int = 0
    """Of digits and tracks."""

    def __post_init__(self) -> None:
        """Refuse what could not be made."""
        for name in ("canvas", "digit", "num_digits", "clips", "frames", "window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.window > self.frames:
            raise ConfigError(
                f"window: expected at most the {self.frames} frames of a clip, got {self.window}"
            )
        for name, choices in (("part", get_args(Part)), ("windows", get_args(Windows))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}: expected one of {', '.join(choices)}")
        if self.windows == "changes" and (self.window < 2 or self.num_digits > 1):
            raise ConfigError("windows: changes needs a window of at least 2 frames, and one digit")
        _ = self.movement

    @property
    def movement(self) -> MotionConfig:
        """The rule of the tracks.

        Raises:
            ConfigError: if digits would leave the canvas.
        """
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(MotionOptions)}
        return MotionConfig(room=self.canvas - self.digit, **given)


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip."""

    frames: Images
    """(T, H, W)."""
    labels: tuple[int, ...]
    """Classes of its digits."""
    tracks: tuple[Track, ...]
    """Of its digits."""


class ClipSource:
    """Clips as an image source: windows of frames, each an image (H, W, window).

    Args:
        config: which.

    Raises:
        BadSource: if there are no such digits.
    """

    def __init__(self, config: ClipConfig) -> None:
        self.config, self.name = config, f"{PREFIX}{config.motion}"
        self._glyphs, self._classes, self._fingerprint = _glyphs(config)
        self._clip = functools.lru_cache(maxsize=_KEPT)(self._make)
        self._movement = config.movement
        self._places = self._windows()
        self.ids = [f"clip-{clip:06d}-frame-{start:03d}" for clip, start in self._places]

    @functools.cached_property
    def labels(self) -> list[int] | None:
        """Class of the digit; None if there are several."""
        if self.config.num_digits > 1:
            return None
        return [self.clip(clip).labels[0] for clip, _ in self._places]

    @property
    def fingerprint(self) -> str:
        """Hash of the configuration and of the images of digits."""
        plain = {f.name: getattr(self.config, f.name) for f in dataclasses.fields(self.config)}
        plain = {k: v for k, v in plain.items() if k != "digits"}
        return hash_parts([b"clips 1", repr(sorted(plain.items())).encode(), self._fingerprint])

    def read(self, index: int, *, image_size: int | None = None) -> Images:
        """See ``ImageSource``; windows of several frames are not resized."""
        number, start = self._places[index]
        window = self.clip(number).frames[start : start + self.config.window]
        image = np.ascontiguousarray(window.transpose(1, 2, 0))
        if image_size is None:
            return image
        if image.shape[2] > 1:
            raise BadSource(f"{self.name}: windows of frames are not resized; pass canvas=SIZE")
        return ArraySource(self.name, image[None]).read(0, image_size=image_size)

    def clip(self, number: int) -> Clip:
        """Clip ``number``, from 0."""
        return self._clip(number)

    def _make(self, number: int) -> Clip:
        c = self.config
        rng = keyed_generator("clip", c.seed, c.part, number)
        which = rng.integers(0, len(self._glyphs), c.num_digits)
        tracks = tuple(draw_track(self._movement, rng) for _ in which)
        canvas = np.zeros((c.frames, c.canvas, c.canvas), np.uint16)
        for glyph, track in zip(self._glyphs[which], tracks, strict=True):
            for frame, (x, y) in zip(canvas, track.places, strict=True):
                frame[y : y + c.digit, x : x + c.digit] += glyph
        frames = canvas.clip(0, 255).astype(np.uint8)
        return Clip(frames, tuple(int(k) for k in self._classes[which]), tracks)

    def _windows(self) -> list[tuple[int, int]]:
        """(clip, first frame) of every window."""
        c = self.config
        if c.windows == "all":
            starts = range(c.frames - c.window + 1)
            return [(clip, start) for clip in range(c.clips) for start in starts]
        found = [(clip, self._at_change(clip)) for clip in range(c.clips)]
        return [(clip, start) for clip, start in found if start is not None]

    def _at_change(self, number: int) -> int | None:
        """First frame of a window whose last frame but one is that of a change."""
        c = self.config
        starts = [t + 2 - c.window for t in self.clip(number).tracks[0].changes]
        fitting = [s for s in starts if 0 <= s <= c.frames - c.window]
        return fitting[-1 if c.reverse else 0] if fitting else None


def open_clips(spec: str) -> ClipSource:
    """Clips of a specification such as ``clips:circle,canvas=16,digit=8,jump=3``.

    Raises:
        ConfigError, BadSource: if it says something that cannot be had.
    """
    motion, *options = spec.removeprefix(PREFIX).split(",")
    known = {f.name: f for f in dataclasses.fields(ClipConfig) if f.name != "motion"}
    values: dict[str, Any] = {"motion": motion}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or name not in known:
            raise ConfigError(f"{spec}: expected NAME=VALUE with a name of {', '.join(known)}")
        values[name] = _parsed(spec, name, text, str(known[name].type))
    return ClipSource(ClipConfig(**values))


def _parsed(spec: str, name: str, text: str, kind: str) -> Any:
    """A value by the type of its field; lists are separated by +."""
    readers: Mapping[str, Any] = {
        "int": int,
        "bool": {"true": True, "false": False}.__getitem__,
        "float | None": float,
        "tuple[int, ...]": lambda t: tuple(int(k) for k in t.split("+")),
        "tuple[Defect, ...]": lambda t: tuple(t.split("+")),
    }
    try:
        return readers.get(kind, str)(text)
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{spec}: expected {name} as {kind}, got {text!r:.40}") from error


def _glyphs(config: ClipConfig) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64], bytes]:
    """(N, digit, digit) levels, (N,) classes, and the fingerprint of where they come from."""
    source = _digits(config.digits)
    if source.labels is None:
        raise BadSource(f"{config.digits}: expected digits with labels, found no file of labels")
    labels, number = np.array(source.labels), np.arange(len(source.ids))
    chosen = np.isin(labels, config.keep) if config.keep else np.ones(len(labels), bool)
    held = number % _HELD_OUT == _HELD_OUT - 1
    chosen &= {"all": True, "train": ~held, "heldout": held}[config.part]
    if not chosen.any():
        kinds = "+".join(map(str, config.keep)) or "any class"
        raise BadSource(f"{config.digits}: no digit of {kinds} in part {config.part}")
    images = [_resized(source.read(int(i)), (config.digit, config.digit)) for i in number[chosen]]
    return np.stack(images), labels[chosen].astype(np.int64), source.fingerprint.encode()


def _digits(spec: str) -> ArraySource:
    if spec == "digits":
        return open_digits()
    path = Path(spec)
    if not path.exists() or not is_idx(path):
        raise BadSource(
            f"digits: expected the word digits, or a folder or file of MNIST's "
            f"(train-images-idx3-ubyte, plain or .gz), got {spec}"
        )
    return open_idx(path)


def _resized(image: Images, size: tuple[int, int]) -> npt.NDArray[np.uint16]:
    plain = Image.fromarray(image[:, :, 0])
    return np.asarray(plain.resize(size, Image.Resampling.BILINEAR)).astype(np.uint16)
