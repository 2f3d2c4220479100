"""The report of a memorization study: the curve, and the regime of every model with its rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from regimes.report.cautions import cautions
from regimes.report.page import Page
from regimes.report.tables import families
from regimes.scores.calibration import Threshold
from regimes.studies.memorization import Row
from regimes.studies.verdict import RULES, Regime


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorizationReport(Page):
    """What a memorization study says: does it memorize, does it generalize, and why so."""

    template: ClassVar[str] = "memorization.html.j2"

    regimes: Sequence[Regime]
    """One per size and width, in the order to show."""
    threshold: Threshold
    rows: Sequence[Row]

    def context(self) -> Mapping[str, Any]:
        """Rules and tables."""
        known = self.rows[0].score.descriptor if self.rows else "the study's descriptor"
        return {"rules": RULES, "descriptor": known, "families": families(self.rows)}

    def cautions(self) -> Sequence[str]:
        """See ``regimes.report.cautions``."""
        return cautions(self.rows)
