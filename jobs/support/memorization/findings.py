"""What a memorization study found, before it is drawn."""

from __future__ import annotations

from dataclasses import dataclass

from regimes.jobs.support.memorization.experiment import MemorizationExperiment
from regimes.scores.calibration import Threshold
from regimes.studies.memorization import Evidence, Row, calibrate, score_table
from regimes.studies.verdict import Regime, answer, classify


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Scores, regimes, and the answer in two sentences."""

    threshold: Threshold
    rows: list[Row]
    regimes: list[Regime]
    answer: tuple[str, str]

    def can_judge(self, width: int) -> bool:
        """Whether a model of this width makes something like real images at any size."""
        return any(r.width == width and r.name != "off-manifold" for r in self.regimes)


def find(evidence: Evidence, experiment: MemorizationExperiment) -> Findings:
    """Score the evidence and judge every (n, width)."""
    threshold = calibrate(evidence, experiment.calibration_quantile)
    rows = score_table(evidence, threshold, published_threshold=experiment.published_threshold)
    sizes, widths = evidence.sizes, evidence.widths
    return Findings(
        threshold=threshold,
        rows=rows,
        regimes=[classify(rows, n, w) for n in sizes for w in widths],
        answer=answer(rows, sizes, widths),
    )
