"""The pages of an audit's gallery: HTML that needs nothing else, neither script nor files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
import numpy as np
from PIL import Image

from regimes.figures.gallery import GalleryPair
from regimes.images.pixels import Images
from regimes.images.writing import encode_png

LARGEST = 160
"""Side in pixels of the largest picture on a page; larger images are reduced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryPage:
    """One page of pairs.

    Raises:
        ValueError: if there is no pair.
    """

    title: str
    note: str
    """What marks a pair as a copy, in words."""
    number: int
    """1 is the first."""
    total: int
    """Pages."""
    pairs: Sequence[GalleryPair]

    def __post_init__(self) -> None:
        """Check what a template could not."""
        if not self.pairs or not 1 <= self.number <= self.total:
            raise ValueError(
                f"page {self.number} of {self.total}: expected pairs, got {len(self.pairs)}"
            )


def page_name(number: int) -> str:
    """File name of a page, without its suffix."""
    return f"page-{number:03d}"


def render_gallery(page: GalleryPage) -> str:
    """The page as HTML; equal pages give equal text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("regimes.report", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["picture"] = _picture
    environment.filters["page_name"] = page_name
    return environment.get_template("gallery.html.j2").render(page=page)


def _picture(image: Images) -> str:
    """A data URI; images that are too large are reduced, their shape kept."""
    height, width, channels = image.shape
    if max(height, width) > LARGEST:
        scale = LARGEST / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        plain = Image.fromarray(image[:, :, 0] if channels == 1 else image)
        image = np.asarray(plain.resize(size, Image.Resampling.BILINEAR)).reshape(*size[::-1], -1)
    return "data:image/png;base64," + base64.b64encode(encode_png(image)).decode("ascii")
