"""Which samples are new beside the real images, and are they more than chance? Select, judge, report.

python jobs/diverse.py --real cifar10.zip --generated samples/ --heldout cifar10-test.zip
python jobs/diverse.py --real A --generated ddim/ plms/ dpm-solver/ unipc/ --rule calibrated pca-hull
python jobs/diverse.py --real A --generated B --rule tsne-hull --descriptor squeezenet --output results

Sets are images that exist: sample them first, one set per sampler or solver, and compare them here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from regimes.actors.runtime import RayRuntime
from regimes.errors import ConfigError
from regimes.jobs.support import console
from regimes.jobs.support.chosen_descriptor import DEFAULT_DESCRIPTOR
from regimes.jobs.support.console import RunOptions, Stage
from regimes.jobs.support.described_sets import (
    image_reader,
    left_out,
    plain_images,
    set_lines,
)
from regimes.jobs.support.diverse import (
    DiverseExperiment,
    DiverseFeatures,
    OpenDiverseSets,
    compared,
    unit_label,
)
from regimes.jobs.support.diverse_cost import print_plan
from regimes.jobs.support.diverse_maps import Maps
from regimes.jobs.support.diverse_results import Diverse, DiverseResults
from regimes.storage.artifacts import Store
from regimes.studies.diverse import DiverseStudy, find_diverse, num_steps


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    experiment, choice, run = console.read_options(
        argv,
        [DiverseExperiment(), DEFAULT_DESCRIPTOR, RunOptions()],
        job="diverse",
        about=__doc__ or "",
    )
    sets = OpenDiverseSets(experiment)
    store = Store(run.output)
    plan = DiverseFeatures(store, experiment, choice, sets)
    results = DiverseResults(run, experiment, choice, plan.network, sets.fingerprints)
    sets.warn()
    if run.dry_run:
        print_plan(plan, results)
        return 0
    if run.resume:
        results.check_name()
    else:
        results.remove()
        Maps(plan).remove()
        plan.remove()
    if results.is_complete():
        print("complete: nothing to compute")
    else:
        _describe(plan, run)
        results.write(_select(plan, run))
    results.print_summary()
    return 0


def _describe(plan: DiverseFeatures, run: RunOptions) -> None:
    """Make the descriptors of all sets, those of earlier runs kept."""
    plan.ingest()
    plan.fit()
    runtime = RayRuntime(run.cpus)
    try:
        plan.describe(runtime, run)
    finally:
        runtime.close()


def _select(plan: DiverseFeatures, run: RunOptions) -> Diverse:
    """Apply every rule to every set."""
    unit, raw = plan.read()
    rows = unit_label(unit)
    missing, read = left_out(plan, rows), image_reader(plan, rows)
    device = "cuda" if torch.cuda.is_available() and run.device != "cpu" else "cpu"
    rules, sets = plan.experiment.rules, compared(rows)
    steps = num_steps(rules, len(sets.generated), heldout=sets.heldout is not None)
    with Stage("select", steps, "step") as stage:
        try:
            study: DiverseStudy = find_diverse(
                sets,
                rules,
                compared(raw) if raw else None,
                stage.advance,
                make_map=Maps(plan).make,
                device=device,
            )
        except ValueError as error:
            raise ConfigError(str(error)) from error
        stage.done(f"{len(study.findings)} rows, {len(rules.names)} rules")
    return Diverse(
        study=study,
        rows=rows,
        read=read,
        lines=set_lines(plan, rows, read),
        descriptor=plan.words,
        fitted=plan.fitted,
        raw=plan.raw,
        notes=[*plan.sets.warnings(), *plain_images(rows)],
        left_out=missing,
    )


if __name__ == "__main__":
    sys.exit(main())
