"""Do samples that repel each other cover more modes, and at what price? Sweep particle guidance.

python jobs/guidance.py                          # handwritten digits, a few minutes
python jobs/guidance.py --preset ring            # ten Gaussians, exact score: a minute or two
python jobs/guidance.py --preset circle          # clips: a digit jumps in one of eight directions
python jobs/guidance.py --preset horizontal      # clips: a digit goes on to the right in 7 of 10 cases
python jobs/guidance.py --preset ring --mode-weights .5 .3 .1 .05 .05 --name unequal
python jobs/guidance.py --model network.pkl --source cifar-10-python.tar.gz --kernels rbf --cap 1
python jobs/guidance.py --space features --descriptor whitened-pixels --kernels rbf python:mine:kernel
"""

from __future__ import annotations

from collections.abc import Sequence

from regimes.actors.runtime import RayRuntime
from regimes.actors.trials import run_trials, train_grid
from regimes.descriptors.differentiable import feature_map
from regimes.errors import ConfigError
from regimes.jobs.support import console
from regimes.jobs.support.chosen_descriptor import DEFAULT_DESCRIPTOR
from regimes.jobs.support.console import RunOptions, Stage
from regimes.jobs.support.guidance.experiment import PRESETS
from regimes.jobs.support.guidance.results import GuidanceResults, print_plan, seconds_words
from regimes.jobs.support.guidance.sweep import GuidancePlan
from regimes.storage.artifacts import Store
from regimes.storage.denoisers import TrainedRecipe, load_denoiser, num_steps
from regimes.storage.descriptors import fit_descriptor, import_weights, load_descriptor
from regimes.storage.guidance import make_units
from regimes.storage.images import ingest
from regimes.storage.judges import load_judge, make_judge
from regimes.storage.model_specs import import_model
from regimes.storage.models import ModelRecipe
from regimes.storage.networks import NetworkRecipe
from regimes.words import counted


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    preset, experiment, descriptor, run = console.parse(
        argv,
        presets=PRESETS,
        default_preset="digits",
        job="guidance",
        about=__doc__ or "",
        others=[DEFAULT_DESCRIPTOR, RunOptions()],
    )
    plan = GuidancePlan(experiment, descriptor)
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
        if plan.decoded is not None:
            _model(runtime, store, plan, run)
            _features(store, plan)
        if plan.judge is not None:
            _judge(store, plan)
        _sweep(runtime, store, plan, run)
    finally:
        runtime.close()


def _forget(store: Store, plan: GuidancePlan, results: GuidanceResults) -> None:
    """Delete what this run made (--no-resume)."""
    results.remove()
    for recipe in plan.artifacts:
        store.artifact(recipe).remove()


def _model(runtime: RayRuntime, store: Store, plan: GuidancePlan, run: RunOptions) -> None:
    """Bring the images into the store; train the network, or import the model."""
    for images, decoded in (
        (plan.images, plan.decoded),
        (plan.continued_images, plan.continued),
    ):
        if images is not None and decoded is not None and store.missing([images]):
            ingest(store, images, decoded)
    if plan.experiment.model is not None:
        import_model(store, plan.experiment.model)
    elif isinstance(plan.model, ModelRecipe):
        _train(runtime, store, plan.model)
    elif isinstance(plan.model, NetworkRecipe):
        _train(runtime, store, plan.model, _gpus_per_trial(runtime, plan, run))
    if plan.experiment.target == "images":
        _check_model(store, plan)


def _features(store: Store, plan: GuidancePlan) -> None:
    """Bring the descriptor whose features are compared into the store."""
    if plan.features is None or plan.descriptor is None:
        return
    import_weights(store, plan.features, plan.descriptor.weights)
    if store.missing([plan.features]):
        fit_descriptor(store, plan.features)
    feature_map(load_descriptor(store, plan.features))  # refused here, if it has no derivative


def _train(
    runtime: RayRuntime, store: Store, recipe: TrainedRecipe, gpus_each: float = 0.0
) -> None:
    with Stage("train", num_steps(recipe), "step") as stage:
        reached = 0

        def on_report(trial: int, step: int, losses: dict[str, float]) -> None:
            nonlocal reached
            stage.advance(max(0, step - reached))
            reached = max(step, reached)

        waiting = store.missing([recipe])
        if waiting:
            train_grid(runtime, store, [waiting], on_report=on_report, gpus_each=gpus_each)
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
    missing = len(store.missing(plan.cells.values()))
    with Stage("sample", sum(len(trial) for trial in trials), "unit") as stage:
        if trials:
            run_trials(
                runtime,
                store,
                trials,
                make_units,
                on_report=lambda *_: stage.advance(),
                gpus_each=_gpus_per_trial(runtime, plan, run),
                at_once=run.replicas,
            )
        kept = len(plan.cells) - missing
        stage.done(
            f"{counted(len(plan.cells), 'cell')}: {kept} kept, {missing} made; "
            f"{seconds_words(store, plan)} of one device in all"
        )


def _gpus_per_trial(runtime: RayRuntime, plan: GuidancePlan, run: RunOptions) -> float:
    """Exact targets are too small for a GPU."""
    if plan.decoded is None or run.device == "cpu":
        return 0.0
    return run.gpus_per_replica if run.device == "gpu" or runtime.gpus > 0 else 0.0


if __name__ == "__main__":
    console.leave(main())
