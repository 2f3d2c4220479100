"""The report of a MoLRG study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from regimes.report.page import Page
from regimes.studies.molrg import MoLRGStudy

_KNOWN_SIZE = (
    "The low-rank model is told the number of subspaces and their dimensions; the networks are not. It "
    "shows what the data allow, not what a network would find."
)
_MINIMA = (
    "The loss of the low-rank model has local minima in which subspaces are mixed; the best of some "
    "restarts is kept, by training loss. A subspace that is missed although points suffice is one."
)
_COPIES = (
    "Copies are counted by the cosine that held-out points exceed once in twenty times to the largest "
    "training set of their d: points have a direction and a length, and only the direction is compared."
)
_INTERVALS = (
    "Intervals cover points and seeds for these two models of each cell, not training again. The null of "
    "GL is counted on as few held-out points: it lies outside of the interval of samples without copies "
    "in 10 to 26% of cases."
)
_CellLine = tuple[tuple[str, ...], list[tuple[str, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MoLRGReport(Page):
    """What a MoLRG study says."""

    template: ClassVar[str] = "molrg.html.j2"

    study: MoLRGStudy

    def context(self) -> Mapping[str, Any]:
        """The table of ranks and the table of cells."""
        s = self.study
        curves = [s.exact, *s.curves]
        means = [c.interval() for c in curves]
        ranks = [
            (f"{sigma:g}", *(f"{m[i]:.3f} [{lo[i]:.3f}, {hi[i]:.3f}]" for m, lo, hi in means))
            for i, sigma in enumerate(s.exact.sigmas)
        ]
        return {"names": [c.model for c in curves], "ranks": ranks, "cells": self._cells()}

    def _cells(self) -> list[_CellLine]:
        """(name, missed, by chance) and, of each score, its value and what belongs to it."""
        lines: list[_CellLine] = []
        for cell in self.study.cells:
            scores = [
                (f"{x.value:.3f}", f"[{x.low:.3f}, {x.high:.3f}], null {x.null:.3f}")
                for x in (cell.gl, cell.rp)
            ]
            missed = ", ".join(f"{r:.3f}" for r in cell.recovery)
            null = f"{1 - cell.dim / self.study.size:.3f}"
            name = f"{cell.model}, d = {cell.dim}, M = {cell.per_class}"
            lines.append(((name, missed, null), scores))
        return lines

    def cautions(self) -> Sequence[str]:
        """What to beware of."""
        return [_KNOWN_SIZE, _MINIMA, _COPIES, _INTERVALS]
