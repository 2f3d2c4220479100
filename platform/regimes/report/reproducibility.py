"""The report of a reproducibility study: the matrix of agreement, and every number behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from regimes.report.page import Page
from regimes.scores.reproducibility import agrees
from regimes.studies.reproducibility import ReproducibilityStudy
from regimes.studies.verdict import percent

TITLES = {
    "rp": "RP score: seeds whose images are alike",
    "rp_calibrated": "RP score at the calibrated threshold",
    "mae_score": "MAE score: seeds whose pixels nearly agree",
    "mean_similarity": "Mean similarity",
    "mean_absolute_error": "Mean absolute pixel difference, 0 to 255",
    "flow_distance": "Probability flow distance: root mean squared distance of features",
}
"""What each score is called, in the order to show."""

_HIGH_CHANCE = 0.2
_NOT_QUALITY = (
    "Agreement is not quality, and not generalization: models that memorized the same images agree, "
    "and so do models that ignore their noise. Compare each with its training images (the "
    "memorization job), and look at the pictures."
)
_DESCRIPTOR = (
    "Similarities depend on the descriptor; the threshold of 0.6 was published for another one "
    "(SSCD). A descriptor fitted to the compared samples changes when a set is added."
)
_INTERVALS = (
    "Intervals cover the choice of seeds for these models. They do not cover training again."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLine:
    """One sample set as the report lists it."""

    name: str
    where: str
    count: int
    """Images in the set, whether compared or not."""
    size: str
    """Such as 32x32 RGB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproducibilityReport(Page):
    """What a comparison of sample sets says."""

    template: ClassVar[str] = "reproducibility.html.j2"

    study: ReproducibilityStudy
    sets: Sequence[SetLine]
    descriptor: str
    """Which descriptor, and what it was fitted to, in words."""
    joined_by: str
    """What images were paired by, in words."""
    left_out: Mapping[str, int]
    """Images of every set that have no counterpart in another."""

    def context(self) -> Mapping[str, Any]:
        """Tables of the pairs, one per score."""
        shown = [(name, title) for name, title in TITLES.items() if self.study.of(name)]
        return {
            "tables": [
                (title, name, _level(self.study, name), self._lines(name)) for name, title in shown
            ],
            "rules": self._rules(),
            "left_out": ", ".join(f"{n} of {name}" for name, n in self.left_out.items() if n),
            "chance": self._chance(),
        }

    def _lines(self, name: str) -> list[tuple[str, str, str, str]]:
        """(pair, value, interval, null) of every pair."""
        return [
            (", ".join(pair), f"{s.value:.3f}", f"[{s.low:.3f}, {s.high:.3f}]", f"{s.null:.3f}")
            for pair, s in self.study.of(name).items()
        ]

    def _rules(self) -> list[tuple[str, str]]:
        s = self.study
        calibrated = (
            f"similarity above {s.calibrated:.3f}: of images of different seeds, "
            f"{percent(1 - s.rules.quantile)} are more alike than that, by construction"
        )
        mae = f"mean absolute difference below {s.rules.mae_threshold:g} of 255 levels"
        return [
            ("RP score", f"similarity above {s.rules.threshold:g}, in {self.descriptor}"),
            ("RP score, calibrated", calibrated),
            ("MAE score", mae),
        ]

    def _chance(self) -> str:
        s = self.study
        if s.exact:
            return f"Nulls are exact: all {s.num_couples} couples of different seeds of each pair."
        return (
            f"Nulls are unbiased estimates from {s.num_couples} of the "
            f"{s.num_seeds * (s.num_seeds - 1)} couples of different seeds of each pair."
        )

    def cautions(self) -> Sequence[str]:
        """What to beware of, with the study's own numbers where it has them."""
        found = (_high_chance(self.study), _no_agreement(self.study), _no_contrast(self.study))
        return [*(text for text in found if text), _NOT_QUALITY, _DESCRIPTOR, _INTERVALS]


def _high_chance(study: ReproducibilityStudy) -> str:
    chance = study.chance("rp")
    if chance <= _HIGH_CHANCE:
        return ""
    return (
        f"At the threshold of {study.rules.threshold:g}, {percent(chance)} of images of different "
        "seeds count as the same: read the calibrated score instead."
    )


def _no_agreement(study: ReproducibilityStudy) -> str:
    """Chance level is what different noise gives, too."""
    scores = study.of("rp_calibrated")
    alone = [pair for pair, score in scores.items() if not agrees(score, len(scores))]
    if not alone:
        return ""
    names = "; ".join(f"{a} and {b}" for a, b in alone)
    return (
        f"Not more alike than images of different seeds: {names}. Before blaming the models, make "
        "sure that both got the same noise: one seed gives different noise on a CPU and on a GPU, "
        "and in programs that draw it differently."
    )


def _no_contrast(study: ReproducibilityStudy) -> str:
    own = zip(study.names, study.diagonal["rp"], strict=True)
    found = [f"{percent(1 - value)} of {name}" for name, value in own if value < 1]
    if not found:
        return ""
    return (
        "Images without any contrast are similar to nothing, not even to themselves: "
        f"{', '.join(found)}. They count as disagreement."
    )


def _level(study: ReproducibilityStudy, name: str) -> str:
    rules = study.rules
    return {
        "rp": f"similarity > {rules.threshold:g}",
        "rp_calibrated": f"similarity > {study.calibrated:.3f}",
        "mae_score": f"difference < {rules.mae_threshold:g}",
    }.get(name, "no threshold")
