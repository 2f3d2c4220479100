"""Sets of samples that a study makes itself: one pretrained pipeline, sampled by several schedulers.

The samples are ordinary artifacts of the store. From there on they are sets like any other, given by their
folders and named by their schedulers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from regimes.errors import ConfigError
from regimes.jobs.support.console import Execution, duration
from regimes.jobs.support.diverse.experiment import DiverseExperiment
from regimes.jobs.support.result_folder import slug
from regimes.jobs.support.sample_sets import set_names
from regimes.jobs.support.sampling import choose_sampler, sample_all
from regimes.jobs.support.sampling_cost import sampling_cost
from regimes.pipelines.schedulers import SCHEDULERS, SchedulerName
from regimes.samplers.edm import SamplerConfig
from regimes.storage.artifacts import Store
from regimes.storage.model_specs import import_model
from regimes.storage.samples import SamplesRecipe
from regimes.storage.seeds import Seeds
from regimes.words import counted

Recipes = dict[SchedulerName, SamplesRecipe]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledSets:
    """Sets that are sampled first; the defaults are the published settings."""

    model: str | None = None
    """A folder saved by a diffusers pipeline, sampled by every one of --schedulers."""
    schedulers: tuple[SchedulerName, ...] = ()
    """ddim, plms, dpm-solver++, unipc, euler, heun, ddpm: one row of the table each."""
    num_steps: int = 8
    """Steps of every scheduler."""
    eta: float = 0.0
    """Scheduler ddim: noise per step, from 0 (none) to 1 (as much as ddpm)."""
    seeds: str = "0-999"
    """Seeds, as in 0-49999; one image each, the same noise for every scheduler."""
    batch_size: int = 100
    """Seeds per batch, which is also the unit of work; changes images by rounding only."""

    def __post_init__(self) -> None:
        """Refuse what could not run, or what would change nothing."""
        Seeds.parse(self.seeds)
        if self.batch_size < 1:
            raise ConfigError(f"--batch-size: expected at least 1, got {self.batch_size}")
        if self.model is None:
            self._check_unused()
        elif not self.schedulers or len(set(self.schedulers)) < len(self.schedulers):
            raise ConfigError(
                f"--schedulers: expected one or more of {', '.join(SCHEDULERS)}, each once, got "
                f"{' '.join(self.schedulers) or 'none'}"
            )
        if self.eta and "ddim" not in self.schedulers:
            raise ConfigError(f"--eta: ddim alone reads it, got {self.eta} without it")

    def _check_unused(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) != field.default:
                raise ConfigError(
                    f"--{field.name.replace('_', '-')}: for sets that are sampled here; pass --model, or "
                    "leave it out"
                )

    def eta_of(self, name: SchedulerName) -> float:
        """Eta is that of ddim, the others have none."""
        return self.eta if name == "ddim" else 0.0


def sample_recipes(store: Store, asked: SampledSets, *, keep: bool = True) -> Recipes:
    """What is to be made of the model, by scheduler.

    Args:
        store: where the model goes.
        asked: what is sampled; nothing without a model.
        keep: whether it goes there; otherwise nothing is written.

    Raises:
        ConfigError, BadCheckpoint: if it is no pipeline, or a scheduler does not take it.
    """
    if asked.model is None:
        return {}
    if not keep:
        with _aside() as elsewhere:
            return sample_recipes(elsewhere, asked)
    denoiser = import_model(store, asked.model)
    steps = SamplerConfig(num_steps=asked.num_steps)
    return {
        name: SamplesRecipe(
            denoiser=denoiser,
            sampler=choose_sampler(store, denoiser, steps, name, asked.eta_of(name)),
            seeds=Seeds.parse(asked.seeds),
            seeds_per_unit=asked.batch_size,
        )
        for name in asked.schedulers
    }


@contextlib.contextmanager
def _aside() -> Iterator[Store]:
    """A store that is gone afterwards."""
    aside = Store(f"memory://{uuid.uuid4().hex}")
    try:
        yield aside
    finally:
        aside.root.remove()


def with_samples(
    experiment: DiverseExperiment, store: Store, recipes: Recipes
) -> DiverseExperiment:
    """The study of these samples and of the sets that exist, the samples first.

    Raises:
        ConfigError: if a set that exists has the name of a scheduler.
    """
    if not recipes:
        return experiment
    names = set_names(experiment.generated, experiment.names) if experiment.generated else ()
    for name in names:
        if name in recipes:
            raise ConfigError(
                f"--generated: a set is called {name}, as one that is sampled here; choose another by "
                "--names"
            )
    folders = [store.artifact(recipe).location.uri for recipe in recipes.values()]
    return dataclasses.replace(
        experiment, generated=(*folders, *experiment.generated), names=(*recipes, *names)
    )


def make_samples(store: Store, asked: SampledSets, recipes: Recipes, run: Execution) -> None:
    """Sample by every scheduler; the units that exist are kept."""
    made = list(recipes.values())
    if not run.resume:
        for recipe in made:
            store.artifact(recipe).remove()
    if made:
        about = f"{asked.model} by {', '.join(recipes)}, {counted(len(made[0].seeds), 'seed')} each"
        sample_all(store, made, run, about)


def whereabouts(asked: SampledSets, recipes: Recipes) -> dict[str, str]:
    """What a report says of every set that was sampled here, by its name."""
    return {
        name: f"{asked.model}, scheduler {name}, {counted(asked.num_steps, 'step')}, eta "
        f"{asked.eta_of(name):g}, seeds {recipe.seeds}"
        for name, recipe in recipes.items()
    }


def result_name(asked: SampledSets, usual: str) -> str:
    """Name of a result folder: the model and its schedulers, and the hash that ends the usual name."""
    parts = [slug(part) for part in (asked.model or "", *asked.schedulers)]
    return "-".join(part or "set" for part in parts)[:80] + usual[-9:]


def print_sampling_plan(asked: SampledSets) -> None:
    """What would be sampled, and how long one thread of this machine would take; keeps nothing."""
    with _aside() as aside:
        recipes = sample_recipes(aside, asked)
        costs = {name: sampling_cost(aside, recipe) for name, recipe in recipes.items()}
    for name, cost in costs.items():
        channels, height, width = cost.image_shape
        evaluations = recipes[name].sampler.num_evaluations
        print(
            f"{name:<12} {counted(len(recipes[name].seeds), 'image')} {width}x{height}x{channels}, "
            f"{counted(evaluations, 'evaluation')} each, about {duration(cost.seconds)} on one thread"
        )
    print("plan      sets are compared once they are sampled; then --dry-run tells that cost too")
