"""The look of every figure, and how a figure becomes bytes.

Three things mean the same everywhere:

* colour: the width of a model (black: more than one width is involved)
* line style: what the models or their samples are compared with, see ``LINES``
* dotted gray: a null or a ceiling, labelled where it ends

Figures are built on ``matplotlib.figure.Figure`` and drawn by Agg; pyplot, which keeps figures in a
global list and picks a window system, is not used. Layouts are in inches, so that nothing moves
when a label gets longer, and files carry no date or program name: equal data give equal bytes.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib.style
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedLocator, NullLocator

P = ParamSpec("P")
R = TypeVar("R")

DPI = 160
INK = "#222222"
REFERENCE = "#707070"
"""Nulls and ceilings."""
FAINT = "#B4B4B4"
"""The linear denoiser, where it is one more reference."""
MARK = "#AA3377"
"""Above the similarity threshold; no width has this colour."""
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9")  # Okabe and Ito 2008

LINES: dict[str, Any] = {
    "same data": "-",  # its training images, or another model of them
    "other half": "--",  # a model of the other half, or real images of it
    "empirical": "-.",  # the perfect memorizer of its training images
    "linear": (0, (5, 1.5, 1, 1.5, 1, 1.5)),  # the Wiener denoiser of its training images
    "reference": ":",  # a null or a ceiling
}
"""Line style by what is compared with."""

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine draws the same
    "font.size": 10.5,
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "image.composite_image": False,  # PDF: keep each image, do not redraw the page as one
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "pdf.fonttype": 42,  # text stays text
    "text.color": INK,
    "text.parse_math": False,  # a name may hold dollars
}


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function under the project's settings, whatever the user's matplotlibrc says."""

    @wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.style.context(_RC, after_reset=True):
            return function(*args, **kwargs)

    return inside


def width_colors(widths: Sequence[int]) -> dict[int, str]:
    """One colour per width of the study; narrower is first. Pass all widths, also to draw one."""
    ordered = sorted(set(widths))
    if len(ordered) <= len(_PALETTE):
        return dict(zip(ordered, _PALETTE))
    shades = colormaps["viridis"](np.linspace(0.1, 0.92, len(ordered)))
    return {width: to_hex(shade) for width, shade in zip(ordered, shades)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """Space around the axes, in inches; the title comes on top of it."""

    left: float = 0.8
    right: float = 1.75
    bottom: float = 0.62
    top: float = 0.2


def canvas(title: str, size: tuple[float, float], margins: Margins) -> tuple[Figure, Axes]:
    """A figure with its title and one axes.

    Args:
        title: the finding; wrapped to the figure's width.
        size: width and height in inches, without the title.
        margins: space around the axes.
    """
    lines = _balanced(title, size[0] - 0.24)
    head = 0.12 + 0.215 * len(lines)
    width, height = size[0], size[1] + head
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(
        "\n".join(lines), x=0.12 / width, y=1 - 0.1 / height, ha="left", va="top", linespacing=1.25
    )
    box = (
        margins.left / width,
        margins.bottom / height,
        1 - (margins.left + margins.right) / width,
        1 - (margins.bottom + margins.top + head) / height,
    )
    return figure, figure.add_axes(box)


def _balanced(text: str, inches: float) -> list[str]:
    """Lines no longer than ``inches``, as few as possible and then as even as possible."""
    most = len(text)
    lines = [text]
    while most > 1 and max(map(_inches, lines)) > inches:
        most -= 1
        lines = textwrap.wrap(text, most)
    for narrower in range(most - 1, most // 2, -1):
        tried = textwrap.wrap(text, narrower)
        if len(tried) > len(lines):
            break
        lines = tried
    return lines


def text_inches(line: str, *, size: float, weight: str = "normal") -> float:
    """Length of a line of text, by the font's own metrics."""
    font = FontProperties(family=_RC["font.family"], weight=weight)
    path = TextPath((0, 0), line, size=size, prop=font)
    return float(path.vertices[:, 0].max(initial=0)) / 72


def _inches(line: str) -> float:
    """Length of a line of title."""
    return text_inches(line, size=_RC["figure.titlesize"], weight=_RC["figure.titleweight"])


def short(name: str, most: int = 24) -> str:
    """A name that fits: the middle of a long one is left out."""
    head, tail = (most - 1) // 2, most // 2
    return name if len(name) <= most else f"{name[:head]}\u2026{name[-tail:]}"


def log2_axis(axes: Axes, sizes: Sequence[int]) -> None:
    """A log2 x axis for n whose ticks are exactly the sizes that were run."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    inches = figure.get_size_inches()[0] * axes.get_position().width
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(sizes), [str(n) for n in sizes])
    axes.set_xlim(*_limits(sizes))
    if upright_ticks(sizes, inches) > 0:
        axes.tick_params(axis="x", labelrotation=90, labelsize=8.5)
    axes.set_xlabel("training images n")


def upright_ticks(sizes: Sequence[int], inches: float) -> float:
    """Height that ticks need beyond one line: none if level labels fit on an axis of ``inches``."""
    if len(sizes) < 2:
        return 0.0
    low, high = _limits(sizes)
    gap = np.diff(np.log2(sorted(sizes))).min() / np.log2(high / low) * inches
    length = 0.092 * len(str(max(sizes)))  # a digit is 0.092 inches wide
    return 0.0 if gap > length + 0.08 else max(0.0, length - 0.15) + 0.01


def _limits(sizes: Sequence[int]) -> tuple[float, float]:
    low, high = np.log2(min(sizes)), np.log2(max(sizes))
    pad = max(0.04 * (high - low), 0.05) if high > low else 1.0
    return 2 ** (low - pad), 2 ** (high + pad)


@styled
def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG; the same figure always gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


@styled
def pdf_bytes(figure: Figure) -> bytes:
    """The figure as PDF; the same figure always gives the same bytes."""
    buffer = io.BytesIO()
    unsigned = {"CreationDate": None, "Creator": None, "Producer": None}
    figure.savefig(buffer, format="pdf", dpi=DPI, metadata=unsigned)
    return buffer.getvalue()
