"""The results of a study of diverse samples: files for people, and for other programs."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from regimes.descriptors.network import NetworkConfig
from regimes.descriptors.options import DescriptorOptions
from regimes.figures.diverse import diverse_sheet, hull_map, shares
from regimes.images.writing import encode_png
from regimes.jobs.support.chosen_descriptor import DEFAULT_DESCRIPTOR
from regimes.jobs.support.console import RunOptions
from regimes.jobs.support.described_sets import ReadImage
from regimes.jobs.support.diverse.experiment import GENERATED, DiverseExperiment
from regimes.jobs.support.result_folder import (
    CONFIG,
    METRICS,
    REPORT,
    SCORES,
    TABLE,
    Drawn,
    ResultFolder,
    options,
    parquet_bytes,
    slug,
)
from regimes.noise import keyed_generator
from regimes.report import render
from regimes.report.diverse import DiverseReport
from regimes.report.reproducibility import SetLine
from regimes.scores.features import Features
from regimes.storage.artifacts import Recipe, to_json
from regimes.studies.diverse import DiverseStudy, Finding
from regimes.studies.diverse_words import answer, title, verdict
from regimes.words import counted

IMAGES = "diverse"
_SHEET = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class DiverseRecipe(Recipe):
    """What determines the results of a study."""

    kind: ClassVar[str] = "diverse"
    code_version: ClassVar[int] = 5

    experiment: DiverseExperiment
    descriptor: str
    network: NetworkConfig | None
    """With the hash of its weights."""
    fingerprints: dict[str, str]
    """Of every set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diverse:
    """Everything that results are written from."""

    study: DiverseStudy
    rows: dict[str, Features]
    """By the keys of the sets."""
    read: ReadImage
    lines: Sequence[SetLine]
    descriptor: str
    """In words."""
    fitted: bool
    """Whether the descriptor was fitted to the real images."""
    raw: bool
    """Whether hulls are drawn of features as the network gives them."""
    notes: Sequence[str]
    """What the run noticed, for the cautions."""
    left_out: dict[str, int]
    """Unreadable images of every set."""

    def chosen(self, name: str) -> np.ndarray:
        """Positions of the diverse samples of a set, by the first rule."""
        return np.flatnonzero(self.study.of(name, self.study.rules.names[0]).selected)

    def samples(self, name: str) -> Features:
        """Of one set."""
        return self.rows[f"{GENERATED}/{name}"]


class DiverseResults(ResultFolder):
    """``<output>/diverse/<name>/``; ``command`` are the options that its sets were given by."""

    def __init__(
        self,
        run: RunOptions,
        experiment: DiverseExperiment,
        choice: DescriptorOptions,
        network: NetworkConfig | None,
        fingerprints: dict[str, str],
        command: Sequence[str],
    ) -> None:
        self.experiment, self.choice, self.command = experiment, choice, command
        recipe = DiverseRecipe(
            experiment=experiment,
            descriptor=choice.descriptor,
            network=network,
            fingerprints=fingerprints,
        )
        name = run.name or default_name(experiment, choice)
        identity = ("experiment", "descriptor", "network", "fingerprints")
        super().__init__(run.output, "diverse", name, recipe, identity=identity)

    def write(self, found: Diverse) -> None:
        """Draw and report; the manifest comes last."""
        self.write_files(self._files(found))

    def _files(self, found: Diverse) -> Iterator[tuple[str, bytes]]:
        config = self.config(left_out=found.left_out)
        records = [record(f, found.rows) for f in found.study.findings]
        yield CONFIG, config.encode()
        yield SCORES, scores_json(found, records).encode()
        yield TABLE, parquet_bytes(image_table(found))
        yield METRICS, parquet_bytes(pa.Table.from_pylist(records))
        folders = {}
        if self.experiment.keep_images == "folder":
            folders = image_folders(found.study.names)
            for name, folder in folders.items():
                yield from _pngs(found, name, folder)
        drawn = Drawn(_figures(found))
        yield from drawn.files()
        yield REPORT, render(self._report(found, drawn, config, folders)).encode()

    def _report(
        self, found: Diverse, drawn: Drawn, config: str, folders: dict[str, str]
    ) -> DiverseReport:
        changed = [*self.command, *options(DEFAULT_DESCRIPTOR, self.choice)]
        kept = [(f"images of {n}", f) for n, f in folders.items() if len(found.chosen(n))]
        return DiverseReport(
            title=f"Diverse samples: {', '.join(found.study.names)}",
            answer=answer(found.study),
            figures=drawn.captioned,
            study=found.study,
            sets=found.lines,
            descriptor=found.descriptor,
            fitted=found.fitted,
            raw=found.raw,
            notes=found.notes,
            recipe=config,
            command=" ".join(["python jobs/diverse.py", *changed]),
            links=[*((name, name) for name in (SCORES, TABLE, METRICS, CONFIG)), *kept],
        )

    def print_summary(self) -> None:
        """The table and the answer, on the console."""
        scores = json.loads(self.read(SCORES))
        width = min(40, max(len(row["set"]) for row in scores["metrics"]))
        print()
        for row in scores["metrics"]:
            interval = f"[{row['low']:.2%}, {row['high']:.2%}]"
            print(
                f"{row['set']:<{width}} {row['rule']:<10} {row['count']:>8,} {row['fraction']:>8.2%} "
                f"{interval:<18} null {row['null']:.2%}: {row['expected']:,.1f} expected, up to "
                f"{row['critical']:,}; {row['verdict']}"
            )
            if row["mean_jaccard"] is not None:
                counts = ", ".join(map(str, row["seed_counts"]))
                print(
                    f"{'':<{width}} t-SNE seeds: counts {counts}; Jaccard overlap of the selections "
                    f"{row['mean_jaccard']:.2f}"
                )
        print()
        print("\n".join(scores["answer"]))
        print(f"\nreport    {self.location.child(REPORT).uri}")


def default_name(experiment: DiverseExperiment, choice: DescriptorOptions) -> str:
    """Name of the result folder: the sets by name, and a hash of all options."""
    specs = [*experiment.generated[:3], experiment.real]
    parts = [slug(spec or "") or "set" for spec in specs]
    text = to_json(experiment) + to_json(choice)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{'-'.join(parts[:-1])}-beside-{parts[-1]}"[:80] + f"-{digest}"


def record(finding: Finding, rows: dict[str, Features]) -> dict[str, Any]:
    """A row of the table as plain values; NaN becomes null."""
    s, plane, stability = finding.score, finding.plane, finding.stability
    threshold = float(s.threshold)
    return {
        "set": finding.set_name,
        "rule": finding.rule,
        "is_control": finding.is_control,
        "count": finding.count,
        "num_generated": s.num_generated,
        "fraction": s.value,
        "low": s.low,
        "high": s.high,
        "null": s.null,
        "expected": float(finding.expected),
        "critical": finding.critical,
        "exceeds_null": finding.exceeds_null,
        "verdict": verdict(finding),
        "threshold": threshold if math.isfinite(threshold) else None,
        "num_real": s.num_train,
        "descriptor": s.descriptor,
        "hull_vertices": len(plane.real_hull.vertices) if plane else None,
        "overlap_percent": float(plane.overlap_percent) if plane else None,
        "seed_counts": list(stability.counts) if stability else None,
        "mean_jaccard": stability.mean_overlap if stability else None,
    }


def image_table(found: Diverse) -> pa.Table:
    """One row per generated image."""
    return pa.concat_tables([_image_rows(found, name) for name in found.study.names])


def _image_rows(found: Diverse, name: str) -> pa.Table:
    study, samples = found.study, found.samples(name)
    positions, distance = study.nearest[name]
    columns: dict[str, Any] = {
        "set": [name] * len(samples),
        "id": [str(i) for i in samples.ids],
        "nearest_id": [str(i) for i in found.rows["real"].ids[positions]],
        "distance": distance,
    }
    for rule in study.rules.names:
        finding, word = study.of(name, rule), rule.replace("-", "_")
        columns[f"selected_{word}"] = finding.selected
        if rule == "calibrated":
            columns |= {gate: finding.score.per_item[gate] for gate in ("far", "plausible", "copy")}
        if finding.plane is not None:
            x, y = np.asarray(finding.plane.generated_points, np.float64).T
            columns |= {f"{word}_x": x, f"{word}_y": y}
        if finding.times_selected is not None:
            columns["tsne_hull_times_selected"] = finding.times_selected
    return pa.table(columns)


def scores_json(found: Diverse, records: Sequence[dict[str, Any]]) -> str:
    """The answer, the table and what the run noticed."""
    return to_json(
        {
            "answer": answer(found.study),
            "descriptor": found.descriptor,
            "calibrated_by": found.study.calibrated_by,
            "num_real": found.study.num_real,
            "metrics": list(records),
            "left_out": found.left_out,
            "notes": list(found.notes),
        }
    )


def image_folders(names: Sequence[str]) -> dict[str, str]:
    """Folder of the images of every set, beside the report."""
    folders: dict[str, str] = {}
    for number, name in enumerate(names):
        word = _word(name)
        taken = f"{IMAGES}/{word}" in folders.values() or not word
        folders[name] = f"{IMAGES}/{f'{word}-{number}' if taken else word}"
    return folders


def file_names(ids: Sequence[str]) -> list[str]:
    """A PNG file for every id: below the folder whatever the id is, and no two alike."""
    names: list[str] = []
    taken: set[str] = set()
    for image_id in ids:
        parts = [_word(part) for part in PurePosixPath(image_id).with_suffix("").parts]
        name = "/".join(part for part in parts if part) or "image"
        if name.lower() in taken:  # a.png and a.jpg, or A.png where case does not count
            name += f"-{hashlib.sha256(image_id.encode()).hexdigest()[:8]}"
        taken.add(name.lower())
        names.append(f"{name}.png")
    return names


def _word(text: str) -> str:
    """A part of a path as it can stand in one everywhere; class folders keep their names."""
    return re.sub(r"[^\w. -]+", "-", text).strip("-. ")


def _pngs(found: Diverse, name: str, folder: str) -> Iterator[tuple[str, bytes]]:
    chosen, ids = found.chosen(name), found.samples(name).ids
    files = file_names([str(ids[i]) for i in chosen])
    for position, file in zip(chosen, files, strict=True):
        yield f"{folder}/{file}", encode_png(found.read(f"{GENERATED}/{name}", int(position)))


def _figures(found: Diverse) -> Iterator[tuple[str, str, Figure]]:
    """(file name, one-line caption, figure)."""
    study = found.study
    yield (
        "shares",
        "The share of samples that every rule selects, with 95% intervals, beside its null.",
        shares(study.findings, title=_headline(study)),
    )
    for number, name in enumerate(study.names, start=1):
        if len(found.chosen(name)):
            yield (f"sheet-{number}", *_sheet(found, name))
    for finding in study.findings:
        if finding.plane is not None:
            place = "heldout" if finding.is_control else 1 + study.names.index(finding.set_name)
            yield (
                f"{finding.rule}-{place}",
                f"Real images and {finding.set_name} by {finding.rule}: both hulls and what they share.",
                hull_map(
                    finding.plane,
                    title=title(finding),
                    samples="held-out" if finding.is_control else "samples",
                ),
            )


def _sheet(found: Diverse, name: str) -> tuple[str, Figure]:
    """Caption and figure of the diverse images of a set, by the first rule."""
    first = found.study.of(name, found.study.rules.names[0])
    chosen = _drawn_at_random(found.chosen(name), name)
    part = f"{len(chosen)} of the {first.count:,}" if len(chosen) < first.count else "The"
    how = ", drawn at random" if len(chosen) < first.count else ""
    images = [found.read(f"{GENERATED}/{name}", int(i)) for i in chosen]
    caption = f"{part} diverse samples of {name} by rule {first.rule}{how}."
    return caption, diverse_sheet(images, title=title(first))


def _drawn_at_random(chosen: np.ndarray, name: str) -> np.ndarray:
    """At most 25, always the same ones: the farthest would be the broken ones."""
    order = keyed_generator("diverse sheet", name, len(chosen)).permutation(len(chosen))
    return np.sort(chosen[order[:_SHEET]])


def _headline(study: DiverseStudy) -> str:
    rows = study.samples
    more = sum(f.exceeds_null for f in rows)
    if len(rows) == 1:
        return title(rows[0])
    if not more:
        return f"No more than chance in any of {counted(len(rows), 'row')}: no evidence of anything new"
    return f"More than chance in {more} of {counted(len(rows), 'row')}"
