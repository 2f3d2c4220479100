"""Streamed moments are those of all rows at once, whatever the blocks and the order of merging."""

import numpy as np
import pytest

from regimes.gaussians.moments import StreamedMoments
from regimes.spectra.rows import Rows


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(0)
    return 1e4 + rng.standard_normal((257, 31)) * np.geomspace(1e-2, 10, 31)


@pytest.mark.parametrize("num_bytes", [1, 5000, 2**20])
def test_moments_in_blocks_are_numpys(x, num_bytes):
    found = StreamedMoments.of(Rows(values=x), num_bytes=num_bytes)
    assert found.count == 257
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-13)
    cov = np.cov(x, rowvar=False)
    np.testing.assert_allclose(found.covariance, cov, rtol=0, atol=1e-9 * np.abs(cov).max())
    # Far from 0 the second moment minus the square of the mean has lost what this keeps.
    naive = x.astype(np.float32).T @ x.astype(np.float32) / 256 - np.outer(x.mean(0), x.mean(0))
    assert np.abs(found.covariance - cov).max() < 1e-9 * np.abs(naive - cov).max()


def test_merging_is_adding_rows_in_any_order(x):
    parts = [StreamedMoments.of(Rows(values=x[i::3])) for i in range(3)]
    for order in ((0, 1, 2), (2, 0, 1)):
        whole = StreamedMoments(31)
        for i in order:
            whole.merge(parts[i])
        assert whole.count == 257
        np.testing.assert_allclose(whole.covariance, np.cov(x, rowvar=False), rtol=0, atol=1e-9)


def test_tiles_cover_the_matrix(monkeypatch, x):
    monkeypatch.setattr("regimes.spectra.triangles._TILE", 7)
    found = StreamedMoments.of(Rows(values=x)).scatter
    np.testing.assert_allclose(found, 256 * np.cov(x, rowvar=False), rtol=0, atol=1e-7)
    assert (found == found.T).all()


def test_one_row_has_no_covariance(x):
    with pytest.raises(ValueError, match="2 rows or more, got 1"):
        _ = StreamedMoments.of(Rows(values=x[:1])).covariance
