"""What an audit would do and cost: printed by ``--dry-run``, from a few timed steps."""

from __future__ import annotations

import time

import numpy as np
import torch

from regimes.descriptors.families import stored_weights
from regimes.descriptors.network import NetworkDescriptor
from regimes.errors import BadSource
from regimes.images.pixels import Images, with_channels
from regimes.images.sources import ImageSource
from regimes.jobs.support.audit.experiment import AuditExperiment, AuditFeatures
from regimes.jobs.support.audit.results import AuditResults
from regimes.jobs.support.console import duration
from regimes.jobs.support.set_features import Described, SetFeatures
from regimes.threads import torch_threads

_TIMED_IMAGES, _TIMED_ROWS = 8, 1024


def print_plan(plan: AuditFeatures, results: AuditResults) -> None:
    """What would be compared, and how long one thread of this machine would take; keeps nothing."""
    seconds, count = 0.0, {}
    for name, source in plan.sets.sources.items():
        images, each = timed_read(plan.experiment, source)
        count[name] = len(source.ids)
        seconds += count[name] * each
        height, width, channels = images[0].shape
        print(
            f"{name:<9} {count[name]:,} images, the first {width}x{height}x{channels}, "
            f"{plan.sets.specs[name]}"
        )
    total = sum(count.values()) + (count["train"] if plan.experiment.count_flips else 0)
    dimension, each = timed_description(plan, images[0])
    seconds += total * each
    print(f"describe  {total:,} images by {plan.choice.descriptor}, {dimension} numbers each")
    compared = _seconds_of_products(plan.experiment, count, dimension)
    seconds += compared
    print(f"compare   {duration(compared)}, exact nearest neighbours")
    memory = 3 * 4 * dimension * total
    print(f"memory    about {memory / 1e6:,.0f} MB of descriptors, and 500 MB of working space")
    print(
        f"time      about {duration(seconds)} on one thread of this machine; Vendi score, Fréchet and kernel "
        "distance, figures and report not counted"
    )
    print(f"results   {results.location.uri}")


def timed_read(experiment: Described, source: ImageSource) -> tuple[list[Images], float]:
    """Some images, and the seconds that decoding one takes; raises ``BadSource`` as decoding does."""
    images: list[Images] = []
    started = time.perf_counter()
    for index in range(len(source.ids)):
        try:
            image = source.read(index, image_size=experiment.image_size)
            images.append(with_channels(image, experiment.channels))
        except BadSource:
            if not experiment.skip_bad_images:
                raise
        if len(images) == _TIMED_IMAGES:
            break
    if not images:
        raise BadSource(f"{source.name}: no image of {len(source.ids)} could be read")
    return images, (time.perf_counter() - started) / len(images)


def timed_description(plan: SetFeatures, image: Images) -> tuple[int, float]:
    """Numbers per image, and the seconds that describing one takes."""
    if plan.network is None:
        return image.size, 2 * image.size**2 / 1e10
    data = None
    if plan.network.family != "python" and plan.weights_path is not None:
        data = stored_weights(plan.network.family, plan.weights_path)
    with torch_threads(1):
        network = NetworkDescriptor.load(plan.network, data)
        batch = np.repeat(image[None], 2, 0)
        network(batch)
        started = time.perf_counter()
        rows = network(batch)
        return rows.shape[1], (time.perf_counter() - started) / len(batch)


def _seconds_of_products(e: AuditExperiment, count: dict[str, int], dimension: int) -> float:
    """Of all searches, as bare matrix products: copies, duplicates, AuthPct, C_T, and the manifolds'."""
    rows = torch.ones(_TIMED_ROWS, dimension)
    started = time.perf_counter()
    rows @ rows.T
    each = (time.perf_counter() - started) / _TIMED_ROWS**2
    train, generated, flips = count["train"], count["generated"], 2 if e.count_flips else 1
    compared = generated + count.get("heldout", 0)
    pairs = (
        (flips * train) ** 2
        + generated**2
        + count.get("heldout", 0) ** 2
        + train * (compared * (flips + 2) + train)
    )
    # Precision, recall, density and coverage of parts: radii of either side, and who lies within.
    t, g = min(train, e.manifold_images), min(generated, e.manifold_images)
    return each * (pairs + 3 * t**2 + 2 * g**2 + 8 * t * g)
