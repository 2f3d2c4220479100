"""A sharded search in a process of its own, for tests: one of its actors is killed on the way.

python tests/storage/search_run.py FOLDER SHARDS
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import psutil

from regimes.actors.neighbours import ShardedSearch
from regimes.actors.runtime import RayRuntime


def main(folder: Path, shards: int) -> None:
    queries, references = (np.load(folder / f"{name}.npy") for name in ("queries", "references"))
    runtime = RayRuntime(2)
    try:
        search = ShardedSearch(runtime, shards)
        search(queries, references, 3)
        children = psutil.Process().children(recursive=True)
        next(p for p in children if "ray::Shard" in " ".join(p.cmdline())).kill()
        found = search(queries, references, 3)
        few = search(queries[:5], references[:4], 3)  # of other references, fewer than shards
        search.close()
    finally:
        runtime.close()
    np.savez(folder / "found.npz", found=found[0], squared=found[1], few=few[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
