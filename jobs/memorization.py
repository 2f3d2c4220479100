"""Do diffusion models memorize or generalize? Train a grid, sample it, score it, report.

python jobs/memorization.py                       # handwritten digits, about five minutes
python jobs/memorization.py --source my_images --image-size 16 --sizes 16 64 256
python jobs/memorization.py --dry-run             # what would be done, and what it costs
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from regimes.actors.extraction import extract
from regimes.actors.replicas import ReplicaOptions, generate
from regimes.actors.runtime import RayRuntime
from regimes.actors.trials import train_grid
from regimes.errors import ConfigError
from regimes.images.pixels import Images, to_float
from regimes.images.sources import open_source
from regimes.images.split import HALVES
from regimes.jobs.support import console
from regimes.jobs.support.console import RunOptions, Stage
from regimes.jobs.support.cost import print_plan
from regimes.jobs.support.evidence import read_evidence
from regimes.jobs.support.grid import MemorizationExperiment, MemorizationGrid
from regimes.jobs.support.results import Results
from regimes.storage import features, samples
from regimes.storage.artifacts import Store
from regimes.storage.features import fit_descriptor
from regimes.storage.images import ImagesRecipe, decode_source, ingest
from regimes.storage.models import checkpoint_location
from regimes.training.ensemble import TrainingConfig

LARGEST_WHITENING = (
    12_288  # values per image (64x64x3): the transform takes their square, in float64
)

PRESETS = {
    "digits": MemorizationExperiment(),
    "digits-smoke": MemorizationExperiment(
        sizes=(8, 64),
        widths=(16, 24),
        steps=(60, 40),
        num_samples=100,
        seeds_per_unit=40,
        training=TrainingConfig(batch_size=16, warmup_steps=10),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    preset, experiment, options = console.parse(
        argv, presets=PRESETS, default_preset="digits", job="memorization", about=__doc__ or ""
    )
    store = Store(options.output)
    grid, ids, images = _plan(experiment)
    results = Results(options, preset, PRESETS[preset], grid)
    if options.dry_run:
        print_plan(store, grid, results, images, options.cpus)
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
            _ingest(store, grid, ids, images)
            _train(runtime, store, grid)
            _sample(runtime, store, grid, options)
            _describe(runtime, store, grid, options)
        finally:
            runtime.close()
        with Stage("report", 0, "file") as stage:
            results.write(store, read_evidence(store, grid))
            stage.done("scores, figures, report and event files written")
    results.print_summary()
    return 0


def _plan(experiment: MemorizationExperiment) -> tuple[MemorizationGrid, list[str], Images]:
    """Read the source once, to know its content and its size, and lay out the grid."""
    source = open_source(experiment.source)
    recipe = ImagesRecipe(
        fingerprint=source.fingerprint,
        image_size=experiment.image_size,
        channels=experiment.channels,
        skip_bad=experiment.skip_bad_images,
    )
    ids, images, left_out = decode_source(source, recipe)
    grid = MemorizationGrid(
        experiment=experiment,
        images=recipe,
        num_images=len(images),
        sigma_data=round(float(to_float(images).std()), 4),
        left_out=tuple(message.split("; ")[0] for message in left_out),  # without the remedy
    )
    _check_images(grid, images)
    return grid, ids, images


def _check_images(grid: MemorizationGrid, images: Images) -> None:
    """Refuse images that the scores or the descriptor could not handle, before anything is made."""
    width = images[0].size
    if grid.descriptor.fit is not None and width > LARGEST_WHITENING:
        raise ConfigError(
            f"--descriptor whitened-pixels: images of {width} values are too large to whiten "
            f"(at most {LARGEST_WHITENING}); pass --image-size, or --descriptor pixels"
        )
    for half in HALVES:
        smallest = images[grid.split.subset(half, grid.sizes[0])]
        if len({image.tobytes() for image in smallest}) < 2:
            raise ConfigError(
                f"--sizes {grid.sizes[0]}: all images of half {half} at this size are equal; "
                "the ratio test needs two different ones"
            )


def _ingest(store: Store, grid: MemorizationGrid, ids: list[str], images: Images) -> None:
    with Stage("images", 0, "image") as stage:
        missing = store.missing([grid.images])
        if missing:
            ingest(store, grid.images, ids, images)
        for message in grid.left_out:
            print(f"left out  {message}", file=sys.stderr)
        left_out = f", {len(grid.left_out)} unreadable left out" if grid.left_out else ""
        stage.done(f"{grid.num_images} images {'read' if missing else 'kept'}{left_out}")


def _train(runtime: RayRuntime, store: Store, grid: MemorizationGrid) -> None:
    waiting = [group for group in grid.ensembles if store.missing(group)]
    trained = sum(len(store.missing(group)) for group in waiting)
    steps = {i: group[0].steps for i, group in enumerate(waiting)}
    reached = dict.fromkeys(steps, 0)
    with Stage("train", sum(steps.values()), "step") as stage:

        def on_report(ensemble: int, step: int, losses: dict[str, float]) -> None:
            stage.advance(max(0, step - reached[ensemble]))
            reached[ensemble] = max(step, reached[ensemble])

        if waiting:
            train_grid(runtime, store, waiting, on_report=on_report)
        kept = len(grid.models) - trained
        stage.done(f"{len(grid.models)} models: {kept} kept, {trained} trained")


def _sample(runtime: RayRuntime, store: Store, grid: MemorizationGrid, options: RunOptions) -> None:
    waiting = store.missing(grid.all_samples)
    units = sum(len(samples.split_work(store, r)[1]) for r in waiting)
    with Stage("sample", units, "unit") as stage:
        if waiting:
            replicas = ReplicaOptions(
                count=options.replicas, device=options.device, gpus_each=options.gpus_per_replica
            )
            generate(runtime, store, waiting, options=replicas, on_unit=stage.advance)
        total = len(grid.all_samples)
        kept = sum(r.num_units for r in grid.all_samples) - units
        seeds = grid.experiment.num_samples
        stage.done(f"{total} models x {seeds} seeds: {kept} units kept, {units} made")


def _describe(
    runtime: RayRuntime, store: Store, grid: MemorizationGrid, options: RunOptions
) -> None:
    if store.missing([grid.descriptor]):
        fit_descriptor(store, grid.descriptor)
    waiting = store.missing(grid.all_features)
    units = sum(len(features.split_work(store, r)[1]) for r in waiting)
    with Stage("describe", units, "unit") as stage:
        if waiting:
            extract(runtime, store, waiting, workers=options.replicas, on_unit=stage.advance)
        total = len(grid.all_features)
        kept = sum(len(store.artifact(r.images).files) for r in grid.all_features) - units
        stage.done(f"{total} image sets by {grid.descriptor.name}: {kept} units kept, {units} made")


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
    for group in grid.ensembles:
        checkpoint_location(store, group).remove()


if __name__ == "__main__":
    sys.exit(main())
