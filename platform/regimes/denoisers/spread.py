"""One model over several devices, for models that do not fit on one.

A model is cut into **pieces**: modules, divided into their children while they hold more than a quarter of
what one device is to hold. Pieces are dealt to the devices in the order in which the model lists them, in
contiguous blocks of equal bytes. What happens between pieces (sums, concatenations of skips) happens on the
first device, where the parameters of divided modules are too: the inputs of a piece are moved to its
device, and its outputs back. So nothing has to be known about a model whose modules call their children, and
do not read the weights of one or share some; every device runs the kernels
that one device would, on the same shapes, and results on devices of one kind are the same bits.

Cost: two copies of the activations for every piece that is not on the first device. Devices work one after
the other: this is for memory, not for speed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from regimes.errors import ConfigError

PIECES = 4  # at least, of what one device holds
Placed = TypeVar("Placed", bound=nn.Module)


def place(model: Placed, device: str, others: Sequence[str] = ()) -> Placed:
    """Move a model to a device, or spread it over several; it is called as before.

    Args:
        model: called with tensors on ``device``, and returns such.
        device: the first device.
        others: more of them; none moves the whole model to the first.

    Raises:
        ConfigError: if the model has too few modules for so many devices.
    """
    if not others:
        return model.to(device)
    devices = [device, *others]
    pieces = list(_pieces(model, num_bytes(model) / (PIECES * len(devices))))
    numbers = deal([num_bytes(piece) for piece in pieces], len(devices))
    if len(set(numbers)) < len(devices):
        raise ConfigError(
            f"--gpus-per-replica {len(devices)}: the modules of this model fill only {len(set(numbers))}; "
            "ask for fewer"
        )
    for piece, number in zip(pieces, numbers, strict=True):
        _settle(piece, devices[number], device)
    for module in _divided(model, pieces):
        module._apply(lambda tensor: tensor.to(device), recurse=False)  # type: ignore[no-untyped-call]
    return model


def num_bytes(module: nn.Module) -> int:
    """Size of a module's parameters and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def deal(sizes: Sequence[int], num_devices: int) -> list[int]:
    """The device of every piece: contiguous blocks, none larger than its share and one piece more.

    Args:
        sizes: bytes of the pieces, in order.
        num_devices: how many.

    Returns:
        Numbers that begin with 0 and never fall.
    """
    total, before, numbers = max(sum(sizes), 1), 0, []
    for size in sizes:
        numbers.append(min(num_devices * before // total, num_devices - 1))
        before += size
    return numbers


def _pieces(module: nn.Module, most: float) -> Iterator[nn.Module]:
    """Modules that stay whole, in order; together they have all parameters but those of divided ones."""
    for child in module.children():
        listed = isinstance(child, (nn.ModuleList, nn.ModuleDict))  # not called: their members are
        if listed or (num_bytes(child) > most and any(True for _ in child.children())):
            yield from _pieces(child, most)
        else:
            yield child


def _divided(model: nn.Module, pieces: Sequence[nn.Module]) -> Iterator[nn.Module]:
    """Modules that were divided, whose own parameters and buffers are in no piece."""
    inside = {id(module) for piece in pieces for module in piece.modules()}
    yield from (module for module in model.modules() if id(module) not in inside)


def _settle(piece: nn.Module, device: str, home: str) -> None:
    """Put a piece on its device; what it is called with comes there, what it returns goes home."""

    def inwards(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return _moved(args, device), _moved(kwargs, device)

    def outwards(module: nn.Module, args: Any, output: Any) -> Any:
        return _moved(output, home)

    piece.to(device)
    piece.register_forward_pre_hook(inwards, with_kwargs=True)
    piece.register_forward_hook(outwards)


def _moved(values: Any, device: str) -> Any:
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), values)
