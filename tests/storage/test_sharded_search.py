"""Neighbours over actors: the bits of a search in one process, also when an actor dies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import search_run

from regimes.scores.neighbours import nearest


def test_shards_find_what_one_process_finds_to_the_bit(tmp_path, rng):
    queries, references = (rng.standard_normal((n, 16)).astype(np.float32) for n in (50, 203))
    references[100:110] = references[:10]  # ties between shards go by position
    queries[:10] = references[:10]
    np.save(tmp_path / "queries.npy", queries)
    np.save(tmp_path / "references.npy", references)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "RAY_"))}
    done = subprocess.run(
        [sys.executable, search_run.__file__, str(tmp_path), "5"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = np.load(tmp_path / "found.npz")
    positions, squared = nearest(queries, references, 3)
    np.testing.assert_array_equal(found["found"], positions)
    np.testing.assert_array_equal(found["squared"], squared)
    np.testing.assert_array_equal(found["few"], nearest(queries[:5], references[:4], 3)[0])
