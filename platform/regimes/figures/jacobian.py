"""The rank of Jacobians against noise, the spectra behind it, and their singular vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from scipy.stats import gaussian_kde

from regimes.figures.style import REFERENCE, Margins, canvas, short, styled, width_colors
from regimes.jacobians.ranks import NOTHING
from regimes.studies.jacobian import JacobianStudy, ModelSpectra, RankRow
from regimes.studies.verdict import percent

Floats = npt.NDArray[np.floating]
_VIOLIN = 0.1  # half of a violin's width, in decades
_FEWEST = 4  # points that a density is drawn of
_SHOWN_LEVELS = 6
_CELL, _GAP = 0.92, 0.1  # inches
_RULES = {"energy": "energy rank", "effective": "effective rank", "stable": "stable rank"}


@styled
def rank_curve(study: JacobianStudy) -> Figure:
    """Rank over n against 1 / sigma, logarithmic: the mean with its interval, the points as violins.

    Args:
        study: ranks of some models; a rank of 0 stands on the lower edge.
    """
    figure, axes = canvas(_finding(study), (7.6, 3.9), Margins(right=2.3, left=0.95))
    colors = width_colors(range(len(study.rows)))
    floor = 0.5 / study.every_row[0].size
    for i, (name, rows) in enumerate(study.rows.items()):
        _model(axes, rows, color=colors[i], floor=floor, label=short(name, 28))
    if study.reference:
        sigmas, ratios = np.array(study.reference).T
        look: dict[str, Any] = {"color": REFERENCE, "linestyle": ":", "linewidth": 1.6}
        axes.plot(1 / sigmas, np.maximum(ratios, floor), label=study.reference_name, **look)
    axes.set(xscale="log", yscale="log", ylim=(0.8 * floor, 1.3))
    if any(row.ratio == 0 for row in study.every_row):
        note: dict[str, Any] = {"fontsize": 8.5, "color": REFERENCE, "va": "center"}
        axes.text(1.02, floor, "rank 0", transform=axes.get_yaxis_transform(), **note)
    plain_ticks(axes, "xy")
    axes.set_xlabel("1 / sigma   (noise falls to the right)")
    axes.set_ylabel(f"{_RULES[study.rule]} / n")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.02), fontsize=9.5, handlelength=1.6)
    return figure


def plain_ticks(axes: Axes, which: str) -> None:
    """Powers of ten as plain numbers: figures parse no mathematics."""
    for name in which:
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _finding(study: JacobianStudy) -> str:
    """The figure's title."""
    least = min(study.every_row, key=lambda row: row.ratio)
    n = least.size
    if len(study.rows) > 1:
        parts = [
            f"{short(name, 24)} {percent(min(row.ratio for row in rows))}"
            for name, rows in list(study.rows.items())[:3]
        ]
        return f"Least share of {n} directions that a denoiser follows: {', '.join(parts)}"
    return (
        f"At sigma {least.sigma:.3g} the denoiser follows {least.rank:.1f} of {n} directions "
        f"({percent(least.ratio)})"
    )


def _model(axes: Axes, rows: Sequence[RankRow], *, color: str, floor: float, label: str) -> None:
    x = np.array([1 / row.sigma for row in rows])
    mean, low, high = (
        np.maximum([getattr(row, name) for row in rows], floor) for name in ("ratio", "low", "high")
    )
    axes.plot(x, mean, color=color, marker="o", markersize=3.5, label=label, zorder=3)
    axes.fill_between(x, low, high, color=color, alpha=0.25, linewidth=0)
    for row in rows:
        _violin(axes, 1 / row.sigma, np.maximum(row.per_point, floor), color)


@styled
def rule_panels(study: JacobianStudy) -> Figure:
    """Mean rank over n against 1 / sigma, a panel per rule: how much a finding rests on its rule.

    Args:
        study: ranks of some models; a rank of 0 stands on the lower edge.
    """
    title = "What a rank is depends on the rule: compare ranks of one rule only"
    figure, frame = canvas(title, (9.6, 3.1), Margins(right=2.3, left=0.95, top=0.4))
    box = frame.get_position()
    figure.delaxes(frame)
    width, floor = box.width / len(study.by_rule), 0.5 / study.every_row[0].size
    for i, (rule, ranked) in enumerate(study.by_rule.items()):
        axes = figure.add_axes((box.x0 + i * width, box.y0, 0.9 * width, box.height))
        _means(axes, ranked, floor)
        axes.set(xscale="log", yscale="log", ylim=(0.8 * floor, 1.3), xlabel="1 / sigma")
        axes.set_title(_RULES[rule], fontsize=9.5, loc="left")
        plain_ticks(axes, "xy")
        if i == 0:
            axes.set_ylabel("rank / n")
        else:
            axes.tick_params(labelleft=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.02), fontsize=9.5, handlelength=1.6)
    return figure


def _means(axes: Axes, ranked: Mapping[str, Sequence[RankRow]], floor: float) -> None:
    """A line per model, and the null."""
    colors = width_colors(range(len(ranked)))
    for i, (name, rows) in enumerate(ranked.items()):
        x, y = [1 / row.sigma for row in rows], [max(row.ratio, floor) for row in rows]
        axes.plot(x, y, color=colors[i], marker="o", markersize=3, label=short(name, 28))
    null = next(iter(ranked.values()))[0].null
    axes.axhline(null, color=REFERENCE, linestyle=":", linewidth=1.3, label="D(x) = x")


def _violin(axes: Axes, x: float, ratios: Floats, color: str) -> None:
    """Density of log ratios, as wide as ``_VIOLIN`` decades at its peak; of few points, the points."""
    logs = np.log10(ratios)
    if logs.std() < 1e-3:  # the mean says it all
        return
    if len(logs) < _FEWEST:
        axes.plot(np.full(len(ratios), x), ratios, "o", color=color, markersize=2.5, alpha=0.5)
        return
    grid = np.linspace(logs.min(), logs.max(), 40)
    density = gaussian_kde(logs)(grid)
    half = _VIOLIN * density / density.max()
    axes.fill_betweenx(10**grid, x * 10**-half, x * 10**half, color=color, alpha=0.35, linewidth=0)


@styled
def spectrum_curves(models: Sequence[ModelSpectra]) -> Figure:
    """Singular values by index at some noise levels: the median over points, a panel per model."""
    count = len(models)
    size = (2.6 * count + 2.2, 3.1)
    title = "Singular values of the Jacobian, relative to the largest (medians over points)"
    figure, frame = canvas(
        title, (max(size[0], 5.6), size[1]), Margins(right=1.3, left=0.9, top=0.4)
    )
    frame.set_axis_off()
    box = frame.get_position()
    for i, model in enumerate(models):
        width = box.width / count
        axes = figure.add_axes((box.x0 + i * width, box.y0, 0.88 * width, box.height))
        _spectra(axes, model)
        axes.set_title(short(model.name, 24), fontsize=9.5, loc="left")
        axes.set_xlabel("index / n")
        if i == 0:
            axes.set_ylabel("value / largest")
        else:
            axes.tick_params(labelleft=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.02), fontsize=9, title="sigma")
    return figure


def _spectra(axes: Axes, model: ModelSpectra) -> None:
    levels = _spread(model.sigmas)
    colors = width_colors(range(len(levels)))
    nothing: list[str] = []
    for color, level in zip(colors.values(), levels):
        shared = min(len(point[level].values) for point in model.spectra)
        values = np.median([point[level].values[:shared] for point in model.spectra], axis=0)
        if values[0] > NOTHING:
            index = np.arange(1, shared + 1) / model.size
            shown = np.maximum(values / values[0], 1e-8)
            axes.plot(index, shown, color=color, label=f"{model.sigmas[level]:.3g}", linewidth=1.4)
        else:
            axes.plot([], [], color=color, label=f"{model.sigmas[level]:.3g}")
            nothing.append(f"{model.sigmas[level]:.3g}")
    if nothing:
        note = "all 0 at sigma\n" + ", ".join(nothing)
        look: dict[str, Any] = {"fontsize": 8.5, "color": REFERENCE, "ha": "right", "va": "top"}
        axes.text(0.98, 0.97, note, transform=axes.transAxes, **look)
    axes.set(yscale="log", ylim=(1e-6, 1.5))
    plain_ticks(axes, "y")


@styled
def vector_sheet(
    name: str, sigmas: Floats, denoised: Floats, outputs: Floats, values: Floats
) -> Figure:
    """What one point becomes, and the directions in which that can change, at some noise levels.

    Args:
        name: of the model.
        sigmas: (T,).
        denoised: (T, C, H, W), D(x; sigma).
        outputs: (T, V, C, H, W), leading left singular vectors.
        values: (T, V), their singular values.
    """
    levels, columns = _spread(sigmas), 1 + outputs.shape[1]
    margins = Margins(left=0.85, right=0.1, bottom=0.1, top=0.35)
    width = margins.left + columns * (_CELL + _GAP) + margins.right
    height = margins.top + len(levels) * (_CELL + 0.24) + margins.bottom
    title = f"{short(name, 28)}: the denoised image, and the directions in which it can change"
    figure, frame = canvas(title, (max(width, 5.6), height), margins)
    frame.set_axis_off()
    total = figure.get_size_inches()
    for row, level in enumerate(levels):
        top = frame.get_position().y1 - row * (_CELL + 0.24) / total[1]
        followed = values[level] > NOTHING  # what is left of other vectors is rounding
        images = [denoised[level], *(v * f for v, f in zip(outputs[level], followed))]
        notes = ["D(x)", *(f"{v:.2g}" if v > NOTHING else "0" for v in values[level])]
        for column, (image, note) in enumerate(zip(images, notes)):
            left = (margins.left + column * (_CELL + _GAP)) / total[0]
            place = (left, top - _CELL / total[1], _CELL / total[0], _CELL / total[1])
            axes = figure.add_axes(place)
            _picture(axes, image, is_direction=column > 0)
            axes.set_title(note, fontsize=8, pad=2)
        figure.text(
            0.12 / total[0],
            top - _CELL / 2 / total[1],
            f"sigma\n{sigmas[level]:.3g}",
            fontsize=9.5,
            va="center",
        )
    return figure


def _picture(axes: Axes, image: Floats, *, is_direction: bool) -> None:
    """An image in its own colours; a direction in blue and red, or around gray if it has colours."""
    axes.set_axis_off()
    shown = np.moveaxis(image, 0, -1)
    gray = shown.shape[2] == 1
    if not is_direction:
        scaled = np.clip((shown + 1) / 2, 0, 1)
        axes.imshow(scaled[..., 0] if gray else scaled[..., :3], cmap="gray", vmin=0, vmax=1)
        return
    most = max(float(np.abs(shown).max()), 1e-12)
    # A singular vector has no sign: its largest entry is shown as positive.
    shown = shown * np.sign(shown.flat[np.abs(shown).argmax()])
    if gray:
        axes.imshow(shown[..., 0], cmap="RdBu_r", vmin=-most, vmax=most)
    else:
        axes.imshow(np.clip(0.5 + shown[..., :3] / most / 2, 0, 1))


def _spread(sigmas: Floats) -> list[int]:
    """Up to six levels, evenly spread over all, noise decreasing."""
    order = np.argsort(-sigmas)
    chosen = np.linspace(0, len(order) - 1, min(_SHOWN_LEVELS, len(order))).round().astype(int)
    return [int(order[i]) for i in chosen]
