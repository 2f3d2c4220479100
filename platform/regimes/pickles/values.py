"""What every kind of pickle may hold: names, numpy's number types and numbers, and encoded bytes.

Each handler takes the world that called it, which bounds what may be copied, and the arguments in
the file.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any, Protocol

from regimes.errors import BadCheckpoint, UnsafeCheckpoint
from regimes.pickles.machine import shown

NUMPY_FORMATS = {
    "f2": "e", "f4": "f", "f8": "d", "b1": "?",
    "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
}  # fmt: skip


class Budget(Protocol):
    """What bounds the copies that a file asks for."""

    def charge(self, amount: int) -> None:
        """Count bytes or items; raises UnsafeCheckpoint when there are too many."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A name of the file that is on the list; it stands for itself only."""

    name: str


@dataclass(slots=True, eq=False)
class NumpyType:
    """A numeric numpy dtype."""

    code: str
    order: str = "<"

    def set_state(self, state: object) -> None:
        """Take the byte order from the state that numpy gives a dtype."""
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise UnsafeCheckpoint("the file gives a numpy.dtype an unknown state")
        self.order = state[1]

    @property
    def spec(self) -> str:
        """For struct and numpy: byte order and type. Files with '=' are taken as little-endian."""
        return (">" if self.order == ">" else "<") + self.code


def described(value: object) -> str:
    """What a file refers to, in a message."""
    return repr(value.name) if isinstance(value, Global) else f"a {type(value).__name__}"


def expect(condition: bool, what: str) -> None:
    """Refuse arguments that the writer of the format would not give."""
    if not condition:
        raise BadCheckpoint(f"damaged pickle: unexpected arguments of {what}")


def numpy_type(world: Budget, args: tuple[Any, ...]) -> NumpyType:
    """``numpy.dtype(code, ...)``, of numbers only."""
    code = args[0] if args else None
    if type(code) is not str or not re.fullmatch(r"[<>|=]?[a-zA-Z]\d{0,4}", code):
        raise UnsafeCheckpoint(f"the file makes a numpy.dtype of {shown(code)}")
    if code[-2:] not in NUMPY_FORMATS:
        raise UnsafeCheckpoint(f"numpy.dtype({code!r}): only numeric types are accepted")
    return NumpyType(code[-2:], "<")


def numpy_scalar(world: Budget, args: tuple[Any, ...]) -> float | int:
    """``numpy.core.multiarray.scalar(dtype, bytes)`` as a plain number."""
    expect(len(args) == 2 and type(args[0]) is NumpyType, "numpy scalar")
    dtype, raw = args
    expect(type(raw) is bytes, "numpy scalar")
    value: float | int = struct.unpack(dtype.spec[0] + NUMPY_FORMATS[dtype.code], raw)[0]
    return value


def encode(world: Budget, args: tuple[Any, ...]) -> bytes:
    """``_codecs.encode(text, 'latin1')``: bytes in protocol 2."""
    expect(len(args) == 2 and type(args[0]) is str and args[1] == "latin1", "_codecs.encode")
    world.charge(len(args[0]))
    return args[0].encode("latin-1")
