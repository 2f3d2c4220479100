"""SongUNet: the networks DDPM++ and NCSN++ (Song et al. 2021) as configured in EDM.

Keys of the encoder and decoder name the resolution and the role, ``16x16_block0``; those that hold
``aux`` carry an image pyramid next to the features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

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
from regimes.denoisers.unet.levels import decoder_blocks, decoder_entry, encoder_blocks, size_at

INIT = Init(mode="xavier_uniform")
INIT_ZERO = Init(mode="xavier_uniform", weight=1e-5)
INIT_ATTN = Init(mode="xavier_uniform", weight=math.sqrt(0.2))
EPS = 1e-6


class SongUNet(nn.Module):
    """DDPM++ or NCSN++, by configuration; a network F for ``Denoiser``."""

    def __init__(self, config: SongConfig) -> None:
        super().__init__()
        self.config = config
        self.label_dim, self.label_dropout = config.label_dim, config.label_dropout
        self._make_mapping(config)
        self._blocks = BlockConfig(
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
        self.enc, skips = self._make_encoder(config)
        self.dec = self._make_decoder(config, skips)

    def _make_mapping(self, config: SongConfig) -> None:
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

    def _make_encoder(self, config: SongConfig) -> tuple[nn.ModuleDict, list[int]]:
        """The encoder, and the channels of each of its outputs that the decoder will see."""
        enc, channels, aux_channels = nn.ModuleDict(), config.model_channels, config.in_channels
        first = Conv2d(config.in_channels, channels, 3, init=INIT)
        enc[f"{size_at(config, 0)}_conv"] = first
        skips = [channels]
        for level in range(len(config.channel_mult)):
            if level:
                size = size_at(config, level)
                enc[f"{size}_down"] = UNetBlock(channels, channels, self._blocks, down=True)
                skips.append(channels)
                aux_channels = self._add_encoder_aux(enc, size, aux_channels, channels)
            for name, block in encoder_blocks(config, self._blocks, level, channels):
                enc[name] = block
                skips.append(block.out_channels)
            channels = config.level_channels(level)
        return enc, skips

    def _add_encoder_aux(
        self, enc: nn.ModuleDict, size: str, aux_channels: int, channels: int
    ) -> int:
        """Add one level of the image pyramid; returns its channels."""
        taps = self.config.resample_filter
        if self.config.encoder_type == "skip":
            enc[f"{size}_aux_down"] = Conv2d(
                aux_channels, aux_channels, 0, down=True, resample_filter=taps
            )
            enc[f"{size}_aux_skip"] = Conv2d(aux_channels, channels, 1, init=INIT)
        if self.config.encoder_type == "residual":
            enc[f"{size}_aux_residual"] = Conv2d(
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

    def _make_decoder(self, config: SongConfig, skips: list[int]) -> nn.ModuleDict:
        dec = nn.ModuleDict()
        channels, lowest = skips[-1], len(config.channel_mult) - 1
        for level in reversed(range(lowest + 1)):
            dec.update(dict(decoder_entry(config, self._blocks, level, channels)))
            entries = decoder_blocks(
                config, self._blocks, level, channels, skips, only_last_attends=True
            )
            dec.update(dict(entries))
            channels = config.level_channels(level)
            if config.decoder_type == "skip" or level == 0:
                size = size_at(config, level)
                self._add_decoder_aux(dec, size, channels, is_lowest=level == lowest)
        return dec

    def _add_decoder_aux(
        self, dec: nn.ModuleDict, size: str, channels: int, *, is_lowest: bool
    ) -> None:
        """Add one level of the output pyramid (a standard decoder has only the last one)."""
        out, taps = self.config.out_channels, self.config.resample_filter
        if self.config.decoder_type == "skip" and not is_lowest:
            dec[f"{size}_aux_up"] = Conv2d(out, out, 0, up=True, resample_filter=taps)
        dec[f"{size}_aux_norm"] = GroupNorm(channels, eps=EPS)
        dec[f"{size}_aux_conv"] = Conv2d(channels, out, 3, init=INIT_ZERO)

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
        x, skips = self._encode(x, emb)
        return self._decode(x, emb, skips)

    def _embed(
        self, c_noise: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None
    ) -> Tensor:
        """(B,) noise levels and labels -> (B, E)."""
        emb = torch.cat(self.map_noise(c_noise).chunk(2, dim=1)[::-1], dim=1)  # sines first
        dropout = self.label_dropout if self.training else 0.0
        gain = math.sqrt(self.label_dim)
        emb = add_labels(emb, self.map_label, class_labels, gain=gain, dropout=dropout)
        if augment_labels is not None:
            emb = emb + require_batch(self.map_augment, augment_labels, "augment_labels")
        emb = functional.silu(self.map_layer0(emb))
        return functional.silu(self.map_layer1(emb))

    def _encode(self, x: Tensor, emb: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, C, H, W) -> features of the lowest level, and all that the decoder will see."""
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
        """Features of the lowest level -> (B, out_channels, H, W)."""
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
                if x.shape[1] != block.in_channels:
                    x = torch.cat([x, skips.pop()], dim=1)
                x = block(x, emb)
        assert aux is not None  # the last level always ends with aux_conv
        return aux
