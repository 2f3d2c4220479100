"""The report of a guidance sweep: every count beside chance, quality and the marginal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from regimes.report.page import Page
from regimes.studies.guidance import CellFinding, GuidanceStudy
from regimes.studies.guidance_words import beware, plus_minus, share


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidanceReport(Page):
    """What a guidance sweep says."""

    template: ClassVar[str] = "guidance.html.j2"

    study: GuidanceStudy
    about: Sequence[str]
    """What was sampled and how modes are told apart, one sentence each."""
    distance: str
    """What the distance from the data is."""
    groups: int
    """Per cell."""

    def context(self) -> Mapping[str, Any]:
        """The table."""
        return {
            "lines": [_line(self.study, f) for f in self.study.findings],
            "share": f"goes {self.study.mode_names[0]}" if self.study.law_is_set else "",
        }

    def cautions(self) -> Sequence[str]:
        """What to beware of."""
        return beware(self.study)


def _line(study: GuidanceStudy, found: CellFinding) -> dict[str, Any]:
    """A row in words and figures."""
    key, scores = found.key, found.scores
    low, high = found.gain.interval(study.z)
    mean, sd = scores.independent
    return {
        "factor": f"{key.factor:g}",
        "kernel": "no guidance" if key.is_baseline else f"{key.kernel}, {key.strength}",
        "place": f"S_churn {key.s_churn:g}, B = {key.group_size}",
        "modes": plus_minus(scores.distinct),
        "independent": f"{mean:.2f} (sd {sd:.2f})",
        "gain": "" if key.is_baseline else f"{found.gain.value:+.2f}",
        "interval": "" if key.is_baseline else f"[{low:+.2f}, {high:+.2f}]",
        "inliers": f"{scores.inliers.value:.1%}",
        "distance": f"{scores.quality.value:.3f}",
        "variation": f"{scores.total_variation:.3f}",
        "chance": f"{scores.total_variation_null:.3f}",
        "cost": f"{found.seconds_ratio:.2f}",
        "share": _share(study, found) if study.law_is_set else "",
        "set": f"set {study.probabilities[0]:.3f}",
        "overlap": _measure(found, "overlap", "overlap"),
        "published": _measure(found, "shifted_distance", "published"),
        "verdict": found.verdict,
        "good": found.is_good,
    }


def _measure(found: CellFinding, name: str, word: str) -> str:
    """What else was measured, if it was."""
    return f"{word} {found.measures[name].value:.2f}" if name in found.measures else ""


def _share(study: GuidanceStudy, found: CellFinding) -> str:
    """Share of the first mode, unless too few samples are accepted to know its error."""
    mean = share(study, found)
    return plus_minus(mean, 3) if math.isfinite(mean.error) else "unknown"
