"""Do diffusion models memorize or generalize? Train a grid, sample it, score it, report.

python jobs/memorization.py                       # handwritten digits, a few minutes
python jobs/memorization.py --source my_images --image-size 16 --sizes 16 64 256
python jobs/memorization.py --preset cifar10 --device gpu        # the published grid
python jobs/memorization.py --preset cifar10 --descriptor sscd-disc-mixup --device gpu
python jobs/memorization.py --dry-run             # what would be done, and what it costs
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from regimes.actors.extraction import Hardware, extract
from regimes.actors.replicas import ReplicaOptions, generate
from regimes.actors.runtime import RayRuntime
from regimes.actors.trials import train_grid
from regimes.errors import ConfigError
from regimes.images.pixels import Images, to_float
from regimes.images.sources import open_source
from regimes.jobs.support import console
from regimes.jobs.support.chosen_descriptor import (
    DEFAULT_DESCRIPTOR,
    ChosenDescriptor,
    check_whitening,
)
from regimes.jobs.support.console import RunOptions, Stage
from regimes.jobs.support.live import LiveCurves
from regimes.jobs.support.memorization.cost import print_plan
from regimes.jobs.support.memorization.evidence import read_evidence
from regimes.jobs.support.memorization.experiment import (
    MemorizationExperiment,
    MLPExperiment,
    NetworkExperiment,
)
from regimes.jobs.support.memorization.grid import MemorizationGrid
from regimes.jobs.support.memorization.results import Results
from regimes.samplers.edm import SamplerConfig
from regimes.storage import features, samples
from regimes.storage.artifacts import Store
from regimes.storage.denoisers import checkpoint_of, num_steps
from regimes.storage.descriptors import fit_descriptor, import_weights
from regimes.storage.images import Decoded, ImagesRecipe, decode_source, ingest, read_images
from regimes.storage.model_specs import identify_model, import_model
from regimes.storage.networks import NetworkRecipe
from regimes.storage.samples import SamplesRecipe
from regimes.storage.seeds import Seeds
from regimes.training.architectures import NetworkConfig
from regimes.training.ensemble import TrainingConfig
from regimes.training.network import EDMTrainingConfig
from regimes.words import counted

PRESETS: dict[str, MemorizationExperiment] = {
    "digits": MLPExperiment(),
    "digits-smoke": MLPExperiment(
        sizes=(8, 64),
        widths=(16, 24),
        steps=(60, 40),
        num_samples=100,
        seeds_per_unit=40,
        training=TrainingConfig(batch_size=16, warmup_steps=10),
    ),
    "cifar10": NetworkExperiment(),
    "cifar10-teacher": NetworkExperiment(teacher="edm-cifar10-32x32-uncond-vp.pkl"),
    "cifar10-smoke": NetworkExperiment(
        sizes=(4, 16),
        widths=(4, 8),
        num_samples=24,
        seeds_per_unit=12,
        sampler=SamplerConfig(num_steps=4),
        network=NetworkConfig(
            precond="vp", channel_mult=(1, 1), num_blocks=1, attn_resolutions=(16,)
        ),
        training=EDMTrainingConfig(
            batch_size=8, duration_kimg=0.16, lr_rampup_kimg=0.04, ema_halflife_kimg=0.02
        ),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv), skips_bad_images=True)


def _main(argv: Sequence[str] | None) -> int:
    preset, experiment, choice, options = console.parse(
        argv,
        presets=PRESETS,
        default_preset="digits",
        job="memorization",
        about=__doc__ or "",
        others=[DEFAULT_DESCRIPTOR, RunOptions()],
    )
    store = Store(options.output)
    grid, decoded = _plan(experiment, ChosenDescriptor.find(choice))
    results = Results(options, preset, PRESETS[preset], grid)
    if options.dry_run:
        print_plan(store, grid, results, decoded, options)
        return 0
    if options.resume:
        results.check_name()
    else:
        _forget(store, grid, results)
    _verify(store, grid)
    if results.is_complete():
        print("complete: nothing to compute")
    else:
        runtime = RayRuntime(options.cpus)
        try:
            _prepare(runtime, store, grid, decoded, options)
            _train(runtime, store, grid, options, LiveCurves(results.location))
            _sample(runtime, store, grid, options)
            _describe(runtime, store, grid, options)
        finally:
            runtime.close()
        with Stage("report", 0, "file") as stage:
            results.write(store, read_evidence(store, grid))
            stage.done("scores, figures, report and event files written")
    results.print_summary()
    return 0


def _plan(
    experiment: MemorizationExperiment, chosen: ChosenDescriptor
) -> tuple[MemorizationGrid, Decoded | None]:
    """Lay out the grid; a source is read once for that, to know its content and its size."""
    if isinstance(experiment, NetworkExperiment) and experiment.teacher is not None:
        seeds = Seeds.parse(experiment.teacher_seeds)
        taught = SamplesRecipe(
            denoiser=identify_model(experiment.teacher),
            sampler=experiment.teacher_sampler,
            seeds=seeds,
            seeds_per_unit=experiment.seeds_per_unit,
        )
        grid = MemorizationGrid(
            experiment=experiment, images=taught, num_images=len(seeds), chosen=chosen
        )
        return grid, None
    source = open_source(experiment.source)
    recipe = ImagesRecipe(
        fingerprint=source.fingerprint,
        image_size=experiment.image_size,
        channels=experiment.channels,
        skip_bad=experiment.skip_bad_images,
    )
    decoded = decode_source(source, recipe)
    grid = MemorizationGrid(
        experiment=experiment,
        images=recipe,
        num_images=len(decoded.images),
        chosen=chosen,
        sigma_data=round(float(to_float(decoded.images).std()), 4),
        left_out=tuple(
            message.split("; ")[0] for message in decoded.left_out
        ),  # without the remedy
    )
    _check_images(grid, decoded.images)
    return grid, decoded


def _check_images(grid: MemorizationGrid, images: Images) -> None:
    """Refuse images that the scores or the descriptor could not handle, before anything is made."""
    if grid.descriptor.fit is not None:
        check_whitening(images[0].size)
    for half in grid.halves:
        smallest = images[grid.split.subset(half, grid.sizes[0])]
        if len({image.tobytes() for image in smallest}) < 2:
            raise ConfigError(
                f"--sizes {grid.sizes[0]}: all images of half {half} at this size are equal; "
                "the ratio test needs two different ones"
            )


def _prepare(
    runtime: RayRuntime,
    store: Store,
    grid: MemorizationGrid,
    decoded: Decoded | None,
    options: RunOptions,
) -> None:
    """Bring the images into the store: those of a source, or a teacher's samples."""
    if isinstance(grid.images, SamplesRecipe):
        _teach(runtime, store, grid, grid.images, options)
        return
    assert decoded is not None
    with Stage("images", 0, "image") as stage:
        missing = store.missing([grid.images])
        if missing:
            ingest(store, grid.images, decoded)
        for message in grid.left_out:
            print(f"left out  {message}", file=sys.stderr)
        left_out = f", {len(grid.left_out)} unreadable left out" if grid.left_out else ""
        stage.done(f"{grid.num_images} images {'read' if missing else 'kept'}{left_out}")


def _teach(
    runtime: RayRuntime,
    store: Store,
    grid: MemorizationGrid,
    taught: SamplesRecipe,
    options: RunOptions,
) -> None:
    """Generate the images that the models will be trained on."""
    assert isinstance(grid.experiment, NetworkExperiment)
    import_model(store, str(grid.experiment.teacher))
    waiting = store.missing([taught])
    units = len(samples.split_work(store, taught)[1]) if waiting else 0
    with Stage("teacher", units, "unit") as stage:
        if waiting:
            generate(runtime, store, waiting, options=_replicas(options), on_unit=stage.advance)
        kept = taught.num_units - units
        stage.done(f"{grid.num_images} images: {counted(kept, 'unit')} kept, {units} made")
    _check_images(grid, read_images(store, taught)[1])


def _replicas(options: RunOptions) -> ReplicaOptions:
    return ReplicaOptions(
        count=options.replicas, device=options.device, gpus_each=options.gpus_per_replica
    )


def _train(
    runtime: RayRuntime,
    store: Store,
    grid: MemorizationGrid,
    options: RunOptions,
    curves: LiveCurves,
) -> None:
    waiting = [trial for trial in grid.trials if store.missing(trial)]
    trained = sum(len(store.missing(trial)) for trial in waiting)
    steps = {i: num_steps(trial[0]) for i, trial in enumerate(waiting)}
    reached = dict.fromkeys(steps, 0)
    with Stage("train", sum(steps.values()), "step") as stage:

        def on_report(trial: int, step: int, losses: dict[str, float]) -> None:
            stage.advance(max(0, step - reached[trial]))
            reached[trial] = max(step, reached[trial])
            curves.add(step, losses)

        if waiting:
            gpus = _gpus_per_trial(runtime, grid, options)
            train_grid(
                runtime,
                store,
                waiting,
                on_report=on_report,
                gpus_each=gpus,
                at_once=options.replicas,
            )
        kept = len(grid.models) - trained
        stage.done(f"{counted(len(grid.models), 'model')}: {kept} kept, {trained} trained")


def _gpus_per_trial(runtime: RayRuntime, grid: MemorizationGrid, options: RunOptions) -> float:
    """Networks are trained on GPUs where samples are made on them; small ensembles on CPUs."""
    if not isinstance(grid.trials[0][0], NetworkRecipe) or options.device == "cpu":
        return 0.0
    return options.gpus_per_replica if options.device == "gpu" or runtime.gpus > 0 else 0.0


def _sample(runtime: RayRuntime, store: Store, grid: MemorizationGrid, options: RunOptions) -> None:
    waiting = store.missing(grid.all_samples)
    units = sum(len(samples.split_work(store, r)[1]) for r in waiting)
    with Stage("sample", units, "unit") as stage:
        if waiting:
            generate(runtime, store, waiting, options=_replicas(options), on_unit=stage.advance)
        total = len(grid.all_samples)
        kept = sum(r.num_units for r in grid.all_samples) - units
        seeds = grid.experiment.num_samples
        stage.done(f"{total} models x {seeds} seeds: {counted(kept, 'unit')} kept, {units} made")


def _describe(
    runtime: RayRuntime, store: Store, grid: MemorizationGrid, options: RunOptions
) -> None:
    import_weights(store, grid.descriptor, grid.chosen.weights)
    if store.missing([grid.descriptor]):
        device = "cuda" if torch.cuda.is_available() and options.device != "cpu" else "cpu"
        fit_descriptor(store, grid.descriptor, device=device)
    waiting = store.missing(grid.all_features)
    units = sum(len(features.split_work(store, r)[1]) for r in waiting)
    with Stage("describe", units, "unit") as stage:
        if waiting:
            hardware = Hardware(device=options.device, gpus_each=options.gpus_per_replica)
            extract(
                runtime,
                store,
                waiting,
                workers=options.replicas,
                on_unit=stage.advance,
                hardware=hardware,
            )
        total = len(grid.all_features)
        kept = sum(len(store.artifact(r.images).files) for r in grid.all_features) - units
        stage.done(
            f"{total} image sets by {grid.descriptor.name}: {counted(kept, 'unit')} kept, {units} made"
        )


def _verify(store: Store, grid: MemorizationGrid) -> None:
    """Check what is complete against its checksums, so that nothing rests on a damaged file."""
    for recipe in grid.artifacts:
        artifact = store.artifact(recipe)
        if artifact.is_complete():
            artifact.verify()


def _forget(store: Store, grid: MemorizationGrid, results: Results) -> None:
    """Delete this run's results and artifacts (--no-resume)."""
    results.location.remove()
    for recipe in grid.artifacts:
        store.artifact(recipe).remove()
    for trial in grid.trials:
        checkpoint_of(store, trial).remove()


if __name__ == "__main__":
    console.leave(main())
