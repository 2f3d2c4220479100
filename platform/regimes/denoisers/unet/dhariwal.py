"""DhariwalUNet: the network ADM (Dhariwal & Nichol 2021) as configured in EDM."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from regimes.denoisers.unet.base import UNet
from regimes.denoisers.unet.block import BlockConfig
from regimes.denoisers.unet.conditioning import add_labels, require_batch
from regimes.denoisers.unet.config import DhariwalConfig
from regimes.denoisers.unet.layers import Conv2d, GroupNorm, Init, Linear, PositionalEmbedding

INIT = Init(mode="kaiming_uniform", weight=math.sqrt(1 / 3), bias=math.sqrt(1 / 3))
INIT_ZERO = Init(mode="kaiming_uniform", weight=0.0)


class DhariwalUNet(UNet):
    """ADM."""

    config: DhariwalConfig

    def __init__(self, config: DhariwalConfig) -> None:
        blocks = BlockConfig(
            emb_channels=config.emb_channels,
            dropout=config.dropout,
            init=INIT,
            init_zero=INIT_ZERO,
        )
        width = config.level_channels(0)
        super().__init__(config, blocks, first_channels=width, only_last_attends=False)
        self.out_norm = GroupNorm(width)
        self.out_conv = Conv2d(width, config.out_channels, 3, init=INIT_ZERO)

    def _make_mapping(self) -> None:
        config = self.config
        width, emb = config.model_channels, config.emb_channels
        self.map_noise = PositionalEmbedding(width)
        self.map_augment = self.map_label = None
        if config.augment_dim:
            self.map_augment = Linear(config.augment_dim, width, bias=False, init=INIT_ZERO)
        self.map_layer0 = Linear(width, emb, init=INIT)
        self.map_layer1 = Linear(emb, emb, init=INIT)
        if config.label_dim:
            init = Init(mode="kaiming_normal", weight=math.sqrt(config.label_dim))
            self.map_label = Linear(config.label_dim, emb, bias=False, init=init)

    def _embed(
        self, c_noise: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None
    ) -> Tensor:
        emb = self.map_noise(c_noise)
        if augment_labels is not None:
            emb = emb + require_batch(self.map_augment, augment_labels, "augment_labels")
        emb = self.map_layer1(functional.silu(self.map_layer0(emb)))
        dropout = self.label_dropout if self.training else 0.0
        return functional.silu(add_labels(emb, self.map_label, class_labels, dropout=dropout))

    def _decode(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        for block in self.dec.values():
            x = self._decode_block(block, x, emb, skips)
        out: Tensor = self.out_conv(functional.silu(self.out_norm(x)))
        return out
