"""Train one diffusion network as EDM does, on your images, on one or several GPUs.

python jobs/train.py --source cifar-10-python.tar.gz --precond vp --width 64 --batch-size 128 \
    --duration-kimg 50000 --max-images 4096 --output results
python jobs/train.py --source digits --width 32 --batch-size 64 --duration-kimg 300 --dry-run
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from regimes.actors.runtime import RayRuntime
from regimes.actors.training import train_distributed
from regimes.errors import ConfigError
from regimes.jobs.support import console
from regimes.jobs.support.console import Stage
from regimes.jobs.support.live import LiveCurves
from regimes.jobs.support.train.experiment import (
    Plan,
    RunRecipe,
    TrainExperiment,
    default_device,
    make_plan,
    print_plan,
    result_files,
)
from regimes.storage.artifacts import Artifact, Store, to_json
from regimes.storage.filesystem import Location
from regimes.storage.images import ingest
from regimes.storage.networks import (
    Execution,
    network_checkpoint,
    read_network_curve,
    train_network,
)
from regimes.storage.samples import load_model, make_samples, split_work
from regimes.words import counted

Report = Callable[[int, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Where and how the network is trained; nothing here changes it by more than rounding."""

    output: str = field(default_factory=console.default_output)
    """Folder or URI (s3://..., gs://...) for artifacts and results; $REGIMES_OUTPUT if it is set."""
    name: str | None = None
    """Name of the result folder; made from network, images and configuration if not given."""
    resume: bool = True
    """Go on from the last checkpoint; --no-resume deletes this run's artifacts first."""
    dry_run: bool = False
    """Print what would be done and what it would cost, and stop."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to compute: auto takes a GPU if there is one."""
    workers: int | None = None
    """Ray workers that share every batch, each on a GPU (or CPU) of its own; not given, the network
    is trained in this process."""
    microbatch: int | None = None
    """Most images that a device computes at once; less takes less memory."""
    checkpoint_kimg: float | None = None
    """Thousands of images between checkpoints; 20 are written in a run if not given, and one after
    every minute or so."""

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        if self.name is not None and not re.fullmatch(r"(?!\.+$)[\w.-]+", self.name):
            raise ConfigError(
                f"--name {self.name}: expected letters, digits, '.', '_' and '-' alone"
            )
        console.check_output(self.output)
        for name in ("workers", "microbatch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name}: expected at least 1, got {value}")
        if self.checkpoint_kimg is not None and not self.checkpoint_kimg > 0:
            raise ConfigError(
                f"--checkpoint-kimg: expected a number above 0, got {self.checkpoint_kimg}"
            )

    def execution(self, device: str) -> Execution:
        """How to train on a device."""
        return Execution(
            device=device, microbatch=self.microbatch, checkpoint_kimg=self.checkpoint_kimg
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv), skips_bad_images=True)


def _main(argv: Sequence[str] | None) -> int:
    experiment, options = console.read_options(
        argv, [TrainExperiment(), TrainOptions()], job="train", about=__doc__ or ""
    )
    plan = make_plan(experiment)
    target = _target(plan, options)
    if options.dry_run:
        print_plan(plan, _local_device(options), options.workers or 1)
        print(f"results   {target.location.uri}")
        return 0
    store = Store(options.output)
    if not options.resume:
        _forget(store, plan, target)
    elif _is_complete(target):
        print(f"complete: nothing to compute; results are in {target.location.uri}")
        return 0
    _ingest(store, plan)
    _train(store, plan, options, LiveCurves(target.location))
    _sample(store, plan, options)
    with Stage("results", 0, "file") as stage:
        target.finish([target.write(name, data) for name, data in result_files(store, plan)])
        stage.done(target.location.uri)
    return 0


def _target(plan: Plan, options: TrainOptions) -> Artifact:
    """The result folder; one that holds another run is refused."""
    recipe = plan.recipe.network
    network, digest = recipe.network, plan.recipe.address.rpartition("/")[2][:8]
    name = f"{network.arch}-{network.precond}-w{recipe.width}-n{recipe.train.size}-{digest}"
    location = Location(options.output).child(f"train/{options.name or name}")
    target = Artifact(location, plan.recipe)
    found = target.stored_recipe()
    if found is not None and options.resume and _network_of(found) != _network_of(plan.recipe):
        raise ConfigError(
            f"{location.uri}: holds another network; choose another --name, or pass --no-resume to "
            "replace it"
        )
    return target


def _network_of(recipe: RunRecipe | str) -> object:
    """What identifies a run: another version of the code may complete its results anew."""
    plain = json.loads(recipe if isinstance(recipe, str) else to_json(recipe))
    network = dict(plain.get("network", {}))
    network.pop("code_version", None)
    return network


def _is_complete(target: Artifact) -> bool:
    """Whether exactly this was written, and is as it was written."""
    if not target.is_complete() or target.stored_recipe() != to_json(target.recipe):
        return False
    target.verify()
    return True


def _local_device(options: TrainOptions) -> str:
    if options.device == "gpu" and default_device() == "cpu":
        raise ConfigError(
            "--device gpu: this process sees no GPU; pass --workers to use a cluster's"
        )
    return "cpu" if options.device == "cpu" else default_device()


def _ingest(store: Store, plan: Plan) -> None:
    with Stage("images", 0, "image") as stage:
        missing = store.missing([plan.images])
        if missing:
            ingest(store, plan.images, plan.decoded)
        for message in plan.decoded.left_out:
            print(f"left out  {message.split('; ')[0]}", file=sys.stderr)
        left_out = len(plan.decoded.left_out)
        stage.done(
            f"{len(plan.decoded.images)} {'read' if missing else 'kept'}"
            f"{f', {left_out} unreadable left out' if left_out else ''}; "
            f"{len(plan.train_images)} to train on"
        )


def _train(store: Store, plan: Plan, options: TrainOptions, curves: LiveCurves) -> None:
    recipe = plan.recipe.network
    reached = 0
    with Stage("train", recipe.training.steps, "step") as stage:

        def on_report(step: int, loss: float) -> None:
            nonlocal reached
            stage.advance(max(0, step - reached))
            reached = max(step, reached)
            curves.add(step, {recipe.label: loss})

        waiting = store.missing([recipe])
        if waiting and options.workers is None:
            execution = options.execution(_local_device(options))
            train_network(store, recipe, execution=execution, progress=on_report)
        elif waiting:
            _train_on_ray(store, plan, options, on_report)
        _, losses = read_network_curve(store, recipe)
        made = "trained" if waiting else "kept"
        stage.done(
            f"{recipe.label} {made}: {counted(recipe.training.steps, 'step')}, "
            f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last"
        )


def _train_on_ray(store: Store, plan: Plan, options: TrainOptions, on_report: Report) -> None:
    runtime = RayRuntime()
    try:
        use_gpu = options.device == "gpu" or (options.device == "auto" and runtime.gpus > 0)
        train_distributed(
            runtime,
            store,
            plan.recipe.network,
            workers=options.workers or 1,
            execution=options.execution("cuda" if use_gpu else "cpu"),
            on_report=on_report,
        )
    finally:
        runtime.close()


def _sample(store: Store, plan: Plan, options: TrainOptions) -> None:
    """Make a sheet of samples in this process: the same seeds for every network."""
    recipe = plan.recipe.samples
    entries, missing = split_work(store, recipe)
    with Stage("sample", len(missing), "unit") as stage:
        device = default_device() if options.device != "cpu" else "cpu"
        if missing:
            loaded = load_model(store, recipe, device=device)
        for unit in missing:
            entries.append(make_samples(store, recipe, unit, loaded, device=device))
            stage.advance()
        artifact = store.artifact(recipe)
        if not artifact.is_complete():
            artifact.finish(entries)
        stage.done(f"{counted(len(recipe.seeds), 'image')} of seeds {recipe.seeds}")


def _forget(store: Store, plan: Plan, target: Artifact) -> None:
    """Delete this run's results and artifacts (--no-resume)."""
    target.remove()
    for recipe in (plan.recipe.network, plan.recipe.samples):
        store.artifact(recipe).remove()
    network_checkpoint(store, plan.recipe.network).remove()


if __name__ == "__main__":
    console.leave(main())
