"""How much faster is an ensemble than its members one after another, and fused AdamW than the rest?

    python tests/benchmarks/training_step.py

Side by side in one process and one thread: the variants take turns, so that a busy machine slows
all alike; medians and ratios of medians are printed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from regimes.training.ensemble import EnsembleTrainer, TrainingConfig

MEMBERS, ROUNDS = 8, 40


def trainer(keys: list[str], width: int) -> EnsembleTrainer:
    """An ensemble on random 8x8 images."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(256, 1, 8, 8, generator=generator) * 2 - 1 for _ in keys]
    return EnsembleTrainer(
        keys,
        images,
        width=width,
        blocks=4,
        steps=6000,
        sigma_data=0.75,
        seed=0,
        config=TrainingConfig(),
    )


def medians(variants: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median CPU time in ms of each variant, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, call in variants.items():
            started = time.process_time()
            call()
            times[name].append(1e3 * (time.process_time() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def ensemble_against_members(width: int) -> None:
    """One step of eight members, batched and one by one."""
    keys = [f"member-{i}" for i in range(MEMBERS)]
    together = trainer(keys, width)
    apart = [trainer([key], width) for key in keys]
    result = medians(
        {"ensemble": together.step, "one by one": lambda: [single.step() for single in apart]}
    )
    ratio = result["one by one"] / result["ensemble"]
    print(
        f"width {width}: step of {MEMBERS} members {result['ensemble']:.1f} ms batched, "
        f"{result['one by one']:.1f} ms one by one: ratio {ratio:.2f}"
    )


def optimizers(width: int) -> None:
    """AdamW on the ensemble's parameters, three implementations."""

    def step_of(**options: bool) -> Callable[[], object]:
        parameters = [p.detach().clone().requires_grad_() for p in source.network.parameters()]
        for p in parameters:
            p.grad = torch.randn_like(p)
        return torch.optim.AdamW(parameters, weight_decay=0.0, **options).step

    source = trainer([f"member-{i}" for i in range(MEMBERS)], width)
    result = medians(
        {
            "fused": step_of(fused=True),
            "foreach": step_of(foreach=True),
            "loop": step_of(foreach=False),
        }
    )
    others = ", ".join(
        f"{name} {value:.1f} ms (ratio {value / result['fused']:.2f})"
        for name, value in result.items()
        if name != "fused"
    )
    print(f"width {width}: AdamW fused {result['fused']:.1f} ms, {others}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for width in (128, 256):
        ensemble_against_members(width)
    optimizers(128)
