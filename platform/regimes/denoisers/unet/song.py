"""SongUNet: the networks DDPM++ and NCSN++ (Song et al. 2021) as configured in EDM.

Keys of the encoder and decoder name the resolution and the role, ``16x16_block0``; those that hold
``aux`` carry an image pyramid next to the features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from regimes.denoisers.unet.base import UNet
from regimes.denoisers.unet.block import BlockConfig, UNetBlock
from regimes.denoisers.unet.conditioning import add_labels, require_batch
from regimes.denoisers.unet.config import SongConfig
from regimes.denoisers.unet.layers import (
    Conv2d,
    FourierEmbedding,
    GroupNorm,
    Init,
    Linear,
    PositionalEmbedding,
)
from regimes.denoisers.unet.levels import size_at

INIT = Init(mode="xavier_uniform")
INIT_ZERO = Init(mode="xavier_uniform", weight=1e-5)
INIT_ATTN = Init(mode="xavier_uniform", weight=math.sqrt(0.2))
EPS = 1e-6


class SongUNet(UNet):
    """DDPM++ or NCSN++, by configuration."""

    config: SongConfig

    def __init__(self, config: SongConfig) -> None:
        blocks = BlockConfig(
            emb_channels=config.emb_channels,
            dropout=config.dropout,
            skip_scale=math.sqrt(0.5),
            eps=EPS,
            resample_filter=config.resample_filter,
            resample_proj=True,
            adaptive_scale=False,
            num_heads=1,
            init=INIT,
            init_zero=INIT_ZERO,
            init_attn=INIT_ATTN,
        )
        super().__init__(
            config, blocks, first_channels=config.model_channels, only_last_attends=True
        )

    def _make_mapping(self) -> None:
        config = self.config
        noise_channels = config.model_channels * config.channel_mult_noise
        self.map_noise: nn.Module = (
            PositionalEmbedding(noise_channels, endpoint=True)
            if config.embedding_type == "positional"
            else FourierEmbedding(noise_channels)
        )
        self.map_label = self.map_augment = None
        if config.label_dim:
            self.map_label = Linear(config.label_dim, noise_channels, init=INIT)
        if config.augment_dim:
            self.map_augment = Linear(config.augment_dim, noise_channels, bias=False, init=INIT)
        self.map_layer0 = Linear(noise_channels, config.emb_channels, init=INIT)
        self.map_layer1 = Linear(config.emb_channels, config.emb_channels, init=INIT)

    def _add_encoder_aux(self, size: str, aux_channels: int, channels: int) -> int:
        taps = self.config.resample_filter
        if self.config.encoder_type == "skip":
            self.enc[f"{size}_aux_down"] = Conv2d(
                aux_channels, aux_channels, 0, down=True, resample_filter=taps
            )
            self.enc[f"{size}_aux_skip"] = Conv2d(aux_channels, channels, 1, init=INIT)
        if self.config.encoder_type == "residual":
            self.enc[f"{size}_aux_residual"] = Conv2d(
                aux_channels,
                channels,
                3,
                down=True,
                resample_filter=taps,
                fused_resample=True,
                init=INIT,
            )
            return channels
        return aux_channels

    def _add_decoder_aux(self, level: int, channels: int) -> None:
        """Add one level of the output pyramid (a standard decoder has only the last one)."""
        is_pyramid = self.config.decoder_type == "skip"
        if level and not is_pyramid:
            return
        out, size = self.config.out_channels, size_at(self.config, level)
        if is_pyramid and level < len(self.config.channel_mult) - 1:
            self.dec[f"{size}_aux_up"] = Conv2d(
                out, out, 0, up=True, resample_filter=self.config.resample_filter
            )
        self.dec[f"{size}_aux_norm"] = GroupNorm(channels, eps=EPS)
        self.dec[f"{size}_aux_conv"] = Conv2d(channels, out, 3, init=INIT_ZERO)

    def _embed(
        self, c_noise: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None
    ) -> Tensor:
        emb = torch.cat(self.map_noise(c_noise).chunk(2, dim=1)[::-1], dim=1)  # sines first
        dropout = self.label_dropout if self.training else 0.0
        gain = math.sqrt(self.label_dim)
        emb = add_labels(emb, self.map_label, class_labels, gain=gain, dropout=dropout)
        if augment_labels is not None:
            emb = emb + require_batch(self.map_augment, augment_labels, "augment_labels")
        emb = functional.silu(self.map_layer0(emb))
        return functional.silu(self.map_layer1(emb))

    def _encode(self, x: Tensor, emb: Tensor) -> tuple[Tensor, list[Tensor]]:
        aux, skips = x, list[Tensor]()
        for name, block in self.enc.items():
            if name.endswith("aux_down"):
                aux = block(aux)
            elif name.endswith("aux_skip"):
                x = skips[-1] = x + block(aux)
            elif name.endswith("aux_residual"):
                x = skips[-1] = aux = (x + block(aux)) / math.sqrt(2)
            else:
                x = block(x, emb) if isinstance(block, UNetBlock) else block(x)
                skips.append(x)
        return x, skips

    def _decode(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        aux = None
        normed = x
        for name, block in self.dec.items():
            if name.endswith("aux_up"):
                aux = block(aux)
            elif name.endswith("aux_norm"):
                normed = functional.silu(block(x))
            elif name.endswith("aux_conv"):
                aux = block(normed) if aux is None else aux + block(normed)
            else:
                x = self._decode_block(block, x, emb, skips)
        assert aux is not None  # the last level always ends with aux_conv
        return aux
