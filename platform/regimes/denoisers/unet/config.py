"""Configurations of the EDM networks; the fields are the names and defaults of EDM's checkpoints.

Values may come from a file that nobody vouches for, so they are checked here: a configuration that
is accepted can be built without exhausting memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from regimes.errors import ConfigError

_BOUNDS = {
    "img_resolution": (1, 4096),
    "in_channels": (1, 1024),
    "out_channels": (1, 2048),
    "label_dim": (0, 100_000),
    "augment_dim": (0, 1024),
    "model_channels": (4, 4096),
    "channel_mult_emb": (1, 64),
    "channel_mult_noise": (1, 64),
    "num_blocks": (1, 64),
}
_PROBABILITIES = ("dropout", "label_dropout")
_MAX_LIST = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig:
    """What SongUNet and DhariwalUNet have in common."""

    img_resolution: int
    """Height and width of the images."""
    in_channels: int
    out_channels: int
    label_dim: int = 0
    """Classes; 0 is unconditional."""
    augment_dim: int = 0
    """Width of the augmentation vector; 0 is none."""
    model_channels: int = 128
    """C, the base width."""
    channel_mult: tuple[int, ...] = (1, 2, 2, 2)
    """Width of each resolution level, in units of ``model_channels``."""
    channel_mult_emb: int = 4
    num_blocks: int = 4
    """Residual blocks per level (the decoder has one more)."""
    attn_resolutions: tuple[int, ...] = (16,)
    """Image sizes at which blocks attend."""
    dropout: float = 0.10
    label_dropout: float = 0.0
    """Probability that a label is replaced by zeros in training."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        for field in fields(self):
            object.__setattr__(self, field.name, _checked(field.name, getattr(self, field.name)))
        if not self.channel_mult:
            raise ConfigError("channel_mult: expected at least one level, got none")
        step = 2 ** (len(self.channel_mult) - 1)
        if self.img_resolution % step:
            raise ConfigError(
                f"img_resolution: expected a multiple of {step} for {len(self.channel_mult)} "
                f"levels, got {self.img_resolution}"
            )

    @property
    def emb_channels(self) -> int:
        """E, width of the embedding of noise level, class and augmentation."""
        return self.model_channels * self.channel_mult_emb

    def level_resolution(self, level: int) -> int:
        """Image size at a level; level 0 is the input's."""
        return self.img_resolution >> level

    def level_channels(self, level: int) -> int:
        """Width at a level."""
        return self.model_channels * self.channel_mult[level]


@dataclass(frozen=True, slots=True, kw_only=True)
class SongConfig(UNetConfig):
    """DDPM++ (positional, standard, standard) and NCSN++ (fourier, residual, standard)."""

    embedding_type: Literal["positional", "fourier"] = "positional"
    channel_mult_noise: int = 1
    encoder_type: Literal["standard", "skip", "residual"] = "standard"
    decoder_type: Literal["standard", "skip"] = "standard"
    resample_filter: tuple[float, ...] = (1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DhariwalConfig(UNetConfig):
    """ADM."""

    model_channels: int = 192
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)
    num_blocks: int = 3
    attn_resolutions: tuple[int, ...] = (32, 16, 8)


_CHOICES = {
    "embedding_type": ("positional", "fourier"),
    "encoder_type": ("standard", "skip", "residual"),
    "decoder_type": ("standard", "skip"),
}


def _checked(name: str, value: object) -> object:
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise ConfigError(f"{name}: expected one of {_CHOICES[name]}, got {value!r:.60}")
        return value
    if name in ("channel_mult", "attn_resolutions"):
        return tuple(_integer(name, v, 1, 4096) for v in _items(name, value))
    if name == "resample_filter":
        taps = tuple(_number(name, v, 1e-6, 1e6) for v in _items(name, value))
        if len(taps) % 2 or not taps:  # of odd length, it would change the size of images
            raise ConfigError(f"resample_filter: expected an even number of taps, got {len(taps)}")
        return taps
    if name in _PROBABILITIES:
        return _number(name, value, 0, 1)
    return _integer(name, value, *_BOUNDS[name])


def _items(name: str, value: object) -> Sequence[object]:
    if not isinstance(value, (list, tuple)) or len(value) > _MAX_LIST:
        raise ConfigError(f"{name}: expected a list of at most {_MAX_LIST} numbers")
    return value


def _integer(name: str, value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"{name}: expected an integer from {low} to {high}, got {value!r:.60}")
    return value


def _number(name: str, value: object, low: float, high: float) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # type: ignore[operator]
        raise ConfigError(f"{name}: expected a number from {low} to {high}, got {value!r:.60}")
    return float(value)  # type: ignore[arg-type]
