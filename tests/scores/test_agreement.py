"""Agreement of many sets equals the scores of each pair, however the work is cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from regimes.descriptors.pixels import Pixels, WhitenedPixels
from regimes.errors import DescriptorMismatch
from regimes.scores import paired
from regimes.scores.agreement import compare, plan_blocks
from regimes.scores.features import Features
from regimes.scores.reproducibility import (
    flow_distance,
    mae_score,
    reproducibility,
)
from regimes.scores.unpaired import Blocks, blocks_of

N = 24


@pytest.fixture
def sets(rng):
    """Three sets: images, noisy copies, and copies of a third of them."""
    first = rng.integers(0, 256, (N, 4, 4, 1), np.uint8)
    noisy = np.clip(first.astype(int) + rng.integers(-60, 61, first.shape), 0, 255)
    other = rng.integers(0, 256, first.shape, np.uint8)
    other[::3] = first[::3]
    return [first, noisy.astype(np.uint8), other]


def test_every_pair_has_the_scores_that_it_has_alone(sets):
    describe, ids = Pixels(), np.arange(N)
    found = compare(sets, describe).pairs
    assert list(found) == [(0, 1), (0, 2), (1, 2)]
    for (i, j), a in found.items():
        x, y = (Features(ids, describe(sets[k]), "pixels") for k in (i, j))
        rp = reproducibility(x, y, threshold=0.6)
        ours = paired.above(
            "rp", a.similarity, a.unpaired_similarity, threshold=0.6, descriptor="pixels"
        )
        assert (ours.value, ours.low, ours.high) == (rp.value, rp.low, rp.high)
        assert ours.null == pytest.approx(rp.null, abs=1e-15)
        mae = mae_score(sets[i], ids, sets[j], ids, threshold=40.0)
        mine = paired.below(
            "mae", a.absolute_error, a.unpaired_error, threshold=40.0, descriptor="raw-pixels"
        )
        assert (mine.value, mine.null, mine.threshold) == (mae.value, mae.null, 40.0)
        distance = flow_distance(x, y)
        root = paired.root_mean("d", a.squared_distance, a.unpaired_distance, descriptor="pixels")
        assert (root.value, root.low, root.high) == pytest.approx(
            (distance.value, distance.low, distance.high), rel=1e-12
        )
        assert root.null == pytest.approx(distance.null, rel=1e-9)


def test_copies_are_found_where_they_were_planted(sets):
    a = compare(sets, Pixels()).pairs[0, 2]
    np.testing.assert_array_equal(np.nonzero(a.similarity > 0.999)[0], np.arange(0, N, 3))
    np.testing.assert_array_equal(np.nonzero(a.absolute_error == 0)[0], np.arange(0, N, 3))
    # float32 rows: what is left of an exact 0 is nothing, because both rows are the same
    np.testing.assert_array_equal(a.squared_distance[::3], 0.0)


@pytest.mark.parametrize("size", [2, 5, N])
@pytest.mark.parametrize("chunk_bytes", [1, 20_000, 2**28])
def test_cutting_the_work_changes_rounding_at_most(sets, size, chunk_bytes):
    describe, blocks = WhitenedPixels.fit(np.concatenate(sets)), Blocks(num_items=N, size=size)
    whole = compare(sets, describe, blocks=blocks)
    cut = compare(sets, describe, blocks=blocks, chunk_bytes=chunk_bytes)
    for pair, a in whole.pairs.items():
        b = cut.pairs[pair]
        np.testing.assert_array_equal(a.absolute_error, b.absolute_error)
        np.testing.assert_array_equal(a.unpaired_error, b.unpaired_error)
        # A matrix product of other row counts rounds differently: float32 features, 1e-6.
        for name in ("similarity", "squared_distance", "unpaired_similarity", "unpaired_distance"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-6)


def test_blocks_hold_the_couples_that_they_name(sets):
    blocks, describe = Blocks(num_items=N, size=5), Pixels()
    a = compare(sets, describe, blocks=blocks).pairs[0, 1]
    x, y = describe(sets[0]).astype(float), describe(sets[1]).astype(float)
    named = [(i, j) for rows in blocks for i, j in itertools.product(rows, rows) if i != j]
    assert len(named) == len(a.unpaired_similarity) == 4 * 20
    np.testing.assert_allclose(a.unpaired_similarity, [x[i] @ y[j] for i, j in named], atol=1e-12)
    squared = [((x[i] - y[j]) ** 2).sum() for i, j in named]
    assert a.unpaired_distance == pytest.approx(np.mean(squared), rel=1e-9)


def test_order_of_sets_only_swaps_the_roles(sets):
    forward = compare(sets[:2], Pixels()).pairs[0, 1]
    backward = compare(sets[1::-1], Pixels()).pairs[0, 1]
    np.testing.assert_allclose(forward.similarity, backward.similarity, atol=1e-15)
    np.testing.assert_array_equal(np.sort(forward.unpaired_error), np.sort(backward.unpaired_error))


def test_an_image_without_contrast_is_similar_to_nothing(sets):
    sets[0][3] = 7
    found = compare(sets, Pixels())
    np.testing.assert_array_equal(np.nonzero(found.self_similarity[0] < 0.5)[0], [3])
    assert found.pairs[0, 1].similarity[3] == 0.0


def test_progress_counts_every_seed_once(sets):
    seen: list[int] = []
    compare(sets, Pixels(), blocks=blocks_of(N, 50), chunk_bytes=1, on_seeds=seen.append)
    assert sum(seen) == N
    assert len(seen) > 1


def test_plans_bound_time_and_memory():
    assert plan_blocks(1000, 3, 64).exact
    large = plan_blocks(10_000, 7, 3072)
    assert not large.exact
    assert large.num_couples * 3072 <= 1.1e9
    many = plan_blocks(5000, 40, 64)
    assert many.num_couples * 780 <= 1.3 * 20_000_000


def test_bad_sets_and_bad_descriptors_are_refused(sets):
    with pytest.raises(ValueError, match="two sets or more"):
        compare(sets[:1], Pixels())
    with pytest.raises(ValueError, match="equal shape"):
        compare([sets[0], sets[1][:5]], Pixels())
    with pytest.raises(ValueError, match="N > 1"):
        compare([s[:1] for s in sets], Pixels())
    with pytest.raises(DescriptorMismatch, match="one finite row per image"):
        compare(sets, lambda images: np.zeros((3, 2), np.float32))
