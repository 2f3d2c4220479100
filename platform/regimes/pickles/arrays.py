"""Pickles of plain values and numpy arrays of numbers, such as CIFAR-10's batches.

Python 2 wrote text and bytes as one type, and a file re-pickled by Python 3 has either. Here keys are
always text, and a value is text if Python 2 wrote it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regimes.errors import BadCheckpoint, UnsafeCheckpoint
from regimes.pickles.machine import SMALL, Machine, checked_key
from regimes.pickles.values import (
    Global,
    NumpyType,
    described,
    encode,
    expect,
    numpy_scalar,
    numpy_type,
)

MAX_AXES = 8
MAX_LENGTH = 2**40


@dataclass(slots=True, eq=False)
class PickledArray:
    """An array of numbers; ``values`` is None until the file has given it a state."""

    values: npt.NDArray[Any] | None = None


class ArrayWorld:
    """What a pickle of plain values and arrays may refer to; see ``World``.

    Args:
        num_bytes: size of the pickle; copies made on its request are bounded by a multiple of it.
    """

    has_bytearrays = True  # protocol 5 writes arrays as such

    def __init__(self, num_bytes: int) -> None:
        # An array of protocol 2 may be text, bytes and array, one copied from the other.
        self._budget = 4 * num_bytes

    def charge(self, amount: int) -> None:
        """Count bytes or items copied because the file says so."""
        self._budget -= amount
        if self._budget < 0:
            raise UnsafeCheckpoint("the file asks for more copies of its data than it holds")

    def find(self, module: str, name: str) -> object:
        """See ``World``."""
        full = f"{module}.{name}"
        if full not in _CALLS and full != _NDARRAY:
            raise UnsafeCheckpoint(
                f"the file refers to {full[:200]!r}, which is neither a plain value nor a numpy "
                "array of numbers; nothing was executed, do not load it in any other way"
            )
        return Global(full)

    def call(self, function: object, args: object) -> object:
        """See ``World``."""
        handler = _CALLS.get(function.name) if isinstance(function, Global) else None
        if handler is None or type(args) is not tuple:
            raise UnsafeCheckpoint(f"the file calls {described(function)}")
        return handler(self, args)

    def new(self, cls: object, args: object) -> object:
        """See ``World``."""
        raise UnsafeCheckpoint(f"the file makes an instance of {described(cls)}")

    def build(self, instance: object, state: object) -> None:
        """See ``World``."""
        if type(instance) is NumpyType:
            instance.set_state(state)
        elif type(instance) is PickledArray and instance.values is None:
            if type(state) is not tuple or len(state) != 5 or type(state[3]) is not bool:
                raise BadCheckpoint("damaged pickle: unexpected state of numpy.ndarray")
            instance.values = self.array(state[4], state[2], state[1], "F" if state[3] else "C")
        else:
            raise UnsafeCheckpoint(f"the file sets the state of {described(instance)}")

    def key(self, key: object) -> object:
        """See ``World``; short bytes become text, so that keys do not depend on who wrote them."""
        if type(key) is bytes and len(key) <= SMALL:
            return key.decode("latin-1")
        return checked_key(key)

    def persistent(self, pid: object) -> object:
        """See ``World``."""
        raise UnsafeCheckpoint("the file refers to an object outside of itself")

    def array(self, raw: object, dtype: object, shape: object, order: str) -> npt.NDArray[Any]:
        """A copy of the numbers in a byte string (or in text, which is Python 2's byte string)."""
        data = raw.encode("latin-1") if isinstance(raw, str) else raw
        if not isinstance(data, (bytes, memoryview)) or not isinstance(dtype, NumpyType):
            raise BadCheckpoint("damaged pickle: unexpected parts of a numpy.ndarray")
        sizes, kind = _checked_shape(shape), np.dtype(dtype.spec)
        if math.prod(sizes) * kind.itemsize != len(data):
            raise UnsafeCheckpoint(
                f"an array declares shape {sizes} of {kind}, but the file holds {len(data)} bytes "
                "of it"
            )
        self.charge(len(data))
        return np.frombuffer(data, kind).reshape(sizes, order="F" if order == "F" else "C").copy()


def read_arrays(data: bytes) -> object:
    """The content of a pickle: plain values and ``PickledArray``.

    Raises:
        BadCheckpoint: if it is truncated or damaged.
        UnsafeCheckpoint: if it asks for anything else, or exceeds a bound.

    Cost: one pass, and at most five times the memory of the data.
    """
    return Machine(memoryview(data), ArrayWorld(len(data))).run()


def _checked_shape(shape: object) -> tuple[int, ...]:
    if type(shape) is not tuple or len(shape) > MAX_AXES:
        raise BadCheckpoint(f"damaged pickle: expected at most {MAX_AXES} sizes of an array")
    if any(type(size) is not int or not 0 <= size <= MAX_LENGTH for size in shape):
        raise BadCheckpoint("damaged pickle: an array has a size that is none")
    return shape


def _empty_array(world: ArrayWorld, args: tuple[Any, ...]) -> PickledArray:
    is_array = len(args) == 3 and isinstance(args[0], Global) and args[0].name == _NDARRAY
    expect(is_array, "numpy.core.multiarray._reconstruct")
    return PickledArray()


def _from_buffer(world: ArrayWorld, args: tuple[Any, ...]) -> PickledArray:
    expect(len(args) == 4 and args[3] in ("C", "F"), "numpy.core.numeric._frombuffer")
    return PickledArray(world.array(*args))


def _no_bytes(world: ArrayWorld, args: tuple[Any, ...]) -> bytes:
    expect(args == (), "bytes")  # what protocol 2 writes for an empty byte string
    return b""


_NDARRAY = "numpy.ndarray"
_CALLS: dict[str, Callable[[ArrayWorld, tuple[Any, ...]], object]] = {
    "numpy.core.multiarray._reconstruct": _empty_array,
    "numpy._core.multiarray._reconstruct": _empty_array,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "numpy.core.multiarray.scalar": numpy_scalar,
    "numpy._core.multiarray.scalar": numpy_scalar,
    "numpy.dtype": numpy_type,
    "_codecs.encode": encode,
    "__builtin__.bytes": _no_bytes,
    "builtins.bytes": _no_bytes,
}
