"""The results of an audit: files for people, and for other programs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from regimes.descriptors.network import NetworkConfig
from regimes.descriptors.options import DescriptorOptions
from regimes.figures.audit import exceedance, similarity_audit
from regimes.figures.gallery import COLUMNS, gallery_sheet
from regimes.jobs.support.audit.experiment import AuditExperiment
from regimes.jobs.support.audit.gallery import Gallery
from regimes.jobs.support.chosen_descriptor import DEFAULT_DESCRIPTOR
from regimes.jobs.support.console import RunOptions
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
from regimes.report import render
from regimes.report.audit import AuditReport, DuplicateLine
from regimes.report.reproducibility import SetLine
from regimes.scores.duplicates import DuplicateGroups
from regimes.scores.result import Score
from regimes.storage.artifacts import Recipe, to_json
from regimes.studies.audit import Copies, counts
from regimes.studies.audit_alarms import Alarm, alarms
from regimes.studies.audit_words import answer, finding, null_range, real_name

DUPLICATES = "duplicates.parquet"
_SHOWN_GROUPS, _SHOWN_IDS = 10, 8
_BORDERLINE = "Around the threshold: is the rule right about these?"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecipe(Recipe):
    """What determines the results of an audit."""

    kind: ClassVar[str] = "audit"
    code_version: ClassVar[int] = 5

    experiment: AuditExperiment
    descriptor: str
    network: NetworkConfig | None
    """With the hash of its weights."""
    fingerprints: dict[str, str]
    """Of every set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """Everything that results are written from."""

    copies: Copies
    metrics: Sequence[Score]
    duplicates: dict[str, DuplicateGroups]
    """Of train and generated."""
    gallery: Gallery
    lines: Sequence[SetLine]
    descriptor: str
    """In words."""
    notes: Sequence[str]
    """What the run noticed, for the cautions."""
    left_out: dict[str, int]
    """Unreadable images of every set."""


class AuditResults(ResultFolder):
    """``<output>/audit/<name>/``."""

    def __init__(
        self,
        run: RunOptions,
        experiment: AuditExperiment,
        choice: DescriptorOptions,
        network: NetworkConfig | None,
        fingerprints: dict[str, str],
    ) -> None:
        self.experiment, self.choice = experiment, choice
        recipe = AuditRecipe(
            experiment=experiment,
            descriptor=choice.descriptor,
            network=network,
            fingerprints=fingerprints,
        )
        name = run.name or default_name(experiment, choice)
        identity = ("experiment", "descriptor", "network", "fingerprints")
        super().__init__(run.output, "audit", name, recipe, identity=identity)

    def write(self, audited: Audited) -> None:
        """Draw and report; the manifest comes last."""
        self.write_files(self._files(audited))

    def _files(self, audited: Audited) -> Iterator[tuple[str, bytes]]:
        config = self.config(left_out=audited.left_out)
        yield CONFIG, config.encode()
        yield SCORES, scores_json(audited).encode()
        yield TABLE, parquet_bytes(image_table(audited))
        yield METRICS, parquet_bytes(pa.Table.from_pylist(_records(audited)))
        yield DUPLICATES, parquet_bytes(_duplicate_table(audited.duplicates))
        yield from audited.gallery.files()
        drawn = Drawn(_figures(audited))
        yield from drawn.files()
        yield REPORT, render(self._report(audited, drawn, config)).encode()

    def _report(self, audited: Audited, drawn: Drawn, config: str) -> AuditReport:
        changed = options(AuditExperiment(), self.experiment)
        changed += options(DEFAULT_DESCRIPTOR, self.choice)
        files = (SCORES, TABLE, METRICS, DUPLICATES, CONFIG)
        return AuditReport(
            title=f"Copy audit: {self.experiment.generated}",
            answer=answer(audited.copies),
            figures=drawn.captioned,
            copies=audited.copies,
            sets=audited.lines,
            descriptor=audited.descriptor,
            metrics=audited.metrics,
            duplicates=_duplicate_lines(audited.duplicates),
            gallery=(len(audited.gallery.order), audited.gallery.num_pages),
            notes=audited.notes,
            recipe=config,
            command=" ".join(["python jobs/audit.py", *changed]),
            links=[(name, name) for name in files],
        )

    def print_summary(self) -> None:
        """Every metric and the answer, on the console."""
        scores = json.loads(self.read(SCORES))
        print()
        for row in scores["metrics"]:
            interval = "" if row["low"] is None else f"[{row['low']:.4g}, {row['high']:.4g}]"
            null = "" if row["null"] is None else f"null {row['null']:.4g}"
            if row["null_low"] is not None:
                null += f" [{row['null_low']:.4g}, {row['null_high']:.4g}]"
            print(f"{row['metric']:<26}{row['value']:<12.4g}{interval:<25} {null}".rstrip())
        print()
        print("\n".join(scores["answer"]))
        print(f"\ngallery   {self.location.child('gallery/page-001.html').uri}")
        print(f"report    {self.location.child(REPORT).uri}")

    def alarms(self) -> dict[Alarm, str]:
        """What should stop a release, by rule; see ``studies.audit_alarms``."""
        found: dict[Alarm, str] = json.loads(self.read(SCORES))["alarms"]
        return found


def default_name(experiment: AuditExperiment, choice: DescriptorOptions) -> str:
    """Name of the result folder: the sets by name, and a hash of all options."""
    shown = [slug(spec or "") or "set" for spec in (experiment.generated, experiment.train)]
    text = to_json(experiment) + to_json(choice)
    return f"{'-in-'.join(shown)[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def record(score: Score) -> dict[str, Any]:
    """A metric as plain values; NaN becomes null."""
    numbers = ("value", "low", "high", "null", "threshold")
    plain: dict[str, Any] = {"metric": score.name}
    for name in numbers:
        value = float(getattr(score, name))
        plain[name] = value if math.isfinite(value) else None
    return plain | {
        "num_generated": score.num_generated,
        "num_train": score.num_train,
        "descriptor": score.descriptor,
        "higher_is_better": score.higher_is_better,
    }


def _records(audited: Audited) -> list[dict[str, Any]]:
    """All metrics, with the ranges of their nulls."""
    found = []
    for score in audited.metrics:
        low, high = null_range(audited.copies, score) or (None, None)
        found.append(record(score) | {"null_low": low, "null_high": high})
    return found


def image_table(audited: Audited) -> pa.Table:
    """One row per generated image."""
    c = audited.copies
    train = audited.duplicates["train"]
    sizes = np.bincount(train.first, minlength=len(train.first))
    g = c.generated
    columns: dict[str, Any] = {
        "id": [str(i) for i in audited.gallery.generated_ids],
        "nearest_id": [str(train.ids[i]) for i in g.nearest],
        "similarity": g.similarity,
        "similarity_unflipped": g.unflipped,
        "p_value": c.p_value,
        "d1": g.d1,
        "d2": g.d2,
        "ratio": g.ratio,
        "is_copy": c.is_copy,
        "is_identical": c.identical,
        "is_flip": c.is_flip,
        "is_beyond_real": c.is_beyond,
        "is_copy_ratio": c.is_ratio,
        **{f"is_copy_published_{t:g}": c.is_published(t) for t in c.rules.published},
        "nearest_group": train.first[g.nearest],
        "nearest_group_size": sizes[train.first[g.nearest]],
    }
    return pa.table(columns)


def scores_json(audited: Audited) -> str:
    """The answer, the rules, the counts and the metrics."""
    c = audited.copies
    t = c.threshold
    return to_json(
        {
            "answer": answer(c),
            "alarms": alarms(c),
            "descriptor": audited.descriptor,
            "reference": c.reference,
            "threshold": {"value": t.value, "low": t.low, "high": t.high, "quantile": t.quantile},
            "num_generated": len(c.is_copy),
            "num_train": t.num_train,
            "num_reference": t.num_heldout,
            "counts": {"copies": int(c.is_copy.sum()), **counts(c)},
            "left_out": audited.left_out,
            "notes": list(audited.notes),
            "metrics": _records(audited),
        }
    )


def _duplicate_table(sets: dict[str, DuplicateGroups]) -> pa.Table:
    rows = [
        {"set": name, "group": group, "id": str(image_id)}
        for name, found in sets.items()
        for group, ids in enumerate(found.groups())
        for image_id in ids
    ]
    schema = pa.schema([("set", pa.string()), ("group", pa.int64()), ("id", pa.string())])
    return pa.Table.from_pylist(rows, schema=schema)


def _duplicate_lines(sets: dict[str, DuplicateGroups]) -> list[DuplicateLine]:
    return [
        DuplicateLine(where=name, size=len(ids), ids=tuple(map(str, ids[:_SHOWN_IDS])))
        for name, found in sets.items()
        for ids in found.groups()[:_SHOWN_GROUPS]
    ]


def _figures(audited: Audited) -> Iterator[tuple[str, str, Figure]]:
    """(file name, one-line caption, figure)."""
    c, gallery = audited.copies, audited.gallery
    title = finding(c)
    yield (
        "nearest",
        "The generated images that are nearest to a training image, above that image.",
        gallery_sheet(gallery.pairs(0, 2 * COLUMNS), title, gallery.note),
    )
    yield (
        "borderline",
        "The copies that are closest to the calibrated threshold, and the images just below it.",
        gallery_sheet(gallery.borderline(COLUMNS), _BORDERLINE, gallery.note),
    )
    levels = c.rules.published
    values = c.generated.similarity, c.real_similarity, c.threshold
    yield (
        "similarity",
        "Similarity to the nearest training image; shares on a log axis.",
        similarity_audit(*values, title=title, real_name=real_name(c)),
    )
    yield (
        "thresholds",
        "The share of images above every threshold, with 95% intervals.",
        exceedance(*values, levels, title=title, real_name=real_name(c)),
    )
