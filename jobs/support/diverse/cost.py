"""What a study of diverse samples would do and cost: printed by ``--dry-run``, from a few timed steps."""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from regimes.jobs.support.audit.cost import timed_description, timed_read
from regimes.jobs.support.console import duration
from regimes.jobs.support.diverse.experiment import HELDOUT, REAL, DiverseFeatures, shown
from regimes.jobs.support.diverse.results import DiverseResults
from regimes.scores.planes import tsne
from regimes.studies.diverse import RULES

_TIMED_ROWS, _TIMED_POINTS = 1024, 300


def print_plan(plan: DiverseFeatures, results: DiverseResults) -> None:
    """What would be compared, and how long one thread of this machine would take; keeps nothing."""
    seconds, count = 0.0, {}
    for name, source in plan.sets.sources.items():
        images, each = timed_read(plan.experiment, source)
        count[name] = len(source.ids)
        seconds += count[name] * each
        height, width, channels = images[0].shape
        print(
            f"{shown(name):<9} {count[name]:,} images, the first {width}x{height}x{channels}, "
            f"{plan.sets.specs[name]}"
        )
    total = sum(count.values())
    dimension, each = timed_description(plan, images[0])
    seconds += total * each
    print(f"describe  {total:,} images by {plan.choice.descriptor}, {dimension} numbers each")
    seconds += _print_rules(plan, count, dimension)
    memory = 3 * 4 * dimension * total
    print(f"memory    about {memory / 1e6:,.0f} MB of descriptors, and 500 MB of working space")
    print(
        f"time      about {duration(seconds)} on one thread of this machine; sampling, figures and report "
        "not counted"
    )
    print(f"results   {results.location.uri}")


def _print_rules(plan: DiverseFeatures, count: dict[str, int], dimension: int) -> float:
    """Seconds of all rules, which are printed one by one."""
    product, asked = _seconds_of_a_product(dimension), plan.experiment.rule
    real, generated = count[REAL], [count[name] for name in plan.sets.generated_keys]
    compared = product * real * (sum(generated) + count.get(HELDOUT, 0) + real)
    # The nearest, the balls of a gate and the two groups of a ratio, or the balls of knn.
    times = {"calibrated": 3 * len(generated), "knn": 2 * len(generated)}
    total = 0.0
    for rule in (rule for rule in RULES if rule in asked):
        if rule == "tsne-hull":
            points = [real + m for m in generated]
            each = _seconds_of_maps(points, dimension, plan) * plan.experiment.stability_seeds
            extra = [real + count[HELDOUT]] if HELDOUT in count else []
            seconds = each + _seconds_of_maps(extra, dimension, plan)
            how = f"{plan.experiment.stability_seeds} t-SNE maps per set by {plan.experiment.tsne}"
        elif rule == "pca-hull":
            seconds = len(generated) * (real * dimension**2 + 10 * dimension**3) / 1e10
            how = "principal components"
        else:
            seconds, how = compared * times[rule], "exact nearest neighbours"
        total += seconds
        print(f"{rule:<9} {duration(seconds)}, {how}")
    return total


def _seconds_of_a_product(dimension: int) -> float:
    """Of one pair of rows in a matrix product."""
    rows = torch.ones(_TIMED_ROWS, dimension)
    started = time.perf_counter()
    rows @ rows.T
    return (time.perf_counter() - started) / _TIMED_ROWS**2


def _seconds_of_maps(points: list[int], dimension: int, plan: DiverseFeatures) -> float:
    """Of one t-SNE map of each size, from a small one: its iterations cost O(N log N)."""
    if not points:
        return 0.0
    rows = np.random.default_rng(0).standard_normal((_TIMED_POINTS, min(dimension, 64)))
    started = time.perf_counter()
    tsne(rows.astype(np.float32), 0, plan.experiment.tsne)
    each = (time.perf_counter() - started) / (_TIMED_POINTS * math.log(_TIMED_POINTS))
    neighbours = sum(n**2 for n in points) * dimension / 5e9
    return neighbours + each * sum(n * math.log(n) for n in points)
