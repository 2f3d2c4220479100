"""What SongUNet and DhariwalUNet share: an encoder and a decoder with skips between them.

emb = embed(c_noise, labels);  (h, skips) = encode(x, emb);  F = decode(h, emb, skips)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regimes.denoisers.unet.block import BlockConfig, UNetBlock
from regimes.denoisers.unet.config import UNetConfig
from regimes.denoisers.unet.layers import Conv2d, Init
from regimes.denoisers.unet.levels import decoder_blocks, decoder_entry, encoder_blocks, size_at


class UNet(nn.Module):
    """Base of the EDM networks; a network F for ``Denoiser``.

    Args:
        config: the network.
        blocks: what its blocks have in common.
        first_channels: width after the first convolution.
        only_last_attends: whether the decoder attends only in the last block of a level.
    """

    enc: nn.ModuleDict
    dec: nn.ModuleDict

    def __init__(
        self,
        config: UNetConfig,
        blocks: BlockConfig,
        *,
        first_channels: int,
        only_last_attends: bool,
    ) -> None:
        super().__init__()
        self.config, self._blocks = config, blocks
        self.label_dim, self.label_dropout = config.label_dim, config.label_dropout
        self._make_mapping()
        skips = self._make_encoder(first_channels, blocks.init)
        self._make_decoder(skips, only_last_attends)

    def _make_mapping(self) -> None:
        """Make the layers of ``_embed``."""
        raise NotImplementedError

    def _make_encoder(self, channels: int, init: Init) -> list[int]:
        """Make ``enc``; returns the channels of each of its outputs that the decoder will see."""
        config, self.enc = self.config, nn.ModuleDict()
        first = Conv2d(config.in_channels, channels, 3, init=init)
        self.enc[f"{size_at(config, 0)}_conv"] = first
        skips, aux_channels = [channels], config.in_channels
        for level in range(len(config.channel_mult)):
            if level:
                size = size_at(config, level)
                self.enc[f"{size}_down"] = UNetBlock(channels, channels, self._blocks, down=True)
                skips.append(channels)
                aux_channels = self._add_encoder_aux(size, aux_channels, channels)
            for name, block in encoder_blocks(config, self._blocks, level, channels):
                self.enc[name] = block
                skips.append(block.out_channels)
            channels = config.level_channels(level)
        return skips

    def _make_decoder(self, skips: list[int], only_last_attends: bool) -> None:
        config, self.dec, channels = self.config, nn.ModuleDict(), skips[-1]
        for level in reversed(range(len(config.channel_mult))):
            self.dec.update(dict(decoder_entry(config, self._blocks, level, channels)))
            entries = decoder_blocks(
                config, self._blocks, level, channels, skips, only_last_attends=only_last_attends
            )
            self.dec.update(dict(entries))
            channels = config.level_channels(level)
            self._add_decoder_aux(level, channels)

    def _add_encoder_aux(self, size: str, aux_channels: int, channels: int) -> int:
        """Add one level of an input pyramid to ``enc``; returns its channels."""
        return aux_channels

    def _add_decoder_aux(self, level: int, channels: int) -> None:
        """Add one level of an output pyramid to ``dec``."""

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
        raise NotImplementedError

    def _encode(self, x: Tensor, emb: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, C, H, W) -> features of the lowest level, and all that the decoder will see."""
        skips = list[Tensor]()
        for block in self.enc.values():
            x = block(x, emb) if isinstance(block, UNetBlock) else block(x)
            skips.append(x)
        return x, skips

    def _decode(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        """Features of the lowest level -> (B, out_channels, H, W)."""
        raise NotImplementedError

    @staticmethod
    def _decode_block(block: nn.Module, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        """Apply a block of the decoder to its input, and to a skip if it takes one."""
        if x.shape[1] != block.in_channels:
            x = torch.cat([x, skips.pop()], dim=1)
        out: Tensor = block(x, emb)
        return out
