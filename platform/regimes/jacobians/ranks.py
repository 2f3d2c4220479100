"""What is the rank of a matrix whose singular values all differ from 0?

s_1 >= s_2 >= ... >= s_n are the singular values, E = sum s_i^2 the energy. Three answers:

    energy      smallest r with sqrt(s_1^2 + ... + s_r^2) > 0.99 sqrt(E)
    effective   exp(H(p)),  p_i = s_i / sum s,  H(p) = -sum p_i ln p_i
    stable      E / s_1^2

``energy`` is the published rule (Wang et al. 2024). It compares *roots* of energies: r values hold
more than 98.01% of the energy, not 99%, so that 100 equal values have rank 99. ``effective`` (Roy &
Vetterli 2007) and ``stable`` (Rudelson & Vershynin 2007) have no threshold and are not integers.
All are at most n, equal r for r equal values (energy: the least integer above 0.9801 r), and do not
change when J is scaled. A singular value says how far D moves when x does; if even the largest is
below 1e-9, what is left of J is rounding, and its rank is 0.

A spectrum may be known in part: its largest values, and an estimate of the energy of the others.
Each rule then has a value and bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rule = Literal["energy", "effective", "stable"]
RULES: tuple[Rule, ...] = ("energy", "effective", "stable")
ROOT_ENERGY = 0.99
NOTHING = 1e-9
"""Largest singular value up to which a denoiser does not follow x at all."""
_STANDARD_ERRORS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """Singular values of one matrix, all or the largest.

    Raises:
        ValueError: if values are negative, not finite or not sorted, or more than ``size``.
    """

    values: Floats
    """(r,), decreasing."""
    size: int
    """n, the number of singular values that there are."""
    rest: float = 0.0
    """Energy of those not listed; an estimate."""
    rest_error: float = 0.0
    """Half of what its interval of 95% extends to either side: its standard error, widened where it rests on
    few directions."""
    value_error: float = 0.0
    """By how much the listed values that hold the energy may be too small."""

    def __post_init__(self) -> None:
        """Refuse what is not a spectrum."""
        v = self.values
        if v.ndim != 1 or not 1 <= len(v) <= self.size or not np.isfinite(v).all():
            raise ValueError(f"values: expected 1 to {self.size} finite numbers, got {v.shape}")
        if (v < 0).any() or (np.diff(v) > 0).any():
            raise ValueError("values: expected decreasing numbers of at least 0")

    @property
    def is_full(self) -> bool:
        """Whether all values are listed."""
        return len(self.values) == self.size

    @property
    def energy(self) -> float:
        """E."""
        return float((self.values**2).sum()) + self.rest


class Rank(NamedTuple):
    """A rank and its bounds; for a full spectrum all three are equal."""

    value: float
    low: float
    high: float


def numerical_rank(spectrum: Spectrum, rule: Rule) -> Rank:
    """The rank by one rule.

    Args:
        spectrum: of one matrix.
        rule: see the module's docstring.

    Returns:
        The rank, in [0, n]. Bounds cover the unlisted energy (its interval of 95%) and what it may be:
        for the energy rank, as much of it as fits may belong to the leading values, since those found
        by projection are never too large; for the effective rank, from one value to all equal. An
        energy rank that the listed values do not reach is their number, with n as its upper bound.
    """
    if spectrum.values[0] <= NOTHING:
        return Rank(0.0, 0.0, 0.0)
    return _RULES[rule](spectrum)


def _energy(spectrum: Spectrum) -> Rank:
    held = (spectrum.values**2).cumsum()

    def reached(rest: float, leading: float = 0.0) -> int | None:
        above = np.sqrt(held + leading) > ROOT_ENERGY * math.sqrt(held[-1] + rest)
        return int(above.argmax()) + 1 if above.any() else None

    rest, _, most = _rests(spectrum)
    value, high = reached(rest), reached(most)
    low = reached(most, most)  # no r values of J hold more than those found and all that is missed
    assert low is not None
    return Rank(len(held) if value is None else value, low, spectrum.size if high is None else high)


def _stable(spectrum: Spectrum) -> Rank:
    """The largest value found is never too large, and may be too small by ``value_error``."""
    top, listed = float(spectrum.values[0]), float((spectrum.values**2).sum())
    value, low, high = ((listed + rest) / top**2 for rest in _rests(spectrum))
    low *= (top / (top + spectrum.value_error)) ** 2
    return Rank(*(min(max(rank, 1.0), spectrum.size) for rank in (value, low, high)))


def _effective(spectrum: Spectrum) -> Rank:
    """Unlisted values: none (low), or as many equal ones as there may be (high); the mean of both."""
    _, _, rest = _rests(spectrum)
    missing = spectrum.size - len(spectrum.values)
    if missing == 0:
        return Rank(*3 * (_exp_entropy(spectrum.values),))
    each = min(math.sqrt(rest / missing), float(spectrum.values[-1]))
    low = _exp_entropy(spectrum.values)
    high = max(low, _exp_entropy(np.r_[spectrum.values, np.full(missing, each)]))
    return Rank((low + high) / 2, low, high)


def _exp_entropy(values: Floats) -> float:
    p = values[values > 0] / values.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def _rests(spectrum: Spectrum) -> tuple[float, float, float]:
    """The unlisted energy: estimate, lower and upper end."""
    error = _STANDARD_ERRORS * spectrum.rest_error
    return spectrum.rest, max(0.0, spectrum.rest - error), spectrum.rest + error


_RULES: dict[str, Callable[[Spectrum], Rank]] = {
    "energy": _energy,
    "effective": _effective,
    "stable": _stable,
}
