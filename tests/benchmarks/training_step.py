"""What does a training step cost, and what would it cost done otherwise?

Ensembles: batched or one member after another, fused AdamW or another. Networks: keyed dropout, the
drawing of a batch with its augmentation, fused Adam, channels_last.

    python tests/benchmarks/training_step.py

Side by side in one process and one thread: the variants take turns, so that a busy machine slows
all alike; medians and ratios of medians are printed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from regimes.training.architectures import NetworkConfig
from regimes.training.ensemble import EnsembleTrainer, TrainingConfig
from regimes.training.network import EDMTrainingConfig, NetworkTrainer

MEMBERS, ROUNDS = 8, 40
NETWORK_ROUNDS = 8


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


def medians(variants: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median CPU time in ms of each variant, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
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


def optimizers(name: str, weights: list[torch.Tensor]) -> None:
    """AdamW on the parameters of a trainer, three implementations."""

    def step_of(**options: bool) -> Callable[[], object]:
        parameters = [p.detach().clone().requires_grad_() for p in weights]
        for p in parameters:
            p.grad = torch.randn_like(p)
        return torch.optim.AdamW(parameters, weight_decay=0.0, **options).step

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
    print(f"{name}: AdamW fused {result['fused']:.1f} ms, {others}")


def network_trainer(dropout: float = 0.13) -> NetworkTrainer:
    """DDPM++ of width 32 on random 32x32 colour images, 32 at a time: 3.5 million parameters."""
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    config = EDMTrainingConfig(batch_size=32, duration_kimg=100)
    return NetworkTrainer(images, NetworkConfig(width=32, dropout=dropout), config, seed=0)


def network_step() -> None:
    """One step of a network, and what it consists of."""
    keyed, without, last = network_trainer(), network_trainer(0.0), network_trainer()
    last.denoiser.network.to(memory_format=torch.channels_last)
    result = medians(
        {
            "step": keyed.step,
            "without dropout": without.step,
            "channels_last": last.step,
            "batch alone": lambda: keyed.batches.batch(keyed.step_count),
        },
        NETWORK_ROUNDS,
    )
    figures = ", ".join(f"{name} {value:.0f} ms" for name, value in result.items())
    print(f"network, {keyed.num_parameters:,} parameters, 32 images: {figures}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for width in (128, 256):
        ensemble_against_members(width)
    ensemble = trainer([f"member-{i}" for i in range(MEMBERS)], 128)
    optimizers("ensemble of width 128", list(ensemble.network.parameters()))
    optimizers("network of width 32", list(network_trainer().denoiser.network.parameters()))
    network_step()
