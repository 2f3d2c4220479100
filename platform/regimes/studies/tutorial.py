"""Lessons whose answers are known to the last digit: a Gaussian, and one point.

Each lesson samples with DDPM and DDIM from one posterior mean, compares with the exact law of what that
sampler makes at that number of steps (``regimes.toys.laws``), and says in words what is seen and why.
The numbers (means, variances, steps) are those of the tutorial of Nakkiran et al. 2024
(arXiv 2406.08929) as its public replications set them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.stats import kstest, norm

from regimes.noise import keyed_generator
from regimes.studies.checks import (
    Check,
    Lesson,
    at_least,
    at_most,
    mean_check,
    near,
    variance_check,
)
from regimes.toys.diffusion import (
    Diffusion,
    Method,
    Noise,
    Points,
    Start,
    backwards,
    last,
    path,
)
from regimes.toys.laws import Gaussian, Normal, OnePoint

METHODS: tuple[Method, ...] = ("ddpm", "ddim")
ROUNDING = 1e-12
"""What exact answers may be off."""
_PATH_ROUNDING = 1e-10
_SMALLEST_P = 1e-3
_KS_CRITICAL = 1.949  # of sqrt(n) times the KS distance, at p = 1e-3 and large n (Kolmogorov's law)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all lessons share."""

    count: int
    """Samples, at least 100."""
    seed: int
    start: Start
    noise: Noise

    def diffusion(self, variance: float, num_steps: int) -> Diffusion:
        """With this start and this noise."""
        return Diffusion(variance=variance, num_steps=num_steps, start=self.start, noise=self.noise)

    def rng(self, *key: int | str) -> np.random.Generator:
        """Random numbers that depend on seed and key alone."""
        return keyed_generator("tutorial", self.seed, *key)


# ---- a Gaussian ----

GAUSSIAN = Gaussian(law=Normal(mean=3.0, variance=0.5))
GAUSSIAN_NOISE = 50.0
GAUSSIAN_STEPS = (10, 100, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianLesson(Lesson):
    """Also holds what its figure shows."""

    setting: Setting
    samples: dict[tuple[Method, int], Points]
    """(n, 1) by sampler and number of steps."""

    def law(self, method: Method, num_steps: int) -> Normal:
        """What theory says of these samples."""
        return GAUSSIAN.sampled(self.setting.diffusion(GAUSSIAN_NOISE, num_steps), method)


def gaussian(setting: Setting) -> GaussianLesson:
    """Data N(3, 0.5), noise of variance 50. Cost: 2220 random numbers per sample."""
    samples = {
        (method, steps): _gaussian_samples(setting, method, steps)
        for method in METHODS
        for steps in GAUSSIAN_STEPS
    }
    laws = {
        key: GAUSSIAN.sampled(setting.diffusion(GAUSSIAN_NOISE, key[1]), key[0]) for key in samples
    }
    checks = [c for key, x in samples.items() for c in _moments(key, x[:, 0], laws[key])]
    most = GAUSSIAN_STEPS[-1]
    for method in METHODS:
        checks += _whole_law(method, samples[method, most][:, 0], laws[method, most])
    return GaussianLesson(
        name="gaussian",
        title="A bell curve",
        question="The data are a bell curve, N(3, 0.5). Does a perfect denoiser give it back?",
        seen=_gaussian_seen(laws),
        why=_gaussian_why(setting),
        checks=checks,
        setting=setting,
        samples=samples,
    )


def _gaussian_samples(setting: Setting, method: Method, num_steps: int) -> Points:
    rng = setting.rng("gaussian", method, num_steps)
    diffusion = setting.diffusion(GAUSSIAN_NOISE, num_steps)
    first = diffusion.first(GAUSSIAN.draw(setting.count, rng), rng)
    mean = partial(GAUSSIAN.posterior_mean, variance=GAUSSIAN_NOISE)
    spread = partial(GAUSSIAN.posterior_variance, variance=GAUSSIAN_NOISE)
    return last(backwards(mean, first, diffusion, method, rng, posterior_variance=spread))


def _moments(key: tuple[Method, int], x: np.ndarray, law: Normal) -> list[Check]:
    name = f"{key[0].upper()}, {key[1]} steps"
    sd = math.sqrt(law.variance)
    return [
        mean_check(f"{name}: mean", float(x.mean()), law.mean, sd, len(x)),
        variance_check(f"{name}: variance", float(x.var(ddof=1)), law.variance, len(x)),
    ]


def _whole_law(method: Method, x: np.ndarray, law: Normal) -> list[Check]:
    """Not only the moments: the whole distribution, and its distance from that of the data."""
    name, data = f"{method.upper()}, {GAUSSIAN_STEPS[-1]} steps", GAUSSIAN.law
    own = kstest(x, norm(law.mean, math.sqrt(law.variance)).cdf)
    other = kstest(x, norm(data.mean, math.sqrt(data.variance)).cdf)
    return [
        at_least(f"{name}: p-value of the exact law (KS test)", float(own.pvalue), _SMALLEST_P),
        near(
            f"{name}: KS distance from the data's law",
            float(other.statistic),
            law.distance(data),
            _KS_CRITICAL / math.sqrt(len(x)),  # by the triangle inequality
        ),
    ]


def _gaussian_seen(laws: dict[tuple[Method, int], Normal]) -> list[str]:
    most, few = GAUSSIAN_STEPS[-1], GAUSSIAN_STEPS[0]
    found = [
        f"{m.upper()} with {most} steps makes N({laws[m, most].mean:.4f}, "
        f"{laws[m, most].variance:.4f})"
        for m in METHODS
    ]
    off = [m.upper() for m in METHODS if not _same(laws[m, most], GAUSSIAN.law)]
    widths = [f"{laws[m, few].variance:.3f} ({m.upper()})" for m in METHODS]
    return [
        (
            f"{found[0]}; {found[1]}. {' and '.join(off)} did not give back exactly N(3, 0.5), although "
            "every single step used the exact posterior mean."
        ),
        f"With {few} steps the variances are {widths[0]} and {widths[1]}, instead of 0.5.",
    ]


def _same(one: Normal, other: Normal) -> bool:
    """Equal but for rounding."""
    return math.isclose(one.mean, other.mean, rel_tol=1e-9) and math.isclose(
        one.variance, other.variance, rel_tol=1e-9
    )


def _gaussian_why(setting: Setting) -> list[str]:
    share = GAUSSIAN.law.variance / (GAUSSIAN.law.variance + GAUSSIAN_NOISE)
    if setting.start == "published":
        start = (
            "The start: sampling begins at N(0, 50), but noised data are N(3, 50.5). DDIM keeps "
            f"{math.sqrt(share):.2%} of that error in the mean however many steps it takes, DDPM "
            f"{share:.2%}. --start exact removes it."
        )
    else:
        start = "The start is exact here (noised data, N(3, 50.5)), so both means are right."
    if setting.noise == "published":
        dice = (
            "The dice: each DDPM step adds noise of variance 50/T, slightly more than is right, in "
            "the last step too; that is the excess. --noise posterior removes it."
        )
    else:
        dice = (
            "The dice: with the posterior's noise DDPM's variance is right at any number of steps, "
            "because for a Gaussian each step is then exact."
        )
    steps = (
        "The steps: DDIM follows a smooth flow in finite steps. Its error falls tenfold with ten "
        "times as many steps."
    )
    law = (
        "Every step maps a normal law to a normal law, so mean and variance after T steps follow "
        "from a recursion of two numbers. That is the exact column; samples are compared with it, "
        "not with the data."
    )
    return [start, dice, steps, law]


# ---- one point ----

ONE_POINT = OnePoint(point=(2.0, 3.0))
ONE_POINT_NOISE = 20.0
ONE_POINT_STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class OnePointLesson(Lesson):
    """Also holds what its figure shows."""

    ddim: Points
    """(T + 1, n, 2)"""
    ddpm: Points
    """(T + 1, n, 2)"""


def one_point(setting: Setting) -> OnePointLesson:
    """Data that are the point (2, 3), 20 steps. Cost: 80 random numbers per sample."""
    ddim = _one_point_path(setting, "ddim", ONE_POINT_STEPS)
    single = _one_point_path(setting, "ddim", 1)
    ddpm = _one_point_path(setting, "ddpm", ONE_POINT_STEPS)
    a = np.asarray(ONE_POINT.point)
    straight = ONE_POINT.straight(ddim[0], ONE_POINT_STEPS)
    checks = [
        at_most("DDIM, 20 steps: farthest end", largest(ddim[-1] - a), ROUNDING, exact=0.0),
        at_most("DDIM, 1 step: farthest end", largest(single[-1] - a), ROUNDING, exact=0.0),
        at_most("DDIM: farthest from a + sqrt(t) (x_1 - a)", largest(ddim - straight),
                _PATH_ROUNDING, exact=0.0),
        at_most("DDIM: farthest from the straight line", _bend(ddim, a), _PATH_ROUNDING, exact=0.0),
        *last_noise("DDPM", ddpm[-1] - a, setting.diffusion(ONE_POINT_NOISE, ONE_POINT_STEPS)),
    ]  # fmt: skip
    return OnePointLesson(
        name="one-point",
        title="One point",
        question="The data are one point, (2, 3). Which way does noise go home?",
        seen=[
            (
                "DDIM: every path is a straight line to the point, and ends on it to the last digit, even "
                "with a single step."
            ),
            f"DDPM: paths wander, and end {_ends_words(setting)}.",
        ],
        why=[
            (
                "With one point there is nothing to guess: whatever the noise, E[x_0 | x_t] is the point. "
                "DDIM walks towards it and keeps the share sqrt(s/t) of the distance in each step, so at "
                "time t the share sqrt(t) of the first distance is left."
            ),
            (
                "This is the perfect memorizer in its smallest form: a model trained on a single image "
                "until it is perfect turns all noise into that image."
            ),
        ],
        checks=checks,
        ddim=ddim,
        ddpm=ddpm,
    )


def _one_point_path(setting: Setting, method: Method, num_steps: int) -> Points:
    rng = setting.rng("one-point")  # one key: both methods start at the same points
    diffusion = setting.diffusion(ONE_POINT_NOISE, num_steps)
    first = diffusion.first(ONE_POINT.draw(setting.count, rng), rng)
    return path(backwards(ONE_POINT.posterior_mean, first, diffusion, method, rng))


def _bend(paths: Points, a: np.ndarray) -> float:
    """Largest distance of a path from the line through its start and the point."""
    direction = paths[0] - a
    direction = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    offset = paths - a
    return largest(offset[..., 0] * direction[:, 1] - offset[..., 1] * direction[:, 0])


def last_noise(name: str, error: Points, diffusion: Diffusion) -> list[Check]:
    """DDPM's last step goes to the posterior mean, plus its noise: here that is all there is."""
    variance = diffusion.step_variance(1)
    if variance == 0:
        return [at_most(f"{name}: farthest end", largest(error), ROUNDING, exact=0.0)]
    what = f"{name}: variance of the ends (the last step's noise)"
    return [
        mean_check(f"{name}: mean of the ends' errors", float(error.mean()), 0.0,
                   math.sqrt(variance), error.size),
        variance_check(what, float((error**2).mean()), variance, error.size),
    ]  # fmt: skip


def _ends_words(setting: Setting) -> str:
    variance = setting.diffusion(ONE_POINT_NOISE, ONE_POINT_STEPS).step_variance(1)
    if variance == 0:
        return "on it too, since the posterior's last step has no noise"
    return (
        f"around it with variance {variance:g} per coordinate: the noise of the last step, which "
        "nothing removes"
    )


def largest(x: np.ndarray) -> float:
    """Largest absolute value."""
    return float(np.abs(x).max())
