"""The results of a study of spectra: files for people, and for other programs."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from regimes.descriptors.options import DescriptorOptions
from regimes.figures import spectrum as figures
from regimes.figures.classifier_curves import captions, curves_figure
from regimes.gaussians.fit import Labels
from regimes.jobs.support.console import RunOptions
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
from regimes.jobs.support.spectrum.experiment import PIXELS, SpectrumExperiment, plain_name
from regimes.report import render
from regimes.report.spectrum import SpectrumReport
from regimes.spectra.files import published_files, spectrum_bytes
from regimes.spectra.leading import Leading, leading
from regimes.spectra.matrix import Spectrum
from regimes.spectra.rows import Rows
from regimes.storage.artifacts import Recipe, to_json
from regimes.studies.classifier_curves import ClassifierCurves
from regimes.studies.classifier_curves_words import answer as classifier_answer
from regimes.studies.spectrum import SpectrumStudy
from regimes.studies.spectrum_words import answer


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumResultsRecipe(Recipe):
    """What determines the results."""

    kind: ClassVar[str] = "spectrum-study"
    code_version: ClassVar[int] = 3

    experiment: SpectrumExperiment
    descriptor: DescriptorOptions
    sets: tuple[tuple[str, str], ...]
    """(name, fingerprint) of everything compared."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The rows of every set, and what was found in them."""

    rows: Mapping[str, Rows]
    labels: Mapping[str, Labels | None]
    where: Mapping[str, str]
    what: str
    """What rows are."""
    shape: tuple[int, int, int] | None
    """(H, W, C) of images; None for features."""
    notes: Sequence[str]
    saved: Mapping[str, Spectrum]
    studies: Sequence[SpectrumStudy] = field(default_factory=list)
    curves: ClassifierCurves | None = None


class SpectrumResults(ResultFolder):
    """``<output>/spectrum/<name>/``."""

    def __init__(
        self,
        run: RunOptions,
        experiment: SpectrumExperiment,
        choice: DescriptorOptions,
        fingerprints: Mapping[str, str],
    ) -> None:
        self.experiment, self.choice = experiment, choice
        recipe = SpectrumResultsRecipe(
            experiment=experiment, descriptor=choice, sets=tuple(fingerprints.items())
        )
        name = run.name or _default_name(recipe)
        identity = ("experiment", "descriptor", "sets")
        super().__init__(run.output, "spectrum", name, recipe, identity=identity)

    def write(self, found: Measured) -> None:
        """Draw and report; the manifest comes last."""
        self.write_files(self._files(found))

    def _files(self, found: Measured) -> Iterator[tuple[str, bytes]]:
        config, first = self.config(), found.studies[0]
        yield CONFIG, config.encode()
        yield SCORES, _scores_json(found, self._mixture).encode()
        yield TABLE, _scores_parquet(found.studies)
        yield from self._spectra(found)
        principal = self._principal(found)
        for name, result in principal.items():
            yield f"principal/{slug(name)}.npz", _principal_bytes(result)
        drawn = Drawn(_figures(found, principal))
        yield from drawn.files()
        report = SpectrumReport(
            title=f"Spectra: {self.experiment.real}",
            answer=_answer(found, self._mixture),
            figures=drawn.captioned,
            studies=found.studies,
            sets=[
                (n, w, len(found.rows[n]) if n in found.rows else first.num_rows)
                for n, w in found.where.items()
            ],
            measured=found.what,
            mixture=self._mixture,
            notes=found.notes,
            recipe=config,
            command=" ".join(["python jobs/spectrum.py", *self._changed]),
            links=[(name, name) for name in (SCORES, TABLE, CONFIG, "spectra/")],
        )
        yield REPORT, render(report).encode()

    @property
    def _mixture(self) -> str:
        return self.experiment.mixture.words if self.experiment.with_mixture else ""

    @property
    def _changed(self) -> list[str]:
        """The command-line options that make this experiment of the default one."""
        usual = SpectrumExperiment()
        plain = dataclasses.replace(self.experiment, measure=usual.measure)
        return [
            *options(usual, plain),
            *options(usual.measure, self.experiment.measure),
            *options(PIXELS, self.choice),
        ]

    def _spectra(self, found: Measured) -> Iterator[tuple[str, bytes]]:
        """One self-describing file per spectrum, and the published ones on request."""
        for study in found.studies:
            folder = "spectra" if study.group == "all images" else f"spectra/{slug(study.group)}"
            for name, spectrum in study.spectra.items():
                about = {
                    "set": name,
                    "group": study.group,
                    "rows": found.what,
                    "source": found.where.get(name, found.where["real"]),
                    "fingerprint": dict(self.recipe.sets).get(name, ""),  # type: ignore[attr-defined]
                    "seed": study.config.seed,
                }
                yield f"{folder}/{_file_name(name)}.npz", spectrum_bytes(spectrum, **about)
        if self.experiment.published_names:
            n = found.studies[0].num_rows
            for name, rows in found.rows.items():
                some = rows.take(np.arange(n))
                for file, content in published_files(_file_name(name), some).items():
                    yield f"published/{file}", content

    def _principal(self, found: Measured) -> dict[str, Leading]:
        """Leading directions of all rows of every set; none of features, which are no pictures."""
        k = self.experiment.principal
        if k == 0 or found.shape is None:
            return {}
        return {
            name: leading(rows, min(k, *(s - 1 for s in rows.shape)), solver=self.experiment.solver)
            for name, rows in found.rows.items()
        }

    @cached_property
    def _stored(self) -> dict:
        return json.loads(self.read(SCORES))

    def print_summary(self) -> None:
        """The table and the answer, on the console."""
        print()
        for row in self._stored["scores"]:
            if row["group"] == "all images":
                verdict = "differs" if row["differs"] else "inside the floor"
                print(
                    f"{row['set']:<22.22} KS {row['ks']:.3f} (halves {row['ks_null']:.3f}, 95% "
                    f"{row['ks_null_95']:.3f})   W1 {row['w1']:.3f} ({row['w1_null']:.3f}, "
                    f"{row['w1_null_95']:.3f})   {verdict}"
                )
        print()
        print("\n".join(self._stored["answer"]))
        print(f"\nreport    {self.location.child(REPORT).uri}")


def _default_name(recipe: SpectrumResultsRecipe) -> str:
    digest = hashlib.sha256(to_json(recipe).encode()).hexdigest()[:8]
    return f"{slug(recipe.experiment.real) or 'images'}-{digest}"


def _file_name(name: str) -> str:
    return slug(plain_name(name)) or "set"


def _principal_bytes(found: Leading) -> bytes:
    """Arrays mean (D,), directions (k, D), eigenvalues (k,) and explained (k,)."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        mean=found.mean,
        directions=found.directions,
        eigenvalues=found.spectrum.values,
        explained=found.explained,
    )
    return buffer.getvalue()


def _figures(
    found: Measured, principal: Mapping[str, Leading]
) -> Iterator[tuple[str, str, Figure]]:
    """(file name, one-line caption, figure)."""
    study = found.studies[0]
    yield (
        "rank",
        "Eigenvalues by rank; pale: the other half of the real images.",
        figures.rank_curves(study),
    )
    yield (
        "quantiles",
        "Eigenvalues against those of real images at the same rank.",
        figures.quantiles(study),
    )
    yield (
        "density",
        "Density of eigenvalues per decade; dotted: what sampling makes of the mixture's own covariance.",
        figures.densities(study),
    )
    yield "tails", "Share of eigenvalues above a size.", figures.tails(study)
    yield "norms", "Lengths of images as vectors.", figures.norm_histograms(study)
    if principal and found.shape is not None:
        shown = {n: (p.mean, p.directions, p.explained) for n, p in principal.items()}
        yield (
            "principal",
            "Mean and principal images of all images of every set, with explained variance.",
            figures.principal_sheet(shown, found.shape),
        )
    if found.curves is not None:
        for name, caption in captions(found.curves).items():
            yield name, caption, curves_figure(found.curves)


def _answer(found: Measured, mixture: str) -> list[str]:
    """Of spectra, and of classifiers where there are some."""
    more = [] if found.curves is None else classifier_answer(found.curves)
    return list(dict.fromkeys([*answer(found.studies[0], mixture), *more]))


def _records(studies: Sequence[SpectrumStudy]) -> list[dict[str, object]]:
    rows = []
    for study in studies:
        for comparison in study.comparisons:
            rows.append({"group": study.group, "against": "halves"} | comparison.record())
        if study.control is not None:
            row = {"group": study.group, "against": "control"} | study.control.record()
            rows.append(row)
    return rows


def _scores_json(found: Measured, mixture: str) -> str:
    rows, first = _records(found.studies), found.studies[0]
    return to_json(
        {
            "answer": _answer(found, mixture),
            "classifiers": None if found.curves is None else found.curves.records(),
            "scores": [row for row in rows if row["against"] == "halves"],
            "control": [row for row in rows if row["against"] == "control"],
            "norms": first.norm_tests,
            "spikes": {c.name: c.spikes for c in first.comparisons},
            "quantisation": first.quantisation,
            "population": None if first.population is None else first.population.tolist(),
        }
    )


def _scores_parquet(studies: Sequence[SpectrumStudy]) -> bytes:
    return parquet_bytes(pa.Table.from_pylist(_records(studies)))
