"""Gaussians and mixtures: fitted moments, exact samples, seeds, shrinkage, EM, quantisation."""

import numpy as np
import pytest
from scipy.stats import chi2, ks_2samp, kstest
from sklearn.covariance import ledoit_wolf_shrinkage

from regimes.errors import ConfigError
from regimes.gaussians.fit import FitConfig, fit_gaussian, fit_mixture
from regimes.gaussians.model import Gaussian, Mixture
from regimes.gaussians.quantisation import quantisation_error, quantise
from regimes.images.pixels import to_uint8
from regimes.spectra.rows import Rows


def data(count, width, seed=0):
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((width, width)) / width**0.5
    return rng.standard_normal((count, width)) @ mix + rng.standard_normal(width)


def alone(gaussian):
    return Mixture(weights=np.ones(1), components=(gaussian,))


@pytest.mark.parametrize("count", [5, 20, 21, 400])
def test_moments_are_those_of_the_rows_on_either_side(count):
    x = data(count, 20)
    found = fit_gaussian(Rows(values=x))
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance(), np.cov(x, rowvar=False), atol=1e-12)
    assert len(found.factor) == min(count, 20)
    np.testing.assert_allclose(
        found.eigenvalues(), np.linalg.eigvalsh(np.cov(x, rowvar=False))[::-1], atol=1e-12
    )


@pytest.mark.parametrize("count", [8, 300])
@pytest.mark.parametrize("draws", [20_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_moments_of_many_samples_are_the_fitted_ones_within_monte_carlo_error(count, draws):
    width = 16
    gaussian = fit_gaussian(Rows(values=data(count, width)))
    x, _ = alone(gaussian).sample(range(draws))
    cov = gaussian.covariance()
    deviation = np.sqrt(np.diag(cov) / draws)
    assert np.abs((x.mean(0) - gaussian.mean) / deviation).max() < 4.5
    # Var(S_ij) = (c_ii c_jj + c_ij^2) / draws
    spread = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / draws)
    assert np.abs((np.cov(x, rowvar=False) - cov) / spread).max() < 4.7


def test_the_low_rank_and_the_dense_sampler_have_one_law():
    x = data(12, 40)
    low = fit_gaussian(Rows(values=x))
    values, vectors = np.linalg.eigh(low.covariance())
    dense = Gaussian(mean=low.mean, factor=np.sqrt(values.clip(0))[:, None] * vectors.T)
    assert (len(low.factor), len(dense.factor)) == (12, 40)
    a, b = alone(low).sample(range(4000))[0], alone(dense).sample(range(4000, 8000))[0]
    for direction in np.random.default_rng(1).standard_normal((5, 40)):
        assert ks_2samp(a @ direction, b @ direction).pvalue > 1e-3
    # Mahalanobis distances are chi^2 with N - 1 degrees of freedom, and nothing lies outside the span.
    span = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:11]
    for sample in (a, b):
        centred = sample - low.mean
        np.testing.assert_allclose(centred @ span.T @ span, centred, atol=1e-6)
        scaled = (centred @ span.T) @ np.linalg.inv(
            np.linalg.cholesky(span @ low.covariance() @ span.T)
        ).T
        assert kstest((scaled**2).sum(1), chi2(11).cdf).pvalue > 1e-3


def test_a_seed_determines_its_sample_in_any_batch():
    labels = np.arange(60) % 3
    mixture = fit_mixture(
        Rows(values=data(60, 10)), FitConfig(by="class", shrinkage="ridge"), labels
    )
    x, chosen = mixture.sample([5, 1, 99, 7])
    for i, seed in enumerate([5, 1, 99, 7]):
        one, of_one = mixture.sample([seed])
        np.testing.assert_allclose(one[0], x[i], atol=1e-13)
        assert of_one[0] == chosen[i]
    assert np.abs(mixture.sample([5], stream="other")[0] - x[0]).max() > 0.1


def test_a_mixture_has_the_moments_of_all_rows_and_its_classes_in_proportion():
    x, labels = data(90, 12), np.repeat([4, 7, 9], [15, 30, 45])
    x[labels == 7] += 3
    mixture = fit_mixture(Rows(values=x), FitConfig(by="class"), labels)
    assert mixture.labels == (4, 7, 9)
    assert (mixture.components[1].num_fitted, mixture.num_fitted) == (30, 15)
    np.testing.assert_allclose(mixture.components[1].mean, x[labels == 7].mean(0), rtol=1e-12)
    mean, cov = mixture.moments()
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-12)
    draws, chosen = mixture.sample(range(30_000))
    shares = np.bincount(chosen) / 30_000
    assert np.abs(shares - [1 / 6, 1 / 3, 1 / 2]).max() < 4 * 0.5 / 30_000**0.5
    assert np.linalg.norm(np.cov(draws, rowvar=False) - cov) < 0.03 * np.linalg.norm(cov)
    np.testing.assert_allclose(mixture.population(), np.linalg.eigvalsh(cov)[::-1], atol=1e-10)


@pytest.mark.parametrize("count", [15, 200])
def test_ledoit_wolf_is_scikit_learns(count):
    x = data(count, 40)
    found = fit_gaussian(Rows(values=x), FitConfig(shrinkage="ledoit-wolf"))
    assert found.shrinkage == pytest.approx(ledoit_wolf_shrinkage(x), rel=1e-10)
    assert found.trace == pytest.approx(np.trace(np.cov(x, rowvar=False)))
    assert np.linalg.matrix_rank(found.covariance()) == 40


def test_a_ridge_adds_its_share_of_the_mean_eigenvalue():
    x = data(10, 40)
    plain = fit_gaussian(Rows(values=x))
    ridge = fit_gaussian(Rows(values=x), FitConfig(shrinkage="ridge", ridge=0.1))
    extra = 0.1 * plain.trace / 40
    np.testing.assert_allclose(
        ridge.covariance(), plain.covariance() + extra * np.eye(40), atol=1e-12
    )


def test_em_finds_planted_components():
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.standard_normal((300, 3)), rng.standard_normal((100, 3)) * 0.3 + 8])
    mixture = fit_mixture(Rows(values=x), FitConfig(components=2))
    order = np.argsort(mixture.weights)
    assert mixture.weights[order] == pytest.approx([0.25, 0.75], abs=0.01)
    small = mixture.components[order[0]]
    np.testing.assert_allclose(small.mean, x[300:].mean(0), atol=1e-6)
    np.testing.assert_allclose(small.covariance(), np.cov(x[300:].T, ddof=0), atol=1e-4)
    assert mixture.notes == ()
    few = fit_mixture(Rows(values=x), FitConfig(components=6, em_iterations=1))
    assert few.notes == ("EM did not converge in 1 step.",)


def test_what_cannot_be_fitted_is_refused_by_name():
    x = Rows(values=data(6, 4))
    for labels, config, text in (
        (None, FitConfig(by="class"), "do not say their classes"),
        (np.array([0, 0, 0, 1, 1, 2]), FitConfig(by="class"), "2 images or more"),
        (None, FitConfig(components=4), "at least 8 images, got 6"),
    ):
        with pytest.raises(ConfigError, match=text):
            fit_mixture(x, config, labels)
    for wrong, text in (
        ({"components": 0}, "--mixture.components: expected at least 1"),
        ({"ridge": 0.0}, "--mixture.ridge: expected a number above 0"),
        ({"ridge": 0.1}, "--mixture.ridge: of --mixture.shrinkage ridge"),
        ({"em_seed": 1}, "--mixture.em-seed, --mixture.em-iterations: of EM"),
        ({"em_iterations": 9, "by": "class"}, "of EM, for --mixture.components"),
        ({"by": "class", "components": 2}, "--mixture.by class: one Gaussian per class"),
    ):
        with pytest.raises(ConfigError, match=text):
            FitConfig(**wrong)
    bad = np.ones((5, 3))
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match="row 3"):
        fit_gaussian(Rows(values=bad))


def test_quantisation_is_the_houses_and_its_error_is_measured():
    import torch

    x = np.random.default_rng(0).standard_normal((500, 30))
    images = to_uint8(torch.from_numpy(x.reshape(500, 1, 5, 6)))
    assert (quantise(x).reshape(images.shape) == images).all()
    found = quantisation_error(x)
    q = images.reshape(500, 30) / 127.5 - 1
    a, b = np.cov(x, rowvar=False), np.cov(q, rowvar=False)
    assert found.clipped == pytest.approx((np.abs(x) > 1).mean())
    assert found.trace_ratio == pytest.approx(np.trace(b) / np.trace(a))
    assert found.covariance_error == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a))
    shift = np.linalg.norm(q.mean(0) - x.mean(0)) / np.trace(a) ** 0.5
    assert found.mean_error == pytest.approx(shift)
    inside = quantisation_error(np.clip(0.1 * x, -0.9, 0.9))
    assert inside.clipped == 0
    assert abs(inside.trace_ratio - 1) < 0.01
