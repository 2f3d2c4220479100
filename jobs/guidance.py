"""Do samples that repel each other cover more modes, and at what price? Sweep particle guidance.

python jobs/guidance.py                          # handwritten digits, a few minutes
python jobs/guidance.py --preset ring            # ten Gaussians, exact score: under a minute
python jobs/guidance.py --preset ring --mode-weights .5 .3 .1 .05 .05 --name unequal
python jobs/guidance.py --model network.pkl --source cifar-10-python.tar.gz --kernels rbf --cap 1
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from regimes.actors.runtime import RayRuntime
from regimes.actors.trials import run_trials, train_grid
from regimes.errors import ConfigError
from regimes.jobs.support import console
from regimes.jobs.support.console import RunOptions, Stage
from regimes.jobs.support.guidance import PRESETS, GuidancePlan
from regimes.jobs.support.guidance_results import GuidanceResults, print_plan, seconds_words
from regimes.storage.artifacts import Store
from regimes.storage.denoisers import load_denoiser
from regimes.storage.guidance import load_judge, make_cells, make_judge
from regimes.storage.images import ingest
from regimes.storage.model_specs import import_model
from regimes.storage.models import ModelRecipe


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    preset, experiment, run = console.parse(
        argv, presets=PRESETS, default_preset="digits", job="guidance", about=__doc__ or ""
    )
    if run.replicas is not None:
        raise ConfigError("--replicas: a sweep runs as trials, one per CPU; pass --cpus")
    plan = GuidancePlan(experiment)
    store = Store(run.output)
    results = GuidanceResults(run, preset, plan)
    if run.dry_run:
        print_plan(plan, store, results)
        return 0
    if run.resume:
        results.check_name()
    else:
        _forget(store, plan, results)
    if results.is_complete():
        print("complete: nothing to compute")
    else:
        _compute(store, plan, run)
        with Stage("report", 0, "file") as stage:
            results.write(store)
            stage.done("scores, figures, report and event files written")
    results.print_summary()
    return 0


def _compute(store: Store, plan: GuidancePlan, run: RunOptions) -> None:
    """Make what is missing of model, judge and cells."""
    runtime = RayRuntime(run.cpus)
    try:
        if plan.experiment.target == "images":
            _model(runtime, store, plan)
            _judge(store, plan)
        _sweep(runtime, store, plan, run)
    finally:
        runtime.close()


def _forget(store: Store, plan: GuidancePlan, results: GuidanceResults) -> None:
    """Delete what this run made (--no-resume)."""
    results.remove()
    for recipe in plan.artifacts:
        store.artifact(recipe).remove()


def _model(runtime: RayRuntime, store: Store, plan: GuidancePlan) -> None:
    """Bring the images into the store; train the network, or import the model."""
    assert plan.images is not None
    assert plan.decoded is not None
    assert plan.model is not None
    if store.missing([plan.images]):
        ingest(store, plan.images, plan.decoded)
    if plan.experiment.model is not None:
        import_model(store, plan.experiment.model)
    elif isinstance(plan.model, ModelRecipe):
        _train(runtime, store, plan.model)
    _check_model(store, plan)


def _train(runtime: RayRuntime, store: Store, recipe: ModelRecipe) -> None:
    with Stage("train", recipe.steps, "step") as stage:
        reached = 0

        def on_report(trial: int, step: int, losses: dict[str, float]) -> None:
            nonlocal reached
            stage.advance(max(0, step - reached))
            reached = max(step, reached)

        waiting = store.missing([recipe])
        if waiting:
            train_grid(runtime, store, [waiting], on_report=on_report)
        stage.done(f"1 model: {1 - len(waiting)} kept, {len(waiting)} trained")


def _check_model(store: Store, plan: GuidancePlan) -> None:
    """A model of other images could not be judged; one with classes would draw them from seeds."""
    assert plan.decoded is not None
    assert plan.model is not None
    loaded = load_denoiser(store, plan.model)
    height, width, channels = plan.decoded.images.shape[1:]
    if loaded.image_shape != (channels, height, width):
        raise ConfigError(
            f"--model: makes images of shape {loaded.image_shape}, but those of --source have "
            f"{(channels, height, width)}; pass the images that it was trained on"
        )
    if loaded.num_classes:
        raise ConfigError("--model: expected an unconditional model, got one with classes")


def _judge(store: Store, plan: GuidancePlan) -> None:
    assert plan.judge is not None
    with Stage("judge", 0, "step") as stage:
        make_judge(store, plan.judge)
        judge = load_judge(store, plan.judge)
        stage.done(
            f"{judge.num_modes} classes, {judge.accuracy:.1%} right and {judge.accepted:.1%} accepted "
            "of held-out images"
        )


def _sweep(runtime: RayRuntime, store: Store, plan: GuidancePlan, run: RunOptions) -> None:
    """Sample every cell that is missing, the rows of the sweep as trials."""
    trials = plan.trials(store)
    missing = sum(len(trial) for trial in trials)
    with Stage("sample", missing, "cell") as stage:
        if trials:
            run_trials(
                runtime,
                store,
                trials,
                make_cells,
                on_report=lambda *_: stage.advance(),
                gpus_each=_gpus_per_trial(runtime, plan, run),
            )
        kept = len(plan.cells) - missing
        stage.done(
            f"{len(plan.cells)} cells: {kept} kept, {missing} made; "
            f"{seconds_words(store, plan)} of one device in all"
        )


def _gpus_per_trial(runtime: RayRuntime, plan: GuidancePlan, run: RunOptions) -> float:
    """Exact targets are too small for a GPU."""
    if plan.experiment.target != "images" or run.device == "cpu":
        return 0.0
    return run.gpus_per_replica if run.device == "gpu" or runtime.gpus > 0 else 0.0


if __name__ == "__main__":
    sys.exit(main())
