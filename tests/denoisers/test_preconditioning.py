"""Preconditioning against table 1 of Karras et al. 2022, written out again with plain numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from regimes.denoisers.preconditioning import EDM, IDDPM, VE, VP, Denoiser

SIGMAS = np.array([0.002, 0.02, 0.1, 0.5, 1.0, 7.0, 80.0])


def check(preconditioning, c_skip, c_out, c_in, c_noise):
    found = preconditioning.coefficients(torch.from_numpy(SIGMAS))
    for name, expected in (("c_skip", c_skip), ("c_out", c_out), ("c_in", c_in)):
        expected = expected * np.ones_like(SIGMAS)
        np.testing.assert_allclose(getattr(found, name).numpy(), expected, rtol=1e-13, err_msg=name)
    np.testing.assert_allclose(found.c_noise.numpy(), c_noise, rtol=1e-8)


def test_edm_coefficients_are_those_of_the_table():
    s, d = SIGMAS, 0.7
    root = np.sqrt(s**2 + d**2)
    check(EDM(sigma_data=d), d**2 / root**2, s * d / root, 1 / root, np.log(s) / 4)


def test_vp_coefficients_are_those_of_the_table():
    s = SIGMAS
    t = (np.sqrt(0.1**2 + 2 * 19.9 * np.log1p(s**2)) - 0.1) / 19.9
    check(VP(), 1, -s, 1 / np.sqrt(s**2 + 1), 999 * t)


def test_ve_coefficients_are_those_of_the_table():
    check(VE(), 1, SIGMAS, 1, np.log(SIGMAS / 2))


def test_iddpm_coefficients_are_those_of_the_table():
    u = iddpm_levels(np.float64)
    index = np.abs(u[None] - SIGMAS[:, None]).argmin(1)
    check(IDDPM(), 1, -SIGMAS, 1 / np.sqrt(SIGMAS**2 + 1), 999 - index)


def iddpm_levels(dtype, M=1000, C_1=0.001, C_2=0.008):
    def alpha_bar(j):
        return dtype(np.sin(dtype(0.5 * np.pi * j / M / (C_2 + 1))) ** 2)

    u = np.zeros(M + 1, dtype)
    for j in range(M, 0, -1):
        ratio = max(dtype(alpha_bar(j - 1) / alpha_bar(j)), dtype(C_1))
        u[j - 1] = np.sqrt(dtype((u[j] ** 2 + dtype(1)) / ratio - dtype(1)))
    return u


def test_edm_input_has_unit_variance_at_every_noise_level(torch_rng):
    edm = EDM(sigma_data=0.5)
    y = 0.5 * torch.randn(200_000, dtype=torch.float64, generator=torch_rng)
    n = torch.randn(200_000, dtype=torch.float64, generator=torch_rng)
    for sigma in torch.tensor([0.01, 0.5, 3.0, 80.0], dtype=torch.float64):
        variance = (edm.coefficients(sigma).c_in * (y + sigma * n)).var()
        assert abs(float(variance) - 1) < 5 * math.sqrt(2 / 200_000)  # 5 standard errors


def test_edm_target_has_unit_variance_at_every_noise_level(torch_rng):
    # The network's target is (y - c_skip x) / c_out; unit variance and minimal c_out are its law.
    edm = EDM(sigma_data=0.5)
    y = 0.5 * torch.randn(200_000, dtype=torch.float64, generator=torch_rng)
    n = torch.randn(200_000, dtype=torch.float64, generator=torch_rng)
    for sigma in torch.tensor([0.01, 0.5, 3.0, 80.0], dtype=torch.float64):
        c = edm.coefficients(sigma)
        target = (y - c.c_skip * (y + sigma * n)) / c.c_out
        assert abs(float(target.var()) - 1) < 5 * math.sqrt(2 / 200_000)


def test_edm_skip_and_output_scales_obey_their_identities():
    sigma = torch.from_numpy(SIGMAS)
    c = EDM(sigma_data=0.5).coefficients(sigma)
    torch.testing.assert_close(c.c_skip, 0.5**2 * c.c_in**2, rtol=1e-13, atol=0)
    torch.testing.assert_close(c.c_out, 0.5 * sigma * c.c_in, rtol=1e-13, atol=0)
    torch.testing.assert_close(
        c.c_out**2, (1 - c.c_skip) ** 2 * 0.25 + c.c_skip**2 * sigma**2, rtol=1e-9, atol=0
    )


def test_edm_knows_every_noise_level():
    sigma = torch.tensor([1e-9, 3.0, 1e9])
    assert (EDM().sigma_min, EDM().sigma_max) == (0.0, math.inf)
    assert torch.equal(EDM().round_sigma(sigma), sigma)


def test_vp_range_is_the_published_one():
    assert VP().sigma_max == pytest.approx(152.167, abs=5e-4)
    # The published minimum is what remains of exp(x) - 1 at x = 1e-6 when exp(x) is rounded to
    # float32. The formula itself gives 1.0005e-3, but a sampler that goes down to the limit of the
    # network has to go down to the published one to give the published images.
    x = 0.5 * 19.9 * 1e-10 + 0.1 * 1e-5
    assert VP().sigma_min == math.sqrt(np.float32(math.exp(x)) - np.float32(1))
    assert VP().sigma_min == pytest.approx(9.766e-4, abs=5e-8)
    assert math.sqrt(math.expm1(x)) == pytest.approx(1.0005e-3, abs=5e-8)


def test_vp_time_is_the_inverse_of_sigma():
    t = torch.linspace(1e-3, 1, 50, dtype=torch.float64)
    torch.testing.assert_close(VP().time(VP().sigma(t)), t, rtol=1e-9, atol=0)


def test_ve_range_is_the_published_one():
    assert (VE().sigma_min, VE().sigma_max) == (0.02, 100.0)


def test_iddpm_range_is_the_published_one():
    assert IDDPM().sigma_max == pytest.approx(20291.17, abs=5e-3)
    # The published minimum carries the rounding of float32: 5e-4 of its value.
    assert IDDPM().sigma_min == pytest.approx(0.006422, abs=5e-7)
    assert iddpm_levels(np.float64)[999] == pytest.approx(0.0064254, abs=5e-8)


def test_iddpm_levels_are_those_of_the_recursion_and_decrease_to_0():
    # Float32 rounding accumulates over 1000 steps; a float64 recursion differs by up to 5e-4.
    u = IDDPM().u.numpy()
    np.testing.assert_allclose(u, iddpm_levels(np.float64), rtol=5e-4)
    assert u.dtype == np.float32
    assert len(u) == 1001
    assert u[-1] == 0
    assert (np.diff(u) < 0).all()


def test_iddpm_rounds_to_the_nearest_known_level():
    u = IDDPM().u
    sigma = torch.tensor([0.0, 0.003, 0.02, 1.0, 33.3, 1e6], dtype=torch.float64)
    nearest = torch.stack([u[(u - s).abs().argmin()] for s in sigma])
    assert torch.equal(IDDPM().round_sigma(sigma), nearest.to(torch.float64))
    assert torch.equal(IDDPM().round_sigma(u), u)


def test_iddpm_uses_the_levels_stored_with_a_network():
    stored = IDDPM(M=3, levels=(8.0, 2.0, 0.5, 0.0))
    assert (stored.sigma_min, stored.sigma_max) == (0.5, 8.0)
    sigma = torch.tensor([0.1, 0.9, 6.0])
    assert stored.round_sigma(sigma).tolist() == [0.0, 0.5, 8.0]
    assert stored.coefficients(sigma).c_noise.tolist() == [-1.0, 0.0, 2.0]


@pytest.mark.parametrize("preconditioning", [VP(), VE()])
def test_continuous_preconditioning_keeps_every_noise_level(preconditioning):
    sigma = torch.tensor([0.03, 1.7])
    assert torch.equal(preconditioning.round_sigma(sigma), sigma)


class Recorder(nn.Module):
    """A network F(x, c_noise) = 3 x + c_noise with extra output channels, which records its input."""

    def forward(self, x, c_noise, class_labels):
        self.x, self.c_noise, self.class_labels = x, c_noise, class_labels
        out = 3 * x + c_noise[..., None, None, None]
        return torch.cat([out, torch.full_like(out, 1e9)], dim=-3)


@pytest.mark.parametrize("preconditioning", [EDM(), VP(), VE(), IDDPM()])
def test_denoiser_combines_skip_and_network_as_equation_7(preconditioning, torch_rng):
    x = torch.randn((4, 2, 3, 3), generator=torch_rng)
    sigma = torch.tensor([0.03, 0.4, 2.0, 60.0])
    c = [v[:, None, None, None] for v in preconditioning.coefficients(sigma)]
    expected = c[0] * x + c[1] * (3 * c[2] * x + c[3])
    found = Denoiser(Recorder(), preconditioning)(x, sigma)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_denoiser_computes_in_float32_and_passes_labels_on(torch_rng):
    network = Recorder()
    x = torch.randn((2, 1, 3, 3), generator=torch_rng, dtype=torch.float64)
    labels = torch.eye(2)
    out = Denoiser(network, EDM())(x, 0.5, labels)
    assert out.dtype == network.x.dtype == torch.float32
    assert out.shape == x.shape
    assert network.c_noise.shape == (2,)
    assert network.class_labels is labels


def test_denoiser_passes_augmentation_on_only_when_there_is_some(torch_rng):
    class Augmented(nn.Module):
        def forward(self, x, c_noise, class_labels, augment_labels=None):
            self.augment_labels = augment_labels
            return x

    x, network = torch.randn((2, 1, 3, 3), generator=torch_rng), Augmented()
    vector = torch.ones(2, 9)
    Denoiser(network, EDM())(x, 0.5, None, vector)
    assert network.augment_labels is vector
    Denoiser(network, EDM())(x, 0.5)
    assert network.augment_labels is None


def test_denoiser_of_a_scalar_sigma_equals_that_of_an_equal_vector(torch_rng):
    x = torch.randn((3, 1, 2, 2), generator=torch_rng)
    denoiser = Denoiser(Recorder(), EDM())
    assert torch.equal(denoiser(x, 0.7), denoiser(x, torch.full((3,), 0.7)))


def test_denoiser_has_the_range_and_levels_of_its_preconditioning():
    denoiser = Denoiser(Recorder(), IDDPM())
    assert (denoiser.sigma_min, denoiser.sigma_max) == (IDDPM().sigma_min, IDDPM().sigma_max)
    sigma = torch.tensor([0.5])
    assert torch.equal(denoiser.round_sigma(sigma), IDDPM().round_sigma(sigma))


def test_iddpm_rounds_between_two_levels_as_the_published_networks_do():
    # 1.4115... lies so near the middle of two levels that the rounding of torch.cdist decides.
    sigma = torch.tensor([1.411514163017273])
    u = IDDPM().u
    distances = torch.cdist(sigma.reshape(1, -1, 1), u.reshape(1, -1, 1))
    assert IDDPM().round_sigma(sigma) == u[distances.argmin()]
    exact = u[(sigma.double() - u.double()).abs().argmin()]
    assert abs(float(IDDPM().round_sigma(sigma) - exact)) < 0.01
