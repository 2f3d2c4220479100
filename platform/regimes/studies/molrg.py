"""What models of a mixture of low-rank Gaussians learn: rank, subspaces, and when they stop copying.

On this data the answer is known: d directions at low noise, K d at high noise, and subspaces that M
points per class determine as soon as M >= d. ``MoLRGStudy`` holds what models do instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from regimes.jacobians.ranks import Spectrum, numerical_rank
from regimes.scores.calibration import calibrate_threshold
from regimes.scores.features import Features
from regimes.scores.generalization import generalization_score
from regimes.scores.reproducibility import reproducibility
from regimes.scores.result import Score
from regimes.studies.verdict import percent
from regimes.words import counted

Floats = npt.NDArray[np.float64]
DESCRIPTOR = "points, unit length"
RECOVERED = 0.1
"""Share of what subspaces at random miss that a model may miss for its subspaces to count as recovered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankCurve:
    """Rank over n of one model, by noise level."""

    model: str
    sigmas: tuple[float, ...]
    ratios: Floats
    """(T, P), at P held-out points."""

    def interval(self) -> tuple[Floats, Floats, Floats]:
        """Mean, and the ends of its 95% interval over points, each (T,)."""
        mean, count = self.ratios.mean(1), self.ratios.shape[1]
        if count < 2:
            return mean, np.full_like(mean, math.nan), np.full_like(mean, math.nan)
        half = t.ppf(0.975, count - 1) * self.ratios.std(1, ddof=1) / count**0.5
        return mean, (mean - half).clip(0, 1), (mean + half).clip(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Two models of one size of training set, trained on disjoint points."""

    model: str
    dim: int
    per_class: int
    recovery: tuple[float, float]
    """Share of the subspaces that each of the two misses."""
    gl: Score
    """Samples that are not copies; of model A."""
    rp: Score
    """Seeds of which both make the same point."""

    @property
    def missed(self) -> float:
        """Mean of ``recovery``."""
        return float(np.mean(self.recovery))

    def record(self) -> dict[str, object]:
        """One row of a table."""
        row: dict[str, object] = {"model": self.model, "dim": self.dim, "per_class": self.per_class}
        row |= {"recovery_a": self.recovery[0], "recovery_b": self.recovery[1]}
        for score in (self.gl, self.rp):
            ends = {f"{score.name}_low": score.low, f"{score.name}_high": score.high}
            row |= {score.name: score.value, **ends, f"{score.name}_null": score.null}
        return row | {"threshold": self.gl.threshold}


@dataclass(frozen=True, slots=True, kw_only=True)
class MoLRGStudy:
    """All that was measured."""

    num_classes: int
    dim: int
    """d of the rank curves."""
    size: int
    """n."""
    per_class: int
    """M of the rank curves."""
    exact: RankCurve
    curves: Sequence[RankCurve]
    recovery: Mapping[str, float]
    """Of the models of the rank curves, and of the exact denoiser."""
    cells: Sequence[Cell]

    def cells_of(self, model: str, dim: int) -> list[Cell]:
        """One line of the phase transition, M ascending."""
        chosen = [c for c in self.cells if (c.model, c.dim) == (model, dim)]
        return sorted(chosen, key=lambda c: c.per_class)

    def lines(self) -> list[tuple[str, int]]:
        """(model, d) of every line."""
        return list(dict.fromkeys((c.model, c.dim) for c in self.cells))


def unit_rows(points: npt.NDArray[np.float32]) -> Features:
    """Points (N, n) as directions; a row of zeros stays one."""
    lengths = np.linalg.norm(points.astype(np.float64), axis=1, keepdims=True)
    rows = (points / np.maximum(lengths, 1e-12)).astype(np.float32)
    return Features(np.arange(len(rows)), rows, DESCRIPTOR)


def copy_threshold(
    heldout: npt.NDArray[np.float32], largest: npt.NDArray[np.float32], *, quantile: float = 0.95
) -> float:
    """The cosine that held-out points exceed once in twenty times, to the largest training set."""
    return calibrate_threshold(unit_rows(heldout), unit_rows(largest), quantile=quantile).value


def compare_halves(
    samples: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    train: npt.NDArray[np.float32],
    heldout: npt.NDArray[np.float32],
    *,
    threshold: float,
) -> tuple[Score, Score]:
    """GL score of model A, and RP score of A and B.

    Args:
        samples: (N, n) of each, for the same seeds.
        train: (K M, n), what A was trained on.
        heldout: (H, n), points that no model was trained on; GL's null.
        threshold: cosine above which two points are the same.
    """
    a, b = (unit_rows(x) for x in samples)
    gl = generalization_score(a, unit_rows(train), unit_rows(heldout), threshold=threshold)
    return gl, reproducibility(a, b, threshold=threshold)


def answer(found: MoLRGStudy) -> list[str]:
    """What was found, a sentence each."""
    d, K, n = found.dim, found.num_classes, found.size
    known = (
        f"The exact denoiser of {K} subspaces of {d} dimensions in {n} follows {d} directions at low "
        f"noise (ratio {_ratio(d, n):.3f}) and {K * d} at high noise ({_ratio(K * d, n):.3f})."
    )
    sigma, ratios = found.exact.sigmas, {c.model: c.interval()[0] for c in found.curves}
    low = int(np.argmin(sigma))
    learned = ", ".join(f"{m} {r[low]:.3f}" for m, r in ratios.items())
    missed = ", ".join(f"{m} {percent(found.recovery[m])}" for m in ratios)
    trained = (
        f"Trained on {counted(found.per_class, 'point')} per class, at sigma {sigma[low]:g}: {learned}. "
        "Of the "
        f"subspaces they miss: {missed}."
    )
    return [
        known,
        trained,
        *(_transition(found, model, dim) for model, dim in found.lines()),
    ]


def _ratio(directions: int, size: int) -> float:
    """Energy rank over n of as many equal singular values, as measured: less than their number beyond 50."""
    return numerical_rank(Spectrum(values=np.ones(directions), size=size), "energy").value / size


def _transition(found: MoLRGStudy, model: str, dim: int) -> str:
    """From which M on both models recover the subspaces: the mean hid one that had not."""
    cells = found.cells_of(model, dim)
    most = RECOVERED * (1 - dim / found.size)
    failed = [i for i, cell in enumerate(cells) if not max(cell.recovery) <= most]
    first = failed[-1] + 1 if failed else 0
    head = f"{model}, d = {dim}: "
    if first == len(cells):
        most_points = counted(cells[-1].per_class, "point")
        return f"{head}one model or both fail to recover with {most_points} per class."
    return f"{head}recovered by both models from {counted(cells[first].per_class, 'point')} per class on."
