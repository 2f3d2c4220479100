"""The figures of the tutorial: one per lesson, and one of all checks.

Black is what theory says or where samples are, the marked colour is the data. DDPM and DDIM have a
panel each, on equal axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from regimes.figures.style import FAINT, INK, MARK, REFERENCE, Margins, canvas, styled
from regimes.studies.checks import Check, Lesson
from regimes.studies.tutorial import (
    GAUSSIAN,
    GAUSSIAN_NOISE,
    GAUSSIAN_STEPS,
    METHODS,
    ONE_POINT,
    GaussianLesson,
    OnePointLesson,
)
from regimes.studies.tutorial_points import TWO_POINTS, TwoPointsLesson
from regimes.studies.tutorial_roll import TIMES, SwissRollLesson
from regimes.toys.diffusion import Points
from regimes.toys.swiss_roll import FIRST_ANGLE, LAST_ANGLE, spiral
from regimes.words import counted

_SIZE = (9.6, 3.3)
_DRAWN = 10
_SHOWN_SAMPLES = 1000
_GAP = 0.62  # inches between panels, for the ticks of the right one
_SMALL: dict[str, Any] = {"fontsize": 9}
_CURVE_STEPS = np.unique(np.geomspace(10, 10_000, 31).astype(int))


@styled
def gaussian_figure(lesson: GaussianLesson) -> Figure:
    """Samples of both samplers with their exact law and the data's; variance against steps."""
    follow = "follow" if lesson.passed else "do not follow"
    figure, panels = _panels(f"Samples {follow} the law that theory gives for their sampler")
    most = GAUSSIAN_STEPS[-1]
    x = np.linspace(0.2, 5.8, 400)
    for axes, method in zip(panels, METHODS):
        values = lesson.samples[method, most][:, 0]
        width = (x[-1] - x[0]) / 80
        bins = np.linspace(x[0], x[-1], 81)
        weights = np.full(len(values), 1 / (len(values) * width))
        axes.hist(values, bins.tolist(), weights=weights, color=FAINT, label="samples")
        axes.plot(x, lesson.law(method, most).density(x), color=INK, label="exact law")
        axes.plot(x, GAUSSIAN.law.density(x), color=MARK, linestyle="--", label="data")
        axes.set(xlabel="x", ylim=(0, 0.75), xlim=(x[0], x[-1]))
        axes.set_title(f"{method.upper()}, {counted(most, 'step')}", **_SMALL)
    panels[0].set_ylabel("density")
    panels[1].legend(loc="upper right", fontsize=8.5)
    _variances(panels[2], lesson)
    return figure


def _variances(axes: Axes, lesson: GaussianLesson) -> None:
    setting = lesson.setting
    for method, line in zip(METHODS, ("-", "--")):
        laws = [
            GAUSSIAN.sampled(setting.diffusion(GAUSSIAN_NOISE, int(t)), method)
            for t in _CURVE_STEPS
        ]
        found = [lesson.samples[method, t].var() for t in GAUSSIAN_STEPS]
        name = method.upper()
        axes.plot(_CURVE_STEPS, [law.variance for law in laws], line, color=INK, label=name)
        axes.plot(GAUSSIAN_STEPS, found, "o", color=INK)
    axes.axhline(GAUSSIAN.law.variance, color=MARK, linestyle=":", label="data")
    axes.set(xscale="log", yscale="log", xlabel="steps T")
    _ticks(axes, [10, 100, 1000, 10_000], [0.05, 0.1, 0.5, 1, 5])
    axes.set_title("variance of samples", **_SMALL)
    axes.legend(loc="lower right", fontsize=8.5)


@styled
def one_point_figure(lesson: OnePointLesson) -> Figure:
    """Ten paths of each sampler to the point."""
    title = "To one data point DDIM goes straight; DDPM wanders"
    figure, panels = _panels(title, count=2, size=(8.0, 4.2))
    shown = [paths[:, :_DRAWN] for paths in (lesson.ddim, lesson.ddpm)]
    for axes, paths, name in zip(panels, shown, ("DDIM", "DDPM")):
        _paths(axes, paths, [ONE_POINT.point], name)
        _square(axes, shown)
    return figure


@styled
def two_points_figure(lesson: TwoPointsLesson) -> Figure:
    """Ten paths of each sampler; where DDIM ends, against where it starts."""
    title = "The noise decides where DDIM goes; few steps leave it short of the data"
    figure, panels = _panels(title)
    c, h = TWO_POINTS.half_distance, TWO_POINTS.height
    shown = [lesson.ddim, lesson.ddpm]
    for axes, paths, name in zip(panels, shown, ("DDIM", "DDPM")):
        _paths(axes, paths, [(c, h), (-c, h)], f"{name}, {len(paths) - 1} steps")
        _square(axes, shown)
    _ends(panels[2], lesson)
    return figure


def _ends(axes: Axes, lesson: TwoPointsLesson) -> None:
    """The exact map as a line, a few samples as dots on it."""
    shades = colormaps["viridis"](np.linspace(0, 0.85, len(lesson.ends)))
    for (steps, (first, last)), shade in zip(lesson.ends.items(), shades):
        reach = 2.5 * math.sqrt(lesson.diffusions[steps].variance)
        x = np.linspace(-reach, reach, 2001)
        end = TWO_POINTS.end(x, lesson.diffusions[steps])
        axes.plot(x, end, color=shade, linewidth=1.3, label=counted(steps, "step"))
        some = first[:60, 0]
        inside = np.abs(some) < reach
        axes.plot(some[inside], last[:60, 0][inside], "o", color=shade, markersize=3)
    axes.set_xticks([-20, 0, 20])
    axes.set_xlabel("first coordinate at the start")
    axes.set_title("where DDIM ends (lines: exact)", **_SMALL)
    axes.legend(loc="lower right", fontsize=8, handlelength=1.2)


@styled
def swiss_roll_figure(lesson: SwissRollLesson) -> Figure:
    """Samples of both samplers on the curve; the loss against time, with the oracle's."""
    puts = "puts" if lesson.passed else "does not put"
    title = f"A network that saw nothing but examples {puts} its samples on the curve"
    figure, panels = _panels(title)
    curve = spiral(np.linspace(FIRST_ANGLE, LAST_ANGLE, 500))
    for axes, method in zip(panels, METHODS):
        x = lesson.samples[method][:_SHOWN_SAMPLES]
        axes.plot(*curve.T, color=MARK, linewidth=1)
        axes.plot(*x.T, "o", color=INK, markersize=1.6, markeredgewidth=0)
        axes.set(aspect="equal", xlim=(-1.15, 1.15), ylim=(-1.15, 1.15))
        rms = f"rms distance {lesson.nearest[method].rms:.3f}"
        axes.set_title(f"{method.upper()}: {rms}", **_SMALL)
    axes = panels[2]
    network, oracle = np.array([lesson.losses.by_time[t] for t in TIMES]).T
    axes.plot(TIMES, oracle, color=REFERENCE, label="oracle: the floor")
    axes.plot(TIMES, network, "o", color=INK, label="network")
    axes.set(xscale="log", yscale="log", xlabel="time t")
    _ticks(axes, [0.001, 0.01, 0.1, 1], [0.001, 0.01, 0.1])
    axes.set_title("squared error of the guess of x_0", **_SMALL)
    axes.legend(loc="lower right", fontsize=8.5)
    return figure


@styled
def checks_figure(lessons: Sequence[Lesson]) -> Figure:
    """Every check as a dot: where the measured number lies in the range that is allowed."""
    every = [check for lesson in lessons for check in lesson.checks]
    failed = sum(not check.passed for check in every)
    title = (
        f"All {len(every)} numbers lie where theory puts them"
        if not failed
        else f"{failed} of {len(every)} numbers do not lie where theory puts them"
    )
    margins = Margins(left=1.35, right=0.3, bottom=0.6)
    figure, axes = canvas(title, (7.2, 0.95 + 0.42 * len(lessons)), margins)
    axes.axvspan(-1, 1, color="#EFEFEF", linewidth=0)
    axes.axvline(0, color=REFERENCE, linestyle=":", linewidth=1)
    for row, lesson in enumerate(lessons):
        spread = np.linspace(-0.25, 0.25, len(lesson.checks))
        for check, shift in zip(lesson.checks, spread):
            color, mark = (INK, "o") if check.passed else (MARK, "X")
            place = float(np.clip(_place(check), -1.4, 1.4))
            axes.plot(place, row + shift, mark, color=color, markersize=4 if check.passed else 7)
    axes.set_yticks(range(len(lessons)), [lesson.title for lesson in lessons])
    axes.set(xlim=(-1.5, 1.5), ylim=(len(lessons) - 0.5, -0.5))
    axes.set_xticks([-1, 0, 1], ["lowest allowed", "exact", "highest allowed"])
    axes.tick_params(axis="y", length=0)
    return figure


def _place(check: Check) -> float:
    """-1 at the lowest allowed, 1 at the highest; limits on one side have no exact value between."""
    if math.isnan(check.measured):
        return math.inf
    if math.isinf(check.low) and check.high == 0:
        return 0.0 if check.passed else math.inf
    if math.isinf(check.low):
        return check.measured / check.high
    if math.isinf(check.high):
        return 0.0 if check.passed else -math.inf
    return 2 * (check.measured - check.low) / (check.high - check.low) - 1


def _paths(axes: Axes, paths: Points, ends: Sequence[tuple[float, ...]], title: str) -> None:
    """(T + 1, N, 2) paths, their starts as open circles, and the data."""
    for i in range(paths.shape[1]):
        axes.plot(*paths[:, i].T, "x-", color=INK, linewidth=0.6, markersize=2.5, alpha=0.7)
    axes.plot(*paths[0].T, "o", markerfacecolor="white", color=INK, markersize=4)
    axes.plot(*np.array(ends).T, "o", color=MARK, markersize=6, zorder=3)
    axes.set(aspect="equal")
    axes.set_title(title, **_SMALL)


def _square(axes: Axes, every: Sequence[Points]) -> None:
    """Show the smallest square around all paths (T + 1, N, 2), with a margin."""
    x = np.concatenate([paths.reshape(-1, 2) for paths in every])
    middle, half = (x.max(0) + x.min(0)) / 2, 0.53 * float((x.max(0) - x.min(0)).max())
    for axis, centre in zip((axes.xaxis, axes.yaxis), middle.tolist(), strict=True):
        low, high = centre - half, centre + half
        ticks = MaxNLocator(5, integer=True).tick_values(low, high)
        axis.set_ticks([tick for tick in ticks if low <= tick <= high])
        axis.set_view_interval(low, high, ignore=True)


def _ticks(axes: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    """Ticks of log axes as plain numbers: powers of ten would be set as formulas, which are off."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.set_yticks(y, [f"{value:g}" for value in y])


def _panels(
    title: str, *, count: int = 3, size: tuple[float, float] = _SIZE
) -> tuple[Figure, list[Axes]]:
    """Panels side by side."""
    figure, frame = canvas(title, size, Margins(left=0.6, right=0.2, bottom=0.55, top=0.35))
    box, gap = frame.get_position(), _GAP / size[0]
    figure.delaxes(frame)
    width = (box.width - (count - 1) * gap) / count
    return figure, [
        figure.add_axes((box.x0 + i * (width + gap), box.y0, width, box.height))
        for i in range(count)
    ]
