"""What are generated images worth to a classifier? Train on real, generated and both, and compare.

python jobs/classifier.py                         # handwritten digits, a few minutes
python jobs/classifier.py --real DATASET --generated FOLDER --diverse FOLDER --output DIR
python jobs/classifier.py --preset chest-xray --weights resnet50-0676ba61.pth --device gpu
python jobs/classifier.py --dry-run               # what would be done, and what it costs
"""

from __future__ import annotations

from collections.abc import Sequence

from regimes.actors.classifiers import train_classifiers
from regimes.actors.runtime import RayRuntime
from regimes.classifiers.sets import arms_of
from regimes.errors import BadSource
from regimes.jobs.support import console
from regimes.jobs.support.classifier.experiment import ClassifierOptions, read_command
from regimes.jobs.support.classifier.plan import ClassifierPlan, make_plan, print_plan
from regimes.jobs.support.classifier.results import ClassifierResults
from regimes.jobs.support.classifier.sources import open_sources
from regimes.jobs.support.console import Stage
from regimes.storage.artifacts import Store
from regimes.storage.classifiers import CurvePoint, classifier_checkpoint, import_pretrained
from regimes.storage.images import decode_source, ingest
from regimes.storage.tables import iter_shards
from regimes.words import counted


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv), skips_bad_images=True)


def _main(argv: Sequence[str] | None) -> int:
    preset, experiment, options = read_command(argv, __doc__ or "")
    experiment.require()
    plan = make_plan(experiment, open_sources(experiment))
    store = Store(options.output)
    results = ClassifierResults(options, preset, plan)
    if options.dry_run:
        print_plan(store, plan)
        print(f"results    {results.location.uri}")
        return 0
    if options.resume:
        results.check_name()
    else:
        _forget(store, plan, results)
    if results.is_complete():
        print("complete: nothing to compute")
    else:
        _ingest(store, plan)
        _train(store, plan, options)
        with Stage("report", 0, "file") as stage:
            results.write(store)
            stage.done("scores, figures, report and event files written")
    results.print_summary()
    return 0


def _ingest(store: Store, plan: ClassifierPlan) -> None:
    """Bring all images, and the weights to start from, into the store."""
    waiting = [name for name, recipe in plan.images.items() if store.missing([recipe])]
    sources = plan.sources.all
    with Stage("images", len(waiting), "set") as stage:
        for name in waiting:
            ingest(store, plan.images[name], decode_source(sources[name], plan.images[name]))
            stage.advance()
        _check_shapes(store, plan)
        if plan.experiment.weights is not None:
            import_pretrained(store, plan.experiment.weights)
        count = sum(len(source.ids) for source in sources.values())
        stage.done(
            f"{counted(len(sources), 'set')}, {count} images: {len(sources) - len(waiting)} kept, "
            f"{len(waiting)} read"
        )


def _check_shapes(store: Store, plan: ClassifierPlan) -> None:
    """Refuse sets of different shapes, which no network could be trained on together."""
    shapes = {
        name: next(iter_shards(store.artifact(recipe), "image"))[1].shape[1:]
        for name, recipe in plan.images.items()
    }
    real = shapes["real"]
    for name, shape in shapes.items():
        if shape != real:
            raise BadSource(
                f"the {name} images are {shape[1]}x{shape[0]}x{shape[2]}, the real ones "
                f"{real[1]}x{real[0]}x{real[2]}; pass --image-size and --channels to convert both"
            )


def _train(store: Store, plan: ClassifierPlan, options: ClassifierOptions) -> None:
    waiting = store.missing(plan.trials)
    reached = dict.fromkeys(range(len(waiting)), 0)
    with Stage("train", sum(trial.num_steps for trial in waiting), "step") as stage:

        def on_report(trial: int, step: int, point: CurvePoint) -> None:
            stage.advance(max(0, step - reached[trial]))
            reached[trial] = max(step, reached[trial])

        if waiting:
            runtime = RayRuntime(options.cpus)
            try:
                gpus = _gpus_per_trial(runtime, options)
                train_classifiers(
                    runtime,
                    store,
                    waiting,
                    on_report=on_report,
                    gpus_each=gpus,
                    at_once=options.replicas,
                )
            finally:
                runtime.close()
        arms = len(arms_of(list(plan.sources.parts)))
        stage.done(
            f"{counted(arms, 'arm')} x {counted(plan.experiment.num_seeds, 'seed')}: "
            f"{len(plan.trials) - len(waiting)} kept, {len(waiting)} trained"
        )


def _gpus_per_trial(runtime: RayRuntime, options: ClassifierOptions) -> float:
    if options.device == "cpu":
        return 0.0
    return options.gpus_per_trial if options.device == "gpu" or runtime.gpus > 0 else 0.0


def _forget(store: Store, plan: ClassifierPlan, results: ClassifierResults) -> None:
    """Delete this run's results and artifacts (--no-resume)."""
    results.remove()
    for images in plan.images.values():
        store.artifact(images).remove()
    for trial in plan.trials:
        store.artifact(trial).remove()
        classifier_checkpoint(store, trial).remove()


if __name__ == "__main__":
    console.leave(main())
