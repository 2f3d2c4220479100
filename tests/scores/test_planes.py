"""Hull rules: equal to scikit-learn, scipy and shapely by the published steps; nulls and flags."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from shapely.geometry import Point, Polygon
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from regimes.errors import ConfigError, DescriptorMismatch
from regimes.scores.planes import outside_hull, stability, tsne


def draw(rng, make_features, n, d=5, scale=1.0):
    return make_features(scale * rng.standard_normal((n, d)), unit=False)


def by_shapely(real, generated):
    """Count, and overlap of the hulls in percent, by the published steps."""
    ours, theirs = (Polygon(p[ConvexHull(p).vertices]) for p in (real, generated))
    outside = [not ours.contains(Point(p)) for p in generated]
    shared = ours.intersection(theirs).area
    return outside, 100 * shared / ours.union(theirs).area


@pytest.fixture(scope="module")
def published():
    """Two sets, and what scikit-learn, scipy and shapely make of them."""
    rng = np.random.default_rng(5)
    real, generated = (rng.standard_normal((n, 10)).astype(np.float32) for n in (90, 140))
    points = TSNE(n_components=2, random_state=0).fit_transform(np.concatenate([real, generated]))
    return real, generated, by_shapely(points[:90], points[90:])


def test_tsne_hull_is_exactly_what_was_published(published, make_features):
    real, generated, (outside, overlap) = published
    found = outside_hull(
        make_features(generated, unit=False), make_features(real, unit=False), rule="tsne-hull"
    )
    assert found.selected.tolist() == outside
    assert found.count == sum(outside) > 0
    assert found.overlap_percent == pytest.approx(overlap, rel=1e-9)


def test_pca_hull_equals_scikit_learn_and_shapely(rng, make_features):
    real, generated = draw(rng, make_features, 60, 4), draw(rng, make_features, 200, 4, 1.5)
    pca = PCA(2).fit(real.values.astype(float))
    points = [pca.transform(x.values.astype(float)) for x in (real, generated)]
    outside, overlap = by_shapely(*points)
    found = outside_hull(generated, real)
    assert found.selected.tolist() == outside
    assert 20 < found.count < 180
    assert found.overlap_percent == pytest.approx(overlap, rel=1e-9)
    assert found.real_hull.area == pytest.approx(ConvexHull(points[0]).volume, rel=1e-9)
    assert found.generated_hull.area == pytest.approx(ConvexHull(points[1]).volume, rel=1e-9)


def test_counts_of_exchangeable_samples_are_the_null_and_rarely_exceed_it(rng, make_features):
    found = [
        outside_hull(draw(rng, make_features, 300, 2), draw(rng, make_features, 200, 2))
        for _ in range(300)
    ]
    counts, expected = (np.array([getattr(f, a) for f in found]) for a in ("count", "expected"))
    error = counts.std() / np.sqrt(300)
    # V of the N real points stands for that of N + 1: equal up to a fraction of a percent.
    assert counts.mean() == pytest.approx(expected.mean(), abs=3 * error + 0.1)
    flagged = np.mean([f.exceeds_null for f in found])
    assert flagged <= 0.09  # at most 5%, and three standard errors of 300 repetitions
    ordinary = found[int(np.argmin(counts))]
    assert "no evidence of anything new" in ordinary.words
    assert not ordinary.exceeds_null


@pytest.mark.parametrize("planted", [0, 60])
def test_planted_novelty_is_counted_and_flagged(rng, make_features, planted):
    real, values = draw(rng, make_features, 200), 0.2 * rng.standard_normal((150, 5))
    values[:planted, 0] += 30
    # The principal directions are the real images', so only what they see is seen.
    real = make_features(real.values * np.array([5, 4, 1, 1, 1]), unit=False)
    found = outside_hull(make_features(values, unit=False), real)
    assert found.selected.tolist() == [True] * planted + [False] * (150 - planted)
    assert found.exceeds_null == (planted > 0)
    assert ("more than chance." in found.words) == (planted > 0)
    assert found.score.null == len(found.real_hull.vertices) / 200
    assert found.expected == pytest.approx(150 * found.score.null)


def test_novelty_across_the_plane_is_not_seen_by_a_hull(rng, make_features):
    real = make_features(rng.standard_normal((200, 3)) * [5, 4, 1], unit=False)
    generated = make_features(rng.standard_normal((100, 3)) * 0.5 + [0, 0, 20], unit=False)
    assert outside_hull(generated, real).count == 0


def test_real_images_in_place_of_samples_are_outside_only_as_vertices(rng, make_features):
    real = draw(rng, make_features, 80)
    found = outside_hull(real, real)
    assert found.count == len(found.real_hull.vertices)
    assert found.overlap_percent == pytest.approx(100)
    assert found.score.value == found.score.null


def test_pca_hull_ignores_the_order_of_items(rng, make_features):
    a, b = rng.standard_normal((70, 4)), rng.standard_normal((60, 4))
    p, q = rng.permutation(70), rng.permutation(60)
    first = outside_hull(make_features(a, unit=False), make_features(b, unit=False))
    second = outside_hull(make_features(a[p], unit=False), make_features(b[q], unit=False))
    np.testing.assert_array_equal(first.selected[p], second.selected)


def test_stability_is_the_overlap_of_selections_with_different_seeds(published, make_features):
    real, generated = (make_features(x, unit=False) for x in published[:2])
    found = stability(generated, real, seeds=(0, 1), library="openTSNE")
    assert found.overlap.shape == (2, 2)
    assert found.overlap[0, 1] == found.overlap[1, 0] == found.mean_overlap
    masks = [
        outside_hull(generated, real, rule="tsne-hull", seed=s, library="openTSNE").selected
        for s in (0, 1)
    ]
    both, either = (masks[0] & masks[1]).sum(), (masks[0] | masks[1]).sum()
    assert found.mean_overlap == both / either
    assert found.counts == tuple(m.sum() for m in masks)


@pytest.mark.parametrize("library", ["scikit-learn", "openTSNE"])
def test_maps_of_other_seeds_are_other_maps(library, rng):
    rows = rng.standard_normal((60, 5)).astype(np.float32)
    first, second, again = (tsne(rows, seed, library) for seed in (0, 1, 1))
    np.testing.assert_array_equal(second, again)
    assert np.abs(first - second).max() > 0.1 * np.ptp(first)


def test_errors_say_what_is_wrong(rng, make_features, monkeypatch):
    a, b = (make_features(rng.standard_normal((9, 3)), descriptor=d) for d in "ab")
    with pytest.raises(DescriptorMismatch):
        outside_hull(a, b)
    with pytest.raises(ValueError, match="expected pca-hull or tsne-hull, got hull"):
        outside_hull(a, a, rule="hull")
    with pytest.raises(ValueError, match="more than 30 images in all, got 18"):
        outside_hull(a, a, rule="tsne-hull")
    with pytest.raises(ValueError, match="expected scikit-learn or openTSNE, got umap"):
        tsne(a.values, 0, "umap")
    with pytest.raises(ValueError, match="2 wide or more, got 1"):
        outside_hull(*(make_features(np.ones((9, 1))) for _ in range(2)))
    with pytest.raises(ValueError, match="expected 2 or more, got"):
        stability(a, a, seeds=(3,))
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    with pytest.raises(ConfigError, match="pip install openTSNE"):
        tsne(np.zeros((40, 3), np.float32), 0, "openTSNE")
