"""The report of an audit: how many copies, the pairs to look at, and every number with its null."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from regimes.report.page import Page
from regimes.report.reproducibility import SetLine
from regimes.scores.result import Score
from regimes.studies.audit import Copies
from regimes.studies.audit_alarms import any_real
from regimes.studies.audit_words import beware, null_range, real_name, share

TITLES: dict[str, dict[str, str]] = {
    "Copies": {
        "memorized": "Generated images above the calibrated threshold",
        "memorized_published": "Generated images above a published threshold, flips not counted",
        "beyond_real": "More similar to a training image than any real image is",
        "identical": "Equal to a training image in every pixel",
        "flips": "Copies of a flipped training image",
        "ratio": "Ratio test: far nearer to one training image than to all others",
        "authentic": "AuthPct: farther from their nearest training image than it is from its own",
        "c_t": "C_T: below 0, nearer to the training images than real images are",
    },
    "Fidelity": {
        "precision": "Precision: generated images among training images",
        "density": "Density: how deep among them; 1 for real images",
        "fid": "FID to the training images",
        "fid_matched": "FID of as many generated as held-out images",
        "kid": "KID to the training images",
        "frechet": "Fréchet distance to the training images, of these descriptors",
        "frechet_matched": "The same of as many generated as held-out images",
        "kernel": "Kernel distance to the training images, of these descriptors",
    },
    "Diversity": {
        "recall": "Recall: training images among generated ones",
        "coverage": "Coverage: training images with a generated one close by",
        "vendi": "Vendi score: effective number of different generated images",
    },
    "Duplicates": {
        "duplicates_generated": "Generated images that repeat an earlier generated one",
        "duplicates_train": "Training images that repeat an earlier one",
    },
}
"""What each metric is called, by family, in the order to show."""

FRACTIONS = frozenset(
    {
        "memorized",
        "memorized_published",
        "beyond_real",
        "identical",
        "flips",
        "ratio",
        "authentic",
        "precision",
        "recall",
        "coverage",
        "duplicates_generated",
        "duplicates_train",
    }
)
_LEVELS = {
    "memorized": "similarity > {:.3f}",
    "memorized_published": "similarity > {:g}",
    "beyond_real": "similarity > {:.3f}",
    "ratio": "d1/d2 < {:.3f}",
    "precision": "k = {:.0f}",
    "recall": "k = {:.0f}",
    "density": "k = {:.0f}",
    "coverage": "k = {:.0f}",
    "duplicates_generated": "distance <= {:g}",
    "duplicates_train": "distance <= {:g}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateLine:
    """A group of images that are the same."""

    where: str
    """train or generated."""
    ids: tuple[str, ...]
    """The first few."""
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricLine:
    """One row of a table of metrics."""

    title: str
    name: str
    level: str
    value: str
    interval: str
    null: str
    images: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport(Page):
    """What an audit says."""

    template: ClassVar[str] = "audit.html.j2"

    copies: Copies
    sets: Sequence[SetLine]
    descriptor: str
    """In words."""
    metrics: Sequence[Score]
    duplicates: Sequence[DuplicateLine]
    """The largest groups."""
    gallery: tuple[int, int]
    """Pairs and pages of the gallery."""
    notes: Sequence[str]
    """What the job has to say, as cautions."""

    def context(self) -> Mapping[str, Any]:
        """Rules and tables."""
        return {
            "rules": self._rules(),
            "families": [
                (title, lines) for title, scores in TITLES.items() if (lines := self._lines(scores))
            ],
            "null": "leave-one-out training images"
            if self.copies.reference == "train"
            else "held-out images",
        }

    def _lines(self, titles: Mapping[str, str]) -> list[MetricLine]:
        return [
            metric_line(score, titles[base], null_range(self.copies, score))
            for score in self.metrics
            if (base := base_name(score.name)) in titles
        ]

    def _rules(self) -> list[tuple[str, str]]:
        c = self.copies
        published = ", ".join(f"{value:g}" for value in sorted(c.rules.published))
        found = [
            (
                "identical",
                "equal to its nearest training image (or its flip, if flips count) in every pixel",
            ),
            (
                "beyond all real",
                f"more similar to a training image than {any_real(c)}",
            ),
            (
                "ratio",
                f"d1/d2 below {c.rules.ratio:.3f}: distances to the two nearest training images",
            ),
            (
                "calibrated",
                self._calibrated(),
            ),
            (
                "above ...",
                f"published thresholds ({published}), made for another descriptor unless this is SSCD",
            ),
        ]
        if c.is_flip.any():
            found.insert(1, ("flip", "a copy that is nearer to a flipped training image"))
        return found

    def _calibrated(self) -> str:
        t = self.copies.threshold
        passed = f"{100 * (1 - t.quantile):.3g}%"
        return (
            f"similarity above {t.value:.3f} [{t.low:.3f}, {t.high:.3f}], which {passed} of "
            f"{real_name(self.copies, count=True)} reach; the answer counts these and identical ones"
        )

    def cautions(self) -> Sequence[str]:
        """What to beware of, with the audit's own numbers where it has them."""
        return [*self.notes, *beware(self.copies, self.metrics)]


def base_name(name: str) -> str:
    """A metric's name without the threshold that may follow it: memorized_published_0.5."""
    return "memorized_published" if name.startswith("memorized_published") else name


def metric_line(score: Score, title: str, spread: tuple[float, float] | None = None) -> MetricLine:
    """A metric in words and figures; ``spread`` is where 95% of sets without copies lie."""
    base = base_name(score.name)
    write = share if base in FRACTIONS else "{:.4g}".format
    level = _LEVELS.get(base, "")
    around = "" if spread is None else f" [{write(spread[0])}, {write(spread[1])}]"
    return MetricLine(
        title=title,
        name=score.name,
        level=level.format(score.threshold) if level else "",
        value=write(score.value),
        interval="" if math.isnan(score.low) else f"[{write(score.low)}, {write(score.high)}]",
        null="" if math.isnan(score.null) else write(score.null) + around,
        images=f"{score.num_generated:,} / {score.num_train:,}",
    )
