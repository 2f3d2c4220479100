"""Primitive layers of the EDM networks (Karras et al. 2022, appendix F.1).

Parameters and buffers carry the names of EDM's state dicts, so that published checkpoints load
strictly. Symbols: B batch, C channels, E embedding width, (H, W) image size, L filter taps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from regimes.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Init:
    """Law of the initial weights: ``weight`` times a draw of ``mode``, and ``bias`` likewise."""

    mode: Literal["xavier_uniform", "kaiming_uniform", "kaiming_normal"] = "kaiming_normal"
    weight: float = 1.0
    bias: float = 0.0

    def draw_weight(self, shape: Sequence[int], fan_in: int, fan_out: int) -> nn.Parameter:
        """A parameter of the given shape, float32."""
        return nn.Parameter(self._draw(self.weight, shape, fan_in, fan_out))

    def draw_bias(self, num: int, fan_in: int, fan_out: int) -> nn.Parameter:
        """A parameter of shape (num,), float32."""
        return nn.Parameter(self._draw(self.bias, (num,), fan_in, fan_out))

    def _draw(self, gain: float, shape: Sequence[int], fan_in: int, fan_out: int) -> Tensor:
        if torch.get_default_device().type == "meta":
            return torch.empty(*shape)  # arithmetic on meta tensors imports half of torch
        if self.mode == "kaiming_normal":
            return gain * math.sqrt(1 / fan_in) * torch.randn(*shape)
        fan = (fan_in + fan_out) / 2 if self.mode == "xavier_uniform" else fan_in
        return gain * math.sqrt(3 / fan) * (2 * torch.rand(*shape) - 1)


class Linear(nn.Module):
    """Affine map: (B, in) -> (B, out)."""

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, init: Init | None = None
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        init = init or Init()
        fans = (in_features, out_features)
        self.weight = init.draw_weight((out_features, in_features), *fans)
        self.bias = init.draw_bias(out_features, *fans) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, in) -> (B, out)."""
        return functional.linear(x, self.weight, self.bias)


class Conv2d(nn.Module):
    """Convolution with padding, after or fused with resampling by 2 through a separable filter.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: side of the kernel; 0 resamples only and has no weights.
        up: double height and width before the convolution.
        down: halve them instead.
        resample_filter: taps of the 1-D filter; [1, 1] is nearest-neighbour up, 2x2 mean down.
        fused_resample: filter after the convolution when going down, and share the padding.
        init: law of the initial weights.
    """

    resample_filter: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        up: bool = False,
        down: bool = False,
        resample_filter: Sequence[float] = (1, 1),
        fused_resample: bool = False,
        init: Init | None = None,
    ) -> None:
        super().__init__()
        if up and down:
            raise ValueError("up, down: expected at most one of them")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel, self.up, self.down, self.fused_resample = kernel, up, down, fused_resample
        self.weight: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None
        if kernel:
            self._init_weights(init or Init())
        taps = _separable(resample_filter) if up or down else None
        self.register_buffer("resample_filter", taps)
        self.filter_padding = (len(resample_filter) - 1) // 2

    def _init_weights(self, init: Init) -> None:
        shape = (self.out_channels, self.in_channels, self.kernel, self.kernel)
        fans = (self.in_channels * self.kernel**2, self.out_channels * self.kernel**2)
        self.weight = init.draw_weight(shape, *fans)
        self.bias = init.draw_bias(self.out_channels, *fans)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H', W'), H' = 2 H, H or H / 2."""
        if self.weight is None:
            return self._resample(x, self.filter_padding)
        padding = self.kernel // 2
        if not self.fused_resample or not (self.up or self.down):
            x = self._resample(x, self.filter_padding)
            return functional.conv2d(x, self.weight, self.bias, padding=padding)
        if self.up:
            x = self._resample(x, max(self.filter_padding - padding, 0))
            x = functional.conv2d(x, self.weight, padding=max(padding - self.filter_padding, 0))
        else:
            x = functional.conv2d(x, self.weight, padding=padding + self.filter_padding)
            x = self._resample(x, 0)
        return x if self.bias is None else x + self.bias[:, None, None]

    def _resample(self, x: Tensor, padding: int) -> Tensor:
        """Depthwise filter with stride 2: down, up (transposed, gain 4), or nothing."""
        if self.resample_filter is None:
            return x
        channels = x.shape[1]
        taps = self.resample_filter.to(x.dtype).expand(channels, 1, -1, -1)
        if self.up:
            return functional.conv_transpose2d(
                x, 4 * taps, stride=2, padding=padding, groups=channels
            )
        return functional.conv2d(x, taps, stride=2, padding=padding, groups=channels)


def _separable(taps: Sequence[float]) -> Tensor:
    """1-D filter of L taps -> (1, 1, L, L) float32, with sum 1."""
    total = sum(taps) ** 2
    rows = [[a * b / total for b in taps] for a in taps]
    return torch.tensor([[rows]], dtype=torch.float32)


class GroupNorm(nn.Module):
    """Group normalization with min(32, C // 4) groups, which must divide C."""

    def __init__(self, num_channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_groups = max(1, min(32, num_channels // 4))
        if num_channels % self.num_groups:
            raise ConfigError(
                f"model_channels, channel_mult: {num_channels} channels cannot be normalized in "
                f"{self.num_groups} groups; choose multiples of 4 up to 128 channels, and of 32 beyond"
            )
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return functional.group_norm(x, self.num_groups, weight, bias, self.eps)


def _require_even(num_channels: int) -> None:
    """Cosines and sines are half of an embedding each."""
    if num_channels % 2:
        raise ConfigError(
            f"model_channels: expected an even width of the noise embedding, got {num_channels}"
        )


class PositionalEmbedding(nn.Module):
    """Cosines and sines at C/2 frequencies from 1 down to 1/max_positions, evenly in the log.

    Args:
        num_channels: C, even.
        max_positions: ratio of the first to the last frequency.
        endpoint: whether the last frequency is 1/max_positions, or the one after it would be.
    """

    def __init__(
        self, num_channels: int, *, max_positions: int = 10000, endpoint: bool = False
    ) -> None:
        super().__init__()
        _require_even(num_channels)
        self.num_channels, self.max_positions, self.endpoint = num_channels, max_positions, endpoint

    def forward(self, x: Tensor) -> Tensor:
        """(B,) -> (B, C), cosines first."""
        half = self.num_channels // 2
        exponents = torch.arange(half, dtype=torch.float32, device=x.device)
        exponents = exponents / (half - (1 if self.endpoint else 0))
        # In float32, as the networks were trained: at c_noise = 999 another rounding of the
        # frequencies turns the angle by 1e-4 radians.
        frequencies = (1 / self.max_positions) ** exponents
        angles = x[:, None] * frequencies.to(x.dtype)
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class FourierEmbedding(nn.Module):
    """Cosines and sines at C/2 fixed random frequencies, N(0, scale^2) (Tancik et al. 2020)."""

    freqs: Tensor

    def __init__(self, num_channels: int, *, scale: float = 16) -> None:
        super().__init__()
        _require_even(num_channels)
        self.num_channels = num_channels
        init = Init(weight=scale)
        self.register_buffer("freqs", init.draw_weight((num_channels // 2,), 1, 1).detach())

    def forward(self, x: Tensor) -> Tensor:
        """(B,) -> (B, C), cosines first."""
        angles = x[:, None] * (2 * math.pi * self.freqs).to(x.dtype)
        return torch.cat([angles.cos(), angles.sin()], dim=1)
