"""Images per second of the DDPM++ network for CIFAR-10, in the published way and in ours.

    python tests/benchmarks/network_throughput.py [--width 128] [--batches 64 256 1024] [--steps 18]

(``PYTHONPATH=platform`` where the package is not installed; torch and numpy are all it needs.)

The published way of generating samples is batches of 64 in torch's default arithmetic, without
compilation. On CUDA that default is float32 with convolutions in TF32. Each row samples one batch
of seeds from noise to images, EDM sampler with Heun steps, twice to warm up and then for --seconds;
the weights are random, which changes no duration. The last column is the largest relative change
of an image against the published row, for the same seeds. The device is the one that is there; on a
CPU compilation takes minutes per row and is left out unless --compile asks for it.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from regimes.denoisers.compute import Compute, prepare
from regimes.denoisers.unet import UNetDenoiser, build_denoiser
from regimes.samplers.edm import SamplerConfig, sample_seeds

PUBLISHED_BATCH = 64
ON_CUDA = (
    Compute(),
    Compute(precision="tf32"),
    Compute(precision="tf32", channels_last=True),
    Compute(precision="bf16"),
    Compute(precision="bf16", channels_last=True),
)
ON_CPU = (
    Compute(),
    Compute(channels_last=True),
    Compute(precision="bf16"),
    Compute(precision="bf16", channels_last=True),
)
COMPILED = (
    Compute(compile=True),
    Compute(precision="bf16", compile=True),
    Compute(precision="bf16", channels_last=True, compile=True),
)


def random_network(width: int, resolution: int, device: str) -> UNetDenoiser:
    """DDPM++ as configured for CIFAR-10, with random weights also where they start at almost 0."""
    torch.manual_seed(0)
    denoiser = build_denoiser(
        {
            "preconditioning": "EDMPrecond",
            "model_type": "SongUNet",
            "img_resolution": resolution,
            "img_channels": 3,
            "augment_dim": 9,
            "model_channels": width,
            "channel_mult": [2, 2, 2],
        }
    )
    for parameter in denoiser.parameters():
        if float(parameter.detach().abs().max()) < 1e-3 and parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return denoiser.eval().requires_grad_(False).to(device)


def images(denoiser: UNetDenoiser, batch: int, steps: int, device: str) -> Tensor:
    """One batch from noise to images, on the CPU."""
    config = SamplerConfig(num_steps=steps)
    shape = denoiser.image_shape
    return sample_seeds(denoiser, range(batch), shape, config=config, device=device)


def images_per_s(
    denoiser: UNetDenoiser, batch: int, steps: int, device: str, seconds: float
) -> tuple[float, Tensor]:
    """Throughput, and the images of the first batch; copying them to the CPU waits for the GPU."""
    first = images(denoiser, batch, steps, device)
    images(denoiser, batch, steps, device)
    started, count = time.perf_counter(), 0
    while not count or time.perf_counter() - started < seconds:
        images(denoiser, batch, steps, device)
        count += batch
    return count / (time.perf_counter() - started), first


def label(compute: Compute) -> str:
    """Short name of the options."""
    options = [name for name in ("channels_last", "compile") if getattr(compute, name)]
    return " ".join([compute.precision, *options])


def change(found: Tensor, expected: Tensor) -> float:
    """Largest relative difference of an image, over those that both have."""
    count = min(len(found), len(expected))
    a, b = found[:count].flatten(1), expected[:count].flatten(1)
    return float(((a - b).norm(dim=1) / b.norm(dim=1)).max())


def compare(options: argparse.Namespace) -> None:
    """Print one row per arithmetic and batch size."""
    denoiser = random_network(options.width, options.resolution, options.device)
    computes = ON_CUDA if options.device == "cuda" else ON_CPU
    computes += COMPILED if options.compile else ()
    if options.compile and options.device == "cuda":
        computes += (Compute(precision="tf32", compile=True),)
    arguments = options.steps, options.device, options.seconds
    base, expected = images_per_s(denoiser, options.published_batch, *arguments)
    print(f"{'arithmetic':32}{'batch':>6}{'images/s':>10}{'ratio':>7}  {'change':>8}")
    print(f"{'as published':32}{options.published_batch:6}{base:10.2f}{1:7.2f}  {0:8.1e}")
    for compute in computes:
        prepared = prepare(denoiser, compute)
        for batch in options.batches:
            row = f"{label(compute):32}{batch:6}"
            try:
                speed, found = images_per_s(prepared, batch, *arguments)
            except torch.OutOfMemoryError:
                print(f"{row}  out of memory", flush=True)
                continue
            ratio, moved = speed / base, change(found, expected)
            print(f"{row}{speed:10.2f}{ratio:7.2f}  {moved:8.1e}", flush=True)


def main() -> None:
    """Say what is measured, and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--published-batch", type=int, default=PUBLISHED_BATCH)
    parser.add_argument("--steps", type=int, default=18)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction)
    options = parser.parse_args()
    if options.compile is None:
        options.compile = options.device == "cuda"
    name = (
        torch.cuda.get_device_name()
        if options.device == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    print(
        f"DDPM++ {options.resolution}x{options.resolution}, width {options.width}, "
        f"{options.steps} Heun steps ({2 * options.steps - 1} evaluations), {name}, "
        f"torch {torch.__version__}"
    )
    compare(options)


if __name__ == "__main__":
    main()
