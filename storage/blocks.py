"""Blocks of images that are described where they are, whatever their sizes.

A source is cut into blocks of its ids; the images of a block are grouped by shape, since a network
takes equal ones at a time. Images that cannot be decoded stop the work by name, or are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from regimes.descriptors.network import NetworkDescriptor, NotFinite
from regimes.descriptors.pixels import Descriptor
from regimes.errors import BadDescriptor, BadSource
from regimes.images.pixels import Images, with_channels
from regimes.images.selection import first_readable
from regimes.images.sources import ImageSource
from regimes.storage.artifacts import Recipe
from regimes.storage.tables import Ids

Positions = npt.NDArray[np.int64]
IMAGES_PER_UNIT = 256
BYTES_PER_UNIT = 64 * 2**20  # of pixels, which every reader holds


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecipe(Recipe):
    """Images that are described where they are, without an artifact of their pixels."""

    kind: ClassVar[str] = "source"
    code_version: ClassVar[int] = 1

    fingerprint: str
    """SHA-256 of the source's content."""
    image_size: int | None = None
    """Side of the square that images are cropped and resized to when decoded; None keeps them."""
    channels: Literal[1, 3] | None = None
    """Channels that images are converted to."""
    skip_bad: bool = False
    """Whether unreadable images are left out."""
    images_per_unit: int = IMAGES_PER_UNIT
    """Images per shard of features."""

    @classmethod
    def of(
        cls,
        source: ImageSource,
        *,
        image_size: int | None,
        channels: Literal[1, 3] | None,
        skip_bad: bool,
    ) -> SourceRecipe:
        """The recipe of a source, with units that fit into memory as its first image tells.

        Raises:
            BadSource: if no image can be read, or the first cannot and ``skip_bad`` is off.
        """
        first = first_readable(source, image_size=image_size, channels=channels, skip_bad=skip_bad)
        return cls(
            fingerprint=source.fingerprint,
            image_size=image_size,
            channels=channels,
            skip_bad=skip_bad,
            images_per_unit=min(max(1, BYTES_PER_UNIT // first.nbytes), IMAGES_PER_UNIT),
        )

    def num_units(self, source: ImageSource) -> int:
        """Units that the source is cut into."""
        return -(-len(source.ids) // self.images_per_unit)


@dataclass(frozen=True, slots=True)
class Block:
    """The images of one unit, grouped by shape."""

    ids: Ids
    """(N,) in the order of the set."""
    groups: list[tuple[Positions, Images]]
    """Positions among the ids (n,), and their images (n, H, W, C)."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Messages of images that could not be decoded, by id."""


def read_source(
    source: ImageSource, recipe: SourceRecipe, unit: int, *, mirrored: bool = False
) -> Block:
    """Decode one unit of a source, or the left-right flips of its images.

    Raises:
        BadImage: at the first image that cannot be decoded, unless they are left out.
    """
    ids: list[str] = []
    by_shape: dict[tuple[int, ...], list[tuple[int, Images]]] = {}
    left_out: dict[str, str] = {}
    start = unit * recipe.images_per_unit
    for index, image_id in enumerate(block_ids(source, recipe, unit), start):
        try:
            image = source.read(index, image_size=recipe.image_size)
            image = with_channels(image, recipe.channels)
        except BadSource as error:
            if not recipe.skip_bad:
                raise
            left_out[image_id] = str(error)
            continue
        image = image[:, ::-1] if mirrored else image
        by_shape.setdefault(image.shape, []).append((len(ids), image))
        ids.append(image_id)
    groups = [
        (np.array([position for position, _ in rows]), np.stack([image for _, image in rows]))
        for rows in by_shape.values()
    ]
    return Block(np.array(ids, np.str_), groups, left_out)


def block_ids(source: ImageSource, recipe: SourceRecipe, unit: int) -> list[str]:
    """Ids of one unit, those of unreadable images among them."""
    start = unit * recipe.images_per_unit
    return list(source.ids[start : start + recipe.images_per_unit])


def describe_block(
    descriptor: Descriptor, block: Block, *, raw: bool = False
) -> npt.NDArray[np.float32]:
    """Features (N, D) of a block, in the order of its ids; ``raw`` as in ``FeaturesRecipe``.

    Raises:
        BadDescriptor: if features are not finite; the images are named.
        BadSource: if images of different sizes have features of different length.
    """
    parts = []
    describe = descriptor.raw if raw and isinstance(descriptor, NetworkDescriptor) else descriptor
    for positions, images in block.groups:
        try:
            parts.append(describe(images))
        except NotFinite as error:
            bad = [str(i) for i in block.ids[positions[list(error.rows)]][:5]]
            raise BadDescriptor(f"{error}; images {', '.join(bad)}") from error
    if len({part.shape[1] for part in parts}) > 1:
        shapes = sorted({images.shape[1:] for _, images in block.groups})
        raise BadSource(
            f"images differ in size, {shapes[0]} and {shapes[1]}, and {descriptor.name} describes "
            "equal ones alone; pass --image-size"
        )
    values = np.concatenate(parts)
    ordered = np.empty_like(values)
    ordered[np.concatenate([positions for positions, _ in block.groups])] = values
    return ordered


def mean_feature(
    source: ImageSource, recipe: SourceRecipe, network: NetworkDescriptor
) -> npt.NDArray[np.float64]:
    """Mean over a source of what a network gives, (D,) float64; one unit in memory at a time.

    Raises:
        BadSource: if features differ in length, or no image could be read.
        BadImage, BadDescriptor: as ``read_source`` and ``describe_block``.
    """
    sums, count = [], 0
    for unit in range(recipe.num_units(source)):
        block = read_source(source, recipe, unit)
        if len(block.ids):
            sums.append(describe_block(network, block, raw=True).sum(0, dtype=np.float64))
            count += len(block.ids)
    if not sums:
        raise BadSource(f"{source.name}: no image could be read, so there is no mean feature")
    if len({len(total) for total in sums}) > 1:
        raise BadSource(
            f"{source.name}: images differ in size, and {network.name} describes equal ones alone; "
            "pass --image-size"
        )
    return np.sum(sums, 0) / count
