"""TensorBoard event files, written in memory."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from regimes.images.pixels import Images

GRID_SIDE = 8


class Events:
    """An event file in memory. Equal events give equal bytes: no clock, no host name."""

    def __init__(self, label: str) -> None:
        self.name = f"tensorboard/{label}/events.out.tfevents.0.{label}"
        self._records = [self._record(Event(wall_time=0.0, file_version="brain.Event:2"))]

    @staticmethod
    def _record(event: Any) -> bytes:
        """Length, its checksum, the event, its checksum: the TFRecord format."""
        data = event.SerializeToString(deterministic=True)
        length = struct.pack("<Q", len(data))
        crc = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
        return length + crc[0] + data + crc[1]

    def add(self, value: Any, step: int = 0) -> None:
        """Append a summary."""
        self._records.append(self._record(Event(wall_time=0.0, step=step, summary=value)))

    def go_on(self, data: bytes) -> None:
        """Start from what is in a file of these."""
        self._records = [data]

    @property
    def data(self) -> bytes:
        """The file."""
        return b"".join(self._records)


def tile(images: Images, *, zoom: int = 4, side: int = GRID_SIDE) -> Images:
    """The first side^2 images as one (H', W', C) picture, enlarged without smoothing."""
    count = min(len(images), side * side)
    _, height, width, channels = images.shape
    sheet = np.full((side * side, height + 1, width + 1, channels), 255, np.uint8)
    sheet[:count, :height, :width] = images[:count]
    rows = sheet.reshape(side, side, height + 1, width + 1, channels)
    picture = rows.transpose(0, 2, 1, 3, 4).reshape(
        side * (height + 1), side * (width + 1), channels
    )
    return picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
