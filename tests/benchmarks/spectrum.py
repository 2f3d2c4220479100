"""Eigenvalues of N images of D values against the full singular value decomposition, as published.

python tests/benchmarks/spectrum.py [--count 1024] [--width 12288] [--stream 50000 3072]

Each is run in a process of its own, so that its peak of memory is its own, and reports wall time, CPU time
and the memory it took above what was there before. The published script decomposes float32 rows with all
singular vectors, and squares the singular values. The stream is a memory map of uint8 images, of which
mean and covariance are taken in one pass.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from regimes.gaussians.moments import StreamedMoments
from regimes.spectra.matrix import eigenvalues
from regimes.spectra.rows import pixel_rows


def images(count: int, width: int, seed: int = 0) -> np.ndarray:
    """(N, 1, D, 1) uint8 with a spectrum that falls."""
    rng = np.random.default_rng(seed)
    found = np.empty((count, 1, width, 1), np.uint8)
    for start in range(0, count, 1024):
        block = rng.standard_normal((min(1024, count - start), width)) * np.geomspace(80, 1, width)
        found[start : start + 1024, 0, :, 0] = np.clip(128 + block, 0, 255)
    return found


def published(path: str) -> np.ndarray:
    """Squared singular values of float32 rows, with all vectors."""
    x = np.load(path, mmap_mode="r")
    rows = x.reshape(len(x), -1).astype(np.float32) / np.float32(255)
    return np.linalg.svd(rows, full_matrices=True)[1] ** 2


def ours(path: str) -> np.ndarray:
    """The same eigenvalues by the smaller side, float64."""
    return eigenvalues(pixel_rows(np.load(path, mmap_mode="r")), "raw").values


def stream(path: str) -> np.ndarray:
    """Mean and covariance in one pass; gives the trace."""
    moments = StreamedMoments.of(pixel_rows(np.load(path, mmap_mode="r")))
    return np.array([moments.covariance.trace()])


def single(path: str) -> np.ndarray:
    """In float32, as the published script computes."""
    rows = pixel_rows(np.load(path, mmap_mode="r"))
    return eigenvalues(rows, "raw", precision="float32").values


TASKS = {"ours": ours, "ours-f32": single, "published": published, "stream": stream}


def memory(field: str) -> float:
    """MiB of this process, VmRSS (now) or VmHWM (at most)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if field in x)
    return int(line.split()[1]) / 1024


def run(task: str, path: str) -> dict:
    """One task in a process of its own."""
    command = [sys.executable, __file__, "--task", task, "--path", path]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(task: str, path: str) -> None:
    """Run a task here, and print what it took."""
    eigenvalues(pixel_rows(images(8, 16)))  # libraries allocate on their first call
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = memory("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    found = TASKS[task](path)
    peak = memory("VmHWM")
    about = {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "mib": peak - before,
        "peak_mib": peak,
        "values": found[:50].astype(float).tolist(),
    }
    print(json.dumps(about))


def main() -> None:
    """Print times, memory and their ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1024)
    parser.add_argument("--width", type=int, default=12_288)
    parser.add_argument("--stream", type=int, nargs=2, default=(50_000, 3072))
    parser.add_argument("--task")
    parser.add_argument("--path")
    asked = parser.parse_args()
    if asked.task:
        measure(asked.task, asked.path)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "images.npy")
        np.save(path, images(asked.count, asked.width))
        found = {task: run(task, path) for task in list(TASKS)[:3]}
        for task, about in found.items():
            print(
                f"{task:<10} {about['wall_s']:8.2f} s, {about['cpu_s']:8.2f} s CPU, {about['mib']:8.1f} MiB"
            )
        a = found["published"]
        for task in list(TASKS)[:2]:
            b = found[task]
            gap = np.abs(np.array(a["values"]) / np.array(b["values"]) - 1).max()
            print(
                f"published / {task}: time {a['wall_s'] / b['wall_s']:.1f}, CPU time "
                f"{a['cpu_s'] / b['cpu_s']:.1f}, memory {a['mib'] / b['mib']:.1f}; largest 50 values within "
                f"{gap:.1e}"
            )
        path = str(Path(folder) / "stream.npy")
        np.save(path, images(*asked.stream))
        about = run("stream", path)
        print(
            f"stream     {about['wall_s']:8.2f} s, {about['cpu_s']:8.2f} s CPU, peak of the process "
            f"{about['peak_mib']:.0f} MiB with the mapped file, {about['mib']:.0f} MiB above its start"
        )


if __name__ == "__main__":
    main()
