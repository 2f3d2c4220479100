"""Figures of a study of diverse samples: the shares beside their nulls, the maps, and the images.

Points outside a hull are drawn in the marking colour; the real images' hull is the line that decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.ticker import FuncFormatter

from regimes.figures.sheets import draw_image
from regimes.figures.style import INK, MARK, REFERENCE, Margins, canvas, short, styled
from regimes.images.pixels import Images
from regimes.scores.hulls import Hull, intersection
from regimes.scores.planes import HullSelection
from regimes.studies.diverse import Finding

REAL_COLOR, GENERATED_COLOR, SHARED_COLOR = "#D55E00", "#0072B2", "#AA3377"
_SIDE = 5
_ROW = 0.34  # inches per row of the shares
_CELL, _SPACE, _EDGE = 0.9, 0.05, 0.14  # inches: image, between images, border


@styled
def shares(findings: Sequence[Finding], *, title: str) -> Figure:
    """The share selected of every set and rule with its 95% interval, beside its null.

    Args:
        findings: the rows, from top to bottom; at least one.
        title: the finding.
    """
    if not findings:
        raise ValueError("findings: expected at least one, got none")
    size = (7.2, 0.95 + _ROW * len(findings))
    figure, axes = canvas(title, size, Margins(left=2.75, right=0.3, bottom=0.55, top=0.4))
    for y, found in enumerate(findings):
        score = found.score
        color = MARK if found.exceeds_null else INK
        axes.plot([score.low, score.high], [y, y], color=color, linewidth=1.6)
        axes.plot(score.value, y, "o", color=color)
        critical = found.critical / score.num_generated
        axes.plot([score.null, critical], [y + 0.28, y + 0.28], color=REFERENCE, linewidth=1.2)
        axes.plot(score.null, y + 0.28, "|", color=REFERENCE, markersize=7)
    labels = [f"{short(f.set_name)}, {f.rule}" for f in findings]
    axes.set_yticks(range(len(findings)), labels, fontsize=9.5)
    axes.set(ylim=(len(findings) - 0.4, -0.6), xlabel="share of samples that are selected")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.3g}%"))
    axes.plot([], [], color=REFERENCE, marker="|", label="if nothing is new: expected, to 95%")
    axes.plot([], [], "o-", color=MARK, label="more than that")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=9, borderaxespad=0.1)
    return figure


@styled
def hull_map(plane: HullSelection, *, title: str, samples: str = "samples") -> Figure:
    """The map with both hulls and what they share; samples that are selected are marked.

    Args:
        plane: the points and hulls.
        title: the finding.
        samples: what the judged images are called.
    """
    figure, axes = canvas(title, (7.2, 5.0), Margins(left=0.3, right=1.95, bottom=0.3, top=0.15))
    outside = plane.selected
    # Points are drawn as pixels in a PDF: a hundred thousand of them as paths would not open.
    small = 3.0 if len(outside) + len(plane.real_points) > 5_000 else 9.0
    for points, color, name in (
        (plane.real_points, REAL_COLOR, "real images"),
        (plane.generated_points[~outside], GENERATED_COLOR, samples),
    ):
        x, y = points.T
        axes.scatter(
            x, y, s=small, color=color, alpha=0.45, linewidths=0, label=name, rasterized=True
        )
    x, y = plane.generated_points[outside].T
    axes.scatter(
        x, y, s=18, color=MARK, marker="x", linewidths=1.0, label=f"{samples} outside", rasterized=True,
    )  # fmt: skip
    _outline(axes, plane.real_hull, REAL_COLOR, "hull of real images")
    _outline(axes, plane.generated_hull, GENERATED_COLOR, f"hull of {samples}")
    shared = intersection(plane.real_hull, plane.generated_hull)
    if len(shared) >= 3:
        label = f"both: {plane.overlap_percent:.1f}%"
        axes.add_patch(
            Polygon(shared, facecolor=SHARED_COLOR, alpha=0.1, linewidth=0, label=label, zorder=0)
        )
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
    axes.set_adjustable("datalim")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9, borderaxespad=0)
    return figure


def _outline(axes: Axes, hull: Hull, color: str, label: str) -> None:
    closed = np.concatenate([hull.vertices, hull.vertices[:1]])
    axes.plot(*closed.T, color=color, linewidth=1.4, label=label)


@styled
def diverse_sheet(images: Sequence[Images], *, title: str, side: int = _SIDE) -> Figure:
    """Images in rows of ``side``, each in its own shape.

    Args:
        images: at most ``side ** 2`` arrays (H, W, C) uint8, at least one.
        title: what they are.
        side: rows and columns.

    Raises:
        ValueError: if there is none, or there are too many.
    """
    if not 1 <= len(images) <= side**2:
        raise ValueError(f"images: expected 1 to {side**2}, got {len(images)}")
    width = 2 * _EDGE + side * (_CELL + _SPACE)
    rows = -(-len(images) // side)
    size = (max(width, 5.2), _EDGE + rows * (_CELL + _SPACE))
    figure, axes = canvas(title, size, Margins(left=0, right=0, bottom=0, top=0))
    axes.set_axis_off()
    for place, image in enumerate(images):
        height, breadth = image.shape[:2]
        scale = _CELL / max(height, breadth)
        x = _EDGE + place % side * (_CELL + _SPACE) + (_CELL - breadth * scale) / 2
        y = place // side * (_CELL + _SPACE) + (_CELL - height * scale) / 2
        draw_image(axes, image, (x, x + breadth * scale, y + height * scale, y))
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0), aspect="auto")
    return figure
