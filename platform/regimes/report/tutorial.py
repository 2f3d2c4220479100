"""The report of the tutorial: every lesson with its figure, what is seen, why, and its checks."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from regimes.report.page import Page
from regimes.studies.checks import Lesson

_CHANCE = (
    "Tolerances of sampled numbers are four standard errors, so a right number fails once in 16,000 "
    "checks, and a KS test once in 1000. The seed fixes the outcome: if a check fails with one seed "
    "only, look at the others before looking for a bug."
)
_TOYS = (
    "These are toys: two dimensions at most, and data that are known. That a sampler is exact here "
    "says nothing about how well a network has learned images; that it fails here would say a lot."
)
_NO_MEMORIZATION = (
    "One point and two points are memorized by construction. The spiral cannot show memorization, "
    "since every point of the curve is as good as any other."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TutorialReport(Page):
    """What the tutorial says.

    Raises:
        ValueError: if lessons and their figures differ in number, or as of any page.
    """

    template: ClassVar[str] = "tutorial.html.j2"

    lessons: Sequence[Lesson]
    lesson_figures: Sequence[tuple[str, bytes]]
    """(caption, PNG) of every lesson."""

    def __post_init__(self) -> None:
        """Check what a template could not."""
        Page.__post_init__(self)  # super() does not work in a class with slots
        if len(self.lessons) != len(self.lesson_figures):
            raise ValueError(
                f"expected a figure per lesson, got {len(self.lesson_figures)} for "
                f"{len(self.lessons)}"
            )

    def context(self) -> Mapping[str, Any]:
        """Lessons with their figures as data URIs."""
        shown = [
            (lesson, caption, "data:image/png;base64," + base64.b64encode(png).decode("ascii"))
            for lesson, (caption, png) in zip(self.lessons, self.lesson_figures)
        ]
        return {"shown": shown}

    def cautions(self) -> Sequence[str]:
        """What to beware of."""
        return [_CHANCE, _TOYS, _NO_MEMORIZATION]


def answer(lessons: Sequence[Lesson]) -> list[str]:
    """How many checks passed, and which failed."""
    every = [(lesson, check) for lesson in lessons for check in lesson.checks]
    failed = [f"{lesson.name}, {c.what}" for lesson, c in every if not c.passed]
    if not failed:
        return [f"All {len(every)} measured numbers agree with theory."]
    return [
        f"{len(failed)} of {len(every)} measured numbers do not agree with theory.",
        f"Failed: {'; '.join(failed)}.",
    ]
