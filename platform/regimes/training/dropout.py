"""Dropout that is a function of (seed, step, sample), not of how a batch is cut up.

The published networks drop features by masks of torch's global generator, whose order depends on
the size of a microbatch and on the number of workers. Here the masks of every block of 32
consecutive samples (``regimes.training.batches``) come from a generator keyed by (seed, step,
block), in the order of the network's layers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from regimes.denoisers.unet.block import UNetBlock
from regimes.noise import keyed_generator
from regimes.training.batches import BLOCK, blocks_of


class KeyedDropout:
    """Takes the place of the dropout in every residual block of a network.

    Args:
        network: its blocks' own dropout is switched off for good.
        seed: the run's seed.

    Use: ``with dropout.samples(step, start, stop): network(...)``, in training mode.
    """

    def __init__(self, network: nn.Module, seed: int) -> None:
        self.seed = seed
        self._generators: list[torch.Generator] = []
        self._start = 0
        for block in network.modules():
            if isinstance(block, UNetBlock) and block.dropout:
                # conv1 is what follows dropout.
                block.conv1.register_forward_pre_hook(_Hook(self, block.dropout))
                block.dropout = 0.0

    @contextlib.contextmanager
    def samples(self, step: int, start: int, stop: int, device: torch.device) -> Iterator[None]:
        """Drop for samples ``start`` to ``stop`` of a step, on ``device``."""
        blocks = blocks_of(start, stop)
        self._generators = [
            torch.Generator(device).manual_seed(self._key(step, block)) for block in blocks
        ]
        self._start = start - blocks.start * BLOCK
        try:
            yield
        finally:
            self._generators = []

    def _key(self, step: int, block: int) -> int:
        return int(keyed_generator("dropout", self.seed, step, block).integers(2**63))

    def drop(self, h: Tensor, probability: float) -> Tensor:
        """(B, C, H, W) -> the same shape, elements dropped and the rest scaled up."""
        if not self._generators:
            raise RuntimeError("dropout outside of samples(...)")
        keep = torch.empty(
            (len(self._generators) * BLOCK, *h.shape[1:]), dtype=h.dtype, device=h.device
        )
        for block, generator in enumerate(self._generators):
            part = keep[block * BLOCK : (block + 1) * BLOCK]
            part.bernoulli_(1 - probability, generator=generator)
        return h * keep[self._start : self._start + len(h)] / (1 - probability)


class _Hook:
    """Before a layer: drop from its input."""

    def __init__(self, dropout: KeyedDropout, probability: float) -> None:
        self.dropout, self.probability = dropout, probability

    def __call__(self, layer: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self.dropout.drop(arguments[0], self.probability), *arguments[1:])
