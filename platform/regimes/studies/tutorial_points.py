"""The third lesson: two points, where noise has a choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from regimes.studies.checks import Check, Lesson, at_most, fraction_check, mean_check
from regimes.studies.tutorial import ROUNDING, Setting, largest, last_noise
from regimes.toys.diffusion import Diffusion, Method, Points, backwards, last, path
from regimes.toys.laws import Miss, TwoPoints

TWO_POINTS = TwoPoints(half_distance=2.0, height=2.0)
NOISE = 100.0
STEPS = (10, 50, 200, 1000)
SHOWN = 50
"""Steps of the paths that are drawn."""
_DRAWN = 10
_MOST_AT_LAST = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPointsLesson(Lesson):
    """Also holds what its figure shows."""

    diffusions: dict[int, Diffusion]
    ends: dict[int, tuple[Points, Points]]
    """DDIM's (first, last) points, (n, 2) each, by number of steps."""
    ddim: Points
    """A few paths, (T + 1, 10, 2)."""
    ddpm: Points
    """A few paths, (T + 1, 10, 2)."""


def two_points(setting: Setting, on_steps: Callable[[], object] = lambda: None) -> TwoPointsLesson:
    """Data that are (2, 2) or (-2, 2) with equal chances.

    Args:
        setting: of all lessons. With 1000 steps, no more than 20,000 samples are made.
        on_steps: called after each number of steps.

    Returns:
        The lesson. Cost: about 500 posterior means per sample.
    """
    runs, misses = {}, {}
    for steps in STEPS:
        runs[steps] = _DdimRun.of(setting, steps)
        misses[steps] = TWO_POINTS.miss(setting.diffusion(NOISE, steps))
        on_steps()
    checks = _exact_checks(runs)
    for steps, run in runs.items():
        checks += _chance_checks(run, misses[steps], steps)
    checks += _ddpm_checks(setting)
    return TwoPointsLesson(
        name="two-points",
        title="Two points",
        question="The data are two points, (-2, 2) and (2, 2). Who decides where noise ends?",
        seen=_seen(misses),
        why=[
            (
                "The posterior mean is (2 tanh(x/(50 t)), 2): in the middle as long as the noise is large, "
                "since it could be either point, and one of the points when the noise is small. The "
                "tanh is how much more one believes in the right one than in the left one."
            ),
            (
                "It never crosses the middle, so neither does a DDIM path: the noise alone decides, and "
                "one half of all noise belongs to each point. DDPM's dice can still change sides."
            ),
            (
                f"The last of T steps goes to 2 tanh(x T/50), and with few steps x is not yet far enough "
                f"from the middle (2 tanh(x) at T = {SHOWN}). What is left between the points "
                "is an error of the steps, not of the denoiser."
            ),
        ],
        checks=checks,
        diffusions={steps: setting.diffusion(NOISE, steps) for steps in STEPS},
        ends={steps: (run.first, run.end) for steps, run in runs.items()},
        ddim=_few_paths(setting, "ddim"),
        ddpm=_few_paths(setting, "ddpm"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _DdimRun:
    """A DDIM run: where it was at first, before the last step, and after it."""

    first: Points
    before: Points
    end: Points
    crossed: float
    """Fraction of paths that were ever on the other side."""

    @classmethod
    def of(cls, setting: Setting, num_steps: int) -> _DdimRun:
        rng = setting.rng("two-points", "ddim", num_steps)
        diffusion = setting.diffusion(NOISE, num_steps)
        count = min(setting.count, _MOST_AT_LAST) if num_steps == STEPS[-1] else setting.count
        first = diffusion.first(TWO_POINTS.draw(count, rng), rng)
        before = end = first
        crossed = np.zeros(len(first), bool)
        for x in _steps(first, diffusion, "ddim", None):
            before, end = end, x
            crossed |= x[:, 0] * first[:, 0] < 0
        return cls(first=first, before=before, end=end, crossed=float(crossed.mean()))


def _steps(
    first: Points, diffusion: Diffusion, method: Method, rng: np.random.Generator | None
) -> Iterator[Points]:
    mean = partial(TWO_POINTS.posterior_mean, variance=NOISE)
    spread = partial(TWO_POINTS.posterior_variance, variance=NOISE)
    return backwards(mean, first, diffusion, method, rng, posterior_variance=spread)


def _few_paths(setting: Setting, method: Method) -> Points:
    rng = setting.rng("two-points", "paths")  # one key: both methods start at the same points
    diffusion = setting.diffusion(NOISE, SHOWN)
    first = diffusion.first(TWO_POINTS.draw(_DRAWN, rng), rng)
    return path(_steps(first, diffusion, method, rng))


def _exact_checks(runs: dict[int, _DdimRun]) -> list[Check]:
    """What holds for every sample; the worst of all runs."""
    c, h = TWO_POINTS.half_distance, TWO_POINTS.height
    law = max(
        largest(run.end[:, 0] - c * np.tanh(c * run.before[:, 0] * steps / NOISE))
        for steps, run in runs.items()
    )
    height = max(largest(run.end[:, 1] - h) for run in runs.values())
    crossed = max(run.crossed for run in runs.values())
    return [
        at_most("DDIM: off the 2 tanh law of the last step", law, ROUNDING, exact=0.0),
        at_most("DDIM: off 2 in the second coordinate", height, ROUNDING, exact=0.0),
        at_most("DDIM: paths that cross the middle", crossed, 0.0, exact=0.0),
    ]


def _chance_checks(run: _DdimRun, miss: Miss, num_steps: int) -> list[Check]:
    name, x = f"DDIM, {num_steps} steps", run.end[:, 0]
    found = Miss.of(np.abs(np.abs(x) - TWO_POINTS.half_distance))
    checks = [
        fraction_check(f"{name}: on the right", float((x > 0).mean()), 0.5, len(x)),
        fraction_check(
            f"{name}: within 0.01 of a point",
            found.within_hundredth,
            miss.within_hundredth,
            len(x),
        ),
    ]
    if num_steps < STEPS[-1]:  # later, misses are too rare for a normal law of their mean
        checks.append(mean_check(f"{name}: mean miss", found.mean, miss.mean, miss.sd, len(x)))
    return checks


def _ddpm_checks(setting: Setting) -> list[Check]:
    diffusion, rng = setting.diffusion(NOISE, SHOWN), setting.rng("two-points", "ddpm")
    first = diffusion.first(TWO_POINTS.draw(setting.count, rng), rng)
    end = last(_steps(first, diffusion, "ddpm", rng))
    name = f"DDPM, {SHOWN} steps"
    right = float((end[:, 0] > 0).mean())
    return [
        fraction_check(f"{name}: on the right", right, 0.5, setting.count),
        *last_noise(f"{name}, second coordinate", end[:, 1:] - TWO_POINTS.height, diffusion),
    ]


def _seen(misses: dict[int, Miss]) -> list[str]:
    shown, most = misses[SHOWN], STEPS[-1]
    return [
        (
            "DDIM: a path that starts on the right ends on the right. The second coordinate, about which "
            "there is no doubt, ends at exactly 2."
        ),
        (
            f"With {SHOWN} steps only {shown.within_hundredth:.0%} end within 0.01 of a point "
            f"(mean miss {shown.mean:.3f}); with {most} steps {misses[most].within_hundredth:.3%} do."
        ),
    ]
