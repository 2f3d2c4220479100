"""How many directions does a denoiser follow? The rank of its Jacobian, by noise level.

    ratio(sigma) = mean over points of rank(J) / n

with a 95% interval over what was drawn independently: trajectories, or images (several noises of
one image are averaged first). The null is D(x) = x, which keeps every direction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from regimes.jacobians.ranks import RULES, Rule, Spectrum, numerical_rank
from regimes.studies.verdict import percent

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpectra:
    """The spectra of one model's Jacobians, P points at T levels."""

    name: str
    groups: npt.NDArray[np.int64]
    """(P,), the trajectory or the image of each point."""
    sigmas: Floats
    """(T,), positive."""
    spectra: Sequence[Sequence[Spectrum]]
    """P sequences of T."""

    @property
    def size(self) -> int:
        """Values per image, n."""
        return self.spectra[0][0].size


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRow:
    """The rank at one level."""

    model: str
    rule: Rule
    sigma: float
    ratio: float
    """Mean rank over n, in [0, 1]."""
    low: float
    """Lower end of the 95% interval; nan where there is one trajectory or image only."""
    high: float
    """Upper end."""
    null: float
    """The ratio of D(x) = x."""
    least: float
    """Mean of the lower bounds of the points' ratios: less than ``ratio`` if values were estimated."""
    most: float
    """Mean of the upper bounds."""
    size: int
    """n."""
    num_points: int
    per_point: Floats
    """(P,) ratios."""
    per_group: Floats
    """(G,) means of trajectories, or of images."""

    @property
    def rank(self) -> float:
        """Mean rank."""
        return self.ratio * self.size

    @property
    def num_groups(self) -> int:
        """Trajectories, or images."""
        return len(self.per_group)

    def record(self) -> dict[str, object]:
        """One row of a table."""
        names = ("model", "rule", "sigma", "rank", "ratio", "low", "high", "null", "least", "most")
        return {name: getattr(self, name) for name in (*names, "size", "num_points", "num_groups")}


@dataclass(frozen=True, slots=True, kw_only=True)
class JacobianStudy:
    """Ranks of several models by every rule; one rule is what figures and words are about."""

    rule: Rule
    by_rule: Mapping[Rule, Mapping[str, Sequence[RankRow]]]
    """By rule, the chosen one first, and by model; noise levels decreasing."""
    reference: Sequence[tuple[float, float]] = ()
    """(sigma, ratio) of a closed form to compare with."""
    reference_name: str = ""

    @property
    def rows(self) -> Mapping[str, Sequence[RankRow]]:
        """By model, of the chosen rule."""
        return self.by_rule[self.rule]

    @property
    def every_row(self) -> list[RankRow]:
        """Rows of all models, of the chosen rule."""
        return [row for rows in self.rows.values() for row in rows]

    @property
    def table(self) -> list[RankRow]:
        """Rows of all models and rules."""
        return [row for ranked in self.by_rule.values() for rows in ranked.values() for row in rows]


def study(
    models: Sequence[ModelSpectra],
    rule: Rule,
    *,
    reference: Mapping[float, Spectrum] | None = None,
    reference_name: str = "",
) -> JacobianStudy:
    """Rank every spectrum by every rule.

    Args:
        models: their names differ.
        rule: the one to speak of; see ``regimes.jacobians.ranks``.
        reference: spectra of a closed form by noise level, to be shown beside.
        reference_name: what it is.
    """
    known = sorted((reference or {}).items(), reverse=True)
    return JacobianStudy(
        rule=rule,
        by_rule={
            each: {model.name: rank_rows(model, each) for model in models}
            for each in (rule, *(other for other in RULES if other != rule))
        },
        reference=[(sigma, numerical_rank(s, rule).value / s.size) for sigma, s in known],
        reference_name=reference_name,
    )


def rank_rows(model: ModelSpectra, rule: Rule) -> list[RankRow]:
    """One row per level, noise levels decreasing."""
    n = model.size
    null = numerical_rank(Spectrum(values=np.ones(n), size=n), rule).value / n
    rows = []
    for i in np.argsort(-model.sigmas):
        ranks = np.array([numerical_rank(point[i], rule) for point in model.spectra]) / n  # (P, 3)
        means = np.array([ranks[model.groups == g, 0].mean() for g in np.unique(model.groups)])
        low, high = _interval(means)
        rows.append(
            RankRow(
                model=model.name,
                rule=rule,
                sigma=float(model.sigmas[i]),
                ratio=float(ranks[:, 0].mean()),
                low=low,
                high=high,
                null=null,
                least=float(ranks[:, 1].mean()),
                most=float(ranks[:, 2].mean()),
                size=n,
                num_points=len(ranks),
                per_point=ranks[:, 0],
                per_group=means,
            )
        )
    return rows


def _interval(means: Floats) -> tuple[float, float]:
    """Student's interval of the mean over groups (G,), inside [0, 1]."""
    if len(means) < 2:
        return math.nan, math.nan
    half = float(t.ppf(0.975, len(means) - 1)) * means.std(ddof=1) / len(means) ** 0.5
    return max(0.0, float(means.mean() - half)), min(1.0, float(means.mean() + half))


def answer(found: JacobianStudy) -> list[str]:
    """What was found, one sentence per model and one for all."""
    return [*(_sentence(rows) for rows in found.rows.values()), *_estimated(found)]


def _sentence(rows: Sequence[RankRow]) -> str:
    """What the rank is at both ends, and where between them it is surely less."""
    first, least, last = rows[0], min(rows, key=lambda row: row.ratio), rows[-1]
    lowest = (
        f"{first.model}: of {first.size} directions the denoiser follows {_count(last)} at the lowest "
        f"noise (sigma {last.sigma:.3g}), {_count(first)} at the highest (sigma {first.sigma:.3g})"
    )
    if all(_is_lower(least, end, among=len(rows) - 2) for end in (first, last)):
        return f"{lowest}, and fewer between, as at sigma {least.sigma:.3g}: {_count(least)}."
    return f"{lowest}."


def _is_lower(row: RankRow, end: RankRow, *, among: int) -> bool:
    """Whether the rank at a level, the least of ``among``, is below that at an end, paired by group.

    Student's t at 5%, for all levels together (Bonferroni), and as sure as integers are: the least of many
    levels is below both ends by chance alone, or by rounding where all ranks are equal.
    """
    gaps = (end.per_group - row.per_group) * row.size
    if among < 1 or len(gaps) < 2:
        return False
    error = max(float(gaps.std(ddof=1)), 12**-0.5) / len(gaps) ** 0.5
    return bool(gaps.mean() > t.ppf(1 - 0.05 / among, len(gaps) - 1) * error)


def _count(row: RankRow) -> str:
    return f"{row.rank:.1f} ({percent(row.ratio)})"


def _estimated(found: JacobianStudy) -> list[str]:
    open_rows = [
        row for row in found.every_row if row.most - row.least > 0.1 * max(row.ratio, 1e-9)
    ]
    if not open_rows:
        return []
    sigmas = ", ".join(sorted({f"{row.sigma:.3g}" for row in open_rows}))
    return [
        f"Singular values were estimated, and ranks are uncertain by more than 10% at sigma {sigmas}."
    ]
