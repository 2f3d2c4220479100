"""Nearest neighbours against the broadcast procedure, and against one bare matrix product.

python tests/benchmarks/neighbours.py [N]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from regimes.scores.neighbours import nearest


def unit(rows: int, width: int, seed: int) -> np.ndarray:
    """Random unit rows."""
    values = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def timed(call: Callable[[], object]) -> float:
    """Seconds of wall time, after one call to warm up."""
    call()
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main(count: int = 10_000, width: int = 512, slice_rows: int = 128) -> None:
    """Print the three times; broadcasting is timed on one chunk of rows and scaled up."""
    generated, train = unit(count, width, 0), unit(count, width, 1)
    a, b = torch.from_numpy(generated), torch.from_numpy(train)
    broadcast_rows = min(slice_rows, 16)
    chunk = a[:broadcast_rows]
    broadcast_s = timed(lambda: (chunk[:, None] * b[None]).sum(-1).amax(1)) * count / broadcast_rows
    product_s = timed(lambda: a @ b.T)
    nearest_s = timed(lambda: nearest(generated, train))
    print(f"{count} x {count} x {width}, {torch.get_num_threads()} threads")
    print(
        f"broadcast (extrapolated) {broadcast_s:.1f} s, bare product {product_s:.2f} s, "
        f"nearest {nearest_s:.2f} s"
    )
    print(
        f"ratios: broadcast / nearest {broadcast_s / nearest_s:.0f}, "
        f"nearest / product {nearest_s / product_s:.2f}"
    )


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:2]))
