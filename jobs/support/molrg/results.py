"""The results of a MoLRG study: files for people, and for other programs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from regimes.figures.molrg import rank_by_noise, transition
from regimes.jobs.support.console import RunOptions
from regimes.jobs.support.molrg.experiment import PRESETS, MoLRGExperiment
from regimes.jobs.support.result_folder import (
    CONFIG,
    REPORT,
    SCORES,
    TABLE,
    Drawn,
    ResultFolder,
    options,
    parquet_bytes,
)
from regimes.report import render
from regimes.report.molrg import MoLRGReport
from regimes.storage.artifacts import Recipe, to_json
from regimes.studies.molrg import MoLRGStudy, RankCurve, answer


@dataclass(frozen=True, slots=True, kw_only=True)
class MoLRGResultsRecipe(Recipe):
    """What determines the results of a study."""

    kind: ClassVar[str] = "molrg-study"
    code_version: ClassVar[int] = 2

    experiment: MoLRGExperiment


class MoLRGResults(ResultFolder):
    """``<output>/molrg/<name>/``."""

    def __init__(self, run: RunOptions, experiment: MoLRGExperiment, preset: str) -> None:
        self.experiment, self.preset = experiment, preset
        digest = hashlib.sha256(to_json(experiment).encode()).hexdigest()[:8]
        name = run.name or f"{preset}-seed{experiment.seed}-{digest}"
        recipe = MoLRGResultsRecipe(experiment=experiment)
        super().__init__(run.output, "molrg", name, recipe, identity=("experiment",))

    def write(self, study: MoLRGStudy) -> None:
        """Draw and report; the manifest comes last."""
        self.write_files(self._files(study))

    def _files(self, study: MoLRGStudy) -> Iterator[tuple[str, bytes]]:
        config = self.config()
        yield CONFIG, config.encode()
        yield SCORES, _scores_json(study).encode()
        yield TABLE, _scores_parquet(study)
        drawn = Drawn(
            [
                (
                    "rank",
                    "Rank of the denoiser's Jacobian over n against 1 / sigma, with 95% intervals.",
                    rank_by_noise(study),
                ),
                (
                    "transition",
                    "Subspaces missed, samples that are not copies, and agreement of two models.",
                    transition(study),
                ),
            ]
        )
        yield from drawn.files()
        changed = options(PRESETS[self.preset], self.experiment)
        report = MoLRGReport(
            title="A mixture of low-rank Gaussians",
            answer=answer(study),
            figures=drawn.captioned,
            study=study,
            recipe=config,
            command=" ".join([f"python jobs/molrg.py --preset {self.preset}", *changed]),
            links=[(name, name) for name in (SCORES, TABLE, CONFIG)],
        )
        yield REPORT, render(report).encode()

    def print_summary(self) -> None:
        """Ranks, cells and the answer, on the console."""
        scores = json.loads(self.read(SCORES))
        print()
        for curve in scores["ranks"]:
            shown = "  ".join(f"{s:g}: {r:.3f}" for s, r in zip(curve["sigmas"], curve["ratios"]))
            print(f"rank / n  {curve['model']:<15}{shown}")
        print()
        for c in scores["cells"]:
            print(
                f"{c['model']:<9} d {c['dim']:<3} M {c['per_class']:<5} missed "
                f"{c['recovery_a']:.3f} {c['recovery_b']:.3f}   GL {c['gl']:.3f} (null "
                f"{c['gl_null']:.3f})   RP {c['rp']:.3f} (null {c['rp_null']:.3f})"
            )
        print()
        print("\n".join(scores["answer"]))
        print(f"\nreport    {self.location.child(REPORT).uri}")


def _scores_json(study: MoLRGStudy) -> str:
    return to_json(
        {
            "answer": answer(study),
            "ranks": [_ranks(curve) for curve in (study.exact, *study.curves)],
            "recovery": dict(study.recovery),
            "cells": [cell.record() for cell in study.cells],
        }
    )


def _ranks(curve: RankCurve) -> dict[str, object]:
    mean, low, high = curve.interval()
    return {
        "model": curve.model,
        "sigmas": curve.sigmas,
        "ratios": mean.tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "num_points": curve.ratios.shape[1],
    }


def _scores_parquet(study: MoLRGStudy) -> bytes:
    return parquet_bytes(pa.Table.from_pylist([cell.record() for cell in study.cells]))
