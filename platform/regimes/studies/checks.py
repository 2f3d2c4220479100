"""A measured number beside the exact one, and a lesson: what was seen, why, and the checks of it.

Tolerances of sampled numbers are four standard errors, so that chance alone breaks one check in
16,000; those of arithmetic are a few roundings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SIGMAS = 4.0
"""Standard errors that a sampled number may be off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One number that must lie where theory puts it."""

    what: str
    """In words."""
    measured: float
    exact: float | None
    """What theory says, or None where there is only a limit."""
    low: float
    high: float

    @property
    def passed(self) -> bool:
        """Whether low <= measured <= high; NaN is not."""
        return self.low <= self.measured <= self.high

    @property
    def verdict(self) -> str:
        """Ok or FAIL, as printed."""
        return "ok" if self.passed else "FAIL"

    @property
    def allowed(self) -> str:
        """What is allowed, as text: 2.970 +- 0.009, at most 1e-12, or 0.12 to 0.13."""
        if self.exact is not None and math.isclose(
            self.high - self.exact, self.exact - self.low, rel_tol=1e-6
        ):
            return f"± {self.high - self.exact:.2g}"
        if math.isinf(self.high) or math.isinf(self.low):
            finite = self.low if math.isinf(self.high) else self.high
            return f"{'at least' if math.isinf(self.high) else 'at most'} {finite:.4g}"
        return f"{self.low:.4g} to {self.high:.4g}"

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """(what, measured, exact, allowed, ok or FAIL) as text."""
        exact = "" if self.exact is None else number(self.exact)
        return self.what, number(self.measured), exact, self.allowed, self.verdict


def near(what: str, measured: float, exact: float, tolerance: float) -> Check:
    """Within ``tolerance`` of the exact value."""
    return Check(
        what=what, measured=measured, exact=exact, low=exact - tolerance, high=exact + tolerance
    )


def at_most(what: str, measured: float, high: float, *, exact: float | None = None) -> Check:
    """No more than ``high``."""
    return Check(what=what, measured=measured, exact=exact, low=-math.inf, high=high)


def at_least(what: str, measured: float, low: float, *, exact: float | None = None) -> Check:
    """No less than ``low``."""
    return Check(what=what, measured=measured, exact=exact, low=low, high=math.inf)


def mean_check(what: str, measured: float, exact: float, sd: float, count: int) -> Check:
    """A mean of ``count`` independent values of standard deviation ``sd``."""
    return near(what, measured, exact, SIGMAS * sd / math.sqrt(count))


def fraction_check(what: str, measured: float, exact: float, count: int) -> Check:
    """A fraction of ``count``; one item more or less is always allowed."""
    sd = math.sqrt(max(exact * (1 - exact), 0.0) / count)
    return near(what, measured, exact, SIGMAS * sd + SIGMAS / count)


def variance_check(what: str, measured: float, exact: float, count: int) -> Check:
    """A variance of ``count`` independent normal values."""
    return near(what, measured, exact, SIGMAS * exact * math.sqrt(2 / count))


def number(value: float) -> str:
    """Four significant digits, counts in full, and tiny ones as powers of ten."""
    if value == 0:
        return "0"
    return f"{value:.1e}" if abs(value) < 1e-4 else f"{value:.4g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What one experiment teaches."""

    name: str
    title: str
    question: str
    seen: Sequence[str]
    """What comes out, in words and numbers; one sentence or two each."""
    why: Sequence[str]
    """The reason, in plain words."""
    checks: Sequence[Check]

    @property
    def passed(self) -> bool:
        """Whether every check passed, and there is one."""
        return len(self.checks) > 0 and all(check.passed for check in self.checks)
