"""Which samples are new beside the real images, and are they more than chance? Select, judge, report.

python jobs/diverse.py --real cifar10.zip --generated samples/ --heldout cifar10-test.zip
python jobs/diverse.py --real A --generated ddim/ plms/ dpm-solver/ unipc/ --rule calibrated pca-hull
python jobs/diverse.py --real A --generated B --rule tsne-hull --descriptor squeezenet --output results
python jobs/diverse.py --real A --model ldm-folder --schedulers ddim plms dpm-solver++ unipc --num-steps 8

Sets are images that exist, or a diffusers pipeline that is sampled first, by one scheduler or several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
from regimes.jobs.support.diverse.cost import print_plan
from regimes.jobs.support.diverse.experiment import (
    DiverseExperiment,
    DiverseFeatures,
    OpenDiverseSets,
    compared,
    unit_label,
)
from regimes.jobs.support.diverse.maps import Maps
from regimes.jobs.support.diverse.results import Diverse, DiverseResults, default_name
from regimes.jobs.support.diverse.sampling import (
    SampledSets,
    make_samples,
    print_sampling_plan,
    result_name,
    sample_recipes,
    whereabouts,
    with_samples,
)
from regimes.jobs.support.result_folder import options
from regimes.storage.artifacts import Store
from regimes.studies.diverse import DiverseStudy, find_diverse, num_steps
from regimes.words import counted


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv), skips_bad_images=True)


def _main(argv: Sequence[str] | None) -> int:
    given, asked, choice, run = console.read_options(
        argv,
        [DiverseExperiment(), SampledSets(), DEFAULT_DESCRIPTOR, RunOptions()],
        job="diverse",
        about=__doc__ or "",
    )
    store = Store(run.output)
    recipes = sample_recipes(store, asked, keep=not run.dry_run)
    experiment = with_samples(given, store, recipes)
    if recipes:
        # What can be refused is refused before anything is sampled.
        DiverseFeatures(store, given, choice, OpenDiverseSets(given, complete=False))
        if not run.dry_run:
            make_samples(store, asked, recipes, run)
        elif store.missing(recipes.values()):
            print_sampling_plan(asked)
            return 0
        run = replace(run, name=run.name or result_name(asked, default_name(experiment, choice)))
    sets = OpenDiverseSets(experiment)
    plan = DiverseFeatures(store, experiment, choice, sets)
    command = [*options(DiverseExperiment(), given), *options(SampledSets(), asked)]
    results = DiverseResults(run, experiment, choice, plan.network, sets.fingerprints, command)
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
        results.write(_select(plan, run, whereabouts(asked, recipes)))
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


def _select(plan: DiverseFeatures, run: RunOptions, where: dict[str, str]) -> Diverse:
    """Apply every rule to every set; ``where`` says of sets what they were sampled from."""
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
        stage.done(f"{counted(len(study.findings), 'row')}, {counted(len(rules.names), 'rule')}")
    return Diverse(
        study=study,
        rows=rows,
        read=read,
        lines=[
            replace(line, where=where.get(line.name, line.where))
            for line in set_lines(plan, rows, read)
        ],
        descriptor=plan.words,
        fitted=plan.fitted,
        raw=plan.raw,
        notes=[*plan.sets.warnings(), *plain_images(rows)],
        left_out=missing,
    )


if __name__ == "__main__":
    console.leave(main())
