"""Stand-ins for torch's storages and tensors in a checkpoint: declared shape, bytes read on demand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from regimes.errors import BadCheckpoint, UnsafeCheckpoint
from regimes.pickles.machine import shown

Bytes = bytes | memoryview
MAX_DIMENSIONS = 8
MAX_NUMEL = 2**40

DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(slots=True, eq=False)
class StoredArray:
    """A storage: ``numel`` numbers of one type, whose bytes ``read`` returns."""

    dtype: torch.dtype
    numel: int
    read: Callable[[], Bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if type(self.numel) is not int or not 0 <= self.numel <= MAX_NUMEL:
            raise UnsafeCheckpoint(f"a storage declares {shown(self.numel)} elements")

    @property
    def nbytes(self) -> int:
        """Size as declared."""
        return self.numel * self.dtype.itemsize

    def require_size(self, found_bytes: int) -> None:
        """Refuse a declared size that the file does not hold."""
        if found_bytes != self.nbytes:
            raise UnsafeCheckpoint(
                f"a storage declares {self.numel} elements ({self.nbytes} bytes), but the file "
                f"holds {found_bytes} bytes of it"
            )


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A strided view of a storage, as _rebuild_tensor_v2 describes it."""

    storage: StoredArray
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        _require_sizes(self.size)
        _require_sizes(self.stride)
        _require_sizes((self.offset,))
        if len(self.size) != len(self.stride):
            raise BadCheckpoint("damaged tensor: size and stride differ in length")
        if self.offset + self.span > self.storage.numel or self.numel > self.span:
            raise UnsafeCheckpoint(
                f"a tensor of size {self.size} and stride {self.stride} at {self.offset} does not "
                f"fit its storage of {self.storage.numel} elements"
            )

    @property
    def numel(self) -> int:
        """Elements of the tensor."""
        return math.prod(self.size)

    @property
    def span(self) -> int:
        """Elements of the storage from the first to the last one used."""
        if self.numel == 0:
            return 0
        return 1 + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))

    @property
    def span_bytes(self) -> int:
        """Bytes that ``read`` copies."""
        return self.span * self.storage.dtype.itemsize

    def read(self) -> Tensor:
        """The tensor on the CPU, contiguous, with memory of its own."""
        dtype = self.storage.dtype
        if self.numel == 0:
            return torch.empty(self.size, dtype=dtype)
        if self.storage.read is None:
            raise BadCheckpoint("damaged checkpoint: a tensor has no data")
        start = self.offset * dtype.itemsize
        raw = bytearray(self.storage.read()[start : start + self.span_bytes])
        if len(raw) != self.span_bytes:
            raise BadCheckpoint("truncated checkpoint: the data of a tensor are incomplete")
        return torch.frombuffer(raw, dtype=dtype).as_strided(self.size, self.stride).contiguous()


def _require_sizes(values: object) -> None:
    if type(values) is not tuple or len(values) > MAX_DIMENSIONS:
        raise BadCheckpoint(f"damaged tensor: expected at most {MAX_DIMENSIONS} sizes in a tuple")
    for value in values:
        if type(value) is not int or not 0 <= value <= MAX_NUMEL:
            raise BadCheckpoint(f"damaged tensor: {shown(value)} is not a size")
