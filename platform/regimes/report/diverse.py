"""The report of a study of diverse samples: one table, every count beside what chance gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from regimes.report.page import Page
from regimes.report.reproducibility import SetLine
from regimes.studies.audit_words import share
from regimes.studies.diverse import DiverseStudy, Finding
from regimes.studies.diverse_words import beware, overlap_words, verdict, what


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingLine:
    """One row of the table."""

    name: str
    rule: str
    count: str
    share: str
    interval: str
    null: str
    expected: str
    verdict: str
    exceeds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DiverseReport(Page):
    """What a study of diverse samples says."""

    template: ClassVar[str] = "diverse.html.j2"

    study: DiverseStudy
    sets: Sequence[SetLine]
    descriptor: str
    """In words."""
    fitted: bool
    """Whether the descriptor was fitted to the real images."""
    raw: bool
    """Whether hulls are drawn of features as the network gives them."""
    notes: Sequence[str]
    """What the job has to say, as cautions."""

    def context(self) -> Mapping[str, Any]:
        """The table, the rules and what is known of the hulls."""
        return {
            "lines": [finding_line(f) for f in self.study.findings],
            "rules": [(rule, what(self.study, rule)) for rule in self.study.rules.names],
            "hulls": [overlap_words(f) for f in self.study.findings if f.plane is not None],
        }

    def cautions(self) -> Sequence[str]:
        """What to beware of."""
        return [*self.notes, *beware(self.study, fitted=self.fitted)]


def finding_line(finding: Finding) -> FindingLine:
    """A row in words and figures."""
    s = finding.score
    return FindingLine(
        name=finding.set_name,
        rule=finding.rule,
        count=f"{finding.count:,} of {s.num_generated:,}",
        share=share(s.value),
        interval=f"[{share(s.low)}, {share(s.high)}]",
        null=share(s.null),
        expected=f"{finding.expected:,.1f}, up to {finding.critical:,}",
        verdict=verdict(finding).partition(":")[0],
        exceeds=finding.exceeds_null,
    )
