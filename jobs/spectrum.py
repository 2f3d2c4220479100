"""Is the data more than its covariance? Spectra of samples and of a Gaussian mixture beside real ones.

python jobs/spectrum.py                           # handwritten digits and a model of them, a minute or two
python jobs/spectrum.py --real cifar10.zip --sets edm_samples/ network.pkl --seeds 0-4095
python jobs/spectrum.py --real A --sets B --mixture.by class --mixture.shrinkage ledoit-wolf
python jobs/spectrum.py --real A --sets B --descriptor resnet50-pool --per-class
python jobs/spectrum.py --real A --sets B --normalisation raw --published-names
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from regimes.actors.replicas import ReplicaOptions, generate
from regimes.actors.runtime import RayRuntime
from regimes.actors.trials import train_grid
from regimes.errors import ConfigError
from regimes.gaussians.fit import Labels
from regimes.images.sources import ImageSource, load_labels
from regimes.jobs.support import console
from regimes.jobs.support.console import RunOptions, Stage, duration
from regimes.jobs.support.sample_sets import open_images
from regimes.jobs.support.spectrum.classifiers import compare_classifiers, num_trainings
from regimes.jobs.support.spectrum.experiment import (
    PIXELS,
    TRAINED,
    SpectrumExperiment,
    SpectrumFeatures,
    SpectrumSets,
)
from regimes.jobs.support.spectrum.results import Measured, SpectrumResults
from regimes.samplers.config import SamplerConfig
from regimes.spectra.rows import Rows, pixel_rows
from regimes.storage.artifacts import Store
from regimes.storage.images import decode_source, ingest
from regimes.storage.model_specs import import_model, is_model
from regimes.storage.samples import SamplesRecipe, split_work
from regimes.studies.classifier_curves import ClassifierCurves
from regimes.studies.spectrum import (
    REAL,
    Halves,
    MixtureOf,
    SpectrumStudy,
    num_compared,
    num_steps,
    study_spectra,
)
from regimes.words import counted


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv), skips_bad_images=True)


def _main(argv: Sequence[str] | None) -> int:
    experiment, choice, run = console.read_options(
        argv, [SpectrumExperiment(), PIXELS, RunOptions()], job="spectrum", about=__doc__ or ""
    )
    if choice.descriptor == "whitened-pixels":
        raise ConfigError(
            "--descriptor whitened-pixels: whitening takes away what a spectrum measures; expected "
            "pixels or a network"
        )
    store = Store(run.output)
    sets = SpectrumSets(store, experiment)
    _check(sets)
    results = SpectrumResults(run, experiment, choice, sets.fingerprints)
    if run.dry_run:
        _print_plan(sets, results)
        return 0
    if run.resume:
        results.check_name()
    else:
        _forget(sets, results)
    if results.is_complete():
        print("complete: nothing to compute")
    else:
        _make_samples(sets, run)
        opened = _open(sets)
        if choice.is_network:
            measured = _features(SpectrumFeatures.of(sets, choice, opened), sets, opened, run)
        else:
            measured = _pixels(sets, opened)
        studies = _study(measured, experiment, run)
        curves = _classify(measured, experiment)
        notes = [*measured.notes, *_without_classes(measured, experiment)]
        results.write(replace(measured, studies=studies, curves=curves, notes=notes))
    results.print_summary()
    return 0


def _check(sets: SpectrumSets) -> None:
    """Refuse what could not be compared before anything is made."""
    e = sets.experiment
    counts = [len(s.ids) for s in sets.sources.values()]
    counts += [len(recipe.seeds) for recipe in sets.models.values()]
    count = num_compared(len(sets.real.images), counts, e.measure)
    for name, spectrum in sets.saved.items():
        if (spectrum.num_rows, spectrum.normalisation) != (count, e.measure.normalisation):
            raise ConfigError(
                f"--spectra {name}: of {spectrum.num_rows} images, {spectrum.normalisation}; expected "
                f"{count} images, {e.measure.normalisation}, as are compared; pass --num-images and "
                "--normalisation to match"
            )
    if not sets.models and (e.seeds is not None or e.sampler != SamplerConfig()):
        raise ConfigError(
            "--seeds, --sampler: no set is a model that is sampled here; leave them out"
        )
    by_class = e.mixture.by == "class" or e.per_class or e.classifier_sizes
    if by_class and sets.real.labels is None:
        flag = "--per-class" if e.per_class else "--mixture.by class"
        flag = "--classifier-sizes" if e.classifier_sizes else flag
        raise ConfigError(
            f"{flag}: {e.real} does not say the classes of its images; expected class folders or labels"
        )


def _print_plan(sets: SpectrumSets, results: SpectrumResults) -> None:
    """What would be done; nothing is kept."""
    e, images = sets.experiment, sets.real.images
    counts = [len(s.ids) for s in sets.sources.values()]
    counts += [len(recipe.seeds) for recipe in sets.models.values()]
    n = num_compared(len(images), counts, e.measure)
    side, spectra = min(n, images[0].size), 2 * (e.measure.splits + e.measure.control)
    work = spectra * (n * images[0].size * side + 4 * side**3 / 3) * 2
    if e.with_mixture:
        half, width = len(images) // 2, images[0].size
        # Moments and their decomposition where images outnumber values; samples in any case.
        each = half * width**2 + 20 * width**3 if half > width else 0
        work += (e.measure.control + 2) * (each + 2 * n * width * min(half, width))
    print(f"real      {len(images):,} images of {images[0].size} values: {e.real}")
    for name, source in sets.sources.items():
        print(f"set       {name}: {len(source.ids):,} images")
    for name, recipe in sets.models.items():
        missing = "to be sampled" if sets.store.missing([recipe]) else "complete"
        print(
            f"set       {name}: {recipe.denoiser.label}, {len(recipe.seeds):,} samples, {missing}"
        )
    if e.with_mixture:
        print(f"mixture   {e.mixture.words}, of half the real images")
    print(
        f"compare   {n:,} images of each, {counted(spectra, 'spectrum', 'spectra')} of side {side}"
    )
    print(
        f"time      {duration(work / _speed())} for spectra and fits at the speed of this machine's "
        "products; training, sampling, descriptors, classifiers and report not counted"
    )
    print(f"results   {results.location.uri}")


def _speed(side: int = 512) -> float:
    """Operations per second of a float64 product."""
    import time

    x = torch.ones(side, side, dtype=torch.float64)
    x @ x
    started = time.perf_counter()
    x @ x
    return float(2 * side**3 / max(time.perf_counter() - started, 1e-6))


def _forget(sets: SpectrumSets, results: SpectrumResults) -> None:
    """Delete this run's results, samples and trained model (--no-resume)."""
    results.remove()
    for recipe in sets.models.values():
        sets.store.artifact(recipe).remove()
        if recipe.denoiser is sets.__dict__.get("trained"):
            sets.store.artifact(sets.trained).remove()


def _make_samples(sets: SpectrumSets, run: RunOptions) -> None:
    """Train and sample what is missing, on one Ray."""
    store, recipes = sets.store, list(sets.models.values())
    waiting = store.missing(recipes)
    if not recipes:
        return
    real = sets.recipe_of(sets.real_source)
    if store.missing([real]):
        ingest(store, real, sets.real)
    for spec in sets.experiment.sets:
        if spec != TRAINED and is_model(spec):
            import_model(store, spec)
    runtime = RayRuntime(run.cpus)
    try:
        _train(sets, runtime, waiting)
        units = sum(len(split_work(store, recipe)[1]) for recipe in waiting)
        with Stage("sample", units, "unit") as stage:
            if waiting:
                options = ReplicaOptions(
                    count=run.replicas, device=run.device, gpus_each=run.gpus_per_replica
                )
                generate(runtime, store, waiting, options=options, on_unit=stage.advance)
            kept = sum(recipe.num_units for recipe in recipes) - units
            stage.done(
                f"{counted(len(recipes), 'model')}: {counted(kept, 'unit')} kept, {units} made"
            )
    finally:
        runtime.close()


def _train(sets: SpectrumSets, runtime: RayRuntime, waiting: Sequence[SamplesRecipe]) -> None:
    """The small network, if samples of it are missing and it is too."""
    model = sets.__dict__.get("trained")
    if model is None:
        return
    needed = any(recipe.denoiser is model for recipe in waiting) and sets.store.missing([model])
    reached = [0]

    def on_report(_: int, step: int, __: dict[str, float]) -> None:
        stage.advance(max(0, step - reached[0]))
        reached[0] = max(step, reached[0])

    with Stage("train", model.steps if needed else 0, "step") as stage:
        if needed:
            train_grid(runtime, sets.store, [[model]], on_report=on_report)
        count = len(sets.real.images) // 2
        stage.done(f"{model.label} on {count:,} images: {'trained' if needed else 'kept'}")


def _open(sets: SpectrumSets) -> dict[str, tuple[str, ImageSource]]:
    """Every set of images as (where, source), samples included; names as options have them."""
    e, found = sets.experiment, {REAL: (sets.experiment.real, sets.real_source)}
    for name, spec in zip(e.set_names, e.sets):
        if name in sets.models:
            uri = sets.store.artifact(sets.models[name]).location.uri
            found[f"sets/{name}"] = (uri, open_images(uri))
        else:
            found[f"sets/{name}"] = (spec, sets.sources[name])
    return found


def _pixels(sets: SpectrumSets, opened: dict[str, tuple[str, ImageSource]]) -> Measured:
    """Rows are pixels in [0, 1]."""
    decoded = {}
    with Stage("images", 0, "set") as stage:
        for key, (_, source) in opened.items():
            decoded[key] = (
                sets.real if key == REAL else decode_source(source, sets.recipe_of(source))
            )
        total = sum(len(d.images) for d in decoded.values())
        stage.done(f"{counted(len(decoded), 'set')}, {total:,} images read")
    shape = sets.real.images.shape[1:]
    for key, found in decoded.items():
        if found.images.shape[1:] != shape:
            raise ConfigError(
                f"--sets {opened[key][0]}: images of shape {found.images.shape[1:]}, but the real ones have "
                f"{shape}; pass --image-size or --channels to convert all"
            )
    return Measured(
        rows={key.removeprefix("sets/"): pixel_rows(d.images) for key, d in decoded.items()},
        labels={key.removeprefix("sets/"): d.labels for key, d in decoded.items()},
        where=_where(sets, opened),
        what="pixels in [0, 1]",
        shape=(int(shape[0]), int(shape[1]), int(shape[2])),
        notes=[f"Left out: {message.split('; ')[0]}" for message in sets.real.left_out],
        saved=sets.saved,
    )


def _features(
    plan: SpectrumFeatures,
    sets: SpectrumSets,
    opened: dict[str, tuple[str, ImageSource]],
    run: RunOptions,
) -> Measured:
    """Rows are features of a network."""
    plan.ingest()
    plan.fit()
    runtime = RayRuntime(run.cpus)
    try:
        plan.describe(runtime, run)
    finally:
        runtime.close()
    _, raw = plan.read()
    return Measured(
        rows={key.removeprefix("sets/"): Rows(values=f.values) for key, f in raw.items()},
        labels={
            key.removeprefix("sets/"): load_labels(opened[key][1], [str(i) for i in f.ids])
            for key, f in raw.items()
        },
        where=_where(sets, opened),
        what=f"features of {plan.words}, as the network gives them",
        shape=None,
        notes=[],
        saved=sets.saved,
    )


def _where(sets: SpectrumSets, opened: dict[str, tuple[str, ImageSource]]) -> dict[str, str]:
    found = {key.removeprefix("sets/"): spec for key, (spec, _) in opened.items()}
    for name, recipe in sets.models.items():
        found[name] = f"{recipe.denoiser.label}, seeds {recipe.seeds}"
    return found | dict(zip(sets.saved, sets.experiment.spectra))


def _study(measured: Measured, e: SpectrumExperiment, run: RunOptions) -> list[SpectrumStudy]:
    """All images, and every class if asked for."""
    groups: list[int | None] = [None]
    real_labels = measured.labels[REAL]
    if e.per_class and real_labels is not None:
        groups += [int(c) for c in np.unique(real_labels)]
    device = "cuda" if torch.cuda.is_available() and run.device != "cpu" else "cpu"
    steps = len(groups) * num_steps(e.measure, mixture=e.with_mixture)
    studies = []
    with Stage("compare", steps, "spectrum") as stage:
        for group in groups:
            studies.append(_study_group(measured, e, group, device, stage))
        comparisons = sum(len(s.comparisons) for s in studies)
        stage.done(f"{counted(len(studies), 'group')}, {counted(comparisons, 'comparison')}")
    return studies


def _without_classes(measured: Measured, e: SpectrumExperiment) -> list[str]:
    """Which sets no class is studied of."""
    names = [name for name, own in measured.labels.items() if own is None]
    names = [*names, *measured.saved] if e.per_class else []
    return (
        [f"Without classes, and so not among single classes: {', '.join(names)}."] if names else []
    )


def _classify(measured: Measured, e: SpectrumExperiment) -> ClassifierCurves | None:
    """Classifiers trained on every set, if asked for."""
    if not e.classifier_sizes:
        return None
    with Stage("classify", num_trainings(e), "curve") as stage:
        found = compare_classifiers(
            measured.rows,
            measured.labels,
            e,
            pixels=measured.shape is not None,
            advance=stage.advance,
        )
        stage.done(f"{len(found.points)} points of curves")
    return found


def _study_group(
    measured: Measured, e: SpectrumExperiment, group: int | None, device: str, stage: Stage
) -> SpectrumStudy:
    rows = dict(measured.rows)
    labels: Labels | None = measured.labels[REAL]
    config, saved = e.mixture, measured.saved
    halves = None
    if group is not None:
        rows, index = _of_class(measured, group), np.flatnonzero(measured.labels[REAL] == group)
        halves = Halves.within(rows[REAL], index, len(measured.rows[REAL]), e.measure.seed)
        labels, saved = None, {}
        config = replace(config, by="pooled")
    mixture = None
    if e.with_mixture:
        own = labels if config.by == "class" else None
        mixture = MixtureOf(config=config, labels=own, images=measured.shape is not None)
    try:
        return study_spectra(
            rows.pop(REAL),
            rows,
            e.measure,
            mixture,
            saved=saved,
            halves=halves,
            group="all images" if group is None else f"class {group}",
            device=device,
            advance=stage.advance,
        )
    except (ValueError, ConfigError) as error:
        where = "" if group is None else f"--per-class: class {group}: "
        raise ConfigError(f"{where}{error}") from error


def _of_class(measured: Measured, group: int) -> dict[str, Rows]:
    """The rows of one class, of all sets that have classes."""
    found = {}
    for name, own in measured.labels.items():
        if own is not None:
            index = np.flatnonzero(own == group)
            if not len(index):
                raise ConfigError(f"--per-class: {name} has no image of class {group}")
            found[name] = measured.rows[name].take(index)
    return found


if __name__ == "__main__":
    console.leave(main())
