"""Descriptors that are networks.

    f(x) = (g(x) - m) / |g(x) - m|

g is the network, m the mean of g over a set of background images, or 0. Networks whose features all
point roughly the same way (random weights, class scores, collapsed training) give every pair of images
a cosine near 1; what tells images apart is the deviation from the mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from regimes.descriptors.families import Network, build_network
from regimes.descriptors.pixels import Rows, unit_rows
from regimes.descriptors.registry import Family
from regimes.descriptors.resize import Preprocessing
from regimes.errors import BadDescriptor, ConfigError
from regimes.images.pixels import Images

Precision = Literal["float32", "bf16", "fp16"]
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """Everything that determines what a network says of an image."""

    name: str
    """What the descriptor is called."""
    family: Family
    """Which code builds the network."""
    model: str
    """The architecture; MODULE:CALLABLE of a user's function."""
    layer: str
    """Where features are taken."""
    dimension: int | None
    """Numbers per image; None if only the network knows."""
    weights_sha256: str
    """Hash of the file of weights; of the source file of a user's function."""
    preprocessing: Preprocessing | None
    """None if the network takes uint8 images."""
    precision: Precision = "float32"
    """float32 (also inside convolutions on CUDA), or autocast to bf16 or fp16."""
    channels_last: bool = False
    """Store images and kernels with channels innermost: the same numbers but for rounding."""
    batch_size: int = 64
    """Images per call of the network: the same for every run, so that bytes are."""

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        if self.precision not in get_args(Precision):
            raise ConfigError(
                f"precision: expected one of {', '.join(get_args(Precision))}, got {self.precision}"
            )
        if self.batch_size < 1:
            raise ConfigError(f"batch_size: expected at least 1, got {self.batch_size}")

    @property
    def label(self) -> str:
        """What must be equal for features to be comparable, in words: all but the batch size.

        Such as ``sscd-disc-mixup skew-320 output weights:9f26bd4c``.
        """
        p = self.preprocessing
        parts = [self.name, self.layer, f"weights:{self.weights_sha256[:8]}"]
        if p is not None:
            usual = Preprocessing(size=p.size, rule=p.rule)
            parts.insert(1, p.name)
            parts += [p.filter] if p.filter != usual.filter else []
            parts += [f"mean:{_numbers(p.mean)}"] if p.mean != usual.mean else []
            parts += [f"std:{_numbers(p.std)}"] if p.std != usual.std else []
        parts += [self.precision] if self.precision != "float32" else []
        parts += ["channels-last"] if self.channels_last else []
        return " ".join(parts)


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:.6g}" for value in values)


class NotFinite(BadDescriptor):
    """Some features are NaN or infinite; ``rows`` are the positions of their images."""

    def __init__(self, message: str, rows: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.rows = rows


class NetworkDescriptor:
    """A network as a descriptor.

    The feature of an image does not depend on the images that share its batch, but for rounding:
    by less than 1e-5 in every number of a unit row, in float32 on a CPU. Lower precision turns
    features. Measured on a CPU as 1 - cosine with the feature in float32, worst of 12 photographs at
    128 pixels, for SqueezeNet's scores and pool and ResNet-50's pool with random weights, whose
    features are nearly equal for all images, which makes it the harder case once they are centred:

        bf16            2e-5, centred 6e-3
        fp16            3e-7, centred 1e-4
        channels_last   2e-13, centred 6e-11, in float32; nothing beyond the above in bf16 and fp16

    Args:
        network: g, on its device.
        config: what it is.
        device: where it computes.
        centre: (D,) m, or None.
    """

    def __init__(
        self,
        network: Network,
        config: NetworkConfig,
        *,
        device: str = "cpu",
        centre: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.config, self.name = config, config.name
        self._network, self._device, self._centre = network, torch.device(device), centre
        if config.channels_last and isinstance(network, nn.Module):
            self._network = _channels_last(network)

    @property
    def network(self) -> Network:
        """The network g, on its device."""
        return self._network

    @property
    def centre(self) -> npt.NDArray[np.float64] | None:
        """(D,) the mean m, or None."""
        return self._centre

    @classmethod
    def load(
        cls,
        config: NetworkConfig,
        data: bytes | None,
        *,
        device: str = "cpu",
        centre: npt.NDArray[np.float64] | None = None,
    ) -> NetworkDescriptor:
        """Build the network from what ``stored_weights`` gave; raises ``BadDescriptor``."""
        network = build_network(
            config.family, config.model, config.layer, data, name=config.name, device=device
        )
        return cls(network, config, device=device, centre=centre)

    def __call__(self, images: Images) -> Rows:
        """(N, H, W, C) uint8 -> (N, D) float32, unit rows; all zeros where g(x) = m.

        Raises:
            NotFinite: if a feature is NaN or infinite.
            BadDescriptor: if the network fails, or does not give (B, dimension).
        """
        values = self.raw(images).astype(np.float64)
        return unit_rows(values if self._centre is None else values - self._centre)

    def raw(self, images: Images) -> Rows:
        """g: (N, H, W, C) uint8 -> (N, D) float32, as the network gives them; raises as a call."""
        size = self.config.batch_size
        blocks = [self._batch(images[i : i + size]) for i in range(0, len(images), size)]
        values = np.concatenate(blocks)
        bad = np.flatnonzero(~np.isfinite(values).all(1))
        if len(bad):
            rows = tuple(int(i) for i in bad)
            raise NotFinite(
                f"{self.name}: features of {len(bad)} of {len(images)} images are not finite, first "
                f"that of number {rows[0]}; check the weights, or choose precision float32",
                rows,
            )
        return values

    def _batch(self, images: Images) -> Rows:
        x = torch.from_numpy(images if images.flags.writeable else images.copy()).to(self._device)
        with torch.inference_mode(), _exact(self._device.type):
            if self.config.preprocessing is not None:
                x = self.config.preprocessing(x)
                if self.config.channels_last:
                    x = x.contiguous(memory_format=torch.channels_last)
            return self._checked(self._run(x), len(images))

    def _run(self, x: Tensor) -> Any:
        autocast = self.config.precision != "float32"
        dtype = _AUTOCAST.get(self.config.precision)
        try:
            with torch.autocast(self._device.type, dtype, enabled=autocast):
                return self._network(x)
        except RuntimeError as error:  # a TorchScript network fails with a page of its own source
            lines = [line for line in str(error).strip().splitlines() if line.strip()]
            raise BadDescriptor(
                f"{self.name}: the network failed on images {tuple(x.shape)} {x.dtype} "
                f"({lines[-1] if lines else type(error).__name__:.200})"
            ) from error

    def _checked(self, out: Any, count: int) -> Rows:
        if isinstance(out, np.ndarray):
            out = torch.from_numpy(out)
        expected = self.config.dimension
        if isinstance(out, Tensor) and out.ndim > 1 and out.shape[2:].numel() == 1:
            flat = out.flatten(1)
            if len(flat) == count and flat.shape[1] == (expected or flat.shape[1]):
                return flat.float().cpu().numpy()
        found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise BadDescriptor(
            f"{self.name}: expected features ({count}, {expected or 'D'}), the network gave {found}"
        )


def _channels_last(network: nn.Module) -> Network:
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


@contextlib.contextmanager
def _exact(device_type: str) -> Iterator[None]:
    """float32 in products and convolutions, whose inputs torch rounds to TF32 on CUDA unless told."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        if device_type == "cuda":
            matmul.allow_tf32 = cudnn.allow_tf32 = False
        yield
    finally:
        if device_type == "cuda":
            matmul.allow_tf32, cudnn.allow_tf32 = before
