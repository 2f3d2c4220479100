"""How far apart two spectra are, and how far apart they would be if nothing were going on.

Distances are between the empirical laws of log10 eigenvalues, the spikes (the first K, such as that of
the mean) left out and compared one by one:

    KS = sup |F_1 - F_2|,    W1 = int |F_1 - F_2|   in decades

The null is the split-half floor: the same distances between two disjoint random halves of the real
images, of the same number of rows as the sets compared. Spectra depend on the number of rows, so nothing
is compared at unequal numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import ks_2samp, wasserstein_distance

from regimes.noise import keyed_generator
from regimes.spectra.matrix import Normalisation, Precision, Spectrum, eigenvalues
from regimes.spectra.rows import Rows

Floats = npt.NDArray[np.float64]
LEVEL = 0.05
"""Chance that one of the two distances of a set like the real one is called different."""
LEAST_SPLITS = 39
"""Splits from which on a rank can be as rare as half of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectralDistance:
    """One comparison of two spectra of equally many rows."""

    ks: float
    """In [0, 1]."""
    w1: float
    """Decades, at least 0."""
    shift: float
    """Median over the bulk of log10(first / second) at equal rank; above 0: the first is larger."""
    spikes: Floats
    """(K,) log10(first / second) of the spikes."""


def spectral_distance(first: Spectrum, second: Spectrum, *, spikes: int = 0) -> SpectralDistance:
    """Distances of two spectra; symmetric but for signs.

    Args:
        first: of N rows of any D.
        second: of as many rows, with the same normalisation.
        spikes: K, the largest eigenvalues that are compared apart.

    Raises:
        ValueError: if numbers of rows or normalisations differ, or fewer than 2 eigenvalues are left.
    """
    if first.num_rows != second.num_rows or first.normalisation != second.normalisation:
        raise ValueError(
            f"spectra: expected equal numbers of rows and one normalisation, got {first.num_rows} "
            f"({first.normalisation}) and {second.num_rows} ({second.normalisation})"
        )
    a, b = (np.log10(s.positive()) for s in (first, second))
    if min(len(a), len(b)) < spikes + 2:
        raise ValueError(
            f"spectra: expected at least {spikes + 2} eigenvalues above rounding, got "
            f"{min(len(a), len(b))}"
        )
    bulk_a, bulk_b = a[spikes:], b[spikes:]
    shared = min(len(bulk_a), len(bulk_b))
    return SpectralDistance(
        ks=float(ks_2samp(bulk_a, bulk_b, method="asymp").statistic),
        w1=float(wasserstein_distance(bulk_a, bulk_b)),
        shift=float(np.median(bulk_a[:shared] - bulk_b[:shared])),
        spikes=a[:spikes] - b[:spikes],
    )


def split_half_floor(
    rows: Rows,
    num_rows: int,
    normalisation: Normalisation,
    *,
    spikes: int = 0,
    splits: int = 40,
    seed: int = 0,
    precision: Precision = "float64",
    device: str = "cpu",
    advance: Callable[[], None] = lambda: None,
) -> list[SpectralDistance]:
    """Distances between disjoint random parts of one set, each of ``num_rows`` rows.

    Args:
        rows: (N, D), N >= 2 ``num_rows``.
        num_rows: rows per part.
        normalisation: as of the spectra that will be compared.
        spikes: likewise.
        splits: how many random splits; they share rows, so that they are not quite independent.
        seed: of the splits.
        precision: of products and decompositions.
        device: where eigenvalues are computed.
        advance: called after every split.

    Raises:
        ValueError: if there are too few rows.
    """
    if 2 * num_rows > len(rows):
        raise ValueError(f"rows: expected at least {2 * num_rows} for two parts, got {len(rows)}")
    found = []
    for split in range(splits):
        order = keyed_generator("spectrum split", seed, split, len(rows)).permutation(len(rows))
        parts = (rows.take(order[i : i + num_rows]) for i in (0, num_rows))
        one, two = (
            eigenvalues(part, normalisation, precision=precision, device=device) for part in parts
        )
        found.append(spectral_distance(one, two, spikes=spikes))
        advance()
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectralComparison:
    """A set beside real images it was not made from: distances, and the same between real halves."""

    name: str
    num_rows: int
    draws: Sequence[SpectralDistance]
    """The set against the real images; one per set of samples that was drawn."""
    floor: Sequence[SpectralDistance]
    """Real halves against each other."""

    def value(self, what: str) -> float:
        """Mean over draws of "ks", "w1" or "shift"."""
        return float(np.mean([getattr(d, what) for d in self.draws]))

    def interval(self, what: str) -> tuple[float, float]:
        """Range that 95% of draws lie in; nan where there is one."""
        values = [getattr(d, what) for d in self.draws]
        if len(values) < 2:
            return float("nan"), float("nan")
        low, high = np.quantile(values, [0.025, 0.975])
        return float(low), float(high)

    def null(self, what: str) -> tuple[float, float]:
        """Mean and 95% quantile of the floor."""
        values = [getattr(d, what) for d in self.floor]
        return float(np.mean(values)), float(np.quantile(values, 0.95))

    def p_value(self, what: str) -> float:
        """How often two real halves are as far apart, at least 1 / (splits + 1)."""
        least = self.value(what)
        return (1 + sum(getattr(d, what) >= least for d in self.floor)) / (1 + len(self.floor))

    @property
    def differs(self) -> bool:
        """Whether either distance is outside the floor, at 5% for both together."""
        return min(self.p_value("ks"), self.p_value("w1")) <= LEVEL / 2

    @property
    def spikes(self) -> list[tuple[float, float]]:
        """(log10 ratio, largest absolute log10 ratio of 95% of real halves) of every spike."""
        ours = np.mean([d.spikes for d in self.draws], axis=0)
        theirs = np.quantile(np.abs([d.spikes for d in self.floor]), 0.95, axis=0)
        return [(float(a), float(b)) for a, b in zip(ours, theirs)]

    def record(self) -> dict[str, object]:
        """One row of a table."""
        row: dict[str, object] = {"set": self.name, "num_rows": self.num_rows}
        for what in ("ks", "w1"):
            low, high = self.interval(what)
            null, most = self.null(what)
            row |= {what: self.value(what), f"{what}_low": low, f"{what}_high": high}
            row |= {f"{what}_null": null, f"{what}_null_95": most}
            row[f"{what}_p"] = self.p_value(what)
        return row | {"shift": self.value("shift"), "differs": self.differs}
