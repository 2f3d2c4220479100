"""Workers that train one network together: each takes a share of every batch.

Workers add up what they have (gradients, losses) and agree on what happened. Sums make uneven shares
weigh what they should. One worker, ``Alone``, is the ordinary case.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Workers(Protocol):
    """This process among those that train together."""

    @property
    def rank(self) -> int:
        """Number of this worker, from 0; worker 0 writes files."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def add(self, value: Tensor) -> None:
        """Replace a tensor by its sum over all workers, in place."""
        ...


class Alone:
    """One worker."""

    rank = 0
    count = 1

    def add(self, value: Tensor) -> None:
        """The sum over one worker."""


class ProcessGroup:
    """The processes of torch.distributed's default group, which must be initialised.

    Args:
        device: where tensors that are added up live, "cpu" for gloo and "cuda" for nccl.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.rank = torch.distributed.get_rank()
        self.count = torch.distributed.get_world_size()

    def add(self, value: Tensor) -> None:
        """See ``Workers``."""
        if value.device.type == torch.device(self.device).type:
            torch.distributed.all_reduce(value)
            return
        moved = value.to(self.device)
        torch.distributed.all_reduce(moved)
        value.copy_(moved)


def share(workers: Workers, num: int) -> tuple[int, int]:
    """First and last (excluded) of ``num`` samples that this worker takes."""
    return num * workers.rank // workers.count, num * (workers.rank + 1) // workers.count


def any_worker(workers: Workers, flag: bool) -> bool:
    """Whether the flag is set in any worker."""
    total = torch.tensor([float(flag)])
    workers.add(total)
    return bool(total.item() > 0)
