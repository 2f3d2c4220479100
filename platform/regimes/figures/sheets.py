"""Picture sheets: pairs of images, enlarged without smoothing, the similarity under each pair.

Columns are seeds, the same in every block; a block is one training-set size. A pair above the
threshold is framed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from regimes.figures import findings
from regimes.figures.style import DPI, MARK, REFERENCE, Margins, canvas, styled
from regimes.images.pixels import Images

_MARGIN, _NAMES, _GAP = 0.12, 1.3, 0.14  # inches: border, column of row names, between columns
_NOTE, _SEEDS, _HEAD, _TEXT, _BREAK = 0.26, 0.24, 0.27, 0.24, 0.1  # inches: heights of lines


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedImages:
    """Two rows of images at one training-set size, paired by seed.

    Args:
        n: training images.
        seeds: (K,) distinct.
        upper: (K, H, W, C) uint8, C = 1 or 3.
        lower: (K, H, W, C) uint8.
        similarity: (K,) of each pair, in the study's descriptor.

    Raises:
        ValueError: if the lengths or the image sizes differ.
    """

    n: int
    seeds: npt.NDArray[np.int64]
    upper: Images
    lower: Images
    similarity: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check that pairs are pairs."""
        count = len(self.seeds)
        same = self.upper.shape == self.lower.shape and len(self.similarity) == count
        if not same or len(self.upper) != count or self.upper.ndim != 4 or count == 0:
            raise ValueError(
                f"n={self.n}: expected one pair of (H, W, C) images and one similarity per seed, "
                f"got {count} seeds, images {self.upper.shape} and {self.lower.shape}, "
                f"{len(self.similarity)} similarities"
            )

    def first(self, count: int) -> PairedImages:
        """The first ``count`` pairs."""
        cut = slice(count)
        return PairedImages(
            n=self.n,
            seeds=self.seeds[cut],
            upper=self.upper[cut],
            lower=self.lower[cut],
            similarity=self.similarity[cut],
        )

    def marked(self, threshold: float) -> int:
        """Pairs above the threshold."""
        return int((self.similarity > threshold).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Sizes in inches."""

    columns: int
    width: float
    height: float

    def x(self, column: int) -> float:
        return _MARGIN + _NAMES + column * (self.width + _GAP)

    @property
    def pair(self) -> float:
        """Two images and the line under them."""
        return 2 * self.height + 0.03 + _TEXT


@styled
def nearest_sheet(
    blocks: Sequence[PairedImages],
    *,
    width: int,
    threshold: float,
    columns: int = 10,
    counted: bool = True,
) -> Figure:
    """Samples above their nearest training images, one block per n.

    Args:
        blocks: upper are samples, lower are the training images nearest to them.
        width: of the models, for the title.
        threshold: similarity above which a sample counts as a copy.
        columns: seeds to show, the first of each block.
        counted: whether the title counts copies; those of a model that makes noise say nothing.
    """
    shown = [block.first(columns) for block in blocks]
    counts = [(b.n, b.marked(threshold), len(b.seeds)) for b in shown]
    words = "samples above their nearest training images"
    if counted:
        words = findings.shown(counts, "is a copy", "are copies")
    title = f"Width {width}: {words}"
    note = f"framed: a copy, similarity above {threshold:.3f}"
    names = ("sample", "nearest\ntraining image")
    return _sheet(title, note, [(b,) for b in shown], (names,), threshold)


@styled
def same_noise_sheet(
    models: Sequence[PairedImages],
    memorizers: Sequence[PairedImages],
    *,
    width: int,
    threshold: float,
    columns: int = 10,
    counted: bool = True,
) -> Figure:
    """What models of halves A and B make of the same noise, above what two memorizers make of it.

    Args:
        models: upper are samples of the model of half A, lower of half B.
        memorizers: the same for the empirical denoisers, at the same sizes and seeds.
        width: of the models, for the title.
        threshold: similarity above which two samples count as the same.
        columns: seeds to show, the first of each block.
        counted: as of ``nearest_sheet``.

    Raises:
        ValueError: if the two lists are not of the same sizes.
    """
    if [b.n for b in models] != [b.n for b in memorizers]:
        raise ValueError(
            f"expected the same sizes, got models at n = {[b.n for b in models]} and memorizers at "
            f"n = {[b.n for b in memorizers]}"
        )
    shown = [(m.first(columns), e.first(columns)) for m, e in zip(models, memorizers)]
    counts = [(m.n, m.marked(threshold), len(m.seeds)) for m, _ in shown]
    words = f": {findings.shown(counts, 'agrees', 'agree')}" if counted else ""
    title = f"Same noise, disjoint data, width {width}{words}"
    note = (
        f"framed: the same image, similarity above {threshold:.3f}; memorizer: empirical denoiser"
    )
    names = (("model A", "model B"), ("memorizer A", "memorizer B"))
    return _sheet(title, note, shown, names, threshold)


@styled
def memorizer_sheet(
    blocks: Sequence[PairedImages],
    *,
    width: int,
    threshold: float,
    columns: int = 10,
    counted: bool = True,
) -> Figure:
    """What a model makes of noise, above what the perfect memorizer of its training set makes of it.

    Args:
        blocks: upper are samples of the model, lower of the empirical denoiser, one block per n.
        width: of the models, for the title.
        threshold: similarity above which two samples count as the same.
        columns: seeds to show, the first of each block.
        counted: as of ``nearest_sheet``.
    """
    shown = [block.first(columns) for block in blocks]
    counts = [(b.n, b.marked(threshold), len(b.seeds)) for b in shown]
    words = f": {findings.shown(counts, 'is its image', 'are its images')}" if counted else ""
    title = f"Same noise as the perfect memorizer, width {width}{words}"
    note = (
        f"framed: the same image, similarity above {threshold:.3f}; memorizer: empirical denoiser"
    )
    return _sheet(title, note, [(b,) for b in shown], (("model", "memorizer"),), threshold)


def _sheet(
    title: str,
    note: str,
    blocks: Sequence[tuple[PairedImages, ...]],
    names: tuple[tuple[str, str], ...],
    threshold: float,
) -> Figure:
    """Blocks below each other, the pairs of a block below each other."""
    layout = _layout(blocks)
    block_height = _HEAD + len(names) * layout.pair + (len(names) - 1) * _BREAK
    height = _NOTE + _SEEDS + len(blocks) * (block_height + _BREAK)
    size = (max(layout.x(layout.columns), 5.6), height)
    figure, axes = canvas(title, size, Margins(left=0, right=0, bottom=0, top=0))
    axes.set_axis_off()
    axes.text(_MARGIN, _NOTE / 2, note, va="center", fontsize=9.5, color=MARK)
    _seed_names(axes, blocks[0][0].seeds, layout)
    y = _NOTE + _SEEDS
    for block in blocks:
        axes.text(_MARGIN, y + _HEAD / 2, f"n = {block[0].n}", va="center", weight="bold")
        for k, (pair, labels) in enumerate(zip(block, names)):
            top = y + _HEAD + k * (layout.pair + _BREAK)
            _pair(axes, pair, labels, top, layout, threshold)
        y += block_height + _BREAK
    # Inches from the top left; set last, because drawing an image moves the limits.
    axes.set(xlim=(0, size[0]), ylim=(height, 0), aspect="auto")
    return figure


def _layout(blocks: Sequence[tuple[PairedImages, ...]]) -> _Layout:
    """Cells wide enough to show every pixel of an image, within reason."""
    pairs = [pair for block in blocks for pair in block]
    if not pairs:
        raise ValueError("blocks: expected at least one, got none")
    for pair in pairs:
        if not np.array_equal(pair.seeds, pairs[0].seeds):
            raise ValueError(
                f"columns are seeds and must be the same in every block: n={pairs[0].n} has "
                f"{pairs[0].seeds.tolist()}, n={pair.n} has {pair.seeds.tolist()}"
            )
    h, w = pairs[0].upper.shape[1:3]
    width = min(max(0.6, w / DPI), 1.6)
    return _Layout(columns=len(pairs[0].seeds), width=width, height=width * h / w)


def _seed_names(axes: Axes, seeds: npt.NDArray[np.int64], layout: _Layout) -> None:
    y = _NOTE + _SEEDS / 2
    axes.text(_MARGIN, y, "seed", va="center", fontsize=9.5, color=REFERENCE)
    for column, seed in enumerate(seeds):
        x = layout.x(column) + layout.width / 2
        axes.text(x, y, str(seed), ha="center", va="center", fontsize=9.5, color=REFERENCE)


def _pair(
    axes: Axes,
    pair: PairedImages,
    names: tuple[str, str],
    top: float,
    layout: _Layout,
    threshold: float,
) -> None:
    """Two rows of images; a frame and bold print where they are alike."""
    tops = (top, top + layout.height + 0.03)
    for name, y in zip(names, tops):
        axes.text(_MARGIN, y + layout.height / 2, name, va="center", fontsize=9.5)
    for column, similarity in enumerate(pair.similarity):
        x = layout.x(column)
        for images, y in zip((pair.upper, pair.lower), tops):
            draw_image(axes, images[column], (x, x + layout.width, y + layout.height, y))
        alike = bool(similarity > threshold)
        if alike:
            _frame(axes, x, top, layout)
        axes.text(
            x + layout.width / 2,
            top + layout.pair - _TEXT / 2 + 0.02,
            f"{similarity:.3f}",
            ha="center",
            va="center",
            fontsize=9,
            color=MARK if alike else "#444444",
            weight="bold" if alike else "normal",
        )


def draw_image(axes: Axes, image: Images, extent: tuple[float, float, float, float]) -> None:
    """Draw one image (H, W, C), its pixels repeated: a viewer that smooths cannot smooth those."""
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    factor = int((extent[1] - extent[0]) * DPI) // pixels.shape[1]
    large = pixels.repeat(max(factor, 1), 0).repeat(max(factor, 1), 1)
    # An image larger than its cell has to be averaged instead.
    kernel = "none" if factor else "antialiased"
    axes.imshow(large, cmap="gray", vmin=0, vmax=255, extent=extent, interpolation=kernel)


def _frame(axes: Axes, x: float, top: float, layout: _Layout) -> None:
    pad = 0.035
    size = (layout.width + 2 * pad, layout.pair - _TEXT + 2 * pad)
    axes.add_patch(
        Rectangle((x - pad, top - pad), *size, fill=False, edgecolor=MARK, linewidth=1.8)
    )
