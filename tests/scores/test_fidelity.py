"""Precision and recall against the prdc package, closed forms and the tie rule."""

from __future__ import annotations

import numpy as np
import pytest
from prdc import compute_prdc

from regimes.errors import DescriptorMismatch
from regimes.scores import neighbours
from regimes.scores.fidelity import knn_radii, precision, realism, recall


@pytest.fixture(params=[5, 4096])
def block(request, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", request.param)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_equal_the_prdc_package(rng, make_features, block, k):
    # prdc compares strictly; on data without ties that is the same.
    real, fake = rng.standard_normal((80, 4)), 0.8 * rng.standard_normal((60, 4)) + 0.5
    r, f = make_features(real, unit=False), make_features(fake, unit=False)
    expected = compute_prdc(r.values.astype(float), f.values.astype(float), nearest_k=k)
    found = precision(f, r, f, k=k), recall(f, r, f, k=k)
    assert found[0].value == pytest.approx(expected["precision"], abs=1e-12)
    assert found[1].value == pytest.approx(expected["recall"], abs=1e-12)
    assert 0.1 < found[0].value < 1
    assert 0.1 < found[1].value < 1


def test_radii_are_distances_to_the_kth_other_point(rng, make_features, block):
    points = make_features(rng.standard_normal((50, 3)), unit=False)
    x = points.values.astype(float)
    squared = np.sort(((x[:, None] - x[None]) ** 2).sum(-1), axis=1)
    for k in (1, 4):
        np.testing.assert_allclose(knn_radii(points, k), squared[:, k], rtol=1e-12)


def test_point_on_the_border_is_inside(make_features):
    reference = make_features([[0.0], [1.0], [10.0]], unit=False)  # radii for k = 1: 1, 1, 9
    generated = make_features([[-1.0], [-1.001], [19.0], [19.001]], unit=False)
    found = precision(generated, reference, generated, k=1)
    assert found.per_item["inside"].tolist() == [True, False, True, False]
    assert found.value == 0.5


def test_copies_of_duplicated_reference_images_are_inside(make_features, rng):
    values = rng.standard_normal((5, 40))
    reference = make_features(np.repeat(values, 4, axis=0), unit=False)  # every radius is 0
    generated = make_features(np.concatenate([values, values + 1e-3]), unit=False)
    found = precision(generated, reference, generated, k=3)
    assert found.per_item["inside"].tolist() == [True] * 5 + [False] * 5


@pytest.mark.parametrize("planted", [0, 4, 20])
def test_samples_far_away_lower_precision_by_exactly_their_share(rng, make_features, planted):
    reference = make_features(rng.standard_normal((50, 3)), unit=False)
    generated = reference.values[:20].copy()
    generated[:planted] += 1000
    samples = make_features(generated, unit=False)
    assert precision(samples, reference, samples).value == (20 - planted) / 20


def test_samples_of_one_mode_of_two_have_recall_of_a_half(rng, make_features):
    mode = rng.standard_normal((40, 3))
    reference = make_features(np.concatenate([mode, mode + 100]), unit=False)
    samples = make_features(mode, unit=False)
    assert recall(samples, reference, samples).value == 0.5
    assert precision(samples, reference, samples).value == 1.0


def test_same_law_has_the_same_score_both_ways(rng, make_features):
    a, b = (make_features(rng.standard_normal((400, 4)), unit=False) for _ in range(2))
    found = precision(a, b, a), precision(b, a, a)
    assert found[0].value == pytest.approx(found[1].value, abs=0.08)
    assert recall(a, b, a).value == precision(b, a, a).value  # the same with the roles swapped
    assert found[0].value > 0.85


def test_null_is_the_score_of_the_baseline(rng, make_features):
    a, b, noise = (
        make_features(scale * rng.standard_normal((60, 3)), unit=False) for scale in (1, 1, 3)
    )
    for metric in (precision, recall):
        null = metric(noise, b, noise).value
        assert metric(a, b, noise).null == null
        assert null > 0
        assert null != metric(a, b, a).value


def test_scores_ignore_the_order_of_items(rng, make_features):
    a, b = rng.standard_normal((40, 3)), rng.standard_normal((50, 3))
    p, q = rng.permutation(40), rng.permutation(50)
    for metric in (precision, recall):
        sets = make_features(a, unit=False), make_features(b, unit=False)
        mixed = make_features(a[p], p, unit=False), make_features(b[q], q, unit=False)
        assert metric(*sets, sets[0]).value == metric(*mixed, mixed[0]).value


def test_items_of_precision_are_samples_and_of_recall_real_images(make_features, rng):
    samples = make_features(rng.standard_normal((10, 2)), range(100, 110), unit=False)
    reference = make_features(rng.standard_normal((20, 2)), range(20), unit=False)
    found = precision(samples, reference, samples), recall(samples, reference, samples)
    assert found[0].per_item["id"].tolist() == list(range(100, 110))
    assert found[1].per_item["id"].tolist() == list(range(20))
    assert (found[0].num_generated, found[0].num_train) == (10, 20)
    assert (found[1].num_generated, found[1].num_train) == (20, 10)
    assert [f.name for f in found] == ["precision", "recall"]


@pytest.mark.parametrize("metric", [precision, recall])
def test_sets_of_k_points_or_fewer_are_refused(rng, make_features, metric):
    few = make_features(rng.standard_normal((3, 2)))
    with pytest.raises(ValueError, match="at least 3 references"):
        metric(few, few, few, k=3)


@pytest.mark.parametrize("metric", [precision, recall])
@pytest.mark.parametrize("odd_one", [0, 2])
def test_different_descriptors_are_refused(make_features, metric, odd_one):
    sets = [make_features(np.eye(5), descriptor="x" if i == odd_one else "d") for i in range(3)]
    with pytest.raises(DescriptorMismatch, match="same descriptor"):
        metric(*sets)


def test_realism_is_the_largest_ratio_of_radius_to_distance(rng, make_features):
    generated, real = (make_features(rng.standard_normal((n, 3)), unit=False) for n in (40, 51))
    radii = np.sqrt(knn_radii(real, 3))
    kept = radii <= np.median(radii)
    distances = np.linalg.norm(generated.values[:, None].astype(float) - real.values[kept], axis=2)
    found = realism(generated, real)
    np.testing.assert_allclose(found, (radii[kept] / distances).max(1), rtol=1e-9)
    # At least 1 is inside a ball of the smaller half, so inside the region.
    inside = precision(generated, real, generated).per_item["inside"]
    assert 0 < (found >= 1).sum() <= inside.sum()
    assert inside[found >= 1].all()


def test_copies_are_infinitely_real_and_outliers_make_nothing_real(make_features):
    real = make_features([[0.0], [1.0], [2.0], [3.0], [100.0]], unit=False)
    generated = make_features([[1.0], [90.0]], unit=False)
    found = realism(generated, real, k=1)
    assert found[0] == np.inf
    assert found[1] == pytest.approx(1 / 87)  # the ball of the outlier is left out
