"""In how many directions does a denoiser move? The rank of its Jacobian at every noise level.

python jobs/jacobian.py
python jobs/jacobian.py --model edm-cifar10-32x32-uncond-vp.pkl --seeds 0-63
python jobs/jacobian.py --model network.safetensors wiener:cifar10.zip --source cifar10.zip
python jobs/jacobian.py --model ddpm-cifar10/ --source cifar10.zip --method randomised --rank stable
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence

import torch

from regimes.actors.jacobian import linearise
from regimes.actors.replicas import ReplicaOptions
from regimes.actors.runtime import RayRuntime
from regimes.images.sources import ImageSource
from regimes.jacobians.linearization import Linearization
from regimes.jobs.support import console
from regimes.jobs.support.console import RunOptions, Stage, duration
from regimes.jobs.support.jacobian.experiment import (
    JacobianExperiment,
    image_recipe,
    import_models,
    linear_reference,
    recipes,
    source_of,
)
from regimes.jobs.support.jacobian.results import JacobianResults, Linearised
from regimes.storage.artifacts import Store
from regimes.storage.denoisers import Loaded
from regimes.storage.images import ImagesRecipe, decode_source, ingest
from regimes.storage.jacobian import (
    ImagePoints,
    JacobianRecipe,
    check_points,
    choose_images,
    read_pictures,
    read_spectra,
    split_work,
)
from regimes.studies.jacobian import study
from regimes.words import counted

_TIMED_PRODUCTS = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    experiment, run = console.read_options(
        argv, [JacobianExperiment(), RunOptions()], job="jacobian", about=__doc__ or ""
    )
    source = source_of(experiment)
    images = None if source is None else image_recipe(experiment, source)
    if run.dry_run:
        _print_plan(experiment, run, images)
        return 0
    store = Store(run.output)
    models = import_models(store, experiment)
    work = recipes(experiment, models, images)
    results = JacobianResults(run, experiment, [recipe.address for recipe in work.values()])
    if run.resume:
        results.check_name()
    else:
        results.remove()
        for recipe in work.values():
            store.artifact(recipe).remove()
    if results.is_complete():
        print("complete: nothing to compute")
    else:
        _ingest(store, source, images)
        _linearise(store, work, {name: loaded for name, _, loaded in models}, run)
        results.write(_rank(store, experiment, work, images))
    results.print_summary()
    return 0


def _ingest(store: Store, source: ImageSource | None, images: ImagesRecipe | None) -> None:
    if source is None or images is None or not store.missing([images]):
        return
    with Stage("images", 0, "image") as stage:
        decoded = decode_source(source, images)
        ingest(store, images, decoded)
        stage.done(f"{counted(len(decoded.ids), 'image')} of {source.name} read")


def _linearise(
    store: Store,
    work: Mapping[str, JacobianRecipe],
    models: Mapping[str, Loaded],
    run: RunOptions,
) -> None:
    """Measure what is missing; the same points serve all models."""
    waiting = store.missing(work.values())
    points = next(iter(work.values())).points
    chosen = choose_images(store, points) if waiting and isinstance(points, ImagePoints) else None
    for name, recipe in work.items():
        check_points(recipe, models[name], chosen)
    units = sum(len(split_work(store, recipe)[1]) for recipe in waiting)
    with Stage("linearise", units, "unit") as stage:
        if waiting:
            options = ReplicaOptions(
                count=run.replicas, device=run.device, gpus_each=run.gpus_per_replica
            )
            runtime = RayRuntime(run.cpus)
            try:
                linearise(runtime, store, waiting, chosen, options=options, on_unit=stage.advance)
            finally:
                runtime.close()
        kept = sum(recipe.num_units for recipe in work.values()) - units
        stage.done(f"{counted(len(work), 'model')}: {counted(kept, 'unit')} kept, {units} made")


def _rank(
    store: Store,
    experiment: JacobianExperiment,
    work: Mapping[str, JacobianRecipe],
    images: ImagesRecipe | None,
) -> Linearised:
    with Stage("rank", 0, "model") as stage:
        models = [read_spectra(store, recipe, name) for name, recipe in work.items()]
        sigmas = [float(s) for s in models[0].sigmas]
        reference = linear_reference(store, images, sigmas)
        found = study(
            models,
            experiment.rank,
            reference=reference,
            reference_name=f"linear denoiser of {experiment.source}" if reference else "",
        )
        pictures = {name: read_pictures(store, recipe) for name, recipe in work.items()}
        stage.done(
            f"{counted(len(models), 'model')}, {counted(len(found.every_row), 'noise level')}"
        )
    return Linearised(study=found, models=models, pictures=pictures)


def _print_plan(
    experiment: JacobianExperiment, run: RunOptions, images: ImagesRecipe | None
) -> None:
    """What would be done, and how long one thread of this machine would take; nothing is kept."""
    store = Store(f"memory://{uuid.uuid4().hex}")
    try:
        models = import_models(store, experiment)
    finally:
        store.root.remove()
    work = recipes(experiment, models, images)
    print(f"points    {experiment.points}")
    total = 0.0
    for name, _, loaded in models:
        check_points(work[name], loaded, None)
        points = work[name].points
        levels = len(points.sigmas) if isinstance(points, ImagePoints) else points.sampler.num_steps
        each, method = _seconds_per_point(loaded, experiment)
        total += each * levels * len(points)
        channels, height, width = loaded.image_shape
        print(
            f"model     {name}: {width}x{height}x{channels}, {counted(len(points), 'point')} at "
            f"{counted(levels, 'level')}, {method}, {duration(each)} each"
        )
    print(
        f"time      {duration(total)} on one thread of this machine; sampling, pictures and report not "
        "counted"
    )
    results = JacobianResults(run, experiment, [recipe.address for recipe in work.values()])
    print(f"results   {results.location.uri}")


def _seconds_per_point(loaded: Loaded, experiment: JacobianExperiment) -> tuple[float, str]:
    """Of one Jacobian, from a few timed products and, where it is whole, the cube of its side."""
    x = torch.zeros(1, *loaded.image_shape)
    labels = torch.eye(loaded.num_classes)[:1] if loaded.num_classes else None
    local = Linearization(loaded.denoiser, x, 1.0, labels)
    n, config = local.shape[1], experiment.spectrum
    count = min(_TIMED_PRODUCTS, n)
    units = torch.eye(count, n, dtype=local.value.dtype)[None]
    local.pull(units)
    started = time.perf_counter()
    local.pull(units)
    each = (time.perf_counter() - started) / count
    if not config.is_full(n, local.value.element_size()):
        return each * (3 * config.power + 2) * config.width, f"at least {config.width} directions"
    side = min(n, 256)
    square = torch.randn(side, side, dtype=local.value.dtype)
    started = time.perf_counter()
    torch.linalg.svdvals(square)
    return each * n + (time.perf_counter() - started) * (n / side) ** 3, "whole Jacobians"


if __name__ == "__main__":
    console.leave(main())
