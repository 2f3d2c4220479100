"""Parts of a source: its first images, or EDM's random draw, in the order of the source.

first:  i < M                                (dataset_tool.py --max-images)
drawn:  the first M of a shuffle of all i    (max_size of EDM's training)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from regimes.errors import BadSource, ConfigError
from regimes.images.fingerprints import hash_parts
from regimes.images.pixels import Images, with_channels
from regimes.images.sources import ImageSource


class Selection:
    """Some images of a source, under the ids that they have there.

    Args:
        source: where the images are.
        positions: (M,) positions in the source.
    """

    def __init__(self, source: ImageSource, positions: Sequence[int] | npt.NDArray) -> None:
        self._source, self._positions = source, [int(p) for p in positions]
        self.name = source.name
        self.ids = [source.ids[p] for p in self._positions]

    @property
    def labels(self) -> list[int] | None:
        """See ``ImageSource``."""
        labels = self._source.labels
        return None if labels is None else [labels[p] for p in self._positions]

    @property
    def fingerprint(self) -> str:
        """Hash of the source's fingerprint and the positions."""
        chosen = np.array(self._positions, "<i8").tobytes()
        return hash_parts([self._source.fingerprint.encode(), chosen])

    def read(self, index: int, *, image_size: int | None = None) -> Images:
        """See ``ImageSource``."""
        return self._source.read(self._positions[index], image_size=image_size)


def first_images(source: ImageSource, max_images: int) -> ImageSource:
    """The first ``max_images`` images; the source itself if it has no more.

    Raises:
        ConfigError: if ``max_images`` is below 1.
    """
    _check(max_images)
    if max_images >= len(source.ids):
        return source
    return Selection(source, range(max_images))


def sample_images(source: ImageSource, max_images: int, seed: int) -> ImageSource:
    """The ``max_images`` images that EDM's training draws with ``random_seed=seed``.

    Args:
        source: where the images are.
        max_images: how many; with as many as there are, or more, the source itself is returned.
        seed: taken modulo 2^31, as EDM does.

    Raises:
        ConfigError: if ``max_images`` is below 1.
    """
    _check(max_images)
    if max_images >= len(source.ids):
        return source
    positions = np.arange(len(source.ids))
    np.random.RandomState(seed % 2**31).shuffle(positions)
    return Selection(source, np.sort(positions[:max_images]))


def first_readable(
    source: ImageSource,
    *,
    image_size: int | None = None,
    channels: Literal[1, 3] | None = None,
    skip_bad: bool = False,
) -> Images:
    """The first image (H, W, C) of a source, or with ``skip_bad`` the first that can be read.

    Args:
        source: where the images are.
        image_size: side of the square to crop and resize to, or None to keep the size.
        channels: 1 turns the image gray, 3 gives a gray one three equal channels; None keeps them.
        skip_bad: pass over images that cannot be decoded.

    Raises:
        BadSource: if there is none.
    """
    for index in range(len(source.ids)):
        try:
            return with_channels(source.read(index, image_size=image_size), channels)
        except BadSource:
            if not skip_bad:
                raise
    raise BadSource(f"{source.name}: no image of {len(source.ids)} could be read")


def _check(max_images: int) -> None:
    if max_images < 1:
        raise ConfigError(f"--max-images: expected at least 1, got {max_images}")
