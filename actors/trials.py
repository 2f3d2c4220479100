"""Training as Ray Tune trials: one per ensemble of small models, per network, or per classifier."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from regimes.actors.failures import say
from regimes.actors.runtime import RayRuntime
from regimes.errors import RegimesError
from regimes.storage.artifacts import Store
from regimes.storage.denoisers import TrainedRecipe, train

MAX_FAILURES = 3  # in a row, without getting further in between
BACKOFF_S = 1.0  # before a trial is started again; doubled every time

T = TypeVar("T")
Report = Callable[[int, dict[str, float]], None]
"""(step, values by name): a point of a curve"""
OnReport = Callable[[int, int, dict[str, float]], None]
"""(trial, step, values by name)"""
Work = Callable[[Store, T, str, Report], None]
"""(store, trial, device, report): the body of a trial"""


def train_grid(
    runtime: RayRuntime,
    store: Store,
    trials: Sequence[Sequence[TrainedRecipe]],
    *,
    on_report: OnReport,
    gpus_each: float = 0.0,
    at_once: int | None = None,
) -> None:
    """Complete the models of all trials, see ``run_trials``.

    Args:
        runtime: where to run.
        store: where training images are, and where models go.
        trials: the models that are trained together in each.
        on_report: called with (trial, step, loss by label) at every point of a curve.
        gpus_each: share of a GPU per trial; 0 trains on one CPU.
        at_once: trials that run, or ask for nodes, at a time; None for all.
    """
    run_trials(
        runtime,
        store,
        [list(t) for t in trials],
        _train_models,
        on_report=on_report,
        gpus_each=gpus_each,
        at_once=at_once,
    )


def _train_models(
    store: Store, recipes: Sequence[TrainedRecipe], device: str, report: Report
) -> None:
    train(store, recipes, device=device, progress=report)


def run_trials(
    runtime: RayRuntime,
    store: Store,
    trials: Sequence[T],
    work: Work[T],
    *,
    on_report: OnReport,
    gpus_each: float = 0.0,
    at_once: int | None = None,
) -> None:
    """Do the work of every trial.

    Resuming rests on artifacts and checkpoints, not on Tune's own (pickled) state, which goes to a
    temporary folder: a trial that died is started again by Tune, one of a killed run by the next
    run, and both continue from the last checkpoint.

    Args:
        runtime: where to run.
        store: what trials read and write.
        trials: what to work on.
        work: a function of a module, the body of a trial; what it has done it must not do again.
        on_report: called with (trial, step, values) at every point of a curve.
        gpus_each: share of a GPU per trial; 0 gives each one CPU.
        at_once: trials that run, or ask for nodes, at a time; None for all.

    Raises:
        RegimesError: if a trial met something that trying again would not mend (a full disk, say).
        RuntimeError: if a trial died four times without getting further in between.
    """
    runtime.start()
    from ray import tune

    # A trial that died is started again, and one that cannot go on raises below: no tracebacks.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    logging.getLogger("ray.air").setLevel(logging.CRITICAL)
    stopped, failed = list[str](), list[int]()
    device = "cuda" if gpus_each else "cpu"

    def body(config: dict[str, int], root: str, trials: list[T]) -> None:
        run_trial(root, trials[config["trial"]], device, work)

    resources = {"cpu": 1.0, "gpu": gpus_each} if gpus_each else {"cpu": 1.0}
    with runtime.scratch() as folder:
        results = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(body, root=store.root.uri, trials=list(trials)), resources
            ),
            param_space={"trial": tune.grid_search(list(range(len(trials))))},
            # A worker takes seconds to import torch: it does trial after trial.
            tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=at_once),
            run_config=tune.RunConfig(
                storage_path=folder,
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
                callbacks=[listener(on_report, stopped, failed)],
                verbose=0,
            ),
        ).fit()
    if stopped:
        raise RegimesError(stopped[0])
    if failed:
        names = ", ".join(_name(trials[number]) for number in sorted(failed))
        raise RuntimeError(
            f"{names}: failed {MAX_FAILURES + 1} times in a row"
        ) from results.errors[0]


def _name(trial: object) -> str:
    """What a trial makes, in words."""
    parts = list(trial) if isinstance(trial, (list, tuple)) else [trial]
    first = str(getattr(parts[0], "label", f"a trial of {type(parts[0]).__name__}"))
    return first if len(parts) == 1 else f"{first} and {len(parts) - 1} more"


def listener(on_report: OnReport, stopped: list[str], failed: list[int]) -> Any:
    """What Tune tells of trials: points of curves, reasons to stop, failures, and those for good.

    Tune counts all failures of a trial, and on nodes that come and go a long training has many. Here a
    trial that gets further than it ever was may fail as often again.
    """
    from ray import tune

    reached: dict[tuple[str, ...], int] = {}

    def got_further(trial: Any, step: int, labels: Iterable[str]) -> bool:
        key = (trial.trial_id, *sorted(labels))
        further = step > reached.get(key, -1)
        reached[key] = max(step, reached.get(key, -1))
        return further

    class OnResult(tune.Callback):
        def __reduce__(self) -> tuple[Any, ...]:
            # Tune pickles its experiment; the bar behind on_report stays in this process.
            return tune.Callback, ()

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[Any, Any], **info: Any
        ) -> None:
            if "stopped" in result:
                stopped.append(result["stopped"])
            elif "values" in result:
                on_report(result["config"]["trial"], result["step"], result["values"])
                if got_further(trial, result["step"], result["values"]):
                    trial.max_failures = trial.num_failures + MAX_FAILURES

        def on_trial_error(
            self, iteration: int, trials: list[Any], trial: Any, **info: Any
        ) -> None:
            self.on_trial_recover(iteration, trials, trial)
            failed.append(trial.config["trial"])

        def on_trial_recover(
            self, iteration: int, trials: list[Any], trial: Any, **info: Any
        ) -> None:
            in_a_row = trial.num_failures - trial.max_failures + MAX_FAILURES
            if in_a_row <= MAX_FAILURES:
                say("a training trial died: it goes on from its last checkpoint")
                time.sleep(BACKOFF_S * 2.0 ** (in_a_row - 1))

    return OnResult()


def run_trial(root: str, trial: T, device: str, work: Work[T]) -> None:
    """The body of a trial: work, reporting every point of the curves to Tune."""
    import torch
    from ray import tune

    if device == "cpu":
        torch.set_num_threads(1)  # bytes must not depend on the machine's cores

    def report(step: int, values: dict[str, float]) -> None:
        tune.report({"step": step, "values": values})

    try:
        work(Store(root), trial, device, report)
    except RegimesError as error:
        tune.report({"stopped": str(error)})  # as a result: an error would be tried again
