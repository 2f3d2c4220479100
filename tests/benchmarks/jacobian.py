"""The whole Jacobian of a network at one noise level: in blocks, and one gradient per output.

    python tests/benchmarks/jacobian.py [--width 16] [--resolution 32] [--blocks 32] [--rows 0]

(``PYTHONPATH=platform`` where the package is not installed; torch and numpy are all it needs.)

The published way is one backward pass per output: C H W of them, 3072 for CIFAR-10, for one image.
Ours keeps one forward pass of as many copies as a block has unit vectors, and pulls blocks of them back
through it. Both ways are timed on the same outputs (--rows; 0 for all: with few, the forward pass of the
copies counts too much), after one pass each to warm up, in turns, and the least of --repeats is taken,
so that other work on the machine counts little; the change is the largest difference of an entry
relative to the largest entry. The wider the network, the less there is to gain on a CPU: a single
image fills it. The network is DDPM++ for CIFAR-10 at a given
width with random weights, which changes no duration.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from regimes.denoisers.unet import UNetDenoiser, build_denoiser
from regimes.jacobians.linearization import Linearization


def random_network(width: int, resolution: int, device: str) -> UNetDenoiser:
    """DDPM++ with random weights also where they start at almost 0."""
    torch.manual_seed(0)
    denoiser = build_denoiser(
        {
            "preconditioning": "EDMPrecond",
            "model_type": "SongUNet",
            "img_resolution": resolution,
            "img_channels": 3,
            "model_channels": width,
            "channel_mult": [2, 2, 2],
        }
    )
    for parameter in denoiser.parameters():
        if float(parameter.detach().abs().max()) < 1e-3 and parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return denoiser.eval().requires_grad_(False).to(device)


def published(denoiser: UNetDenoiser, x: Tensor, sigma: float, rows: int) -> Tensor:
    """The first rows of J, one backward pass each."""
    x = x.clone().requires_grad_()
    outputs = denoiser(x, torch.tensor(sigma, device=x.device)).flatten()[:rows]
    return torch.stack([torch.autograd.grad(y, x, retain_graph=True)[0].flatten() for y in outputs])


def blocked(denoiser: UNetDenoiser, x: Tensor, sigma: float, rows: int, block: int) -> Tensor:
    """The first rows of J, ``block`` of them per backward pass."""
    local = Linearization(denoiser, x, sigma, block=block)
    units = torch.eye(rows, x.numel(), device=x.device)[None]
    return local.pull(units)[0]


def seconds(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Of one run; on a GPU until its last kernel is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    result = work()
    if result.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def compare(options: argparse.Namespace) -> None:
    """Print one row per block size."""
    denoiser = random_network(options.width, options.resolution, options.device)
    torch.backends.cudnn.allow_tf32 = False  # equal arithmetic on both sides
    x = torch.randn(1, *denoiser.image_shape, generator=torch.Generator().manual_seed(0))
    x, n = x.to(options.device), x.numel()
    rows = options.rows or n
    published(denoiser, x, options.sigma, 2)
    ways: dict[str, Callable[[], Tensor]] = {
        "one output at a time": lambda: published(denoiser, x, options.sigma, rows)
    }
    for block in options.blocks:
        blocked(denoiser, x, options.sigma, min(block, rows), block)
        ways[f"blocks of {block}"] = functools.partial(
            blocked, denoiser, x, options.sigma, rows, block
        )
    least, results = dict.fromkeys(ways, math.inf), dict[str, Tensor]()
    for _ in range(options.repeats):
        for name, way in ways.items():
            spent_s, results[name] = seconds(way)
            least[name] = min(least[name], spent_s)
    first = next(iter(ways))
    base_s, expected = least[first], results[first]
    print(f"{'way':24}{'seconds':>9}{'all rows':>11}{'ratio':>7}  {'change':>8}")
    for name, spent_s in least.items():
        change = float((results[name] - expected).abs().max() / expected.abs().max())
        whole = spent_s * n / rows
        print(f"{name:24}{spent_s:9.2f}{whole:9.0f} s{base_s / spent_s:7.2f}  {change:8.1e}")


def main() -> None:
    """Say what is measured, and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--blocks", type=int, nargs="+", default=[32])
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--sigma", type=float, default=1.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    where = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(
        f"DDPM++ 3x{options.resolution}x{options.resolution}, width {options.width}, sigma "
        f"{options.sigma:g}, {options.rows or 'all'} outputs, {where}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    compare(options)


if __name__ == "__main__":
    main()
