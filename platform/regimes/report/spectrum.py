"""The report of a study of spectra: what differs, beside what differs by chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from regimes.report.page import Page
from regimes.scores.spectrum import LEVEL, SpectralComparison
from regimes.studies.spectrum import SpectrumStudy
from regimes.studies.spectrum_words import cautions


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumReport(Page):
    """What a study of spectra says."""

    template: ClassVar[str] = "spectrum.html.j2"

    studies: Sequence[SpectrumStudy]
    """All images first, then single classes."""
    sets: Sequence[tuple[str, str, int]]
    """(name, where it comes from, images) of every set."""
    measured: str
    """What rows are: pixels in [0, 1], or features of a network."""
    mixture: str
    """What mixture was fitted, in words; empty without one."""
    notes: Sequence[str] = ()

    def context(self) -> Mapping[str, Any]:
        """Tables."""
        return {
            "groups": [(s, [_line(c) for c in s.comparisons], _control(s)) for s in self.studies],
            "spikes": _spikes(self.studies[0]),
            "norms": [_norm(t) for t in self.studies[0].norm_tests],
            "first": self.studies[0],
        }

    def cautions(self) -> Sequence[str]:
        """What to beware of."""
        several = len(self.studies)
        each = (
            f"Each of {several} groups is judged by itself: where nothing is going on, {several * LEVEL:.1g} "
            f"verdicts of {several} per set are wrong by chance."
        )
        return [*self.notes, *([each] if several > 1 else []), *cautions(self.studies[0])]


Cell = tuple[str, str]
"""What is shown, and below it what it stands beside."""


def _line(c: SpectralComparison) -> tuple[str, str, Cell, Cell, str]:
    """Set, verdict, KS and W1 over their floors, ratio at the median."""
    verdict = "differs" if c.differs else "inside the floor"
    return c.name, verdict, _cell(c, "ks"), _cell(c, "w1"), f"{10 ** c.value('shift'):.2f}"


def _cell(c: SpectralComparison, what: str) -> Cell:
    low, high = c.interval(what)
    null, most = c.null(what)
    spread = "" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]"
    beside = f"floor {null:.3f}, 95% {most:.3f}, p {c.p_value(what):.3f}"
    return f"{c.value(what):.3f}{spread}", beside


def _control(study: SpectrumStudy) -> tuple[str, str, Cell, Cell, str] | None:
    if study.control is None:
        return None
    _, _, ks, w1, ratio = _line(study.control)
    verdict = "more than fitting" if study.control.differs else "explained by fitting"
    return "mixture, beside its control", verdict, ks, w1, ratio


def _spikes(study: SpectrumStudy) -> list[tuple[str, str]]:
    return [
        (
            c.name,
            ", ".join(
                f"{10**ratio:.3f} (halves within {10**most:.3f})" for ratio, most in c.spikes
            ),
        )
        for c in study.comparisons
        if c.spikes
    ]


def _norm(test: Any) -> tuple[str, ...]:
    p = "" if math.isnan(test.p_value) else f"{test.p_value:.2g}"
    return test.name, f"{test.mean:.4g}", f"{100 * test.spread:.2f}%", p
