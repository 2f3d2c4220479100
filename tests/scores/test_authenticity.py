"""Authenticity by its definition; C_T against scipy's Mann-Whitney test and under its null."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm
from sklearn.decomposition import PCA

from regimes.errors import DescriptorMismatch
from regimes.scores import neighbours
from regimes.scores.authenticity import (
    Cells,
    authenticity,
    copying_test,
    fit_cells,
    standardized_rank_sum,
)
from regimes.scores.result import wilson_interval

ONE_CELL = Cells(
    mean=np.zeros(3), directions=np.eye(3), centres=np.zeros((1, 3)), descriptor="test"
)


def draw(rng, make_features, n, scale=1.0, shift=0.0):
    return make_features(scale * rng.standard_normal((n, 3)) + shift, unit=False)


def by_definition(items, train):
    table = np.linalg.norm(items.values[:, None].astype(float) - train.values, axis=2)
    own = np.linalg.norm(train.values[:, None].astype(float) - train.values, axis=2)
    np.fill_diagonal(own, np.inf)
    return own.min(1)[table.argmin(1)] < table.min(1)


@pytest.mark.parametrize("block", [6, 4096])
def test_authenticity_equals_its_definition(rng, make_features, monkeypatch, block):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    generated, train, heldout = (draw(rng, make_features, n) for n in (60, 40, 50))
    found = authenticity(generated, train, heldout)
    expected = by_definition(generated, train)
    np.testing.assert_array_equal(found.per_item["authentic"], expected)
    assert found.null == by_definition(heldout, train).mean()
    assert (found.low, found.high) == wilson_interval(int(expected.sum()), 60)
    assert 0.2 < found.value < 0.8


@pytest.mark.parametrize("planted", [0, 5, 30])
def test_planted_copies_are_not_authentic_and_distant_samples_are(rng, make_features, planted):
    train = draw(rng, make_features, 50)
    values = rng.standard_normal((30, 3)) + 40
    values[:planted] = train.values[:planted] + 1e-4
    found = authenticity(make_features(values, unit=False), train, train)
    assert found.value == (30 - planted) / 30
    assert found.null == 0.0  # the training images themselves
    np.testing.assert_array_equal(found.per_item["nearest_id"][:planted], np.arange(planted))


def test_near_copies_of_duplicated_images_pass_as_authentic_only_as_published(rng, make_features):
    train = rng.standard_normal((10, 3))
    train[5:] = train[:5]
    sets = [make_features(v, unit=False) for v in (train[:5] + 1e-4, train, train)]
    assert authenticity(*sets).value == 0.0
    assert authenticity(*sets, collapse=False).value == 1.0


def test_scores_ignore_the_order_of_items(rng, make_features):
    values = [rng.standard_normal((n, 3)) for n in (40, 30, 35)]
    mixed = [v[rng.permutation(len(v))] for v in values]
    first, second = ([make_features(v, unit=False) for v in sets] for sets in (values, mixed))
    assert authenticity(*first).value == authenticity(*second).value
    found = [copying_test(*sets, cells=ONE_CELL).value for sets in (first, second)]
    assert found[0] == pytest.approx(found[1], rel=1e-12)


@pytest.mark.parametrize("levels", [3, 10**6])
def test_rank_sum_equals_scipys(rng, levels):
    a, b = rng.integers(0, levels, 30) / 1.0, rng.integers(0, levels, 40) / 0.8
    z, _ = standardized_rank_sum(a, b)
    expected = mannwhitneyu(a, b, method="asymptotic", use_continuity=False)
    assert 2 * norm.sf(abs(z)) == pytest.approx(expected.pvalue, rel=1e-10)
    assert (z > 0) == (expected.statistic > 600)


def test_variance_of_the_rank_sum_is_that_of_repetitions(rng):
    pairs = [(rng.standard_normal(50) - 0.7, rng.standard_normal(80)) for _ in range(400)]
    found = np.array([standardized_rank_sum(a, b) for a, b in pairs])
    # 400 repetitions give a variance within 7% (one standard deviation).
    assert found[:, 1].mean() == pytest.approx(found[:, 0].var(), rel=0.25)
    assert found[:, 0].mean() < -2


def test_rank_sum_of_equal_or_single_values():
    assert standardized_rank_sum(np.ones(4), np.ones(5)) == (0.0, 1.0)
    z, variance = standardized_rank_sum(np.array([1.0]), np.array([2.0]))
    assert (z, variance) == (-1.0, 1.0)


def test_c_t_of_one_cell_is_the_rank_sum_of_distances(rng, make_features):
    generated, train, heldout = (draw(rng, make_features, n) for n in (60, 40, 50))
    found = copying_test(generated, train, heldout, cells=ONE_CELL)
    nearest = [
        np.linalg.norm(x.values[:, None].astype(float) - train.values, axis=2).min(1)
        for x in (generated, heldout)
    ]
    expected = mannwhitneyu(*nearest, method="asymptotic", use_continuity=False)
    assert 2 * norm.sf(abs(found.value)) == pytest.approx(expected.pvalue, rel=1e-9)
    np.testing.assert_allclose(found.per_item["distance"], nearest[0], rtol=1e-9)


@pytest.mark.parametrize("shape", [(120, 8), (40, 200)])  # more rows than columns, and fewer
def test_cells_are_those_of_scikit_learns_components(rng, make_features, shape):
    centres = np.repeat([[0.0], [6.0], [20.0]], -(-shape[0] // 3), 0)[: shape[0]]
    train = make_features(rng.standard_normal(shape) + centres, unit=False)
    found, pca = fit_cells(train, most_directions=5), PCA(5, svd_solver="full").fit(train.values)
    np.testing.assert_allclose(found.directions @ found.directions.T, np.eye(5), atol=1e-10)
    np.testing.assert_allclose(np.abs(np.sum(found.directions * pca.components_, 1)), 1, atol=1e-4)
    labels = found.of(train)
    assert {
        len(set(part)) for part in np.split(labels, np.flatnonzero(np.diff(centres[:, 0])) + 1)
    } == {1}
    assert len(set(labels)) == 3


def test_cells_of_equal_images_hold_them_all(make_features):
    train = make_features(np.ones((6, 9)), unit=False)
    with pytest.warns(UserWarning, match="distinct clusters"):
        assert set(fit_cells(train).of(train)) == {0}


def test_c_t_weighs_cells_by_their_held_out_images(rng, make_features):
    cells = Cells(
        mean=np.zeros(3),
        directions=np.eye(3),
        centres=np.array([[0.0] * 3, [50.0] * 3]),
        descriptor="test",
    )

    def two(n, m, scale=1.0):
        return np.concatenate(
            [rng.standard_normal((n, 3)), scale * rng.standard_normal((m, 3)) + 50]
        )

    generated, train, heldout = (
        make_features(v, unit=False) for v in (two(40, 40, 0.1), two(30, 50), two(60, 20))
    )
    found = copying_test(generated, train, heldout, cells=cells)
    z = found.per_item["z"]
    assert z[40] != z[0]
    assert found.value == pytest.approx((60 * z[0] + 20 * z[40]) / 80, rel=1e-12)
    assert found.per_item["cell"].tolist() == [0] * 40 + [1] * 40
    # Without training images in a cell it is left out, where the published code fails.
    near = make_features(rng.standard_normal((30, 3)), unit=False)
    alone = copying_test(generated, near, heldout, cells=cells)
    assert np.isnan(alone.per_item["distance"][40:]).all()
    assert alone.value == alone.per_item["z"][0]


def test_c_t_is_standard_normal_when_samples_are_as_real_as_held_out_images(rng, make_features):
    train = draw(rng, make_features, 40)
    values, hits = [], 0
    for _ in range(200):
        found = copying_test(
            *(draw(rng, make_features, 40), train, draw(rng, make_features, 40)), cells=ONE_CELL
        )
        values.append(found.value)
        hits += found.low < 0 < found.high
    # 200 repetitions: the mean within .21 and the deviation within 15%, at three standard errors.
    assert np.mean(values) == pytest.approx(0, abs=0.21)
    assert np.std(values) == pytest.approx(1, abs=0.15)
    assert hits / 200 == pytest.approx(0.95, abs=0.05)
    assert found.null == 0.0


def test_copies_make_c_t_negative_and_scattered_samples_positive(rng, make_features):
    train, heldout = draw(rng, make_features, 100), draw(rng, make_features, 100)
    copies = make_features(train.values[:80] + 1e-3, unit=False)
    found = copying_test(copies, train, heldout)
    assert found.high < -3
    scattered = copying_test(draw(rng, make_features, 80, scale=4), train, heldout, cells=ONE_CELL)
    assert scattered.low > 3


def test_cells_are_the_same_every_time_and_hold_the_modes(rng, make_features):
    modes = np.repeat(10 * np.eye(3), 20, axis=0) + rng.standard_normal((60, 3))
    train = make_features(modes, unit=False)
    labels = fit_cells(train, seed=3).of(train)
    np.testing.assert_array_equal(labels, fit_cells(train, seed=3).of(train))
    assert [len(set(part)) for part in labels.reshape(3, 20)] == [1, 1, 1]
    assert len(set(labels)) == 3
    assert fit_cells(train, most_directions=2).directions.shape == (2, 3)


def test_errors_say_what_is_missing(rng, make_features):
    a, b = (make_features(rng.standard_normal((9, 3)), descriptor=d) for d in "ab")
    for score in (authenticity, copying_test):
        with pytest.raises(DescriptorMismatch):
            score(a, b, b)
        with pytest.raises(DescriptorMismatch):
            score(b, b, a)
    with pytest.raises(ValueError, match="expected 1 to 9, got 10"):
        fit_cells(a, num_cells=10)
    with pytest.raises(ValueError, match=r"no cell has more than 2\.22 of the samples"):
        copying_test(a, a, a)  # 20 of 9 samples
    same = make_features(np.ones((4, 3)), descriptor="a")
    with pytest.raises(ValueError, match="at least 1 references"):
        authenticity(a, same, a)
