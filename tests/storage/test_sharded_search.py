"""Neighbours over actors: the bits of a search in one process, also when an actor dies."""

from __future__ import annotations

import numpy as np
import psutil
import pytest
from shared_ray import joined

from regimes.actors.neighbours import ShardedSearch, share
from regimes.actors.runtime import RayRuntime
from regimes.scores.neighbours import nearest


def test_shards_find_what_one_process_finds_to_the_bit(rng):
    queries, references = (rng.standard_normal((n, 16)).astype(np.float32) for n in (50, 203))
    references[100:110] = references[:10]  # ties between shards go by position
    queries[:10] = references[:10]
    with joined():
        runtime = RayRuntime(2)
        try:
            search = ShardedSearch(runtime, 3)
            search(queries, references, 3)
            children = psutil.Process().children(recursive=True)
            next(p for p in children if "ray::Shard" in " ".join(p.cmdline())).kill()
            found = search(queries, references, 3)
            few = search(queries[:5], references[:2], 1)  # of others, fewer than shards
            search.close()
        finally:
            runtime.close()
    for mine, expected in zip(found, nearest(queries, references, 3), strict=True):
        np.testing.assert_array_equal(mine, expected)
    np.testing.assert_array_equal(few[0], nearest(queries[:5], references[:2], 1)[0])


@pytest.mark.parametrize("count", range(1, 25))
def test_all_shards_find_room_on_any_number_of_cpus_or_gpus(count):
    """Which may each be on a node of its own: what is left of one serves nobody else."""
    for units in range(1, 17):
        fit_on_one = int(1 / share(count, units) + 1e-6)
        assert units * fit_on_one >= count
    assert share(count, 0) == 1.0
