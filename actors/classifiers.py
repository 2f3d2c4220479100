"""The classifiers of an experiment as Ray Tune trials, one per arm and seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from regimes.actors.runtime import RayRuntime
from regimes.actors.trials import Report, run_trials
from regimes.storage.artifacts import Store
from regimes.storage.classifiers import ClassifierRecipe, CurvePoint, train_classifier


def train_classifiers(
    runtime: RayRuntime,
    store: Store,
    recipes: Sequence[ClassifierRecipe],
    *,
    on_report: Callable[[int, int, CurvePoint], None],
    gpus_each: float = 0.0,
    at_once: int | None = None,
) -> None:
    """Complete classifiers; each continues from its last checkpoint.

    Args:
        runtime: where to run.
        store: where images are, and where classifiers go.
        recipes: one trial each.
        on_report: called with (trial, step, point of the curve) after every evaluation.
        gpus_each: share of a GPU per trial; 0 trains on one CPU.
        at_once: trials that run, or ask for nodes, at a time; None for all.

    Raises:
        RegimesError: if a trial met something that trying again would not mend (a full disk, say).
        RuntimeError: if a trial died four times without getting further in between.
    """
    run_trials(
        runtime, store, recipes, _train, on_report=on_report, gpus_each=gpus_each, at_once=at_once
    )


def _train(store: Store, recipe: ClassifierRecipe, device: str, report: Report) -> None:
    train_classifier(store, recipe, device=device, progress=report)
