"""DhariwalUNet: the network ADM (Dhariwal & Nichol 2021) as configured in EDM."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from regimes.denoisers.unet.block import BlockConfig, UNetBlock
from regimes.denoisers.unet.conditioning import add_labels, require_batch
from regimes.denoisers.unet.config import DhariwalConfig
from regimes.denoisers.unet.layers import Conv2d, GroupNorm, Init, Linear, PositionalEmbedding
from regimes.denoisers.unet.levels import decoder_blocks, decoder_entry, encoder_blocks, size_at

INIT = Init(mode="kaiming_uniform", weight=math.sqrt(1 / 3), bias=math.sqrt(1 / 3))
INIT_ZERO = Init(mode="kaiming_uniform", weight=0.0)


class DhariwalUNet(nn.Module):
    """ADM; a network F for ``Denoiser``."""

    def __init__(self, config: DhariwalConfig) -> None:
        super().__init__()
        self.config = config
        self.label_dim, self.label_dropout = config.label_dim, config.label_dropout
        self._make_mapping(config)
        self._blocks = BlockConfig(
            emb_channels=config.emb_channels,
            dropout=config.dropout,
            init=INIT,
            init_zero=INIT_ZERO,
        )
        self.enc, skips = self._make_encoder(config)
        self.dec = self._make_decoder(config, skips)
        self.out_norm = GroupNorm(config.level_channels(0))
        self.out_conv = Conv2d(config.level_channels(0), config.out_channels, 3, init=INIT_ZERO)

    def _make_mapping(self, config: DhariwalConfig) -> None:
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

    def _make_encoder(self, config: DhariwalConfig) -> tuple[nn.ModuleDict, list[int]]:
        """The encoder, and the channels of each of its outputs."""
        enc, channels = nn.ModuleDict(), config.level_channels(0)
        first = Conv2d(config.in_channels, channels, 3, init=INIT)
        enc[f"{size_at(config, 0)}_conv"] = first
        skips = [channels]
        for level in range(len(config.channel_mult)):
            if level:
                size = size_at(config, level)
                enc[f"{size}_down"] = UNetBlock(channels, channels, self._blocks, down=True)
                skips.append(channels)
            for name, block in encoder_blocks(config, self._blocks, level, channels):
                enc[name] = block
                skips.append(block.out_channels)
            channels = config.level_channels(level)
        return enc, skips

    def _make_decoder(self, config: DhariwalConfig, skips: list[int]) -> nn.ModuleDict:
        dec, channels = nn.ModuleDict(), skips[-1]
        for level in reversed(range(len(config.channel_mult))):
            dec.update(dict(decoder_entry(config, self._blocks, level, channels)))
            entries = decoder_blocks(
                config, self._blocks, level, channels, skips, only_last_attends=False
            )
            dec.update(dict(entries))
            channels = config.level_channels(level)
        return dec

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """Apply the network.

        Args:
            x: (B, C, H, W), scaled noisy images.
            c_noise: (B,), the noise level as the preconditioning encodes it.
            class_labels: (B, label_dim) or (1, label_dim) one-hot rows; None is all zeros.
            augment_labels: (B, augment_dim); None means "not augmented".

        Returns:
            (B, out_channels, H, W).
        """
        emb = self._embed(c_noise, class_labels, augment_labels)
        skips = []
        for block in self.enc.values():
            x = block(x, emb) if isinstance(block, UNetBlock) else block(x)
            skips.append(x)
        for block in self.dec.values():
            if x.shape[1] != block.in_channels:
                x = torch.cat([x, skips.pop()], dim=1)
            x = block(x, emb)
        out: Tensor = self.out_conv(functional.silu(self.out_norm(x)))
        return out

    def _embed(
        self, c_noise: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None
    ) -> Tensor:
        """(B,) noise levels and labels -> (B, E)."""
        emb = self.map_noise(c_noise)
        if augment_labels is not None:
            emb = emb + require_batch(self.map_augment, augment_labels, "augment_labels")
        emb = self.map_layer1(functional.silu(self.map_layer0(emb)))
        dropout = self.label_dropout if self.training else 0.0
        return functional.silu(add_labels(emb, self.map_label, class_labels, dropout=dropout))
