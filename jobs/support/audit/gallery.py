"""The gallery of an audit: which pairs, their pictures, and the pages that show them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from regimes.figures.gallery import COLUMNS, GalleryPair, gallery_sheet
from regimes.figures.style import png_bytes
from regimes.images.pixels import Images
from regimes.report.gallery import GalleryPage, page_name, render_gallery
from regimes.scores.features import Index
from regimes.studies.audit import Copies
from regimes.studies.audit_matches import Flags, SamePixels

PER_PAGE = 5 * COLUMNS
FOLDER = "gallery"

ReadImage = Callable[[str, int], Images]
"""(set, position) -> (H, W, C) uint8"""


@dataclass(frozen=True)
class Gallery:
    """The most similar pairs of an audit, in order.

    Args:
        copies: what was found.
        generated_ids: (M,)
        train_ids: (N,)
        read: gives the images.
        size: pairs, at most.
    """

    copies: Copies
    generated_ids: Sequence[str]
    train_ids: Sequence[str]
    read: ReadImage
    size: int

    @cached_property
    def _ranked(self) -> Index:
        """Positions of all generated images, the most similar first."""
        # Rounding of a network must not decide which of two equal images comes first.
        coarse = np.round(self.copies.generated.similarity, 5)
        return np.lexsort((np.arange(len(coarse)), ~self.copies.identical, -coarse))

    @property
    def order(self) -> Index:
        """Positions of the generated images on the pages, the most similar first."""
        return self._ranked[: self.size]

    @property
    def num_pages(self) -> int:
        """Pages of ``PER_PAGE`` pairs."""
        return -(-len(self.order) // PER_PAGE)

    @property
    def note(self) -> str:
        """What a frame means."""
        value = self.copies.threshold.value
        return f"Framed: similarity above {value:.3f}, or equal in every pixel."

    def pairs(self, start: int, stop: int) -> list[GalleryPair]:
        """Pairs of these ranks, read from their sources."""
        return self._read(range(start, min(stop, len(self.order))))

    def borderline(self, each: int) -> list[GalleryPair]:
        """The ``each`` pairs closest to the threshold on either side, the most similar first."""
        last = int(self.copies.is_copy.sum())
        return self._read(range(max(0, last - each), min(last + each, len(self._ranked))))

    def _read(self, ranks: range) -> list[GalleryPair]:
        met, copy = self.copies.rules_met(), self.copies.is_copy
        found = self.copies.generated
        return [
            GalleryPair(
                rank=rank + 1,
                generated=self.read("generated", int(i)),
                train=self.read("train", int(found.nearest[i])),
                generated_id=self.generated_ids[i],
                train_id=self.train_ids[found.nearest[i]],
                similarity=float(found.similarity[i]),
                rules=_shown([name for name, flags in met.items() if flags[i]]),
                is_copy=bool(copy[i]),
            )
            for rank, i in ((rank, self._ranked[rank]) for rank in ranks)
        ]

    def title(self) -> str:
        """Of every page."""
        shown, total = len(self.order), len(self.copies.is_copy)
        return f"The {shown:,} of {total:,} generated images that are nearest to a training image"

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Names and contents of all pages, as HTML and as pictures."""
        total = self.num_pages
        for number in range(1, total + 1):
            start = (number - 1) * PER_PAGE
            pairs = self.pairs(start, start + PER_PAGE)
            page = GalleryPage(
                title=self.title(), note=self.note, number=number, total=total, pairs=pairs
            )
            name = f"{FOLDER}/{page_name(number)}"
            yield f"{name}.html", render_gallery(page).encode()
            title = f"Pairs {start + 1} to {start + len(pairs)} of {len(self.order):,}"
            yield f"{name}.png", png_bytes(gallery_sheet(pairs, title, self.note))


def _shown(names: Sequence[str]) -> tuple[str, ...]:
    """Rules without the published thresholds that a higher one implies."""
    published = [name for name in names if name.startswith("above ")]
    return tuple(name for name in names if name not in published[1:])


def pixel_comparison(read: ReadImage) -> SamePixels:
    """Compares images pixel by pixel, as ``find_copies`` asks for it."""

    def same(name: str, items: Index, references: Index, flipped: Flags) -> Flags:
        return np.array(
            [
                _equal(read(name, int(i)), read("train", int(j)), bool(flip))
                for i, j, flip in zip(items, references, flipped, strict=True)
            ],
            np.bool_,
        )

    return same


def _equal(image: Images, reference: Images, flipped: bool) -> bool:
    return np.array_equal(image, reference[:, ::-1] if flipped else reference)
