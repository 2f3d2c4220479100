"""Curves of a training that is at work, for TensorBoard: written where its event files will be.

What a run leaves at its end replaces them under the same names. They are a courtesy: a store that
does not take them costs the curves, not the run.
"""

from __future__ import annotations

import contextlib
import struct
import sys
from collections.abc import Mapping

from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from regimes.errors import StorageFailure
from regimes.jobs.support.tensorboard import Events
from regimes.storage.artifacts import MANIFEST
from regimes.storage.filesystem import Location
from regimes.storage.pace import Pace

LOSS = "train/loss"


class LiveCurves:
    """Event files that grow: the first point is written at once, then all new ones once a minute.

    A run that goes on continues the curves of the one that was interrupted. Steps that are trained
    again, after a restart from a checkpoint, are not written twice.

    Args:
        folder: the result folder of the run.
    """

    def __init__(self, folder: Location) -> None:
        self._folder, self._pace = folder, Pace()
        self._continues = MANIFEST not in folder.sizes()  # else they are another version's
        self._events: dict[str, Events] = {}
        self._reached: dict[str, int] = {}
        self._new: set[str] = set()
        self._is_lost = False

    def add(self, step: int, losses: Mapping[str, float]) -> None:
        """Add a point to the curve of every model, by label; writes if it is time."""
        if self._is_lost:
            return
        try:
            first = self._open(losses)
            for label, loss in losses.items():
                if step > self._reached[label]:
                    self._events[label].add(summary.scalar(LOSS, loss), step)
                    self._reached[label] = step
                    self._new.add(label)
            if first or self._pace.is_due:
                self._write()
        except StorageFailure as error:
            self._is_lost = True
            print(f"warning   no curves for TensorBoard until the end: {error}", file=sys.stderr)

    def _open(self, losses: Mapping[str, float]) -> bool:
        """Start the files of models that are new; whether there are any."""
        found = [label for label in losses if label not in self._events]
        for label in found:
            self._events[label], self._reached[label] = Events(label), -1
            if self._continues:
                self._take_up(label)
        return bool(found)

    def _take_up(self, label: str) -> None:
        """Go on with the file of an interrupted run, if there is one that can be read."""
        events = self._events[label]
        with contextlib.suppress(FileNotFoundError, ValueError):
            data = self._folder.read(events.name)
            self._reached[label] = last_step(data)
            events.go_on(data)

    def _write(self) -> None:
        with self._pace.writing():
            for label in sorted(self._new):
                events = self._events[label]
                self._folder.write(events.name, events.data)
        self._new.clear()


def last_step(data: bytes) -> int:
    """The step of the last event of a file that has values; -1 if none has.

    Raises:
        ValueError: if the file is damaged.
    """
    start, last = 0, -1
    while start < len(data):
        (length,) = struct.unpack("<Q", data[start : start + 8].ljust(8, b"\0"))
        body, check = data[start + 12 :][:length], data[start + 12 :][length : length + 4]
        if check != struct.pack("<I", masked_crc32c(body)):
            raise ValueError("an event's checksum is not that of its bytes")
        event = Event.FromString(body)
        last = event.step if event.HasField("summary") else last
        start += length + 16
    return last
