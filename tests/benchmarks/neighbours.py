"""Nearest neighbours against the broadcast procedure, and against one bare matrix product.

python tests/benchmarks/neighbours.py [--count 10000] [--width 512] [--k 1 5] [--device cpu]

All are timed in turn, several times, and the least time of each is kept, of the clock and of the CPU:
on a busy machine the ratios are steadier than the times, and those of CPU times with one thread
(OMP_NUM_THREADS=1; others wait for one another busily) are the steadiest. Broadcasting (every query times
every reference, then a sum) is timed on one chunk of queries and scaled up: 128 at once in NumPy, as
published, which uses one thread, and in torch. FAISS, where it is installed, is timed beside them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from regimes.scores.balls import count_balls
from regimes.scores.neighbours import most_similar, nearest


def unit(rows: int, width: int, seed: int) -> np.ndarray:
    """Random unit rows."""
    values = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def fastest(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, np.ndarray]:
    """Seconds of the clock and of the CPU: the least of some calls of each, taken in turn."""
    best = {name: np.full(2, np.inf) for name in calls}
    for turn in range(repeats + 1):  # the first is to warm up
        for name, call in calls.items():
            started = np.array([time.perf_counter(), time.process_time()])
            call()
            taken = np.array([time.perf_counter(), time.process_time()]) - started
            if turn:
                best[name] = np.minimum(best[name], taken)
    return best


def faiss_calls(a: np.ndarray, b: np.ndarray, device: str) -> dict[str, Callable[[], object]]:
    """The flat index of FAISS, if it is installed (and, for a GPU, has one)."""
    try:
        import faiss
    except ImportError:
        return {}
    index = faiss.IndexFlatL2(a.shape[1])
    if device != "cpu":
        if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
            return {}
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add(b)
    return {"faiss flat, k = 9": lambda: index.search(a, 9)}


def main() -> None:
    """Print the times, and their ratios to one bare product."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--k", type=int, nargs="*", default=[1, 5])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    generated, train = unit(args.count, args.width, 0), unit(args.count, args.width, 1)
    a, b = (torch.from_numpy(x).to(args.device) for x in (generated, train))
    wait = torch.cuda.synchronize if a.is_cuda else lambda: None
    rows = min(128, max(1, 2**30 // (4 * b.numel())))  # 128, if a GiB holds them
    radii = np.full(args.count, 1.6)
    calls: dict[str, Callable[[], object]] = {
        "bare product": lambda: (a @ b.T, wait()),
        "broadcast, published": lambda: (generated[:128, None] * train[None]).sum(2).max(1),
        "broadcast, torch": lambda: ((a[:rows, None] * b[None]).sum(-1).amax(1), wait()),
        **{
            f"nearest, k = {k}": (lambda k=k: nearest(generated, train, k, device=args.device))
            for k in args.k
        },
        "most_similar, k = 1": lambda: most_similar(generated, train, device=args.device),
        "count_balls": lambda: count_balls(generated, train, radii, device=args.device),
        **faiss_calls(generated, train, args.device),
    }
    best = fastest(calls, args.repeats)
    best["broadcast, published"] *= args.count / 128
    best["broadcast, torch"] *= args.count / rows
    print(
        f"{args.count} x {args.count} x {args.width}, {torch.get_num_threads()} threads, {a.device}"
    )
    for name, seconds in best.items():
        wall, cpu = seconds / best["bare product"]
        print(f"{name:22} {seconds[0]:9.3f} s {wall:9.2f} x the product, CPU {cpu:9.2f} x")
    for k in args.k:
        wall, cpu = best["broadcast, published"] / best[f"nearest, k = {k}"]
        print(f"published / nearest(k = {k}): {wall:.0f}, CPU {cpu:.0f}")


if __name__ == "__main__":
    main()
