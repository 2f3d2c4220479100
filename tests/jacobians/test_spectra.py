"""Randomised singular values against all of them, on a trained network and on planted matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.datasets import load_digits

from regimes.denoisers.preconditioning import EDM, Denoiser
from regimes.denoisers.residual_mlp import ResidualMLP
from regimes.errors import ConfigError
from regimes.jacobians import spectra
from regimes.jacobians.linearization import Dense, Linearization
from regimes.jacobians.ranks import Spectrum, numerical_rank
from regimes.jacobians.spectra import SpectrumConfig, decompose, full_spectra, randomised
from regimes.training.ensemble import EnsembleTrainer, TrainingConfig


@pytest.fixture(scope="module")
def digits():
    """A small network of the digits job, trained for a moment, and digits."""
    images = torch.from_numpy(load_digits().images[:256, None] / 8 - 1).float()
    trainer = EnsembleTrainer(
        ["a"],
        [images],
        width=64,
        blocks=2,
        steps=150,
        sigma_data=0.5,
        seed=0,
        config=TrainingConfig(),
    )
    for _ in range(150):
        trainer.step()
    network = ResidualMLP((1, 8, 8), 64, blocks=2)
    network.load_state_dict(trainer.member_weights(0))
    return Denoiser(network, EDM(sigma_data=0.5)).eval().requires_grad_(False), images


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_randomised_and_full_singular_values_agree_on_a_digits_network(digits, sigma):
    denoiser, images = digits
    noise = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    local = Linearization(denoiser, images[:3] + sigma * noise, sigma)
    full = decompose(local, SpectrumConfig(method="full"))
    config = SpectrumConfig(method="randomised", width=8, max_width=64)
    part = decompose(local, config, seed=1)
    for a, b in zip(full.spectra, part.spectra, strict=True):
        assert a.is_full
        count = int(numerical_rank(a, "energy").value)
        assert count <= len(b.values)
        error = np.abs(a.values[:count] - b.values[:count]).max()
        assert error <= 1e-3 * a.values[0]
        assert abs(a.energy - b.energy) <= 4 * b.rest_error + 1e-3 * a.energy
        low, high = numerical_rank(b, "energy")[1:]
        assert low <= numerical_rank(a, "energy").value <= high
    # Leading vectors, where the gap to the next value determines them: up to sign.
    for p, spectrum in enumerate(full.spectra):
        if spectrum.values[1] < 0.9 * spectrum.values[0]:
            assert abs(float(full.inputs[p, 0] @ part.inputs[p, 0])) > 0.99


def planted(values, seed=0, count=2):
    generator = torch.Generator().manual_seed(seed)
    n = len(values)
    shape = (count, n, n)
    Q1, Q2 = (
        torch.linalg.qr(torch.randn(shape, dtype=torch.float64, generator=generator)).Q
        for _ in range(2)
    )
    return Q1 @ torch.diag(torch.as_tensor(values, dtype=torch.float64)) @ Q2.mT


def test_a_planted_low_rank_is_found_exactly():
    values = np.r_[np.linspace(2, 1, 12), np.zeros(88)]
    matrices = planted(values)
    config = SpectrumConfig(method="randomised", width=20)
    found = randomised(Dense(matrices), matrices, config, vectors=3)
    for p, spectrum in enumerate(found.spectra):
        np.testing.assert_allclose(spectrum.values[:12], values[:12], atol=1e-12)
        assert spectrum.rest < 1e-24
        assert numerical_rank(spectrum, "energy").value == 12
        for i in range(3):  # J v = s u
            image = matrices[p] @ found.inputs[p, i]
            torch.testing.assert_close(image, values[i] * found.outputs[p, i], atol=1e-9, rtol=0)


def test_the_energy_that_is_missed_is_measured():
    values = np.r_[np.ones(10), np.full(190, 0.1)]
    matrices = planted(values)
    config = SpectrumConfig(method="randomised", width=10, max_width=10, power=4, probes=200)
    for spectrum in randomised(Dense(matrices), matrices, config).spectra:
        listed = float((spectrum.values**2).sum())
        assert listed < 10.5  # of 11.9
        assert spectrum.energy == pytest.approx(11.9, abs=4 * spectrum.rest_error)
        assert 0 < spectrum.rest_error < 0.1


@pytest.mark.parametrize("probes", [2, 10])
def test_bounds_hold_with_few_probes(probes):
    """Of two probes two standard errors left out the rank of 30% of 200 matrices."""
    matrices = planted(np.ones(40), count=200)
    config = SpectrumConfig(method="randomised", width=4, max_width=8, probes=probes)
    found = randomised(Dense(matrices), matrices, config)
    bounds = [numerical_rank(spectrum, "stable") for spectrum in found.spectra]
    outside = sum(not low <= 40 - 1e-9 <= high + 1e-9 for _, low, high in bounds)
    assert outside <= binom.ppf(0.999, 200, 0.05)


@pytest.mark.parametrize("power", [1, 2, 4])
def test_what_values_lack_is_no_more_than_is_said(power):
    values = 0.97 ** np.arange(200)
    matrices = planted(values)
    config = SpectrumConfig(method="randomised", width=16, max_width=16, power=power)
    for spectrum in randomised(Dense(matrices), matrices, config).spectra:
        lacks = values[: len(spectrum.values)] - spectrum.values
        assert lacks.min() > -1e-12  # never too large
        assert 1e-6 < lacks.max() <= spectrum.value_error
    assert not spectra._is_found(spectrum)  # and more directions would be taken


def test_directions_are_added_until_the_values_are_exact():
    values = 0.93 ** np.arange(200)
    matrices = planted(values)
    config = SpectrumConfig(method="randomised", width=4, max_width=200)
    for spectrum in randomised(Dense(matrices), matrices, config).spectra:
        count = int(numerical_rank(spectrum, "energy").value)
        assert numerical_rank(Spectrum(values=values, size=200), "energy").value == count
        np.testing.assert_allclose(spectrum.values[:count], values[:count], atol=1e-3)
        assert len(spectrum.values) < 200


def test_the_width_grows_until_it_holds_the_energy():
    values = np.r_[np.linspace(2, 1, 50), np.zeros(150)]
    matrices = planted(values)
    config = SpectrumConfig(method="randomised", width=4, max_width=200)
    for spectrum in randomised(Dense(matrices), matrices, config).spectra:
        assert len(spectrum.values) == 64  # 8, 16, 32, 64: two of each direction
        np.testing.assert_allclose(spectrum.values[:50], values[:50], atol=1e-9)
        assert spectrum.rest < 1e-20


def test_a_rank_beyond_the_largest_width_is_left_open():
    matrices = planted(np.ones(100))
    config = SpectrumConfig(method="randomised", width=10, max_width=20)
    for spectrum in randomised(Dense(matrices), matrices, config).spectra:
        assert numerical_rank(spectrum, "energy") == (40, pytest.approx(39, abs=1), 100)


def test_auto_takes_the_whole_matrix_where_it_fits():
    config = SpectrumConfig(memory_mb=36)
    assert config.is_full(3072, 4)
    assert not config.is_full(3073, 4)


def test_leading_vectors_of_the_full_method_are_singular_vectors(digits):
    denoiser, images = digits
    local = Linearization(denoiser, images[:2], 1.0)
    found = decompose(local, SpectrumConfig(method="full"), vectors=2)
    for p, spectrum in enumerate(found.spectra):
        image = local.push(found.inputs)[p, 0]
        error = (image - float(spectrum.values[0]) * found.outputs[p, 0]).norm()
        assert float(error) < 1e-3 * spectrum.values[0]


def test_full_spectra_are_sorted_and_complete():
    found = full_spectra(planted(np.r_[3.0, 2.0, 1.0]))
    assert [s.values.tolist() for s in found] == [pytest.approx([3, 2, 1])] * 2


@pytest.mark.parametrize(
    "options", [{"width": 0}, {"probes": 1}, {"power": 0}, {"width": 8, "max_width": 4}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options)).split("_")[-1]):
        SpectrumConfig(**options)
