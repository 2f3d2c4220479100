"""What a job says about the sets that it described: what is missing, what they look like."""

from __future__ import annotations

import sys
from collections.abc import Callable

from regimes.images.pixels import Images, with_channels
from regimes.jobs.support.set_features import MIRRORED, SetFeatures
from regimes.report.reproducibility import SetLine
from regimes.scores.features import Features

ReadImage = Callable[[str, int], Images]
"""(set, position among its features) -> (H, W, C) uint8"""


def left_out(plan: SetFeatures, rows: dict[str, Features]) -> dict[str, int]:
    """Unreadable images of every set, counted; each is named on standard error."""
    counts = {}
    for name, source in plan.sets.sources.items():
        missing = sorted(set(source.ids) - {str(i) for i in rows[name].ids})
        counts[name] = len(missing)
        for image_id in missing:
            print(f"left out  {plan.sets.specs[name]}/{image_id}: not readable", file=sys.stderr)
    return counts


def image_reader(plan: SetFeatures, rows: dict[str, Features]) -> ReadImage:
    """Gives an image by its position among the features of its set."""
    places = {
        name: {image_id: i for i, image_id in enumerate(source.ids)}
        for name, source in plan.sets.sources.items()
    }

    def read(name: str, position: int) -> Images:
        e, source = plan.experiment, plan.sets.sources[name]
        place = places[name][str(rows[name].ids[position])]
        return with_channels(source.read(place, image_size=e.image_size), e.channels)

    return read


def set_lines(plan: SetFeatures, rows: dict[str, Features], read: ReadImage) -> list[SetLine]:
    """The sets as a report lists them."""
    lines = []
    for name, spec in plan.sets.specs.items():
        height, width, channels = read(name, 0).shape
        size = f"{width}x{height} {'gray' if channels == 1 else 'RGB'}"
        lines.append(SetLine(name=_shown(name), where=spec, count=len(rows[name]), size=size))
    return lines


def plain_images(rows: dict[str, Features]) -> list[str]:
    """What descriptors cannot compare, in words."""
    empty = {name: int((~f.values.any(1)).sum()) for name, f in rows.items() if name != MIRRORED}
    found = ", ".join(f"{count:,} of {_shown(name)}" for name, count in empty.items() if count)
    return [f"Images without any contrast are similar to nothing: {found}."] if found else []


def _shown(name: str) -> str:
    """A set's own name, where an option takes several."""
    return name.partition("/")[2] or name
