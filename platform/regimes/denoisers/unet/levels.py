"""The resolution levels of an encoder or decoder, as named blocks.

Each function yields (key, block) pairs; keys are EDM's, such as ``16x16_block0``.
"""

from __future__ import annotations

from collections.abc import Iterator

from regimes.denoisers.unet.block import BlockConfig, UNetBlock
from regimes.denoisers.unet.config import UNetConfig

Named = Iterator[tuple[str, UNetBlock]]


def size_at(config: UNetConfig, level: int) -> str:
    """Prefix of a level's keys, such as 16x16."""
    resolution = config.level_resolution(level)
    return f"{resolution}x{resolution}"


def encoder_blocks(config: UNetConfig, blocks: BlockConfig, level: int, channels: int) -> Named:
    """The blocks of an encoder level whose input has ``channels``."""
    width, attends = config.level_channels(level), _attends(config, level)
    for i in range(config.num_blocks):
        yield (
            f"{size_at(config, level)}_block{i}",
            UNetBlock(width if i else channels, width, blocks, attention=attends),
        )


def decoder_entry(config: UNetConfig, blocks: BlockConfig, level: int, channels: int) -> Named:
    """How a decoder level begins: two blocks at the lowest level, one that doubles elsewhere."""
    size = size_at(config, level)
    if level == len(config.channel_mult) - 1:
        yield f"{size}_in0", UNetBlock(channels, channels, blocks, attention=True)
        yield f"{size}_in1", UNetBlock(channels, channels, blocks)
    else:
        yield f"{size}_up", UNetBlock(channels, channels, blocks, up=True)


def decoder_blocks(
    config: UNetConfig,
    blocks: BlockConfig,
    level: int,
    channels: int,
    skips: list[int],
    *,
    only_last_attends: bool,
) -> Named:
    """The blocks of a decoder level; each takes one of ``skips`` (from the end) as further input."""
    width = config.level_channels(level)
    for i in range(config.num_blocks + 1):
        attends = _attends(config, level) and (i == config.num_blocks or not only_last_attends)
        inputs = (width if i else channels) + skips.pop()
        yield (
            f"{size_at(config, level)}_block{i}",
            UNetBlock(inputs, width, blocks, attention=attends),
        )


def _attends(config: UNetConfig, level: int) -> bool:
    return config.level_resolution(level) in config.attn_resolutions
