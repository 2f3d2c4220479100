"""The results of a Jacobian study: files for people, and for other programs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
from matplotlib.figure import Figure

from regimes.figures.jacobian import rank_curve, rule_panels, spectrum_curves, vector_sheet
from regimes.jacobians.spectra import SpectrumConfig
from regimes.jobs.support.console import RunOptions
from regimes.jobs.support.jacobian.experiment import JacobianExperiment
from regimes.jobs.support.result_folder import (
    CONFIG,
    REPORT,
    SCORES,
    TABLE,
    Drawn,
    ResultFolder,
    options,
    parquet_bytes,
    slug,
)
from regimes.report import render
from regimes.report.jacobian import JacobianReport
from regimes.storage.artifacts import Recipe, to_json
from regimes.storage.jacobian import Pictures
from regimes.studies.jacobian import JacobianStudy, ModelSpectra, answer


@dataclass(frozen=True, slots=True, kw_only=True)
class JacobianResultsRecipe(Recipe):
    """What determines the results of a study."""

    kind: ClassVar[str] = "jacobian-study"
    code_version: ClassVar[int] = 3

    experiment: JacobianExperiment
    spectra: tuple[str, ...]
    """Addresses of the models' spectra, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linearised:
    """Everything that results are written from."""

    study: JacobianStudy
    models: Sequence[ModelSpectra]
    pictures: Mapping[str, Pictures]
    """By model, of its first point."""


class JacobianResults(ResultFolder):
    """``<output>/jacobian/<name>/``."""

    def __init__(
        self, run: RunOptions, experiment: JacobianExperiment, spectra: Sequence[str]
    ) -> None:
        self.experiment = experiment
        recipe = JacobianResultsRecipe(experiment=experiment, spectra=tuple(spectra))
        name = run.name or default_name(experiment)
        super().__init__(run.output, "jacobian", name, recipe, identity=("experiment",))

    def write(self, found: Linearised) -> None:
        """Draw and report; the manifest comes last."""
        self.write_files(self._files(found))

    def _files(self, found: Linearised) -> Iterator[tuple[str, bytes]]:
        config = self.config()
        yield CONFIG, config.encode()
        yield SCORES, _scores_json(found.study).encode()
        yield TABLE, _scores_parquet(found.study)
        drawn = Drawn(_figures(found))
        yield from drawn.files()
        report = JacobianReport(
            title=f"Jacobian rank: {', '.join(found.study.rows)}",
            answer=answer(found.study),
            figures=drawn.captioned,
            study=found.study,
            points=self.experiment.points,
            methods={model.name: _method(model) for model in found.models},
            recipe=config,
            command=" ".join(["python jobs/jacobian.py", *changed_options(self.experiment)]),
            links=[(name, name) for name in (SCORES, TABLE, CONFIG)],
        )
        yield REPORT, render(report).encode()

    def print_summary(self) -> None:
        """Rank by noise level and the answer, on the console."""
        scores = json.loads(self.read(SCORES))
        print()
        for row in (r for r in scores["scores"] if r["rule"] == scores["rule"]):
            interval = "" if row["low"] == "nan" else f" [{row['low']:.4f}, {row['high']:.4f}]"
            print(
                f"sigma {row['sigma']:<9.4g}{scores['rule']} rank {row['rank']:>7.1f}   "
                f"ratio {row['ratio']:.4f}{interval}   {row['model']}"
            )
        print()
        print("\n".join(scores["answer"]))
        print(f"\nreport    {self.location.child(REPORT).uri}")


def default_name(experiment: JacobianExperiment) -> str:
    """Name of the result folder: the models by name, and a hash of all options."""
    shown = "-".join(slug(spec.replace(":", "-")) or "model" for spec in experiment.model[:3])
    digest = hashlib.sha256(to_json(experiment).encode()).hexdigest()[:8]
    return f"{shown[:80]}-{digest}"


def changed_options(experiment: JacobianExperiment) -> list[str]:
    """The command-line options that make this experiment of the default one."""
    plain = dataclasses.replace(experiment, spectrum=SpectrumConfig())
    return [
        *options(JacobianExperiment(), plain),
        *options(SpectrumConfig(), experiment.spectrum),
    ]


def _method(model: ModelSpectra) -> str:
    """How singular values were found, in words."""
    found = [s for point in model.spectra for s in point]
    if all(s.is_full for s in found):
        return "all singular values"
    least, most = min(len(s.values) for s in found), max(len(s.values) for s in found)
    some = [s for s in found if s.energy > 0]
    error = max((2 * s.rest_error / s.energy for s in some), default=0.0)
    each = max((s.value_error / s.values[0] for s in some), default=0.0)
    count = f"{most}" if least == most else f"{least} to {most}"
    return (
        f"randomised, {count} singular values, exact to {each:.1g} of the largest; the energy of the "
        f"others is known within {100 * error:.2g}% of all (in 95% of cases)"
    )


def _figures(found: Linearised) -> Iterator[tuple[str, str, Figure]]:
    """(file name, one-line caption, figure)."""
    yield (
        "rank",
        "Rank over n against 1 / sigma: means with 95% intervals, and the points behind them.",
        rank_curve(found.study),
    )
    yield (
        "rules",
        "The same spectra counted by three rules; dotted, what returns its input.",
        rule_panels(found.study),
    )
    yield (
        "spectra",
        "Singular values behind the ranks.",
        spectrum_curves(found.models),
    )
    for number, (name, p) in enumerate(found.pictures.items()):
        yield (
            f"vectors-{number}",
            f"{name}, first point: leading left singular vectors with their singular values.",
            vector_sheet(name, p.sigmas, p.denoised, p.outputs, p.values),
        )


def _scores_json(study: JacobianStudy) -> str:
    return to_json(
        {
            "answer": answer(study),
            "rule": study.rule,
            "reference": {
                "name": study.reference_name,
                "ratios": [{"sigma": s, "ratio": r} for s, r in study.reference],
            },
            "scores": [row.record() for row in study.table],
        }
    )


def _scores_parquet(study: JacobianStudy) -> bytes:
    return parquet_bytes(pa.Table.from_pylist([row.record() for row in study.table]))
