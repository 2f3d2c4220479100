"""The result folder of a memorization study: files for people, and for other programs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from regimes import __version__
from regimes.errors import ConfigError
from regimes.figures.style import pdf_bytes, png_bytes
from regimes.jobs.support.console import RunOptions
from regimes.jobs.support.drawing import figures
from regimes.jobs.support.findings import Findings, find
from regimes.jobs.support.grid import MemorizationExperiment, MemorizationGrid
from regimes.jobs.support.tensorboard import event_files
from regimes.report import Report, render
from regimes.storage.artifacts import RECIPE, Artifact, Recipe, Store, to_json
from regimes.storage.filesystem import Location
from regimes.studies.memorization import Evidence, Row
from regimes.studies.verdict import RULES

CONFIG, SCORES, TABLE, REPORT = "config.json", "scores.json", "scores.parquet", "report.html"
_PACKAGES = ("torch", "numpy", "ray", "pyarrow", "faiss-gpu", "scikit-learn")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsRecipe(Recipe):
    """What determines a result folder."""

    kind: ClassVar[str] = "results"
    code_version: ClassVar[int] = 1

    experiment: MemorizationExperiment
    fingerprint: str
    """Of the image source."""
    artifacts: str
    """Hash of the addresses of everything the study rests on, code versions included."""


class Results:
    """``<output>/memorization/<name>/``.

    Args:
        options: run options; ``name`` may be None.
        preset: name of the preset that the experiment started from.
        preset_experiment: that preset.
        grid: the study.
    """

    def __init__(
        self,
        options: RunOptions,
        preset: str,
        preset_experiment: MemorizationExperiment,
        grid: MemorizationGrid,
    ) -> None:
        self.preset, self.preset_experiment, self.grid = preset, preset_experiment, grid
        addresses = "".join(recipe.address for recipe in grid.artifacts)
        self.recipe = ResultsRecipe(
            experiment=grid.experiment,
            fingerprint=grid.images.fingerprint,
            artifacts=hashlib.sha256(addresses.encode()).hexdigest(),
        )
        name = options.name or _default_name(preset, preset_experiment, grid.experiment)
        self.location = Location(options.output).child(f"memorization/{name}")
        self._artifact = Artifact(self.location, self.recipe)

    def check_name(self) -> None:
        """Refuse to mix two configurations in one folder.

        Raises:
            ConfigError: if the folder holds results of another configuration.
        """
        try:
            found = json.loads(self.location.read(CONFIG))["recipe"]
        except (FileNotFoundError, KeyError, ValueError):
            return
        asked = json.loads(to_json(self.recipe))
        if any(found.get(key) != asked[key] for key in ("experiment", "fingerprint")):
            raise ConfigError(
                f"{self.location.uri}: holds results of another configuration; choose another "
                "--name, or pass --no-resume to replace them"
            )

    def is_complete(self) -> bool:
        """Whether everything was written by this version of the code, and is as it was written."""
        if not self._artifact.is_complete():
            return False
        if self.location.read(RECIPE).decode() != to_json(self.recipe):
            return False
        self._artifact.verify()
        return True

    def write(self, store: Store, evidence: Evidence) -> None:
        """Score, judge, draw and report; the manifest comes last."""
        findings = find(evidence, self.grid.experiment)
        files = dict(self._files(store, findings))
        self._artifact.finish([self._artifact.write(name, data) for name, data in files.items()])

    def _files(self, store: Store, findings: Findings) -> Iterator[tuple[str, bytes]]:
        yield CONFIG, self._config().encode()
        yield SCORES, _scores_json(findings).encode()
        yield TABLE, _scores_parquet(findings.rows)
        yield from event_files(store, self.grid, findings.rows)
        captioned = []
        for name, caption, figure in figures(store, self.grid, findings):
            png = png_bytes(figure)
            captioned.append((caption, png))
            yield f"figures/{name}.png", png
            yield f"figures/{name}.pdf", pdf_bytes(figure)
        yield REPORT, self._report(findings, captioned).encode()

    def _report(self, findings: Findings, captioned: list[tuple[str, bytes]]) -> str:
        return render(
            Report(
                title=f"Memorization and generalization: {self.grid.experiment.source}",
                answer=findings.answer,
                regimes=findings.regimes,
                figures=captioned,
                threshold=findings.threshold,
                rows=findings.rows,
                recipe=self._config(),
                command=self._command(),
                links=[(name, name) for name in (SCORES, TABLE, CONFIG)],
            )
        )

    def _command(self) -> str:
        """The command line that gives these results from the same source."""
        changed = _options(self.preset_experiment, self.grid.experiment)
        return " ".join(["python jobs/memorization.py", f"--preset {self.preset}", *changed])

    def _config(self) -> str:
        packages = {name: _version(name) for name in _PACKAGES}
        return to_json(
            {
                "preset": self.preset,
                "recipe": self.recipe,
                "left_out": self.grid.left_out,
                "regimes": __version__,
                "python": sys.version.split()[0],
                "packages": packages,
            }
        )

    def print_summary(self) -> None:
        """The table of regimes and the answer, on the console."""
        scores = json.loads(self._artifact.read(SCORES))
        print()
        for regime in scores["regimes"]:
            print(
                f"n = {regime['n']:<6} width {regime['width']:<5} {regime['name']:<15}{regime['because']}"
            )
        print()
        print("\n".join(scores["answer"]))
        print(f"\nreport    {self.location.uri}/{REPORT}")


def _options(original: Any, changed: Any, prefix: str = "--") -> list[str]:
    """The options that turn one experiment into another."""
    options = []
    for field in dataclasses.fields(changed):
        before, after = getattr(original, field.name), getattr(changed, field.name)
        flag = prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(after):
            options += _options(before, after, f"{flag}.")
        elif isinstance(after, bool) and before != after:
            options.append(flag if after else flag.replace("--", "--no-", 1))
        elif before != after:
            values = after if isinstance(after, tuple) else (after,)
            options.append(" ".join([flag, *(shlex.quote(str(v)) for v in values)]))
    return options


def _default_name(
    preset: str, original: MemorizationExperiment, experiment: MemorizationExperiment
) -> str:
    """``digits-seed0``; with the source's name and a hash when they differ from the preset's."""
    own = re.sub(r"[^\w.-]+", "-", Path(experiment.source).stem).strip("-.")
    about = preset if experiment.source == original.source else own or preset
    name = f"{about}-seed{experiment.seed}"
    if dataclasses.replace(original, seed=experiment.seed) == experiment:
        return name
    return f"{name}-{hashlib.sha256(to_json(experiment).encode()).hexdigest()[:8]}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


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
    table = pa.Table.from_pylist(records, schema=schema).select(list(records[0]))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())
