"""The training grid as Ray Tune trials: one trial per ensemble of cells."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from regimes.actors.runtime import RayRuntime
from regimes.errors import RegimesError
from regimes.storage.artifacts import Store
from regimes.storage.models import ModelRecipe, train_ensemble

MAX_FAILURES = 3

Report = Callable[[int, int, dict[str, float]], None]


def train_grid(
    runtime: RayRuntime,
    store: Store,
    ensembles: Sequence[Sequence[ModelRecipe]],
    *,
    on_report: Report,
) -> None:
    """Complete the models of all ensembles.

    Resuming rests on artifacts and checkpoints, not on Tune's own (pickled) state, which goes to a
    temporary folder: a trial that died is started again by Tune, one of a killed run by the next
    run, and both continue from the last checkpoint.

    Args:
        runtime: where to run.
        store: where training images are, and where models go.
        ensembles: the cells of each trial.
        on_report: called with (ensemble, step, loss by cell label) 100 times per trial.

    Raises:
        RegimesError: if a trial met something that trying again would not mend (a full disk, say).
        RuntimeError: if a trial died more than three times.
    """
    runtime.start()
    from ray import tune

    # A trial that died is started again, and one that cannot go on raises below: no tracebacks.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    logging.getLogger("ray.air").setLevel(logging.CRITICAL)
    stopped: list[str] = []

    class OnResult(tune.Callback):
        def __reduce__(self) -> tuple[Any, ...]:
            # Tune pickles its experiment; the bar behind on_report stays in this process.
            return tune.Callback, ()

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[Any, Any], **info: Any
        ) -> None:
            if "stopped" in result:
                stopped.append(result["stopped"])
            elif "losses" in result:
                on_report(result["config"]["ensemble"], result["step"], result["losses"])

    def trial(config: dict[str, int], root: str, cells: list[list[ModelRecipe]]) -> None:
        train_trial(root, cells[config["ensemble"]])

    plain = [list(e) for e in ensembles]
    with runtime.scratch() as folder:
        results = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(trial, root=store.root.uri, cells=plain), {"cpu": 1}
            ),
            param_space={"ensemble": tune.grid_search(list(range(len(plain))))},
            run_config=tune.RunConfig(
                storage_path=folder,
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
                callbacks=[OnResult()],
                verbose=0,
            ),
        ).fit()
    if stopped:
        raise RegimesError(stopped[0])
    for error in results.errors:
        raise RuntimeError(f"a training trial failed {MAX_FAILURES + 1} times") from error


def train_trial(root: str, recipes: Sequence[ModelRecipe]) -> None:
    """The body of a trial: train one ensemble, reporting every point of its curve to Tune."""
    import torch
    from ray import tune

    torch.set_num_threads(1)  # bytes must not depend on the machine's cores

    def progress(step: int, losses: Any) -> None:
        by_cell = {r.label: float(x) for r, x in zip(recipes, losses, strict=True)}
        tune.report({"step": step, "losses": by_cell})

    try:
        train_ensemble(Store(root), recipes, progress)
    except RegimesError as error:
        tune.report({"stopped": str(error)})  # as a result: an error would be tried again
