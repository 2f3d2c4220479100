"""The models of a MoLRG study as Ray Tune trials: each trains some models and measures them."""

from __future__ import annotations

from collections.abc import Sequence

from regimes.actors.runtime import RayRuntime
from regimes.actors.trials import OnReport, Report, run_trials
from regimes.storage.artifacts import Store
from regimes.storage.molrg import MeasuresRecipe, measure_model, train_model


def complete(
    runtime: RayRuntime,
    store: Store,
    trials: Sequence[Sequence[MeasuresRecipe]],
    *,
    on_report: OnReport,
    at_once: int | None = None,
) -> None:
    """Train and measure the models of all trials; what exists is kept.

    Args:
        runtime: where to run.
        store: where models and measures go.
        trials: what is measured in each.
        on_report: called with (trial, step, loss by label) at every point of a curve.
        at_once: trials that run, or ask for nodes, at a time; None for all.
    """
    plain = [list(t) for t in trials]
    run_trials(runtime, store, plain, _work, on_report=on_report, at_once=at_once)


def _work(store: Store, recipes: Sequence[MeasuresRecipe], device: str, report: Report) -> None:
    for recipe in recipes:
        model = recipe.model
        if model is not None:
            label = model.label
            train_model(store, model, lambda step, loss, name=label: report(step, {name: loss}))  # type: ignore[misc]
        measure_model(store, recipe)
    report(0, {})  # Tune says so aloud when a trial reports nothing
