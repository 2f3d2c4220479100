"""Threads for small matrices: one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

SMALL = 512
"""Side of a matrix up to which threads wait for one another longer than they compute."""


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

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
