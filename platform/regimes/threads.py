"""How many threads compute, for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

SMALL = 512
"""Side of a matrix up to which threads wait for one another longer than they compute."""


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Torch with ``count`` threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def few_threads(side: int) -> Iterator[None]:
    """One thread inside, for torch and for numpy's BLAS, if matrices are no larger than ``SMALL``.

    A hundred decompositions of 64 x 64 matrices took ten times as long with two threads on two busy
    cores as with one.
    """
    if side > SMALL:
        yield
        return
    from threadpoolctl import threadpool_limits

    with torch_threads(1), threadpool_limits(1):
        yield
