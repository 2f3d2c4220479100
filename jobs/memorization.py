"""Do diffusion models memorize or generalize? Train a grid, sample it, score it, report.

python jobs/memorization.py                       # handwritten digits, about five minutes
python jobs/memorization.py --source my_images --image-size 16 --sizes 16 64 256
python jobs/memorization.py --dry-run             # what would be done, and what it costs
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TypeVar

from regimes.actors.extraction import extract
from regimes.actors.replicas import generate
from regimes.actors.runtime import RayRuntime
from regimes.actors.trials import train_grid
from regimes.images.pixels import to_float
from regimes.images.sources import load_images, open_source
from regimes.jobs.support import console
from regimes.jobs.support.console import RunOptions, Stage
from regimes.jobs.support.cost import print_plan
from regimes.jobs.support.evidence import read_evidence
from regimes.jobs.support.grid import MemorizationExperiment, MemorizationGrid
from regimes.jobs.support.results import Results
from regimes.storage.artifacts import Recipe, Store
from regimes.storage.features import fit_descriptor
from regimes.storage.images import ImagesRecipe, ingest
from regimes.training.ensemble import TrainingConfig

R = TypeVar("R", bound=Recipe)

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
    grid = _plan(experiment)
    results = Results(options, preset, PRESETS[preset], grid)
    if options.dry_run:
        print_plan(store, grid, results)
        return 0
    results.check_name()
    if not options.resume:
        _forget(store, grid, results)
    _verify(store, grid)
    if results.is_complete():
        print("complete: nothing to compute")
    else:
        runtime = RayRuntime(options.cpus)
        try:
            _compute(runtime, store, grid, options)
        finally:
            runtime.close()
        results.write(store, read_evidence(store, grid))
    results.print_summary()
    return 0


def _plan(experiment: MemorizationExperiment) -> MemorizationGrid:
    """Read the source once, to know its content and its size, and lay out the grid."""
    source = open_source(experiment.source)
    recipe = ImagesRecipe(
        fingerprint=source.fingerprint,
        image_size=experiment.image_size,
        skip_bad=experiment.skip_bad_images,
    )
    _, images, _ = load_images(
        source, image_size=experiment.image_size, skip_bad=experiment.skip_bad_images
    )
    return MemorizationGrid(
        experiment=experiment,
        images=recipe,
        num_images=len(images),
        sigma_data=round(float(to_float(images).std()), 4),
    )


def _compute(
    runtime: RayRuntime, store: Store, grid: MemorizationGrid, options: RunOptions
) -> None:
    """The stages, each of which keeps what is complete."""
    _ingest(store, grid)
    _train(runtime, store, grid)
    _sample(runtime, store, grid, options)
    _describe(runtime, store, grid, options)


def _ingest(store: Store, grid: MemorizationGrid) -> None:
    with Stage("images", 0, "image") as stage:
        skipped: list[str] = []
        missing = _missing(store, [grid.images])
        if missing:
            skipped = ingest(store, open_source(grid.experiment.source), grid.images)
        for message in skipped:
            print(f"skipped   {message}", file=sys.stderr)
        left_out = f", {len(skipped)} unreadable left out" if skipped else ""
        done = "read" if missing else "kept"
        stage.done(f"{grid.num_images} images {done}{left_out}")


def _train(runtime: RayRuntime, store: Store, grid: MemorizationGrid) -> None:
    waiting = [group for group in grid.ensembles if _missing(store, group)]
    trained = sum(len(_missing(store, group)) for group in waiting)
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
    waiting = _missing(store, grid.all_samples)
    units = sum(r.num_units - len(store.artifact(r).present()) for r in waiting)
    with Stage("sample", units, "unit") as stage:
        if waiting:
            generate(
                runtime,
                store,
                waiting,
                replicas=options.replicas,
                gpus_per_replica=options.gpus_per_replica,
                on_unit=stage.advance,
            )
        total = len(grid.all_samples)
        kept = sum(r.num_units for r in grid.all_samples) - units
        stage.done(
            f"{total} models x {grid.experiment.num_samples} seeds: {kept} units kept, {units} made"
        )


def _describe(
    runtime: RayRuntime, store: Store, grid: MemorizationGrid, options: RunOptions
) -> None:
    if _missing(store, [grid.descriptor]):
        fit_descriptor(store, grid.descriptor)
    waiting = _missing(store, grid.all_features)
    shards = {r: len(store.artifact(r.images).files) for r in grid.all_features}
    units = sum(shards[r] - len(store.artifact(r).present()) for r in waiting)
    with Stage("describe", units, "unit") as stage:
        if waiting:
            extract(runtime, store, waiting, workers=options.replicas, on_unit=stage.advance)
        kept = sum(shards.values()) - units
        stage.done(
            f"{len(shards)} image sets by {grid.descriptor.name}: {kept} units kept, {units} made"
        )


def _missing(store: Store, recipes: Sequence[R]) -> list[R]:
    """Recipes whose artifacts are not complete."""
    return [r for r in recipes if not store.artifact(r).is_complete()]


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


if __name__ == "__main__":
    sys.exit(main())
