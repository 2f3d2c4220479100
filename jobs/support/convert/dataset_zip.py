"""Any source of images as a dataset of EDM's: a zip that its training reads, and ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from regimes.errors import ConfigError
from regimes.images.pixels import Images, with_channels
from regimes.images.sources import ImageSource, open_source
from regimes.images.writing import write_edm_zip
from regimes.words import counted


def convert_images(
    spec: str,
    target: Path,
    *,
    max_images: int | None,
    image_size: int | None,
    channels: Literal[1, 3] | None,
) -> str:
    """Write the first images of a source, with their classes if it knows them.

    Args:
        spec: the source, as ``open_source`` takes it.
        target: the .zip to write; an existing one is replaced.
        max_images: take only the first images, in the order of the source (that of their names).
        image_size: crop the centre square of every image and resize it to this side.
        channels: convert all images to gray (1) or colour (3).

    Returns:
        What was written, in words.

    Raises:
        BadSource, BadImage: if the source, an image or the labels cannot be read, or if an image is not
            square with a power of two as side.
        ConfigError: if ``max_images`` is more than there are.
        StorageFailure: if the file cannot be written.
    """
    source = open_source(spec)
    count = len(source.ids) if max_images is None else max_images
    if not 1 <= count <= len(source.ids):
        raise ConfigError(
            f"--max-images: expected 1 to {len(source.ids)}, as {source.name} has, got {count}"
        )
    labels = None if source.labels is None else list(source.labels)[:count]
    write_edm_zip(target, _read(source, count, image_size, channels), labels)
    classes = "no labels" if labels is None else counted(max(labels) + 1, "class", "classes")
    return f"{count} of {len(source.ids)} images, {classes}"


def _read(
    source: ImageSource, count: int, image_size: int | None, channels: Literal[1, 3] | None
) -> Iterator[Images]:
    for index in range(count):
        yield with_channels(source.read(index, image_size=image_size), channels)
