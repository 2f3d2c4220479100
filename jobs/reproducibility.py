"""Do models make the same image from the same noise? Compare sample sets seed by seed, and report.

python jobs/reproducibility.py --sets edm_samples ct_samples uvit_samples
python jobs/reproducibility.py --sets a.npz b/ --names EDM CT --fit cifar10.zip --seeds 0-9999
python jobs/reproducibility.py --sets network.pkl empirical:cifar10.zip --seeds 0-999
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch

from regimes.actors.replicas import ReplicaOptions, generate
from regimes.actors.runtime import RayRuntime
from regimes.descriptors.pixels import Descriptor
from regimes.errors import ConfigError
from regimes.images.pixels import Images
from regimes.images.sources import ImageSource, load_images, open_source
from regimes.jobs.support import console
from regimes.jobs.support.chosen_descriptor import DEFAULT_DESCRIPTOR, ChosenDescriptor
from regimes.jobs.support.console import RunOptions, Stage
from regimes.jobs.support.reproducibility.cost import print_plan
from regimes.jobs.support.reproducibility.experiment import (
    ReproducibilityExperiment,
    fitted_descriptor,
)
from regimes.jobs.support.reproducibility.results import Compared, ComparisonResults
from regimes.jobs.support.sample_sets import (
    ModelSet,
    Sampling,
    SetOfSamples,
    SourceSet,
    open_set,
    set_names,
    shared_kind,
)
from regimes.report.reproducibility import SetLine
from regimes.samplers.edm import SamplerConfig
from regimes.scores.agreement import compare
from regimes.storage import samples
from regimes.storage.artifacts import Store
from regimes.studies.reproducibility import SampleSet, align, study
from regimes.words import counted


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv), skips_bad_images=True)


def _main(argv: Sequence[str] | None) -> int:
    experiment, choice, run = console.read_options(
        argv,
        [ReproducibilityExperiment(), DEFAULT_DESCRIPTOR, RunOptions()],
        job="reproducibility",
        about=__doc__ or "",
    )
    if len(experiment.sets) < 2:
        raise ConfigError(f"--sets: expected two sample sets or more, got {len(experiment.sets)}")
    chosen = ChosenDescriptor.find(choice)
    experiment.check(chosen)
    if run.dry_run:
        print_plan(experiment, chosen, run, _open_sets(experiment))
        return 0
    store = Store(run.output)
    sets = _open_sets(experiment)
    fit = None if experiment.fit is None else open_source(experiment.fit)
    results = ComparisonResults(
        run,
        experiment,
        chosen,
        [one.name for one in sets],
        [one.fingerprint for one in sets],
        None if fit is None else fit.fingerprint,
    )
    if run.resume:
        results.check_name()
    else:
        _forget(store, results, sets)
    if results.is_complete():
        print("complete: nothing to compute")
    else:
        made = _sample(store, sets, run)
        on_gpu = torch.cuda.is_available() and run.device != "cpu"
        describe = partial(
            fitted_descriptor, experiment, chosen, device="cuda" if on_gpu else "cpu"
        )
        results.write(_compare(experiment, describe, made, sets, fit))
    results.print_summary()
    return 0


def _open_sets(experiment: ReproducibilityExperiment) -> list[SetOfSamples]:
    """Find out what every set is, before anything is computed."""
    names = set_names(experiment.sets, experiment.names)
    sampling = Sampling(
        seeds=experiment.seeds,
        allow_partial=experiment.allow_partial,
        batch_size=experiment.batch_size,
        sampler=experiment.sampler,
    )
    sets = [open_set(name, spec, sampling) for name, spec in zip(names, experiment.sets)]
    if experiment.sampler != SamplerConfig() and not any(isinstance(s, ModelSet) for s in sets):
        raise ConfigError("--sampler: no set is a model that is sampled here; leave it out")
    return sets


def _forget(store: Store, results: ComparisonResults, sets: Sequence[SetOfSamples]) -> None:
    """Delete this run's results and the samples of its models (--no-resume)."""
    results.remove()
    for one in sets:
        if isinstance(one, ModelSet):
            store.artifact(one.recipe).remove()


def _sample(store: Store, sets: Sequence[SetOfSamples], run: RunOptions) -> list[SourceSet]:
    """Sample the models among the sets; afterwards all sets are images."""
    models = [one for one in sets if isinstance(one, ModelSet)]
    waiting = [one for one in models if store.missing([one.recipe])]
    units = sum(len(samples.split_work(store, one.recipe)[1]) for one in waiting)
    if models:
        with Stage("sample", units, "unit") as stage:
            if waiting:
                _generate(store, waiting, run, stage)
            kept = sum(one.recipe.num_units for one in models) - units
            stage.done(
                f"{counted(len(models), 'model')}: {counted(kept, 'unit')} kept, {units} made"
            )
    return [one.made(store) if isinstance(one, ModelSet) else one for one in sets]


def _generate(store: Store, models: Sequence[ModelSet], run: RunOptions, stage: Stage) -> None:
    """Sample the models that lack samples, each once."""
    for one in models:
        one.prepare(store)
    replicas = ReplicaOptions(count=run.replicas, device=run.device, gpus_each=run.gpus_per_replica)
    recipes = list({one.recipe.address: one.recipe for one in models}.values())
    runtime = RayRuntime(run.cpus)
    try:
        generate(runtime, store, recipes, options=replicas, on_unit=stage.advance)
    finally:
        runtime.close()


def _compare(
    experiment: ReproducibilityExperiment,
    describe: Callable[[Sequence[SampleSet], Images | None], tuple[Descriptor, str]],
    sets: Sequence[SourceSet],
    opened: Sequence[SetOfSamples],
    fit: ImageSource | None,
) -> Compared:
    """Read, pair, describe and score."""
    read, joined_by = _read(experiment, sets)
    aligned = align(read, allow_partial=experiment.allow_partial)
    left_out = {one.name: len(one.ids) - len(aligned[0].ids) for one in read}
    for name, count in left_out.items():
        if count:
            print(
                f"left out  {name}: {counted(count, 'image')} that another set lacks",
                file=sys.stderr,
            )
    descriptor, words = describe(aligned, _fit_images(experiment, fit, aligned))
    with Stage("compare", len(aligned[0].ids), "seed") as stage:
        compared = compare([one.images for one in aligned], descriptor, on_seeds=stage.advance)
        pairs = len(compared.pairs)
        stage.done(f"{counted(pairs, 'pair')} of sets, {counted(compared.num_seeds, 'seed')}")
    return Compared(
        study=study(
            [one.name for one in aligned], compared, descriptor=words, rules=experiment.rules
        ),
        sets=aligned,
        lines=[_line(one, images) for one, images in zip(opened, read)],
        descriptor=words,
        joined_by=joined_by,
        left_out=left_out,
    )


def _read(
    experiment: ReproducibilityExperiment, sets: Sequence[SourceSet]
) -> tuple[list[SampleSet], str]:
    """Decode all sets; ids are seeds if those of all sets are."""
    decoded = []
    with Stage("images", sum(len(one.source.ids) for one in sets), "image") as stage:
        for one in sets:
            ids, images, skipped = _load(experiment, one.source)
            for message in skipped:
                print(f"left out  {message.split('; ')[0]}", file=sys.stderr)
            decoded.append((ids, images))
            stage.advance(len(ids))
        stage.done(f"{sum(len(ids) for ids, _ in decoded)} images of {len(sets)} sets read")
    keys, joined_by = shared_kind([ids for ids, _ in decoded])
    read = [
        SampleSet(name=one.name, ids=own, images=images)
        for one, own, (_, images) in zip(sets, keys, decoded)
    ]
    return read, joined_by


def _load(
    experiment: ReproducibilityExperiment, source: ImageSource
) -> tuple[list[str], Images, list[str]]:
    return load_images(
        source,
        image_size=experiment.image_size,
        channels=experiment.channels,
        skip_bad=experiment.skip_bad_images,
    )


def _fit_images(
    experiment: ReproducibilityExperiment, fit: ImageSource | None, sets: Sequence[SampleSet]
) -> Images | None:
    """The images of --fit, of the same size as the samples."""
    if fit is None:
        return None
    _, images, _ = _load(experiment, fit)
    if images.shape[1:] != sets[0].images.shape[1:]:
        raise ConfigError(
            f"--fit {experiment.fit}: images of shape {images.shape[1:]}, but samples have "
            f"{sets[0].images.shape[1:]}; pass --image-size or --channels to convert both"
        )
    return images


def _line(one: SetOfSamples, read: SampleSet) -> SetLine:
    height, width, channels = read.images.shape[1:]
    size = f"{width}x{height} {'gray' if channels == 1 else 'RGB'}"
    return SetLine(name=one.name, where=one.about, count=len(read.ids), size=size)


if __name__ == "__main__":
    console.leave(main())
