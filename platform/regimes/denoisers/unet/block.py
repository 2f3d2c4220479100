"""The residual block shared by all EDM networks, with optional resampling and self-attention.

h = conv1(dropout(silu(modulate(norm1(conv0(silu(norm0(x)))), affine(emb)))))
y = skip_scale (h + skip(x));   y <- skip_scale (y + proj(attention(norm2(y))))
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from regimes.denoisers.unet.layers import Conv2d, GroupNorm, Init, Linear
from regimes.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockConfig:
    """What all blocks of one network have in common."""

    emb_channels: int
    dropout: float = 0.0
    skip_scale: float = 1.0
    eps: float = 1e-5
    resample_filter: tuple[float, ...] = (1, 1)
    resample_proj: bool = False
    """Whether a resampling skip has a 1x1 convolution even if the channels do not change."""
    adaptive_scale: bool = True
    """Whether the embedding scales and shifts the second norm, or is added before it."""
    num_heads: int | None = None
    """Attention heads; None gives one per ``channels_per_head`` channels."""
    channels_per_head: int = 64
    init: Init
    init_zero: Init
    """For layers that end a residual branch."""
    init_attn: Init | None = None
    """For queries, keys and values; None is ``init``."""


class UNetBlock(nn.Module):
    """One residual block.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        config: what all blocks share.
        up: double height and width.
        down: halve them.
        attention: add self-attention over pixels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: BlockConfig,
        *,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.emb_channels, self.dropout = config.emb_channels, config.dropout
        self.skip_scale, self.adaptive_scale = config.skip_scale, config.adaptive_scale
        affine_out = out_channels * (2 if config.adaptive_scale else 1)
        self.norm0 = GroupNorm(in_channels, eps=config.eps)
        self.conv0 = Conv2d(
            in_channels,
            out_channels,
            3,
            up=up,
            down=down,
            resample_filter=config.resample_filter,
            init=config.init,
        )
        self.affine = Linear(config.emb_channels, affine_out, init=config.init)
        self.norm1 = GroupNorm(out_channels, eps=config.eps)
        self.conv1 = Conv2d(out_channels, out_channels, 3, init=config.init_zero)
        self.skip = self._make_skip(config, up, down)
        self.num_heads = self._count_heads(config) if attention else 0
        if self.num_heads:
            init_attn = config.init_attn or config.init
            self.norm2 = GroupNorm(out_channels, eps=config.eps)
            self.qkv = Conv2d(out_channels, out_channels * 3, 1, init=init_attn)
            self.proj = Conv2d(out_channels, out_channels, 1, init=config.init_zero)

    def _count_heads(self, config: BlockConfig) -> int:
        if config.num_heads is not None:
            return config.num_heads
        heads = self.out_channels // config.channels_per_head
        if heads and self.out_channels % heads:
            raise ConfigError(
                f"model_channels, channel_mult: {self.out_channels} channels cannot attend with "
                f"{heads} heads; choose multiples of {config.channels_per_head}"
            )
        return heads

    def _make_skip(self, config: BlockConfig, up: bool, down: bool) -> Conv2d | None:
        changes = self.in_channels != self.out_channels
        if not (changes or up or down):
            return None
        return Conv2d(
            self.in_channels,
            self.out_channels,
            1 if changes or config.resample_proj else 0,
            up=up,
            down=down,
            resample_filter=config.resample_filter,
            init=config.init,
        )

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(B, in, H, W) features, (B, E) embedding -> (B, out, H', W')."""
        h = self.conv0(functional.silu(self.norm0(x)))
        h = self._modulate(h, self.affine(emb)[:, :, None, None].to(h.dtype))
        h = self.conv1(functional.dropout(h, p=self.dropout, training=self.training))
        y = (h + (x if self.skip is None else self.skip(x))) * self.skip_scale
        if self.num_heads:
            y = (y + self._attend(y)) * self.skip_scale
        return y

    def _modulate(self, h: Tensor, params: Tensor) -> Tensor:
        """(B, out, H, W), (B, out or 2 out, 1, 1) -> (B, out, H, W)."""
        if not self.adaptive_scale:
            return functional.silu(self.norm1(h + params))
        scale, shift = params.chunk(2, dim=1)
        return functional.silu(torch.addcmul(shift, self.norm1(h), scale + 1))

    def _attend(self, y: Tensor) -> Tensor:
        """Self-attention over pixels, (B, out, H, W) -> the same shape.

        Output channel (head * C / heads + c) * 3 + {0, 1, 2} of ``qkv`` is channel c of the head's
        query, key or value.
        """
        batch, channels, height, width = y.shape
        qkv = self.qkv(self.norm2(y))
        qkv = qkv.reshape(batch, self.num_heads, channels // self.num_heads, 3, height * width)
        q, k, v = qkv.permute(3, 0, 1, 4, 2).unbind(0)  # each (B, heads, H W, C / heads)
        attended = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(attended.transpose(-1, -2).reshape(y.shape))
