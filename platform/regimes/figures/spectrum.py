"""Spectra of several sets: by rank, as densities and tails, against real images; norms; principal images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regimes.figures.jacobian import plain_ticks
from regimes.figures.style import (
    FAINT,
    INK,
    REFERENCE,
    Margins,
    canvas,
    short,
    styled,
    width_colors,
)
from regimes.scores.spectrum import SpectralComparison
from regimes.spectra.laws import covariance_law_density, marchenko_pastur_density
from regimes.studies.spectrum import MIXTURE, OTHER_HALF, REAL, SpectrumStudy

Floats = npt.NDArray[np.float64]
_SIZE, _MARGINS = (7.6, 3.9), Margins(left=0.95, right=2.3)
_GRID, _LARGEST_LAW = 300, 2048
_CELL, _GAP = 0.8, 0.1  # inches
_NORMALISED = {
    "raw": "eigenvalue of X Xᵀ",
    "per-image": "eigenvalue of X Xᵀ / N",
    "covariance": "eigenvalue of the covariance",
}


def _looks(study: SpectrumStudy) -> dict[str, dict[str, Any]]:
    """Real images are ink, their other half pale, every set has a colour, the mixture is dashed."""
    others = [name for name in study.spectra if name not in (REAL, OTHER_HALF)]
    colors = width_colors(range(max(len(others), 1)))
    looks: dict[str, dict[str, Any]] = {
        name: {"color": colors[i], "linestyle": "--" if name.startswith(MIXTURE) else "-"}
        for i, name in enumerate(others)
    }
    pale = {"color": FAINT, "linewidth": 3.5, "zorder": 1}
    return {OTHER_HALF: pale, REAL: {"color": INK, "zorder": 3}, **looks}


def _frame(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = canvas(title, _SIZE, _MARGINS)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.02), fontsize=9.5, handlelength=1.8)


def _finding(comparisons: Sequence[SpectralComparison], n: int) -> str:
    parts = [
        f"{short(c.name, 22)} {'differs' if c.differs else 'does not differ'}"
        for c in comparisons[:3]
    ]
    return f"Eigenvalues of {n:,} images beside real ones: {', '.join(parts)}"


@styled
def rank_curves(study: SpectrumStudy) -> Figure:
    """Eigenvalue against rank, both logarithmic."""
    label = _NORMALISED[study.config.normalisation]
    figure, axes = _frame(_finding(study.comparisons, study.num_rows), "rank", label)
    for name, look in _looks(study).items():
        values = study.spectra[name].positive()
        axes.plot(np.arange(1, len(values) + 1), values, label=short(name, 24), **look)
    axes.set(xscale="log", yscale="log")
    plain_ticks(axes, "xy")
    _legend(axes)
    return figure


@styled
def densities(study: SpectrumStudy) -> Figure:
    """Density of eigenvalues per decade; dotted: what chance makes of the mixture's covariance.

    The laws are drawn of centred spectra of up to 2048 values: for the mixture's own covariance, and
    for noise of the real images' total variance.
    """
    title = "How many eigenvalues lie at each size, and what chance alone would make of them"
    figure, axes = _frame(title, _NORMALISED[study.config.normalisation], "share per decade")
    kept = {name: study.spectra[name].positive() for name in study.spectra}
    low, high = min(v[-1] for v in kept.values()), max(v[0] for v in kept.values())
    bins = np.linspace(np.log10(low) - 0.05, np.log10(high) + 0.05, _bins(len(kept[REAL])))
    top = 0.0
    for name, look in _looks(study).items():
        counts, _ = np.histogram(np.log10(kept[name]), bins)
        share = counts / len(kept[name]) / np.diff(bins)
        top = max(top, float(share.max()))
        axes.stairs(share, 10**bins, label=short(name, 24), **_stairs(look))
    for text, share, style in _laws(study, bins):
        look = {"color": REFERENCE, "linestyle": style, "linewidth": 1.5, "zorder": 4}
        axes.stairs(share, 10**bins, label=text, **look)
    axes.set(xscale="log", ylim=(0, 1.15 * top))
    plain_ticks(axes, "x")
    _legend(axes)
    return figure


def _bins(count: int) -> int:
    """Edges of about 2 sqrt(count) bins."""
    return int(np.clip(2 * count**0.5, 12, 80)) + 1


def _stairs(look: Mapping[str, Any]) -> dict[str, Any]:
    return {"linewidth": 1.6, **look}


def _laws(study: SpectrumStudy, bins: Floats) -> list[tuple[str, Floats, str]]:
    """(label, share per decade averaged over each bin, line style): what a histogram of it would be."""
    if study.config.normalisation != "covariance" or study.width > _LARGEST_LAW:
        return []
    ratio = study.width / (study.num_rows - 1)
    each = max(1, _GRID // (len(bins) - 1))
    inside = bins[:-1, None] + np.diff(bins)[:, None] * (np.arange(each) + 0.5) / each
    x = 10 ** inside.ravel()
    decade = x * np.log(10)
    found = []
    if study.population is not None and study.population[0] > 0:
        t = study.population.clip(0)
        t = np.where(t > 1e-12 * t[0], t, 0)
        share = covariance_law_density(x, t, ratio, smoothing=0.03) * decade
        found.append(("law of the mixture's\ncovariance", share.reshape(-1, each).mean(1), ":"))
    noise = study.spectra[REAL].trace / study.width
    white = marchenko_pastur_density(x, ratio, noise) * decade
    found.append(("white noise\n(Marchenko-Pastur)", white.reshape(-1, each).mean(1), "-."))
    return found


@styled
def tails(study: SpectrumStudy) -> Figure:
    """Fraction of eigenvalues above a value, both logarithmic."""
    figure, axes = _frame(
        "Share of eigenvalues above a size",
        _NORMALISED[study.config.normalisation],
        "share of eigenvalues above",
    )
    for name, look in _looks(study).items():
        values = study.spectra[name].positive()
        share = np.arange(1, len(values) + 1) / len(values)
        axes.plot(values, share, drawstyle="steps-post", label=short(name, 24), **look)
    axes.set(xscale="log", yscale="log")
    plain_ticks(axes, "xy")
    _legend(axes)
    return figure


@styled
def quantiles(study: SpectrumStudy) -> Figure:
    """Eigenvalues of every set against those of real images at the same rank; equal is the diagonal."""
    label = _NORMALISED[study.config.normalisation]
    figure, axes = _frame(
        "Eigenvalues against those of real images at the same rank",
        f"{label}, real images",
        "other set",
    )
    real = study.spectra[REAL].positive()
    ends = np.array([real[-1], real[0]])
    axes.plot(ends, ends, color=REFERENCE, linestyle=":", linewidth=1.4, label="equal")
    for name, look in _looks(study).items():
        if name != REAL:
            values = study.spectra[name].positive()
            shared = min(len(values), len(real))
            thin = {**look, "linestyle": "", "zorder": look.get("zorder", 2)}
            size = 6 if name == OTHER_HALF else 2.6
            axes.plot(
                real[:shared],
                values[:shared],
                marker="o",
                markersize=size,
                label=short(name, 24),
                **thin,
            )
    axes.set(xscale="log", yscale="log")
    plain_ticks(axes, "xy")
    _legend(axes)
    return figure


@styled
def norm_histograms(study: SpectrumStudy) -> Figure:
    """Lengths of images; a narrow histogram is what concentrated laws have."""
    figure, axes = _frame("Lengths of images as vectors", "norm of an image", "share of images")
    looks = _looks(study)
    everything = np.concatenate(list(study.norms.values()))
    low, high = np.quantile(everything, [0.001, 0.999])
    bins = np.linspace(float(low), float(high), 41)
    for name, norms in study.norms.items():
        counts, _ = np.histogram(np.clip(norms, bins[0], bins[-1]), bins)
        axes.stairs(counts / len(norms), bins, label=short(name, 24), **_stairs(looks[name]))
    axes.set_ylim(bottom=0)
    _legend(axes)
    return figure


@styled
def principal_sheet(
    sets: Mapping[str, tuple[Floats, Floats, Floats]], shape: tuple[int, int, int]
) -> Figure:
    """The mean and the leading principal images of every set, with the variance that each explains.

    Args:
        sets: by name: mean (D,), directions (k, D), explained fractions (k,).
        shape: (H, W, C) of an image, D = H W C, row-major.
    """
    columns = 1 + max(len(d) for _, d, _ in sets.values())
    margins = Margins(left=1.6, right=0.15, top=0.35, bottom=0.1)
    width = margins.left + columns * (_CELL + _GAP) + margins.right
    step = _CELL + 0.26
    height = margins.top + len(sets) * step + margins.bottom
    figure, frame = canvas(
        "Mean and principal images, with the share of the variance that each explains",
        (max(width, 6.5), height),
        margins,
    )
    frame.set_axis_off()
    total, top = figure.get_size_inches(), frame.get_position().y1
    for row, (name, (mean, directions, explained)) in enumerate(sets.items()):
        y = top - (row * step + _CELL) / total[1]
        notes = ["mean", *(f"{100 * e:.1f}%" for e in explained)]
        for column, (image, note) in enumerate(zip([mean, *directions], notes)):
            x = (margins.left + column * (_CELL + _GAP)) / total[0]
            axes = figure.add_axes((x, y, _CELL / total[0], _CELL / total[1]))
            _picture(axes, image.reshape(shape), is_direction=column > 0)
            axes.set_title(note, fontsize=8, pad=2)
        figure.text(
            0.12 / total[0], y + _CELL / 2 / total[1], short(name, 20), fontsize=9.5, va="center"
        )
    return figure


def _picture(axes: Axes, image: Floats, *, is_direction: bool) -> None:
    axes.set_axis_off()
    if not is_direction:
        axes.imshow(np.clip(image, 0, 1).squeeze(), cmap="gray", vmin=0, vmax=1)
        return
    # A direction has no sign: its largest entry is shown as positive.
    most = max(float(np.abs(image).max()), 1e-12)
    image = image * np.sign(image.flat[np.abs(image).argmax()])
    if image.shape[2] == 1:
        axes.imshow(image[..., 0], cmap="RdBu_r", vmin=-most, vmax=most)
    else:
        axes.imshow(np.clip(0.5 + image / most / 2, 0, 1))
