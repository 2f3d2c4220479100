"""Sampling from a training set's optimal denoiser, against the published two-pass procedure.

    python tests/benchmarks/empirical_denoiser.py [N] [--batch 64] [--size 32] [--slice 1024]

The published procedure evaluates the denoiser with two passes over a folder of PNG files in a torch
DataLoader with one worker process: the first finds each sample's largest exponent, the second sums
numerator and denominator. Distances are differences of float64 images, 64 samples by 64 images at a
time. It is written here anew from that description. ``EmpiricalDenoiser`` keeps the decoded images
in memory and uses matrix products and one pass.

Equal work: one batch of samples, one noise level, N images; both results are compared. The slow
procedure runs on ``--slice`` of the N images and its time is scaled to N, without the start of its
worker processes, which is paid once per pass; that is measured apart and added.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from regimes.denoisers.closed_form import EmpiricalDenoiser
from regimes.noise import karras_sigmas

MINIBATCH = 64


class Folder(Dataset[Tensor]):
    """The first N PNG files of a folder as float32 images in [-1, 1]."""

    def __init__(self, folder: Path, count: int) -> None:
        self.paths = sorted(folder.glob("*.png"))[:count]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Tensor:
        pixels = np.asarray(Image.open(self.paths[i]))
        return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1)


def write_folder(folder: Path, count: int, size: int) -> Tensor:
    """Write random smooth PNG images; returns them, (N, 3, size, size) float32 in [-1, 1]."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, size // 4, size // 4)))
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    pixels = smooth.round().to(torch.uint8)
    for i, image in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(folder / f"{i:06d}.png")
    return pixels.float() / 127.5 - 1


def loader(folder: Path, count: int) -> Iterable[Tensor]:
    """One pass over the files."""
    return DataLoader(Folder(folder, count), batch_size=MINIBATCH, num_workers=1)


def exponents(x: Tensor, y: Tensor, sigma: float) -> Tensor:
    """(B, C, H, W), (b, C, H, W) -> (B, b), by broadcast differences."""
    return -(x[:, None] - y[None]).square().sum((2, 3, 4)) / (2 * sigma**2)


def two_passes(x: Tensor, sigma: float, folder: Path, count: int) -> Tensor:
    """The denoised batch, (B, C, H, W) float64; B of at most 64."""
    shift = x.new_full((len(x),), -math.inf)
    for y in loader(folder, count):
        shift = torch.maximum(shift, exponents(x, y, sigma).amax(1))
    numerator, denominator = torch.zeros_like(x), x.new_zeros(len(x))
    for y in loader(folder, count):
        weights = (exponents(x, y, sigma) - shift[:, None]).exp()
        numerator += (weights[:, :, None, None, None] * y[None]).sum(1)
        denominator += weights.sum(1)
    return numerator / denominator[:, None, None, None]


def timed(call: Callable[[], object], rounds: int = 1) -> float:
    """Median seconds of wall time."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def startup_s(folder: Path) -> float:
    """Seconds that two passes take over one minibatch: the price of starting workers twice."""
    return timed(lambda: [list(loader(folder, MINIBATCH)) for _ in range(2)], rounds=3)


def compare(folder: Path, images: Tensor, sigma: float, batch: int, part: int) -> None:
    """Print times and ratio at one noise level."""
    rng = np.random.default_rng(1)
    x = images[:batch].double()
    x = x + sigma * torch.from_numpy(rng.standard_normal(x.shape))
    slow = two_passes(x, sigma, folder, part)
    difference = float((EmpiricalDenoiser(images[:part])(x, sigma) - slow).abs().max())
    start_s = startup_s(folder)
    part_s = max(timed(lambda: two_passes(x, sigma, folder, part)) - start_s, 0)
    slow_s = part_s * len(images) / part + start_s
    denoiser = EmpiricalDenoiser(images)
    fast_s = timed(lambda: denoiser(x, sigma), rounds=3)
    print(
        f"sigma {sigma:8.4f}: two passes {slow_s:7.1f} s, EmpiricalDenoiser {fast_s:6.3f} s, "
        f"ratio {slow_s / fast_s:5.0f}, largest difference {difference:.1e}"
    )


def main() -> None:
    """Three noise levels of the 18-step grid: all weights alike, some, and one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int, nargs="?", default=8192)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--slice", type=int, default=1024)
    options = parser.parse_args()
    if not 1 <= options.batch <= MINIBATCH:
        parser.error(f"--batch: expected 1 to {MINIBATCH}, the published minibatch")
    part = min(options.slice, options.count)
    with tempfile.TemporaryDirectory() as folder:
        images = write_folder(Path(folder), options.count, options.size)
        load_s = timed(lambda: list(loader(Path(folder), options.count)))
        print(
            f"{options.count} images {tuple(images.shape[1:])}, batch {options.batch}, one level, "
            f"{torch.get_num_threads()} threads; two passes timed on {part} images and scaled\n"
            f"decoding all images once, which EmpiricalDenoiser needs: {load_s:.1f} s"
        )
        for sigma in karras_sigmas(18)[[0, 9, 17]].tolist():
            compare(Path(folder), images, sigma, options.batch, part)


if __name__ == "__main__":
    main()
