"""A sweep of particle guidance: what every cell gains over its baseline, and at what price.

A cell's baseline has factor 0 and the same noise, sampler and group size; both start from the same
latents, so gains are means of paired differences between groups. Intervals that decide are 95% ones
for all compared cells together (Bonferroni). A cell **diversifies** if its gain of distinct modes is
above 0. Quality is **kept** if the intervals exclude that the share of accepted samples drops by more
than a tolerance, and that the distance from the data grows by more than another; **worse** if they
exclude that it stays within one of the two; and **open** if there are too few groups to tell.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from regimes.scores.modes import REJECTED, Mean, ModeScores, distinct_modes, mode_scores


@dataclass(frozen=True, slots=True, kw_only=True)
class CellKey:
    """A place in the sweep."""

    factor: float
    s_churn: float
    group_size: int
    kernel: str
    """That of a baseline has no effect, and is "none"."""
    strength: str
    """As ``kernel``."""

    @property
    def is_baseline(self) -> bool:
        """Whether nothing repels."""
        return self.factor == 0

    @property
    def row(self) -> tuple[str, str, int]:
        """What a panel of a figure has in common."""
        return self.kernel, self.strength, self.group_size

    @property
    def label(self) -> str:
        """In words."""
        if self.is_baseline:
            return f"no guidance, S_churn {self.s_churn:g}, B = {self.group_size}"
        return (
            f"factor {self.factor:g}, {self.kernel}, {self.strength}, S_churn {self.s_churn:g}, "
            f"B = {self.group_size}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CellData:
    """What was found in a cell."""

    modes: npt.NDArray[np.int64]
    """(G, B); -1 for rejected samples."""
    quality: npt.NDArray[np.float64]
    """(G, B)."""
    seconds: float
    measures: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    """(G, B) each, by name: what else was measured of samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What still counts as unchanged quality."""

    inliers: float = 0.02
    """Drop of the share of accepted samples."""
    distance: float = 0.05
    """Growth of the distance from the data, as a share of the baseline's."""
    least_distance: float = 0.0
    """Growth of the distance that counts as none whatever the baseline's is: that may be 0."""


Quality = Literal["kept", "worse", "open"]
_PRICE: dict[Quality, str] = {"kept": "", "worse": ", worse samples", "open": ", quality open"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFinding:
    """A cell beside its baseline."""

    key: CellKey
    scores: ModeScores
    gain: Mean
    """Of distinct modes per group."""
    inlier_change: Mean
    """Of the share of accepted samples."""
    distance_change: Mean
    """Of the distance from the data."""
    seconds_ratio: float
    """Time beside the baseline's."""
    measures: Mapping[str, Mean]
    """Means over groups of what else was measured."""
    diversifies: bool
    """Whether the gain is more than chance."""
    quality: Quality
    """Beside the baseline's."""

    @property
    def is_good(self) -> bool:
        """More modes at unchanged quality."""
        return self.diversifies and self.quality == "kept"

    @property
    def verdict(self) -> str:
        """In words."""
        if self.key.is_baseline:
            return "baseline"
        return ("more modes" if self.diversifies else "no more modes") + _PRICE[self.quality]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidanceStudy:
    """The findings of a sweep."""

    findings: Sequence[CellFinding]
    """Baselines and guided cells, in the order of the sweep."""
    probabilities: Sequence[float]
    """Of the modes, in the data."""
    mode_names: Sequence[str]
    tolerance: Tolerance
    z: float
    """Half width of the intervals that decide, in standard errors: Student's t of the fewest groups."""
    law_is_set: bool = False
    """Whether the probabilities were set by who made the data, so that the share of a mode tells whether
    its law was learned (the directions of clips)."""

    @property
    def guided(self) -> list[CellFinding]:
        """Cells in which particles repel."""
        return [f for f in self.findings if not f.key.is_baseline]

    @property
    def best(self) -> CellFinding | None:
        """The largest gain at unchanged quality, or None if there is none."""
        good = [f for f in self.guided if f.is_good]
        return max(good, key=lambda f: f.gain.value, default=None)

    @property
    def largest(self) -> CellFinding | None:
        """The largest gain at any price."""
        return max(self.guided, key=lambda f: f.gain.value, default=None)

    def baseline(self, key: CellKey) -> CellFinding:
        """What a cell is compared with."""
        return next(f for f in self.findings if f.key == baseline_key(key))


def baseline_key(key: CellKey) -> CellKey:
    """The baseline of a cell."""
    return CellKey(
        factor=0.0,
        s_churn=key.s_churn,
        group_size=key.group_size,
        kernel="none",
        strength="none",
    )


def study_guidance(
    cells: Mapping[CellKey, CellData],
    probabilities: Sequence[float],
    *,
    mode_names: Sequence[str],
    tolerance: Tolerance,
    law_is_set: bool = False,
) -> GuidanceStudy:
    """Compare every cell with its baseline.

    Args:
        cells: of a sweep, with the baseline of every cell; all of at least two groups.
        probabilities: of the modes in the data.
        mode_names: one word each.
        tolerance: what counts as unchanged quality.
        law_is_set: see ``GuidanceStudy``.

    Raises:
        ValueError: if a baseline is missing.
    """
    compared = sum(not key.is_baseline for key in cells)
    groups = min(len(cell.modes) for cell in cells.values())
    z = float(t.ppf(1 - 0.025 / max(compared, 1), groups - 1))
    missing = [key for key in cells if baseline_key(key) not in cells]
    if missing:
        raise ValueError(f"cells: expected a baseline of {missing[0].label}, got none")
    find = functools.partial(_finding, cells, probabilities, tolerance, z)
    return GuidanceStudy(
        findings=[find(key) for key in cells],
        probabilities=probabilities,
        mode_names=mode_names,
        tolerance=tolerance,
        z=z,
        law_is_set=law_is_set,
    )


def _finding(
    cells: Mapping[CellKey, CellData],
    probabilities: Sequence[float],
    tolerance: Tolerance,
    z: float,
    key: CellKey,
) -> CellFinding:
    own, base = cells[key], cells[baseline_key(key)]
    count = len(probabilities)
    gain = _counted(distinct_modes(own.modes, count) - distinct_modes(base.modes, count))
    inliers = Mean.of((own.modes != REJECTED).mean(1) - (base.modes != REJECTED).mean(1))
    distance = Mean.of(own.quality.mean(1) - base.quality.mean(1))
    allowed = max(tolerance.distance * float(base.quality.mean()), tolerance.least_distance)
    return CellFinding(
        key=key,
        scores=mode_scores(own.modes, own.quality, probabilities),
        gain=gain,
        inlier_change=inliers,
        distance_change=distance,
        seconds_ratio=own.seconds / base.seconds if base.seconds > 0 else 1.0,
        measures={name: Mean.of(values.mean(1)) for name, values in own.measures.items()},
        diversifies=gain.interval(z)[0] > 0,
        quality=_quality(
            _of_samples(inliers, z, own.modes.size),
            -tolerance.inliers,
            distance.interval(z),
            allowed,
        ),
    )


def _counted(gains: npt.NDArray[np.int64]) -> Mean:
    """Mean of integers; where few groups happen to agree, as sure as rounding to integers lets it be."""
    mean = Mean.of(gains)
    return Mean(mean.value, max(mean.error, (12 * len(gains)) ** -0.5))


def _of_samples(change: Mean, z: float, samples: int) -> tuple[float, float]:
    """Interval of a share; if no group differs, down to what ``samples`` without a loss exclude at 5%."""
    low, high = change.interval(z)
    return (low - (1 - 0.05 ** (1 / samples)) if change.error == 0 else low), high


def _quality(
    inliers: tuple[float, float], least: float, distance: tuple[float, float], most: float
) -> Quality:
    """What intervals of both changes say of their tolerances."""
    if inliers[0] >= least and distance[1] <= most:
        return "kept"
    return "worse" if inliers[1] < least or distance[0] > most else "open"
