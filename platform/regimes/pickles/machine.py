"""An interpreter of pickle's opcodes that can only make plain data.

It does not use Python's own unpickler, hence nothing in a file can import, call or execute anything:
a global is a pair of names, looked up in a table of the caller, and "calling" one runs the
harmless function of that table or is refused. Lengths are compared with the bytes that are left
before anything is allocated, nesting is bounded, and keys of dicts and sets are strings and small
numbers, so that no hash or comparison walks through shared structure.

Reference: the opcode descriptions of the standard library's ``pickletools``.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import Protocol

from regimes.errors import BadCheckpoint, UnsafeCheckpoint

MAX_MARKS = 256
MAX_STACK = 4096  # pickle writes batches of 1000 pairs, so 2000 is what sane files reach
MAX_LINE = 4096
MAX_LONG = 255
MAX_KEY = 2**31
SMALL = 256
"""Byte strings up to this length are copied; longer ones stay views into the file."""

STOP = ord(".")


class World(Protocol):
    """What a pickle may refer to."""

    def find(self, module: str, name: str) -> object:
        """The stand-in of a global, or UnsafeCheckpoint."""
        ...

    def call(self, function: object, args: object) -> object:
        """The result of "calling" a stand-in, or UnsafeCheckpoint."""
        ...

    def new(self, cls: object, args: object) -> object:
        """An inert instance of a stand-in, or UnsafeCheckpoint."""
        ...

    def build(self, instance: object, state: object) -> None:
        """Give an inert instance its state, or UnsafeCheckpoint."""
        ...

    def persistent(self, pid: object) -> object:
        """The object of a persistent id, or UnsafeCheckpoint."""
        ...

    def key(self, key: object) -> object:
        """What stands for a key of a dict or an item of a set, or UnsafeCheckpoint."""
        ...

    @property
    def has_bytearrays(self) -> bool:
        """Whether byte arrays are accepted; they become what byte strings become."""
        ...


class Machine:
    """Runs one pickle.

    Args:
        data: the bytes that hold it.
        world: what it may refer to.
        position: where it starts; afterwards, where it ended.
    """

    __slots__ = ("data", "marks", "memo", "position", "stack", "world")

    def __init__(self, data: memoryview, world: World, position: int = 0) -> None:
        self.data, self.world, self.position = data, world, position
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def run(self) -> object:
        """Interpret up to STOP.

        Returns:
            The object: plain Python values, and whatever ``world`` makes.

        Raises:
            BadCheckpoint: if the data are truncated or damaged.
            UnsafeCheckpoint: if they ask for more than plain data, or exceed a bound.
        """
        start = self.position
        try:
            while (code := self.take(1)[0]) != STOP:
                _operation(code)(self)
                if len(self.stack) > MAX_STACK:
                    raise UnsafeCheckpoint(f"nesting is deeper than {MAX_STACK} objects")
            return self.pop()
        except BadCheckpoint:
            raise
        except (LookupError, ValueError, TypeError, ArithmeticError, struct.error) as error:
            raise BadCheckpoint(
                f"damaged pickle at byte {self.position - start}: {type(error).__name__} {error}"
            ) from error

    def take(self, count: int) -> memoryview:
        """The next ``count`` bytes."""
        end = self.position + count
        if count < 0 or end > len(self.data):
            left = len(self.data) - self.position
            raise BadCheckpoint(f"truncated pickle: {count} bytes are announced, {left} are left")
        view = self.data[self.position : end]
        self.position = end
        return view

    def take_number(self, size: int) -> int:
        """A little-endian unsigned integer of ``size`` bytes."""
        return int.from_bytes(self.take(size), "little")

    def take_text(self, size: int) -> str:
        """UTF-8 text preceded by its length in ``size`` bytes."""
        return str(self.take(self.take_number(size)), "utf-8", "surrogatepass")

    def take_line(self) -> bytes:
        """The bytes up to a line feed."""
        line = bytes(self.data[self.position : self.position + MAX_LINE])
        length = line.find(b"\n")
        if length < 0:
            raise BadCheckpoint("damaged pickle: a line of text does not end")
        self.position += length + 1
        return line[:length]

    def take_name(self) -> str:
        """A line of UTF-8 text."""
        return self.take_line().decode("utf-8")

    def take_bytes(self, size: int) -> bytes | memoryview:
        """A byte string preceded by its length in ``size`` bytes."""
        view = self.take(self.take_number(size))
        return view if len(view) > SMALL else bytes(view)

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop(self) -> object:
        """Take a value from the stack, above the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise BadCheckpoint("damaged pickle: the stack is empty")
        return self.stack.pop()

    def mark(self) -> None:
        """Remember the height of the stack."""
        if len(self.marks) >= MAX_MARKS:
            raise UnsafeCheckpoint(f"nesting is deeper than {MAX_MARKS} levels")
        self.marks.append(len(self.stack))

    def pop_to_mark(self) -> list[object]:
        """Take all values above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, kind: type) -> object:
        """The value on top of the stack, which must be of a type."""
        value = self.pop()
        self.push(value)
        if type(value) is not kind:
            raise BadCheckpoint(f"damaged pickle: expected a {kind.__name__} to fill")
        return value


def _operation(code: int) -> Callable[[Machine], object]:
    if code not in OPERATIONS:
        raise BadCheckpoint(
            f"not a pickle, or a damaged one: {code:#04x} is no operation of pickle"
        )
    return OPERATIONS[code]


def shown(value: object) -> str:
    """A value of the file in a message; shared structure can make a full repr exponentially long."""
    if type(value) is str:
        return repr(value[:100])
    if value is None or type(value) in (bool, int, float):
        return repr(value)[:100]
    return f"a {type(value).__name__}"


def checked_key(key: object) -> object:
    """A value as a key of a dict or a set, if its hash costs nothing."""
    if type(key) is str or key is None or type(key) in (bool, float):
        return key
    if type(key) is int and -MAX_KEY <= key <= MAX_KEY:
        return key
    raise UnsafeCheckpoint(f"a key is of type {type(key).__name__}; expected text or a number")


def _set_items(m: Machine, items: list[object]) -> None:
    target = m.top(dict)
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[m.world.key(key)] = value  # type: ignore[index]


def _set_item(m: Machine) -> None:
    value, key = m.pop(), m.pop()
    _set_items(m, [key, value])


def _append(m: Machine) -> None:
    value = m.pop()
    m.top(list).append(value)  # type: ignore[attr-defined]


def _append_items(m: Machine) -> None:
    items = m.pop_to_mark()
    m.top(list).extend(items)  # type: ignore[attr-defined]


def _add_items(m: Machine) -> None:
    items = m.pop_to_mark()
    m.top(set).update(m.world.key(item) for item in items)  # type: ignore[attr-defined]


def _tuple(m: Machine, count: int) -> None:
    m.push(tuple(m.pop() for _ in range(count))[::-1])


def _dict(m: Machine) -> None:
    items = m.pop_to_mark()
    m.push({})
    _set_items(m, items)


def _duplicate(m: Machine) -> None:
    value = m.pop()
    m.stack += [value, value]


def _long(m: Machine, size: int) -> None:
    count = m.take_number(size)
    if count > MAX_LONG:
        raise UnsafeCheckpoint(f"an integer of {count} bytes; at most {MAX_LONG} are accepted")
    m.push(int.from_bytes(m.take(count), "little", signed=True))


def _int_line(m: Machine) -> None:
    line = m.take_line()
    flags = {b"00": False, b"01": True}
    m.push(flags[line] if line in flags else int(line[:100].rstrip(b"L")))


def _string_line(m: Machine) -> None:
    m.push(str(codecs.escape_decode(m.take_line()[1:-1])[0], "latin-1"))


def _global(m: Machine) -> None:
    module = m.take_name()
    m.push(m.world.find(module, m.take_name()))


def _stack_global(m: Machine) -> None:
    name, module = m.pop(), m.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise BadCheckpoint("damaged pickle: the name of a global is not text")
    m.push(m.world.find(module, name))


def _instance(m: Machine) -> None:
    module = m.take_name()
    found = m.world.find(module, m.take_name())
    m.push(m.world.call(found, tuple(m.pop_to_mark())))


def _object(m: Machine) -> None:
    cls, *args = m.pop_to_mark()
    m.push(m.world.call(cls, tuple(args)))


def _reduce(m: Machine) -> None:
    args, function = m.pop(), m.pop()
    m.push(m.world.call(function, args))


def _new(m: Machine) -> None:
    args, cls = m.pop(), m.pop()
    m.push(m.world.new(cls, args))


def _build(m: Machine) -> None:
    state, instance = m.pop(), m.pop()
    m.world.build(instance, state)
    m.push(instance)


def _memoize(m: Machine, index: int) -> None:
    value = m.pop()
    m.memo[index] = value
    m.push(value)


def _refuse(what: str) -> Callable[[Machine], None]:
    def operation(m: Machine) -> None:
        raise UnsafeCheckpoint(f"the pickle uses {what}, which plain data do not need")

    return operation


def _byte_array(m: Machine) -> None:
    if not m.world.has_bytearrays:
        _refuse("BYTEARRAY8")(m)
    m.push(m.take_bytes(8))


OPERATIONS: dict[int, Callable[[Machine], object]] = {
    0x80: lambda m: m.take(1),  # protocol
    0x95: lambda m: m.take(8),  # frame
    ord("("): Machine.mark,
    ord("0"): Machine.pop,
    ord("1"): Machine.pop_to_mark,
    ord("2"): _duplicate,
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("K"): lambda m: m.push(m.take_number(1)),
    ord("M"): lambda m: m.push(m.take_number(2)),
    ord("J"): lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True)),
    0x8A: lambda m: _long(m, 1),
    0x8B: lambda m: _long(m, 4),
    ord("I"): _int_line,
    ord("L"): _int_line,
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    ord("F"): lambda m: m.push(float(m.take_line())),
    0x8C: lambda m: m.push(m.take_text(1)),
    ord("X"): lambda m: m.push(m.take_text(4)),
    0x8D: lambda m: m.push(m.take_text(8)),
    ord("V"): lambda m: m.push(codecs.raw_unicode_escape_decode(m.take_line())[0]),
    ord("S"): _string_line,
    ord("U"): lambda m: m.push(str(m.take(m.take_number(1)), "latin-1")),
    ord("T"): lambda m: m.push(str(m.take(m.take_number(4)), "latin-1")),
    ord("C"): lambda m: m.push(m.take_bytes(1)),
    ord("B"): lambda m: m.push(m.take_bytes(4)),
    0x8E: lambda m: m.push(m.take_bytes(8)),
    ord("}"): lambda m: m.push({}),
    ord("]"): lambda m: m.push([]),
    ord(")"): lambda m: m.push(()),
    0x8F: lambda m: m.push(set()),
    ord("t"): lambda m: m.push(tuple(m.pop_to_mark())),
    0x85: lambda m: _tuple(m, 1),
    0x86: lambda m: _tuple(m, 2),
    0x87: lambda m: _tuple(m, 3),
    ord("l"): lambda m: m.push(m.pop_to_mark()),
    ord("d"): _dict,
    ord("a"): _append,
    ord("e"): _append_items,
    ord("s"): _set_item,
    ord("u"): lambda m: _set_items(m, m.pop_to_mark()),
    0x90: _add_items,
    ord("p"): lambda m: _memoize(m, int(m.take_line())),
    ord("q"): lambda m: _memoize(m, m.take_number(1)),
    ord("r"): lambda m: _memoize(m, m.take_number(4)),
    0x94: lambda m: _memoize(m, len(m.memo)),
    ord("g"): lambda m: m.push(m.memo[int(m.take_line())]),
    ord("h"): lambda m: m.push(m.memo[m.take_number(1)]),
    ord("j"): lambda m: m.push(m.memo[m.take_number(4)]),
    ord("c"): _global,
    0x93: _stack_global,
    ord("i"): _instance,
    ord("o"): _object,
    ord("R"): _reduce,
    0x81: _new,
    0x92: _refuse("NEWOBJ_EX"),
    ord("b"): _build,
    ord("P"): lambda m: m.push(m.world.persistent(m.take_name())),
    ord("Q"): lambda m: m.push(m.world.persistent(m.pop())),
    0x82: _refuse("the extension registry"),
    0x83: _refuse("the extension registry"),
    0x84: _refuse("the extension registry"),
    0x91: _refuse("FROZENSET"),
    0x96: _byte_array,
    0x97: _refuse("out-of-band buffers"),
    0x98: _refuse("out-of-band buffers"),
}
