"""Noise: published levels, EDM's order of draws, and keyed streams."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regimes.denoisers.preconditioning import IDDPM
from regimes.noise import SeedNoise, karras_sigmas, keyed_generator

SHAPE = (1, 3, 2)
# The 18 levels that EDM's generate.py prints for its defaults (digits as published).
EDM_SIGMAS = (
    "80 57.586 40.786 28.375 19.353 12.910 8.401 5.315 3.257 1.923 1.088 .5853 .2964 .1395 .0599 "
    ".0229 .0075 .002"
)


def edm_draws(seed, steps, num_classes=0):
    """The draws of one seed as EDM's generate.py makes them: latent, label, one per step."""
    g = torch.Generator().manual_seed(seed % (1 << 32))
    latent = torch.randn(SHAPE, generator=g)
    label = torch.randint(num_classes, size=[], generator=g) if num_classes else None
    return (
        latent,
        label,
        [torch.randn(SHAPE, dtype=torch.float64, generator=g) for _ in range(steps)],
    )


def test_karras_sigmas_are_the_18_published_levels_and_0():
    sigmas = karras_sigmas(18)
    assert sigmas.dtype == torch.float64
    assert len(sigmas) == 19
    assert sigmas[-1] == 0
    for printed, sigma in zip(EDM_SIGMAS.split(), sigmas, strict=False):
        last_digit = 10.0 ** -len(printed.partition(".")[2])
        assert abs(float(printed) - float(sigma)) < last_digit, printed


def test_karras_sigmas_with_rho_1_are_evenly_spaced():
    sigmas = karras_sigmas(5, sigma_min=1.0, sigma_max=9.0, rho=1.0)
    assert sigmas.tolist() == pytest.approx([9, 7, 5, 3, 1, 0], abs=1e-12)


def test_karras_sigmas_of_one_step_is_sigma_max_and_0():
    assert karras_sigmas(1, sigma_max=3.0).tolist() == pytest.approx([3, 0], abs=1e-12)


def test_karras_sigmas_are_rounded_by_round_sigma():
    u = IDDPM().u
    sigmas = karras_sigmas(9, sigma_min=0.01, round_sigma=IDDPM().round_sigma)[:-1]
    assert all(bool((u == s).any()) for s in sigmas)


@pytest.mark.parametrize(
    "bad", [{"num_steps": 0}, {"sigma_min": 0.0}, {"sigma_min": 2.0, "sigma_max": 1.0}]
)
def test_karras_sigmas_refuse_an_impossible_grid_by_name(bad):
    with pytest.raises(ValueError, match="num_steps >= 1 and 0 < sigma_min <= sigma_max"):
        karras_sigmas(**({"num_steps": 4} | bad))


def test_seed_noise_follows_the_order_of_edm():
    seeds = [7, 0, 2**31 + 5, 2**32 + 3]
    noise = SeedNoise(seeds, SHAPE)
    latents, labels = noise.latents(), noise.class_labels(10)
    steps = [noise.step() for _ in range(3)]
    assert latents.dtype == torch.float32
    assert labels.dtype == torch.float32
    assert steps[0].dtype == torch.float64
    for row, seed in enumerate(seeds):
        latent, label, expected_steps = edm_draws(seed, 3, num_classes=10)
        assert torch.equal(latents[row], latent)
        assert torch.equal(labels[row], torch.eye(10)[label])
        for step, expected in zip(steps, expected_steps, strict=True):
            assert torch.equal(step[row], expected)


def test_seed_noise_without_labels_draws_steps_right_after_the_latent():
    noise = SeedNoise([5], SHAPE)
    noise.latents()
    assert torch.equal(noise.step()[0], edm_draws(5, 1)[2][0])


def test_seed_noise_of_a_seed_is_independent_of_its_batch_and_of_order():
    together = SeedNoise([3, 1, 2], SHAPE)
    latents, step = together.latents(), together.step()
    for row, seed in enumerate([3, 1, 2]):
        alone = SeedNoise([seed], SHAPE)
        assert torch.equal(alone.latents()[0], latents[row])
        assert torch.equal(alone.step()[0], step[row])


def test_seed_noise_repeats_after_2_to_the_32():
    assert torch.equal(SeedNoise([5], SHAPE).latents(), SeedNoise([5 + 2**32], SHAPE).latents())


def test_seed_noise_differs_between_neighbouring_seeds():
    latents = SeedNoise(range(50), (1, 8, 8)).latents().flatten(1).double()
    correlations = torch.corrcoef(latents) - torch.eye(50, dtype=torch.float64)
    assert correlations.abs().max() < 6 / 8  # 6 standard deviations of 64 independent values


def draws(*key):
    return keyed_generator(*key).standard_normal(8).tolist()


def test_keyed_generator_gives_equal_streams_for_equal_keys():
    assert draws("train", 0, "cell", 5) == draws("train", 0, "cell", 5)


def test_keyed_generator_gives_different_streams_for_different_keys():
    keys = [
        ("a", 1),
        ("a1",),
        ("a", "1"),
        (1, "a"),
        ("a", 1, 1),
        ("a", 11),
        ("a",),
        (1,),
        ("1",),
        (),
    ]
    assert len({tuple(draws(*key)) for key in keys}) == len(keys)


def test_keyed_generator_takes_a_numpy_integer_for_the_integer_it_is():
    assert draws("a", np.int64(3)) == draws("a", 3)


def test_keyed_generator_streams_are_stable_over_versions():
    # Recorded once. A change would silently change every split and every training run.
    assert keyed_generator("split", 0).permutation(10).tolist() == [8, 2, 1, 0, 6, 5, 9, 3, 4, 7]
