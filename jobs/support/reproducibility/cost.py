"""What a comparison would do and cost: printed by ``--dry-run``, from a few timed steps."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from regimes.images.pixels import Images, with_channels
from regimes.images.sources import ImageSource
from regimes.jobs.support.chosen_descriptor import ChosenDescriptor
from regimes.jobs.support.console import RunOptions, duration
from regimes.jobs.support.reproducibility.experiment import ReproducibilityExperiment
from regimes.jobs.support.reproducibility.results import default_name
from regimes.jobs.support.sample_sets import ModelSet, SetOfSamples
from regimes.scores.agreement import plan_blocks
from regimes.scores.unpaired import unpaired_errors
from regimes.storage.filesystem import Location
from regimes.words import counted

_TIMED_IMAGES = 16


def print_plan(
    experiment: ReproducibilityExperiment,
    chosen: ChosenDescriptor,
    run: RunOptions,
    sets: Sequence[SetOfSamples],
) -> None:
    """What would be compared, and how long one thread of this machine would take; keeps nothing."""
    count, seconds, values = 0, 0.0, 0
    for one in sets:
        if isinstance(one, ModelSet):
            seeds = len(one.recipe.seeds)
            print(f"set       {one.name}: {one.about}")
        else:
            seeds = len(one.source.ids)
            image, each = _timed_read(experiment, one.source)
            seconds, values = seconds + each * seeds, max(values, image.size)
            height, width, channels = image.shape
            size = f"{width}x{height}x{channels}"
            print(f"set       {one.name}: {counted(seeds, 'image')} {size}, {one.about}")
        count = max(count, seeds)
    pairs = len(sets) * (len(sets) - 1) // 2
    print(f"compare   {counted(pairs, 'pair')}, up to {counted(count, 'seed')}, by {chosen.name}")
    if values:
        blocks = plan_blocks(count, len(sets), values)
        kind = "all" if blocks.exact else "an unbiased choice of"
        seconds += pairs * blocks.num_couples * _seconds_per_couple(values)
        print(f"chance    {kind} {blocks.num_couples} couples of different seeds per pair")
        memory = len(sets) * count * values + 16 * pairs * (blocks.num_couples + 2 * count)
        print(f"memory    {memory / 1e6:.0f} MB, and about 500 MB of working space")
    if any(isinstance(one, ModelSet) for one in sets):
        print("sample    see generate --dry-run for what sampling a model costs")
    print(
        f"time      about {duration(seconds)} on one thread of this machine; sampling, descriptors and "
        "report not counted"
    )
    where = run.name or default_name(experiment, chosen.options, [one.name for one in sets])
    print(f"results   {Location(run.output).child(f'reproducibility/{where}').uri}")


def _timed_read(experiment: ReproducibilityExperiment, source: ImageSource) -> tuple[Images, float]:
    """The first image, and the seconds that decoding one takes."""
    some = range(min(_TIMED_IMAGES, len(source.ids)))
    started = time.perf_counter()
    images = [
        with_channels(source.read(i, image_size=experiment.image_size), experiment.channels)
        for i in some
    ]
    return images[0], (time.perf_counter() - started) / len(images)


def _seconds_per_couple(values: int, side: int = 32) -> float:
    """Of the pixel differences of one couple, which is most of the work."""
    images = np.zeros((side, 1, values, 1), np.uint8)
    started = time.perf_counter()
    unpaired_errors(images, images)
    return (time.perf_counter() - started) / side**2
