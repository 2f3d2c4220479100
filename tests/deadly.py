"""A descriptor that no process survives which describes a certain image, and a trial that always fails."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from regimes.storage.artifacts import Store

DEADLY = 16


def pixels() -> np.ndarray:
    """(40, 8, 8, 3) uint8: images of which number ``DEADLY`` is the one."""
    return np.random.default_rng(1).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)


def describe(images: torch.Tensor) -> torch.Tensor:
    """(B, H, W, C) uint8 -> (B, C) means."""
    if (images.numpy() == pixels()[DEADLY]).all((1, 2, 3)).any():
        os.kill(os.getpid(), signal.SIGKILL)
    return images.float().mean((1, 2))


@dataclass(frozen=True)
class Labelled:
    """What a trial makes."""

    label: str


def work(
    store: object, made: Labelled, device: str, report: Callable[[int, dict[str, float]], None]
) -> None:
    """The body of a trial; that of the label "bad" never gets anywhere."""
    if made.label == "bad":
        raise ValueError("no such luck")
    report(1, {made.label: 1.0})


def meet(
    store: Store, made: Labelled, device: str, report: Callable[[int, dict[str, float]], None]
) -> None:
    """The body of a trial that waits for another to run, as many seconds as its label says."""
    name, until, others = f"here-{os.getpid()}", time.monotonic() + float(made.label), 0
    store.root.write(name, b"")
    while not others and time.monotonic() < until:
        time.sleep(0.1)
        others = len(store.root.sizes()) - 1
    time.sleep(1.0 if others else 0.0)  # it has to see this one too
    store.root.delete(name)
    report(1, {"others": float(others)})
