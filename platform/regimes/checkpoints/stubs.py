"""The complete list of what an EDM checkpoint may refer to, and the inert data it becomes.

Nothing here is looked up in a Python module: the names of the file are keys of a table of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from regimes.checkpoints.tensors import DTYPES, Bytes, StoredArray, StoredTensor
from regimes.errors import UnsafeCheckpoint
from regimes.pickles.machine import checked_key, shown
from regimes.pickles.values import (
    Global,
    NumpyType,
    described,
    encode,
    expect,
    numpy_scalar,
    numpy_type,
)

EDM_CLASSES = frozenset({
    "EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond", "SongUNet", "DhariwalUNet",
    "PositionalEmbedding", "FourierEmbedding", "Linear", "Conv2d", "GroupNorm", "UNetBlock",
    "EDMLoss", "VPLoss", "VELoss", "AugmentPipe",
})  # fmt: skip
MAX_TENSORS = 100_000


@dataclass(slots=True, eq=False)
class Stub:
    """An object of a class of EDM's: the name of the class and its attributes."""

    class_name: str
    state: dict[str, Any] = field(default_factory=dict, repr=False)


class Context:
    """What the pickles of one file share: the list of globals, bounds, and what was seen.

    Args:
        num_bytes: size of the file; copies made on its request are bounded by a multiple of it.
        load_bytes: reads a nested stream of torch.save.
    """

    has_bytearrays = False

    def __init__(self, num_bytes: int, load_bytes: Callable[[Context, Bytes], StoredArray]) -> None:
        self.versions: set[int] = set()
        self.load_bytes = load_bytes
        # Tensors are charged as a byte string, as a stream and when read; in protocol 2 the byte
        # string is text before, which the file holds in UTF-8.
        self._budget = 4 * num_bytes
        self._is_nested = False
        self._tensors = 0

    def charge(self, amount: int) -> None:
        """Count bytes or items copied because the file says so; a bomb copies one thing often."""
        self._budget -= amount
        if self._budget < 0:
            raise UnsafeCheckpoint("the file asks for more copies of its data than it holds")

    def load_nested(self, raw: Bytes) -> StoredArray:
        """The storage in a nested stream; streams do not hold streams."""
        self.charge(len(raw))
        if self._is_nested:
            raise UnsafeCheckpoint("torch.storage._load_from_bytes inside one of its own streams")
        self._is_nested = True
        try:
            return self.load_bytes(self, raw)
        finally:
            self._is_nested = False

    def count_tensor(self) -> None:
        """Count a tensor."""
        self._tensors += 1
        if self._tensors > MAX_TENSORS:
            raise UnsafeCheckpoint(f"more than {MAX_TENSORS} tensors")

    def find(self, module: str, name: str) -> object:
        """See ``World``."""
        full = f"{module}.{name}"
        if full not in _CALLS and full not in _NEW and full not in _NAMES:
            raise UnsafeCheckpoint(
                f"the file refers to {full[:200]!r}, which is not on the list of what an EDM "
                "checkpoint may hold; nothing was executed, do not load it in any other way"
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
        make = _NEW.get(cls.name) if isinstance(cls, Global) else None
        if make is None or args != ():
            raise UnsafeCheckpoint(f"the file makes an instance of {described(cls)}")
        return make()

    def build(self, instance: object, state: object) -> None:
        """See ``World``."""
        if type(instance) is Stub and instance.class_name == "ModuleDict" and type(state) is dict:
            instance.state = state
        elif type(instance) is NumpyType:
            instance.set_state(state)
        elif type(instance) is not dict:  # attributes of a dict (_metadata) are of no use here
            raise UnsafeCheckpoint(f"the file sets the state of {described(instance)}")

    def key(self, key: object) -> object:
        """See ``World``."""
        return checked_key(key)

    def persistent(self, pid: object) -> object:
        """See ``World``; archives of torch.save override it."""
        raise UnsafeCheckpoint("the file refers to an object outside of itself")


def _persistent_object(context: Context, args: tuple[Any, ...]) -> Stub:
    expect(len(args) == 1 and type(args[0]) is dict, "_reconstruct_persistent_obj")
    meta = args[0]
    name, version, state = (meta.get(key) for key in ("class_name", "version", "state"))
    if meta.get("type") != "class" or type(name) is not str or name not in EDM_CLASSES:
        raise UnsafeCheckpoint(
            f"the file holds an object of class {shown(name)} of its own making; expected one of "
            f"{', '.join(sorted(EDM_CLASSES))}"
        )
    expect(type(version) is int and type(state) is dict, "_reconstruct_persistent_obj")
    context.versions.add(version)
    return Stub(name, state)  # meta["module_src"] is source text: never looked at


def _ordered_dict(context: Context, args: tuple[Any, ...]) -> dict[object, object]:
    expect(not args or (len(args) == 1 and type(args[0]) is list), "OrderedDict")
    made: dict[object, object] = {}
    for pair in args[0] if args else ():
        expect(type(pair) in (list, tuple) and len(pair) == 2, "OrderedDict")
        context.charge(1)
        made[checked_key(pair[0])] = pair[1]
    return made


def _set(context: Context, args: tuple[Any, ...]) -> set[object]:
    expect(not args or (len(args) == 1 and type(args[0]) is list), "set")
    items = args[0] if args else []
    context.charge(len(items))
    return {checked_key(item) for item in items}


def _size(context: Context, args: tuple[Any, ...]) -> tuple[Any, ...]:
    expect(len(args) == 1 and type(args[0]) in (tuple, list), "torch.Size")
    context.charge(len(args[0]))
    return tuple(args[0])


def _parameter(context: Context, args: tuple[Any, ...]) -> StoredTensor:
    expect(len(args) in (3, 4) and type(args[0]) is StoredTensor, "_rebuild_parameter")
    tensor: StoredTensor = args[0]
    return tensor


def _tensor(context: Context, args: tuple[Any, ...]) -> StoredTensor:
    expect(len(args) in (6, 7) and type(args[0]) is StoredArray, "_rebuild_tensor_v2")
    context.count_tensor()
    return StoredTensor(*args[:4])


def _load_from_bytes(context: Context, args: tuple[Any, ...]) -> StoredArray:
    expect(len(args) == 1 and type(args[0]) in (bytes, memoryview), "_load_from_bytes")
    return context.load_nested(args[0])


def _device(context: Context, args: tuple[Any, ...]) -> str:
    expect(1 <= len(args) <= 2 and type(args[0]) is str, "torch.device")
    return ":".join(str(part)[:20] for part in args if type(part) in (str, int))


_CALLS: dict[str, Callable[[Context, tuple[Any, ...]], object]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent_object,
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _load_from_bytes,
    "numpy._core.multiarray.scalar": numpy_scalar,
    "numpy.core.multiarray.scalar": numpy_scalar,
    "numpy.dtype": numpy_type,
    "_codecs.encode": encode,
    "builtins.set": _set,
    "__builtin__.set": _set,
    "torch.device": _device,
    "torch.Size": _size,
}
_NEW: dict[str, Callable[[], object]] = {
    "torch.nn.modules.container.ModuleDict": lambda: Stub("ModuleDict"),
    "dnnlib.util.EasyDict": dict,
    "collections.OrderedDict": dict,
}
_NAMES = frozenset(f"torch.{name}" for name in DTYPES)
