"""The report of an experiment with classifiers: the arms, their comparisons, every number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from regimes.report.page import Page
from regimes.studies.classification import BASE, ClassificationStudy, Estimate
from regimes.words import counted

TITLES = {
    "balanced_accuracy": "Balanced accuracy: mean recall",
    "accuracy": "Overall accuracy",
    "auc": "AUC: mean over classes of each against the others",
    "recall": "Recall",
}
"""What each score is called, in the order to show."""

_INTERVALS = (
    "The interval of a score covers two things, whose shares the table gives apart: training again (seeds, "
    "by Student's t) and other test images (images: Wilson, MOVER, DeLong). It does not cover another "
    "generator: every arm saw one set of generated images, made by one model."
)
_NULL = (
    "Images that tell no more than the real ones do, copies at best, would show a difference of 0. A "
    "difference that is measured here is one for this network, these steps and these set sizes; where real "
    "images are plenty, less is to be gained."
)
_SELECTION = (
    "Weights were chosen by the balanced accuracy on validation images, which no arm trained on; the test "
    "images were classified once by each chosen classifier."
)
_LEAK = (
    "If the generator was trained on the validation or test images, generated images carry them into "
    "training, and nothing here would notice."
)
_FEW_SEEDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLine:
    """One set of images as the report lists it."""

    name: str
    where: str
    counts: tuple[int, ...]
    """Images of each class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationReport(Page):
    """What an experiment with classifiers says."""

    template: ClassVar[str] = "classification.html.j2"

    study: ClassificationStudy
    sets: Sequence[SetLine]
    training: str
    """What every arm lists, and for how many steps it trains, in words."""
    network: str
    """Which one, at which size, in words."""

    def context(self) -> Mapping[str, Any]:
        """Tables of the scores and of the comparisons."""
        return {
            "comparisons": [self._comparison(i) for i in range(len(self.study.comparisons))],
            "tables": self._tables(),
        }

    def _comparison(self, index: int) -> tuple[str, ...]:
        """(arms, effect, difference, interval, discordant images by seed, p, adjusted p)."""
        c = self.study.comparisons[index]
        counts = ", ".join(f"{t.only_first}:{t.only_second}" for t in c.tests)
        return (
            f"{c.arm} against {c.base}",
            c.effect,
            f"{c.main.value:+.3f}",
            _interval(c.main.low, c.main.high, "+.3f"),
            counts,
            f"{c.p_value:.2g}",
            f"{c.p_adjusted:.2g}",
        )

    def _tables(self) -> list[tuple[str, list[tuple[str, ...]]]]:
        """(title, lines) of every score, recalls one table per class."""
        s, asked = self.study, [(e.metric, e.label) for e in self.study.estimates[BASE]]
        ordered = sorted(asked, key=lambda m: list(TITLES).index(m[0]))
        found = []
        for metric, label in ordered:
            of = (
                ""
                if label is None
                else f" of {s.classes[label]}, {counted(s.test_counts[label], 'test image')}"
            )
            lines = [_line(arm, s.of(arm, metric, label)) for arm in s.arms]
            found.append((f"{TITLES[metric]}{of}", lines))
        return found

    def cautions(self) -> Sequence[str]:
        """What to beware of, with the study's own numbers where it has them."""
        few = len(self.study.seeds)
        found = [_INTERVALS, _NULL, _SELECTION, _LEAK]
        if few < _FEW_SEEDS:
            count = "one seed" if few == 1 else f"{few} seeds"
            found.insert(0, f"There {'is' if few == 1 else 'are'} {count} only: train more.")
        return found


def _line(arm: str, e: Estimate) -> tuple[str, ...]:
    """(arm, value, interval, over seeds, over images, null)."""
    return (
        arm,
        f"{e.value:.3f}",
        _interval(e.low, e.high),
        _interval(*e.seeds),
        _interval(*e.images),
        f"{e.null:.3f}",
    )


def _interval(low: float, high: float, form: str = ".3f") -> str:
    return "one seed" if math.isnan(low) else f"[{low:{form}}, {high:{form}}]"
