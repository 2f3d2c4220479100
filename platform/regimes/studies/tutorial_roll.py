"""The fourth lesson: a spiral, and a network that has to learn the posterior mean.

The network is judged against the oracle, which knows the curve: no loss can be lower than its loss,
and samples can hardly lie closer to the curve than its samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from regimes.studies.checks import Check, Lesson, at_least, at_most, number
from regimes.studies.tutorial import METHODS, Setting
from regimes.toys.diffusion import Method, Points, PosteriorMean, backwards, last
from regimes.toys.predictor import Predictor, PredictorConfig, train
from regimes.toys.swiss_roll import FIRST_ANGLE, LAST_ANGLE, Nearest, SwissRoll, spiral

ROLL_NOISE = 1.0
ROLL_STEPS = 1000
TimedMean = Callable[[Points, npt.NDArray[np.float64]], Points]
"""A posterior mean of points (N, 2) at times (N,)."""
TIMES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Times at which the network is compared with the oracle."""
BINS = 20
_ENOUGH = 500  # samples; of fewer, a good sampler too may leave out a piece by chance
_VALIDATION, _PER_TIME = 2**17, 2**14
_ORACLE_SAMPLES = 250
_LOSS = (0.12, 0.13)
_LARGEST_EXCESS, _FROM_TIME = 0.1, 0.05
_DICE_LIMIT, _SMOOTH_LIMIT = 0.05, 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Mean squared error per coordinate of the guess of x_0, network and oracle on the same points."""

    network: float
    oracle: float
    by_time: dict[float, tuple[float, float]]
    """(network, oracle) at ``TIMES``."""

    def excess(self, t: float) -> float:
        """By how much the network is worse than the oracle, as a share of the oracle's loss."""
        network, oracle = self.by_time[t]
        return network / oracle - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SwissRollLesson(Lesson):
    """Also holds what its figure shows."""

    losses: Losses
    samples: dict[Method, Points]
    """Of the network, (n, 2)."""
    nearest: dict[Method, Nearest]
    """The points of the curve nearest to them."""
    oracle: dict[Method, Nearest]
    """The same of the oracle's samples."""


def swiss_roll(
    setting: Setting, config: PredictorConfig, on_step: Callable[[], object] = lambda: None
) -> SwissRollLesson:
    """Train, measure the loss, sample.

    Args:
        setting: of all lessons.
        config: network and training.
        on_step: called after each training step.

    Returns:
        The lesson. Cost: about a minute with the default training on two cores.
    """
    roll = SwissRoll()
    predictor = Predictor(
        2,
        data_variance=roll.variance,
        noise_variance=ROLL_NOISE,
        config=config,
        seed=setting.seed,
    )
    train(predictor, roll.draw, seed=setting.seed, on_step=on_step)
    oracle = partial(roll.posterior_mean, variance=ROLL_NOISE)
    losses = _losses(setting, predictor, oracle)
    samples = {
        m: _sample(setting, roll, predictor.posterior_mean, m, count=setting.count) for m in METHODS
    }
    nearest = {m: roll.nearest(x) for m, x in samples.items()}
    few = min(setting.count, _ORACLE_SAMPLES)
    best = {m: roll.nearest(_sample(setting, roll, oracle, m, count=few)) for m in METHODS}
    return SwissRollLesson(
        name="swiss-roll",
        title="A spiral, learned",
        question="Nobody tells the network what the data are. How close does it come?",
        seen=_seen(losses, roll.variance, nearest, best),
        why=[
            (
                "The network only ever sees noisy points and the points they came from. Squared error makes "
                "the mean of all possible origins its best answer, which is all that a sampler needs."
            ),
            (
                "The loss does not go to 0, and should not: noise destroys information. The oracle, which "
                "averages over the true curve, gives the floor."
            ),
            _scatter(setting),
            (
                "This says nothing about memorization: fresh points of the curve were drawn in every step, "
                "and any point on the curve is a good sample."
            ),
        ],
        checks=_checks(setting, losses, nearest, best),
        losses=losses,
        samples=samples,
        nearest=nearest,
        oracle=best,
    )


def _losses(setting: Setting, predictor: Predictor, oracle: TimedMean) -> Losses:
    """Over all times, and at ``TIMES``; points are spread evenly, which halves the error by chance."""
    u = _spread(setting.rng("swiss-roll", "validation"), _VALIDATION)
    first = predictor.config.first_time
    t = first + (1 - first) * u[:, 3]
    means = (predictor.posterior_mean, oracle)
    network, best = _errors(u, t, means)
    by_time = {}
    for time in TIMES:
        u = _spread(setting.rng("swiss-roll", "validation", str(time)), _PER_TIME)
        by_time[time] = _errors(u, np.full(len(u), time), means)
    return Losses(network=network, oracle=best, by_time=by_time)


def _errors(
    u: Points, t: npt.NDArray[np.float64], means: Sequence[TimedMean]
) -> tuple[float, float]:
    """Mean squared errors of the two posterior means at noisy points, made from (N, 4) uniforms."""
    clean = spiral(FIRST_ANGLE + u[:, 0] * (LAST_ANGLE - FIRST_ANGLE))
    x = clean + np.sqrt(ROLL_NOISE * t)[:, None] * norm.ppf(u[:, 1:3])
    first, second = (float(((mean(x, t) - clean) ** 2).mean()) for mean in means)
    return first, second


def _spread(rng: np.random.Generator, count: int) -> Points:
    """(count, 4) uniforms in (0, 1): one in each of ``count`` equal intervals of every column."""
    orders = np.stack([rng.permutation(count) for _ in range(4)], axis=1)
    return (orders + rng.uniform(1e-9, 1, (count, 4))) / count


def _sample(
    setting: Setting, roll: SwissRoll, mean: PosteriorMean, method: Method, *, count: int
) -> Points:
    """Samples of the network, or of the oracle."""
    rng = setting.rng("swiss-roll", method)
    diffusion = setting.diffusion(ROLL_NOISE, ROLL_STEPS)
    first = diffusion.first(roll.draw(count, rng), rng)
    return last(backwards(mean, first, diffusion, method, rng))


def _checks(
    setting: Setting, losses: Losses, nearest: dict[Method, Nearest], best: dict[Method, Nearest]
) -> list[Check]:
    low, high = _LOSS
    checks = [
        Check(what="validation loss; exact: the oracle's", measured=losses.network,
              exact=losses.oracle, low=low, high=high)
    ]  # fmt: skip
    checks += [
        at_most(f"loss above the oracle's at t = {t:g}, relative", losses.excess(t),
                _LARGEST_EXCESS, exact=0.0)
        for t in TIMES
        if t >= _FROM_TIME
    ]  # fmt: skip
    for method in METHODS:
        dice = method == "ddpm" and setting.noise == "published"
        limit = _DICE_LIMIT if dice else _SMOOTH_LIMIT
        name = f"{method.upper()}: rms distance from the curve; exact: the oracle's"
        checks.append(at_most(name, nearest[method].rms, limit, exact=best[method].rms))
        if setting.count >= _ENOUGH:
            hit = float((nearest[method].bins(BINS) > 0).sum())
            name = f"{method.upper()}: pieces of the curve reached, of {BINS}"
            checks.append(at_least(name, hit, BINS))
    return checks


def _seen(
    losses: Losses, variance: float, nearest: dict[Method, Nearest], best: dict[Method, Nearest]
) -> list[str]:
    far = [f"{m.upper()} {nearest[m].rms:.3f} (oracle: {number(best[m].rms)})" for m in METHODS]
    linear = variance * (1 - variance / ROLL_NOISE * math.log1p(ROLL_NOISE / variance))
    return [
        (
            f"The network's loss is {losses.network:.4f}; the oracle's, below which nothing can go, is "
            f"{losses.oracle:.4f}. Always guessing the middle of the spiral would score {variance:.3f}."
        ),
        (
            f"A loss alone can deceive: the best straight-line guess, x shrunk towards 0, scores "
            f"{linear:.4f}, hardly worse, and knows nothing of a spiral. The samples tell."
        ),
        f"The arms of the spiral are 0.5 apart. Distance of samples, rms: {far[0]}, {far[1]}.",
    ]


def _scatter(setting: Setting) -> str:
    if setting.noise == "published":
        return (
            "DDPM's samples scatter about the curve by the noise of the last step, whose standard "
            f"deviation is {(ROLL_NOISE / ROLL_STEPS) ** 0.5:.3f}. DDIM, and DDPM with --noise "
            "posterior, end without noise: what is left there is the network's own error."
        )
    return (
        "With the posterior's noise the last step has none, so what is left between samples and curve "
        "is the network's own error, for DDPM as for DDIM."
    )
