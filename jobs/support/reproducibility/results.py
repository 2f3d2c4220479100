"""The results of a comparison of sample sets: files for people, and for other programs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
from matplotlib.figure import Figure

from regimes.descriptors.network import NetworkConfig
from regimes.descriptors.options import DescriptorOptions
from regimes.figures.agreement import agreement_matrix, pair_histogram
from regimes.figures.model_sheet import ModelRow, model_sheet
from regimes.jobs.support.chosen_descriptor import DEFAULT_DESCRIPTOR, ChosenDescriptor
from regimes.jobs.support.console import RunOptions
from regimes.jobs.support.reproducibility.experiment import ReproducibilityExperiment
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
from regimes.report import ReproducibilityReport, render
from regimes.report.reproducibility import SetLine
from regimes.storage.artifacts import Recipe, to_json
from regimes.studies import reproducibility
from regimes.studies.reproducibility import FRACTIONS, ReproducibilityStudy, SampleSet, answer

COLUMNS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRecipe(Recipe):
    """What determines the results of a comparison."""

    kind: ClassVar[str] = "comparison"
    code_version: ClassVar[int] = 2

    experiment: ReproducibilityExperiment
    descriptor: str
    network: NetworkConfig | None
    """With the hash of its weights."""
    fingerprints: tuple[str, ...]
    """Of every set, in order; of a model, the address of its samples."""
    fit_fingerprint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Everything that results are written from."""

    study: ReproducibilityStudy
    sets: Sequence[SampleSet]
    """Aligned."""
    lines: Sequence[SetLine]
    descriptor: str
    """In words."""
    joined_by: str
    left_out: dict[str, int]
    """Images of every set that are not compared because another set lacks their ids."""


class ComparisonResults(ResultFolder):
    """``<output>/reproducibility/<name>/``."""

    def __init__(
        self,
        run: RunOptions,
        experiment: ReproducibilityExperiment,
        chosen: ChosenDescriptor,
        names: Sequence[str],
        fingerprints: Sequence[str],
        fit_fingerprint: str | None,
    ) -> None:
        self.experiment, self.choice = experiment, chosen.options
        recipe = ComparisonRecipe(
            experiment=experiment,
            descriptor=chosen.name,
            network=chosen.network,
            fingerprints=tuple(fingerprints),
            fit_fingerprint=fit_fingerprint,
        )
        identity = ("experiment", "descriptor", "network", "fingerprints", "fit_fingerprint")
        name = run.name or default_name(experiment, self.choice, names)
        super().__init__(run.output, "reproducibility", name, recipe, identity=identity)

    def write(self, compared: Compared) -> None:
        """Draw and report; the manifest comes last."""
        self.write_files(self._files(compared))

    def _files(self, compared: Compared) -> Iterator[tuple[str, bytes]]:
        config = self.config(left_out=compared.left_out)
        yield CONFIG, config.encode()
        yield SCORES, _scores_json(compared).encode()
        yield TABLE, _scores_parquet(compared.study)
        drawn = Drawn(_figures(compared))
        yield from drawn.files()
        changed = options(ReproducibilityExperiment(), self.experiment)
        changed += options(DEFAULT_DESCRIPTOR, self.choice)
        report = ReproducibilityReport(
            title=f"Reproducibility: {', '.join(compared.study.names)}",
            answer=answer(compared.study),
            figures=drawn.captioned,
            study=compared.study,
            sets=compared.lines,
            descriptor=compared.descriptor,
            joined_by=compared.joined_by,
            left_out=compared.left_out,
            recipe=config,
            command=" ".join(["python jobs/reproducibility.py", *changed]),
            links=[(name, name) for name in (SCORES, TABLE, CONFIG)],
        )
        yield REPORT, render(report).encode()

    def print_summary(self) -> None:
        """Every pair's agreement and the answer, on the console."""
        scores = json.loads(self.read(SCORES))
        print()
        for row in scores["scores"]:
            if row["score"] in FRACTIONS:
                print(
                    f"{row['score']:<14}{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]  "
                    f"chance {row['null']:.3f}   {row['first']}, {row['second']}"
                )
        print()
        print("\n".join(scores["answer"]))
        print(f"\nreport    {self.location.child(REPORT).uri}")


def default_name(
    experiment: ReproducibilityExperiment, choice: DescriptorOptions, names: Sequence[str]
) -> str:
    """Name of the result folder, ``edm-vs-ct-1a2b3c4d``: the sets by name, and a hash of all options."""
    shown = [slug(name) or "set" for name in names[:3]]
    more = f"-and-{len(names) - 3}-more" if len(names) > 3 else ""
    text = to_json(experiment) + to_json(choice)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{'-vs-'.join(shown)[:80]}{more}-{digest}"


def _figures(compared: Compared) -> Iterator[tuple[str, str, Figure]]:
    """(file name, one-line caption, figure)."""
    study = compared.study
    yield (
        "rp",
        "Fraction of seeds for which two models make the same image, with 95% intervals.",
        agreement_matrix(study, "rp"),
    )
    yield (
        "same-noise",
        "What each model makes of the same noise; below, the similarity to the first model's image.",
        _sheet(compared),
    )
    yield (
        "similarity",
        "Similarity of two models' images: of the same seed (filled), of different seeds (dotted).",
        pair_histogram(study),
    )
    yield (
        "rp-calibrated",
        "The same matrix at the threshold that images of different seeds seldom reach.",
        agreement_matrix(study, "rp_calibrated"),
    )
    yield (
        "mae",
        "Fraction of seeds whose two images nearly agree in every pixel, with 95% intervals.",
        agreement_matrix(study, "mae_score"),
    )


def _sheet(compared: Compared) -> Figure:
    study, first = compared.study, compared.sets[0]
    rows = [
        ModelRow(
            name=one.name,
            images=one.images[:COLUMNS],
            similarity=None
            if one is first
            else study.agreements[first.name, one.name].similarity[:COLUMNS],
        )
        for one in compared.sets
    ]
    return model_sheet(rows, first.ids[:COLUMNS].tolist(), threshold=study.rules.threshold)


def _scores_json(compared: Compared) -> str:
    study = compared.study
    return to_json(
        {
            "answer": answer(study),
            "names": study.names,
            "num_seeds": study.num_seeds,
            "joined_by": compared.joined_by,
            "left_out": compared.left_out,
            "descriptor": compared.descriptor,
            "thresholds": {
                "rp": study.rules.threshold,
                "rp_calibrated": study.calibrated,
                "mae_score": study.rules.mae_threshold,
            },
            "calibration_quantile": study.rules.quantile,
            "null": {"couples_per_pair": study.num_couples, "exact": study.exact},
            "matrices": {name: study.values(name) for name in reproducibility.SCORES},
            "scores": [row.record() for row in study.rows],
        }
    )


def _scores_parquet(study: ReproducibilityStudy) -> bytes:
    records = [row.record() for row in study.rows]
    texts, counts = ("score", "first", "second", "descriptor"), ("n",)
    schema = pa.schema(
        [
            (name, pa.string() if name in texts else pa.int64() if name in counts else pa.float64())
            for name in records[0]
        ]
    )
    return parquet_bytes(pa.Table.from_pylist(records, schema=schema))
