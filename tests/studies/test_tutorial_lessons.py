"""The lessons: they pass with every start and noise, and fail where a sampler is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from regimes.studies import tutorial, tutorial_points, tutorial_roll
from regimes.studies.tutorial import Setting, gaussian, one_point
from regimes.studies.tutorial_points import two_points
from regimes.studies.tutorial_roll import swiss_roll
from regimes.toys.diffusion import Diffusion
from regimes.toys.laws import Gaussian, OnePoint, TwoPoints
from regimes.toys.predictor import PredictorConfig

KINDS = [(s, n) for s in ("published", "exact") for n in ("published", "posterior")]
EXACT = (gaussian, one_point, two_points)


def setting(count=2000, seed=0, start="published", noise="published"):
    return Setting(count=count, seed=seed, start=start, noise=noise)


def failed(lesson):
    return [check.what for check in lesson.checks if not check.passed]


@pytest.mark.parametrize(("start", "noise"), KINDS)
@pytest.mark.parametrize("lesson", EXACT)
def test_exact_lessons_pass_with_every_start_and_noise(lesson, start, noise):
    made = lesson(setting(start=start, noise=noise))
    assert failed(made) == []
    assert len(made.checks) >= 4
    assert made.passed


@pytest.mark.parametrize("lesson", EXACT)
def test_lessons_are_functions_of_their_seed(lesson):
    values = [[c.measured for c in lesson(setting(300, seed)).checks] for seed in (0, 0, 1)]
    assert values[0] == values[1]
    assert values[0] != values[2]


def test_gaussian_of_full_size_passes_and_can_tell_the_sampler_from_the_data():
    """100,000 samples: the law of the data is 26 KS tolerances away from DDIM's, 3 from DDPM's."""
    made = gaussian(setting(100_000))
    assert failed(made) == []
    by_name = {check.what: check for check in made.checks}
    for method, distance in (("DDPM", 0.0190), ("DDIM", 0.1645)):
        check = by_name[f"{method}, 1000 steps: KS distance from the data's law"]
        assert check.exact == pytest.approx(distance, abs=1e-4)
        assert check.low > 0
        assert check.measured > 0.0062  # what chance reaches


@pytest.mark.parametrize("num", [100, 500])
def test_few_samples_pass_too(num):
    for lesson in EXACT:
        assert failed(lesson(setting(num))) == []


# ---- planted failures ----


def test_noise_that_is_a_twentieth_too_large_is_noticed(monkeypatch):
    right = Diffusion.step_variance
    monkeypatch.setattr(Diffusion, "step_variance", lambda self, step: 1.1 * right(self, step))
    law = Gaussian.sampled
    monkeypatch.setattr(
        Gaussian,
        "sampled",
        lambda self, diffusion, method: _with(right, law, self, diffusion, method),
    )
    names = failed(gaussian(setting(20_000)))
    assert any(what.startswith("DDPM") and "variance" in what for what in names)
    assert not any(what.startswith("DDIM") for what in names)


def _with(variance, law, *arguments):
    """The law of the sampler as it should be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Diffusion, "step_variance", variance)
        return law(*arguments)


def test_a_wrong_gaussian_denoiser_is_noticed(monkeypatch):
    right = Gaussian.posterior_mean
    monkeypatch.setattr(
        Gaussian, "posterior_mean", lambda self, x, t, **o: right(self, x, t, **o) + 0.1
    )
    assert any("mean" in what for what in failed(gaussian(setting())))


def test_a_denoiser_that_misses_the_point_by_a_millionth_of_a_millionth_is_noticed(monkeypatch):
    right = OnePoint.posterior_mean
    monkeypatch.setattr(
        OnePoint, "posterior_mean", lambda self, x, t: right(self, x, t) * (1 + 2e-12)
    )
    assert any("farthest end" in what for what in failed(one_point(setting())))


def test_paths_that_bend_are_noticed(monkeypatch):
    def bent(self, x, t):
        return np.asarray(self.point) + (t > 0.06) * 1e-6 * x[:, ::-1]

    monkeypatch.setattr(OnePoint, "posterior_mean", bent)
    names = failed(one_point(setting()))
    assert any("straight line" in what for what in names)
    assert any("sqrt(t)" in what for what in names)


def test_a_wrong_belief_in_the_two_points_is_noticed(monkeypatch):
    right = TwoPoints.posterior_mean
    monkeypatch.setattr(
        TwoPoints, "posterior_mean", lambda self, x, t, **o: right(self, x + 0.5, t, **o)
    )
    names = failed(two_points(setting()))
    assert any("tanh" in what for what in names)
    assert any("cross" in what for what in names)


# ---- the spiral ----


@pytest.fixture
def quick(monkeypatch):
    """Fewer points for the losses, so that a lesson takes seconds."""
    monkeypatch.setattr(tutorial_roll, "_VALIDATION", 2**12)
    monkeypatch.setattr(tutorial_roll, "_PER_TIME", 2**10)
    monkeypatch.setattr(tutorial_roll, "_ORACLE_SAMPLES", 50)
    monkeypatch.setattr(tutorial_roll, "ROLL_STEPS", 200)


def test_an_untrained_network_fails_and_training_brings_it_closer(quick):
    config = PredictorConfig(steps=0)
    before = swiss_roll(setting(100), config)
    assert not before.passed
    assert any("rms distance" in what for what in failed(before))
    after = swiss_roll(setting(100), PredictorConfig(steps=250))
    assert after.losses.network < before.losses.network
    assert after.nearest["ddim"].rms < before.nearest["ddim"].rms
    for lesson in (before, after):
        assert lesson.oracle["ddim"].rms < lesson.nearest["ddim"].rms
        assert lesson.losses.oracle == pytest.approx(0.1208, abs=0.004)


def test_no_network_beats_the_oracle(quick):
    losses = swiss_roll(setting(100), PredictorConfig(steps=250)).losses
    assert set(losses.by_time) == set(tutorial_roll.TIMES)
    # Paired on the same points: below the oracle's loss by chance alone, in thousandths.
    assert all(losses.excess(t) > -2e-3 for t in tutorial_roll.TIMES)


def test_linear_guess_scores_what_the_text_says():
    """Integral of s t/(s + t) over t in (0, 1), as the lesson prints it."""
    s = 0.18527
    t = (np.arange(10**6) + 0.5) / 10**6
    assert s * (1 - s * math.log1p(1 / s)) == pytest.approx((s * t / (s + t)).mean(), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("start", "noise"), [KINDS[0], KINDS[3]])
def test_the_spiral_is_learned(start, noise):
    made = swiss_roll(setting(1000, start=start, noise=noise), PredictorConfig())
    assert failed(made) == []
    assert 0.12 <= made.losses.network <= 0.13
    assert made.nearest["ddpm"].rms <= (0.05 if noise == "published" else 0.03)
    assert made.nearest["ddim"].rms <= 0.03
    assert sum("pieces of the curve" in check.what for check in made.checks) == 2


def test_lessons_have_the_published_settings():
    assert (tutorial.GAUSSIAN_NOISE, tutorial.ONE_POINT_NOISE, tutorial_points.NOISE) == (
        50,
        20,
        100,
    )
    assert (tutorial.ONE_POINT_STEPS, tutorial_points.SHOWN, tutorial_roll.ROLL_STEPS) == (
        20,
        50,
        1000,
    )
