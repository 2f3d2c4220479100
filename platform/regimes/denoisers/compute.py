"""Compute options: the arithmetic in which a denoiser's network runs.

Only the network runs in it. The coefficients of the preconditioning, the noisy image and the
sampler's state keep their precision, so that what is rounded is F and never x:

    D = c_skip x + c_out round(F)

and the error of D falls with c_out, which is proportional to sigma as sigma goes to 0.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from regimes.errors import ConfigError

Precision = Literal["float32", "tf32", "bf16"]
Prepared = TypeVar("Prepared", bound=nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Arithmetic of the network; the defaults are the exact ones."""

    precision: Precision = "float32"
    """float32, tf32 (CUDA: inputs of products rounded to 10 bits) or bf16 (autocast: to 7 bits)."""
    channels_last: bool = False
    """Store images and kernels with channels innermost: the same numbers but for rounding."""
    compile: bool = False
    """Compile the network with torch.compile: one to two minutes at the first batch, and again when
    the batch size first changes. Needs a C++ compiler on a CPU."""

    def __post_init__(self) -> None:
        """Refuse a precision that does not exist."""
        if self.precision not in get_args(Precision):
            raise ConfigError(
                f"precision: expected one of {', '.join(get_args(Precision))}, "
                f"got {self.precision!r}"
            )


def prepare(denoiser: Prepared, compute: Compute) -> Prepared:
    """The denoiser with its network in the given arithmetic.

    With the defaults, on a CPU, it is the denoiser itself. On CUDA float32 means float32 in
    convolutions too, which torch's own default rounds to TF32. The flags that say so belong to the
    whole process; they are set around each call, so prepared denoisers share one thread.

    Measured on the four reference networks of tests/data/edm, CPU: relative error of D, worst
    sample of 4 at each of seven levels from 0.02 to 40, and of sampled images (18 steps, Heun):

        bf16           D 4e-4 at 0.02, 2e-3 at 0.1, at most 2e-2 elsewhere; images at most 8e-3
        channels_last  D at most 1.4e-6, images at most 3.1e-7, all uint8 pixels equal

    Args:
        denoiser: in eval mode, on its device, with its network as ``denoiser.network``.
        compute: the arithmetic.

    Returns:
        A denoiser of the same class with the same state dict, for inference. It shares the weights;
        with ``channels_last`` it has a copy of them in that layout. The argument stays as it was.

    Raises:
        ConfigError: if tf32 is asked for where there is no CUDA device.
    """
    network: Any = denoiser.network
    device_type = next(network.parameters()).device.type
    if compute.precision == "tf32" and device_type != "cuda":
        raise ConfigError(
            f"precision: tf32 exists on CUDA devices only and the network is on {device_type}; "
            f"choose float32 or bf16"
        )
    if compute == Compute() and device_type != "cuda":
        return denoiser
    if compute.channels_last:
        network = copy.deepcopy(network).to(memory_format=torch.channels_last)
    prepared, caller = _shallow_copy(denoiser), _shallow_copy(network)
    inner = torch.compile(network) if compute.compile else network
    caller.forward = _Forward(inner, compute, device_type)
    prepared.network = caller
    return prepared


def _shallow_copy(module: Prepared) -> Prepared:
    """Another module object that shares parameters, buffers and children."""
    made = copy.copy(module)
    for name in ("_modules", "_parameters", "_buffers"):
        made.__dict__[name] = dict(module.__dict__[name])
    return made


class _Forward:
    """``network(x, ...)`` in the given arithmetic."""

    def __init__(self, network: Any, compute: Compute, device_type: str) -> None:
        self.network, self.compute, self.device_type = network, compute, device_type

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.compute.channels_last:
            if x.ndim != 4:
                raise ConfigError(
                    f"channels_last: expected images (B, C, H, W), got {x.ndim} axes; leave it out"
                )
            x = x.contiguous(memory_format=torch.channels_last)
        with self._precision():
            out = self.network(x, *args, **kwargs)
        return out.to(torch.float32) if isinstance(out, Tensor) else out

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if self.device_type == "cuda":
                stack.enter_context(_tf32(self.compute.precision == "tf32"))
            if self.compute.precision == "bf16":
                stack.enter_context(torch.autocast(self.device_type, torch.bfloat16))
            yield


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Whether products and convolutions may round float32 inputs to TF32."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = allowed
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
