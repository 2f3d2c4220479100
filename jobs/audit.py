"""Which generated images copy training images? Compare two folders, look at the pairs, and report.

python jobs/audit.py --train cifar10.zip --generated samples/ --heldout cifar10-test.zip
python jobs/audit.py --train A --generated B --heldout C --descriptor sscd-disc-mixup --count-flips
python jobs/audit.py --train A --generated B --heldout C --fail-on copies    # exit status 3 if so
python jobs/audit.py --train A --generated B --descriptor torchscript:my_descriptor.pt --output results
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch

from regimes.actors.neighbours import ShardedSearch
from regimes.actors.runtime import RayRuntime
from regimes.errors import ConfigError
from regimes.jobs.support import console
from regimes.jobs.support.audit.cost import print_plan
from regimes.jobs.support.audit.experiment import (
    AuditedSets,
    AuditExperiment,
    AuditFeatures,
    AuditOptions,
)
from regimes.jobs.support.audit.gallery import Gallery, pixel_comparison
from regimes.jobs.support.audit.results import Audited, AuditResults
from regimes.jobs.support.chosen_descriptor import DEFAULT_DESCRIPTOR
from regimes.jobs.support.console import Stage
from regimes.jobs.support.described_sets import (
    image_reader,
    left_out,
    plain_images,
    set_lines,
)
from regimes.jobs.support.set_features import MIRRORED
from regimes.scores.approximate import ApproximateSearch
from regimes.scores.neighbours import Search, nearest
from regimes.storage.artifacts import Store
from regimes.studies.audit import AuditSets, find_copies
from regimes.studies.audit_alarms import ALARMS
from regimes.studies.audit_matches import Repeats
from regimes.studies.audit_metrics import NUM_METRIC_STEPS, Limits, all_scores, duplicate_groups
from regimes.words import counted

FAILED = 3
"""Exit status where copies were found that were not to be."""
_FLIPS = "Mirrored copies were not looked for, not even exact ones: --count-flips does."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv), skips_bad_images=True)


def _main(argv: Sequence[str] | None) -> int:
    experiment, choice, run = console.read_options(
        argv,
        [AuditExperiment(), DEFAULT_DESCRIPTOR, AuditOptions()],
        job="audit",
        about=__doc__ or "",
    )
    _check_search(experiment, run)
    sets = AuditedSets(experiment)
    store = Store(run.output)
    plan = AuditFeatures(store, experiment, choice, sets)
    results = AuditResults(run, experiment, choice, plan.network, sets.fingerprints)
    sets.warn()
    if run.dry_run:
        print_plan(plan, results)
        return 0
    if run.resume:
        results.check_name()
    else:
        results.remove()
        plan.remove()
    if results.is_complete():
        print("complete: nothing to compute")
    else:
        runtime = RayRuntime(run.cpus)
        try:
            _describe(plan, runtime, run)
            results.write(_audit(plan, runtime, run))
        finally:
            runtime.close()
    results.print_summary()
    return _gate(results, run)


def _gate(results: AuditResults, run: AuditOptions) -> int:
    """The exit status that was asked for, with its reasons."""
    found = results.alarms()
    watched = {"nothing": (), "exact": ("exact",), "copies": ALARMS}[run.fail_on]
    reasons = [found[rule] for rule in watched if rule in found]
    for reason in reasons:
        print(f"failed: --fail-on {run.fail_on}: {reason}", file=sys.stderr)
    return FAILED if reasons else 0


def _check_search(experiment: AuditExperiment, run: AuditOptions) -> None:
    """The inverted file is one: it is not spread over actors."""
    if experiment.index == "ivf" and run.shards > 1:
        raise ConfigError(
            f"--shards {run.shards}: --index ivf searches in this process; leave out one of the two"
        )


def _describe(plan: AuditFeatures, runtime: RayRuntime, run: AuditOptions) -> None:
    """Make the descriptors of all sets, those of earlier runs kept."""
    plan.ingest()
    plan.fit()
    plan.describe(runtime, run)
    if run.shards == 1:
        runtime.close()  # its processes would take time from the search


@contextlib.contextmanager
def _search(
    experiment: AuditExperiment, runtime: RayRuntime, run: AuditOptions, device: str
) -> Iterator[Search]:
    """How neighbours are searched."""
    if experiment.index == "ivf":
        yield ApproximateSearch()
    elif run.shards == 1:
        yield partial(nearest, device=device)
    else:
        search = ShardedSearch(runtime, run.shards, run.device)
        yield search
        search.close()


def _audit(plan: AuditFeatures, runtime: RayRuntime, run: AuditOptions) -> Audited:
    """Compare and count."""
    experiment = plan.experiment
    rows, raw = plan.read()
    missing = left_out(plan, rows)
    read = image_reader(plan, rows)
    sets = AuditSets(
        train=rows["train"],
        generated=rows["generated"],
        heldout=rows.get("heldout"),
        mirrored=rows.get(MIRRORED),
        is_fitted=plan.descriptor.fit is not None and plan.descriptor.also is None,
    )
    device = "cuda" if torch.cuda.is_available() and run.device != "cpu" else "cpu"
    with (
        _search(experiment, runtime, run, device) as search,
        Stage("compare", NUM_METRIC_STEPS, "step") as stage,
    ):
        close = experiment.duplicate_distance
        same = duplicate_groups(rows["train"], rows.get(MIRRORED), close, device=device)
        stage.advance()
        again = duplicate_groups(rows["generated"], None, close, device=device)
        stage.advance()
        held = rows.get("heldout")
        repeats = Repeats(
            generated=again.first,
            heldout=np.zeros(0, np.int64)
            if held is None
            else duplicate_groups(held, None, close, device=device).first,
        )
        same_pixels = pixel_comparison(read)
        copies = find_copies(
            sets,
            experiment.rules,
            same.first,
            same_pixels,
            stage.advance,
            search=search,
            repeats=repeats,
        )
        limits = Limits(manifold=experiment.manifold_images, device=device)
        metrics = all_scores(copies, sets, raw, (same, again), limits, stage.advance)
        stage.done(f"{counted(len(metrics), 'metric')} of {len(sets.generated):,} generated images")
    ids = {name: [str(i) for i in rows[name].ids] for name in ("train", "generated")}
    return Audited(
        copies=copies,
        metrics=metrics,
        duplicates={"train": same, "generated": again},
        gallery=Gallery(copies, ids["generated"], ids["train"], read, experiment.gallery_pairs),
        lines=set_lines(plan, rows, read),
        descriptor=plan.words,
        notes=[
            *plan.sets.warnings(),
            *plain_images(rows),
            *([] if experiment.count_flips else [_FLIPS]),
            *([search.words] if isinstance(search, ApproximateSearch) else []),
        ],
        left_out=missing,
    )


if __name__ == "__main__":
    console.leave(main())
