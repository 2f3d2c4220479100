"""The results of a memorization study: files for people, and for other programs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from regimes.jobs.support.chosen_descriptor import DEFAULT_DESCRIPTOR
from regimes.jobs.support.console import RunOptions
from regimes.jobs.support.memorization.experiment import MemorizationExperiment
from regimes.jobs.support.memorization.figures import figures
from regimes.jobs.support.memorization.findings import Findings, find
from regimes.jobs.support.memorization.grid import MemorizationGrid
from regimes.jobs.support.memorization.tensorboard import event_files
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
from regimes.report import MemorizationReport, render
from regimes.storage.artifacts import Recipe, Store, to_json
from regimes.storage.features import DescriptorRecipe
from regimes.studies.memorization import Evidence, Row
from regimes.studies.verdict import RULES


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsRecipe(Recipe):
    """What determines the results of a memorization study."""

    kind: ClassVar[str] = "results"
    code_version: ClassVar[int] = 3

    experiment: MemorizationExperiment
    images: Recipe
    """What the models were trained on."""
    descriptor: DescriptorRecipe
    """How images were compared; of a network with the hash of its weights."""
    artifacts: str
    """Hash of the addresses of everything the study rests on, code versions included."""


class Results(ResultFolder):
    """``<output>/memorization/<name>/``.

    Args:
        run: run options; ``name`` may be None.
        preset: name of the preset that the experiment started from.
        preset_experiment: that preset.
        grid: the study.
    """

    def __init__(
        self,
        run: RunOptions,
        preset: str,
        preset_experiment: MemorizationExperiment,
        grid: MemorizationGrid,
    ) -> None:
        self.preset, self.preset_experiment, self.grid = preset, preset_experiment, grid
        addresses = "".join(recipe.address for recipe in grid.artifacts)
        recipe = ResultsRecipe(
            experiment=grid.experiment,
            images=grid.images,
            descriptor=grid.descriptor,
            artifacts=hashlib.sha256(addresses.encode()).hexdigest(),
        )
        name = run.name or _default_name(preset, preset_experiment, grid)
        identity = ("experiment", "images", "descriptor")
        super().__init__(run.output, "memorization", name, recipe, identity=identity)

    def write(self, store: Store, evidence: Evidence) -> None:
        """Score, judge, draw and report; the manifest comes last."""
        self.write_files(self._files(store, find(evidence, self.grid.experiment)))

    def _files(self, store: Store, findings: Findings) -> Iterator[tuple[str, bytes]]:
        config = self.config(preset=self.preset, left_out=self.grid.left_out)
        yield CONFIG, config.encode()
        yield SCORES, _scores_json(findings).encode()
        yield TABLE, _scores_parquet(findings.rows)
        yield from event_files(store, self.grid, findings.rows)
        drawn = Drawn(figures(store, self.grid, findings))
        yield from drawn.files()
        yield REPORT, render(self._report(findings, drawn.captioned, config)).encode()

    def _report(
        self, findings: Findings, captioned: list[tuple[str, bytes]], config: str
    ) -> MemorizationReport:
        return MemorizationReport(
            title=f"Memorization and generalization: {self.grid.experiment.origin}",
            answer=findings.answer,
            regimes=findings.regimes,
            figures=captioned,
            threshold=findings.threshold,
            rows=findings.rows,
            recipe=config,
            command=self._command(),
            links=[(name, name) for name in (SCORES, TABLE, CONFIG)],
        )

    def _command(self) -> str:
        """The command line that gives these results from the same source."""
        changed = options(self.preset_experiment, self.grid.experiment)
        changed += options(DEFAULT_DESCRIPTOR, self.grid.chosen.options)
        return " ".join(["python jobs/memorization.py", f"--preset {self.preset}", *changed])

    def print_summary(self) -> None:
        """The table of regimes and the answer, on the console."""
        scores = json.loads(self.read(SCORES))
        print()
        for regime in scores["regimes"]:
            print(
                f"n = {regime['n']:<6} width {regime['width']:<5} {regime['name']:<15}{regime['because']}"
            )
        print()
        print("\n".join(scores["answer"]))
        print(f"\nreport    {self.location.child(REPORT).uri}")


def _default_name(preset: str, original: MemorizationExperiment, grid: MemorizationGrid) -> str:
    """``digits-seed0``; with the source's name and a hash when they differ from the preset's."""
    experiment, choice = grid.experiment, grid.chosen.options
    about = preset if experiment.origin == original.origin else slug(experiment.origin) or preset
    name = f"{about}-seed{experiment.seed}"
    usual = choice == DEFAULT_DESCRIPTOR
    if usual and dataclasses.replace(original, seed=experiment.seed) == experiment:
        return name
    text = to_json(experiment) + ("" if usual else to_json(choice))
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _scores_json(findings: Findings) -> str:
    plain: Mapping[str, Any] = {
        "answer": list(findings.answer),
        "threshold": findings.threshold,
        "regimes": findings.regimes,
        "rules": RULES,
        "scores": [row.record() for row in findings.rows],
    }
    return to_json(plain)


def _scores_parquet(rows: list[Row]) -> bytes:
    whole, real = pa.int64(), pa.float64()
    schema = pa.schema(
        [
            *(
                (name, pa.string())
                for name in ("score", "half", "half_other", "versus", "descriptor")
            ),
            *(
                (name, whole)
                for name in ("n", "width", "width_other", "num_generated", "num_train")
            ),
            *((name, real) for name in ("value", "low", "high", "null", "threshold")),
            ("higher_is_better", pa.bool_()),
        ]
    )
    records = [row.record() for row in rows]
    return parquet_bytes(pa.Table.from_pylist(records, schema=schema).select(list(records[0])))
