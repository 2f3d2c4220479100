"""Data of known dimension: what rank do models learn, and from how many points do they learn it?

python jobs/molrg.py
python jobs/molrg.py --preset smoke
python jobs/molrg.py --dims 2 4 8 --per-dim 0.5 1 2 4 8 16 32 --transition-models low-rank mlp unet
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from regimes.actors.molrg import complete
from regimes.actors.runtime import RayRuntime
from regimes.jobs.support import console
from regimes.jobs.support.console import RunOptions, Stage, duration
from regimes.jobs.support.molrg.experiment import PRESETS, Grid, MoLRGExperiment, make_grid
from regimes.jobs.support.molrg.results import MoLRGResults
from regimes.storage.artifacts import Store
from regimes.storage.molrg import MeasuresRecipe, PointMeasures, read_measures
from regimes.studies.molrg import (
    Cell,
    MoLRGStudy,
    RankCurve,
    compare_halves,
    copy_threshold,
)
from regimes.training.ensemble import TrainingConfig
from regimes.training.points import Kind, PointModel, build_point_model, train_points
from regimes.words import counted

_TIMED_STEPS = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    preset, experiment, run = console.parse(
        argv, presets=PRESETS, default_preset="default", job="molrg", about=__doc__ or ""
    )
    grid, store = make_grid(experiment), Store(run.output)
    results = MoLRGResults(run, experiment, preset)
    if run.dry_run:
        _print_plan(experiment, grid, store, results)
        return 0
    if run.resume:
        results.check_name()
    else:
        _forget(store, grid, results)
    if results.is_complete():
        print("complete: nothing to compute")
    else:
        _train(store, grid, run)
        results.write(_study(store, experiment, grid))
    results.print_summary()
    return 0


def _forget(store: Store, grid: Grid, results: MoLRGResults) -> None:
    """Delete this run's results, measures and models (--no-resume)."""
    results.remove()
    for recipe in grid.all:
        store.artifact(recipe).remove()
        if recipe.model is not None:
            store.artifact(recipe.model).remove()


def _train(store: Store, grid: Grid, run: RunOptions) -> None:
    """Train and measure what is missing, a Tune trial per cell."""
    waiting = [trial for trial in grid.trials if store.missing(trial)]
    steps = [sum(_steps(recipe) for recipe in trial) for trial in waiting]
    with Stage("train", sum(steps), "step") as stage:
        if waiting:
            seen: dict[tuple[int, str], int] = {}

            def on_report(trial: int, step: int, values: Mapping[str, float]) -> None:
                for name in values:
                    stage.advance(max(0, step - seen.get((trial, name), 0)))
                    seen[trial, name] = step

            runtime = RayRuntime(run.cpus)
            try:
                complete(runtime, store, waiting, on_report=on_report, at_once=run.replicas)
            finally:
                runtime.close()
        kept = len(grid.trials) - len(waiting)
        stage.done(f"{counted(len(grid.trials), 'trial')}: {kept} kept, {len(waiting)} made")


def _steps(recipe: MeasuresRecipe) -> int:
    model = recipe.model
    return 0 if model is None else model.model.steps * model.model.restarts


def _study(store: Store, e: MoLRGExperiment, grid: Grid) -> MoLRGStudy:
    """Score what was measured."""
    with Stage("score", 0, "cell") as stage:
        exact = read_measures(store, grid.exact)
        curves = {kind: read_measures(store, recipe) for kind, recipe in grid.curves.items()}
        recovery = {kind: measured.recovery for kind, measured in curves.items()}
        cells = [_cell(store, e, grid, key) for key in grid.cells]
        stage.done(f"{counted(len(curves), 'rank curve')}, {counted(len(cells), 'cell')}")
    return MoLRGStudy(
        num_classes=e.data.num_classes,
        dim=e.data.dim,
        size=e.data.size,
        per_class=e.per_class,
        exact=_curve("exact denoiser", e, exact),
        curves=[_curve(kind, e, measured) for kind, measured in curves.items()],
        recovery=recovery | {"exact denoiser": exact.recovery},
        cells=cells,
    )


def _curve(name: str, e: MoLRGExperiment, measured: PointMeasures) -> RankCurve:
    return RankCurve(model=name, sigmas=e.sigmas, ratios=measured.ranks)


def _cell(store: Store, e: MoLRGExperiment, grid: Grid, key: tuple[Kind, int, int]) -> Cell:
    """Recovery, copies and agreement of two models."""
    kind, dim, per_class = key
    pair = grid.cells[key]
    a, b = (read_measures(store, recipe) for recipe in pair)
    assert a.samples is not None
    assert b.samples is not None
    mixture = e.mixture(dim)
    heldout = _rows(mixture.draw(-(-e.num_samples // mixture.num_classes), "heldout")[0])
    train, largest = (
        _rows(mixture.draw(count, "half A")[0]) for count in (per_class, e.counts(dim)[-1])
    )
    gl, rp = compare_halves(
        (a.samples, b.samples), train, heldout, threshold=copy_threshold(heldout, largest)
    )
    return Cell(
        model=kind, dim=dim, per_class=per_class, recovery=(a.recovery, b.recovery), gl=gl, rp=rp
    )


def _rows(points: object) -> npt.NDArray[np.float32]:
    """(N, C, H, W) tensor -> (N, n)."""
    array = np.asarray(points, np.float32)
    return array.reshape(len(array), -1)


def _print_plan(e: MoLRGExperiment, grid: Grid, store: Store, results: MoLRGResults) -> None:
    """What would be done, and how long one thread of this machine would take; nothing is kept."""
    print(f"results   {results.location.uri}")
    d = e.data
    subspaces, each = counted(d.num_classes, "subspace"), counted(d.dim, "dimension")
    print(f"data      {subspaces} of {each} in {d.size}")
    waiting = [recipe for recipe in grid.all if store.missing([recipe])]
    kinds = {r.model.model.kind: r.model.model for r in grid.all if r.model is not None}
    total = 0.0
    for kind, model in kinds.items():
        recipes = [r for r in waiting if r.model is not None and r.model.model.kind == kind]
        seconds = _seconds_per_step(model, e) * sum(_steps(r) for r in recipes)
        total += seconds
        models = counted(len(recipes), "model")
        print(f"train     {kind}: {models} missing, {duration(seconds)} on one CPU")
    print(
        f"time      {duration(total)} of CPU for training; Jacobians, samples and report not counted"
    )


def _seconds_per_step(model: PointModel, e: MoLRGExperiment) -> float:
    """Of one training step, from a few timed ones."""
    points = e.data.draw(8)[0]
    config = TrainingConfig(batch_size=e.batch_size)
    denoiser = build_point_model(model, e.data, seed=0, name="timed")
    seconds = 0.0
    for _ in range(2):  # the first run allocates
        denoiser.requires_grad_(True)
        started = time.perf_counter()
        train_points(
            denoiser, points, config, steps=_TIMED_STEPS, std=e.data.std, seed=0, name="timed"
        )
        seconds = (time.perf_counter() - started) / _TIMED_STEPS
    return seconds


if __name__ == "__main__":
    console.leave(main())
