"""The report of a Jacobian study: rank by noise level, with every number behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from regimes.jacobians.ranks import Rule
from regimes.report.page import Page
from regimes.studies.jacobian import JacobianStudy, RankRow

RULES = {
    "energy": "energy rank, as published: the fewest singular values whose root energy exceeds 0.99 of "
    "all, which is 98.01% of the energy",
    "effective": "effective rank: exp of the entropy of the singular values",
    "stable": "stable rank: the energy over the largest squared singular value",
}
_NOT_QUALITY = (
    "Low rank is not generalization: a memorizer that answers with one training image has rank 0. Read "
    "it beside copies and fidelity (the memorization job)."
)
_RULE = "Rules count differently: compare ranks of one rule only, and at equal noise levels."
_LOW_NOISE = (
    "At the lowest noise levels a network's output is nearly its input, and the rank is that of rounding "
    "and of the skip connection as much as of what was learned."
)
_INTERVALS = (
    "Intervals cover the choice of trajectories or images for these models, not training again. One without "
    "width means that all ranks were equal: if a tenth of all points had another, 8 would show none in 43% "
    "of cases."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JacobianReport(Page):
    """What a Jacobian study says."""

    template: ClassVar[str] = "jacobian.html.j2"

    study: JacobianStudy
    points: str
    """Where models were linearised, in words."""
    methods: Mapping[str, str]
    """How singular values were found, by model."""

    def context(self) -> Mapping[str, Any]:
        """A table per model."""
        return {
            "rule": RULES[self.study.rule],
            "others": self._others,
            "tables": [
                (name, self.methods[name], rows[0].size, self._lines(name))
                for name, rows in self.study.rows.items()
            ],
        }

    @property
    def _others(self) -> list[Rule]:
        return [rule for rule in self.study.by_rule if rule != self.study.rule]

    def _lines(self, name: str) -> list[tuple[str, ...]]:
        """A line per noise level: the chosen rule in full, ranks of the others."""
        others = [self.study.by_rule[rule][name] for rule in self._others]
        return [
            (*_line(row), *(f"{same.rank:.1f}" for same in more))
            for row, *more in zip(self.study.rows[name], *others, strict=True)
        ]

    def cautions(self) -> Sequence[str]:
        """What to beware of."""
        return [*self._zero(), _NOT_QUALITY, _LOW_NOISE, _RULE, _INTERVALS]

    def _zero(self) -> list[str]:
        names = list(dict.fromkeys(r.model for r in self.study.every_row if r.ratio == 0))
        if not names:
            return []
        return [f"Rank 0 stands on the lower edge of the figure: {', '.join(names)}."]


def _line(row: RankRow) -> tuple[str, ...]:
    """Level, inverse, rank, ratio, interval, bounds, null."""
    alone = math.isnan(row.low)
    return (
        f"{row.sigma:.4g}",
        f"{1 / row.sigma:.4g}",
        f"{row.rank:.1f}",
        f"{row.ratio:.4f}",
        "one point only" if alone else f"[{row.low:.4f}, {row.high:.4f}]",
        "" if row.least == row.most else f"[{row.least:.4f}, {row.most:.4f}]",
        f"{row.null:.3f}",
    )
