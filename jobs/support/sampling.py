"""Sampling as a stage of a job: the units that exist are kept, replicas make the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from regimes.actors.replicas import ReplicaOptions, generate
from regimes.actors.runtime import RayRuntime
from regimes.errors import ConfigError
from regimes.jobs.support.console import Execution, Stage
from regimes.pipelines.schedulers import SchedulerName
from regimes.samplers.edm import SamplerConfig
from regimes.storage import samples
from regimes.storage.artifacts import Store
from regimes.storage.checkpoints import LATENT, PIPELINES, CheckpointRecipe
from regimes.storage.denoisers import DenoiserRecipe
from regimes.storage.pipelines import Conditions, named_scheduler
from regimes.storage.samples import Sampler, SamplesRecipe
from regimes.words import counted


def sample_all(store: Store, recipes: Sequence[SamplesRecipe], to: Execution, about: str) -> None:
    """Complete the samples of all recipes.

    Args:
        store: where their models are, and where samples go.
        recipes: what to sample.
        to: how the job runs.
        about: what is sampled, for the stage's line.
    """
    waiting = store.missing(recipes)
    missing = sum(len(samples.split_work(store, recipe)[1]) for recipe in waiting)
    with Stage("sample", missing, "unit") as stage:
        if waiting:
            runtime = RayRuntime(to.cpus)
            options = ReplicaOptions(
                count=to.replicas, device=to.device, gpus_each=to.gpus_per_replica
            )
            try:
                generate(runtime, store, waiting, options=options, on_unit=stage.advance)
            finally:
                runtime.close()
        kept = sum(recipe.num_units for recipe in recipes) - missing
        stage.done(f"{about}: {counted(kept, 'unit')} kept, {missing} made")


def choose_sampler(
    store: Store,
    denoiser: DenoiserRecipe,
    sampler: SamplerConfig,
    scheduler: SchedulerName | None,
    eta: float,
    conditions: Conditions | None = None,
) -> Sampler:
    """How a model of the store is sampled.

    Args:
        store: where the model is.
        denoiser: which.
        sampler: options of EDM's samplers; schedulers take their number of steps.
        scheduler: by name; None is EDM's, and for a latent pipeline the one that it was saved with.
        eta: of scheduler ddim.
        conditions: guidance and prompts of a pipeline.

    Raises:
        ConfigError: if options do not belong together, or do not fit the model.
    """
    kind = denoiser.format if isinstance(denoiser, CheckpointRecipe) else None
    if scheduler is None and kind not in LATENT:
        if eta:
            raise ConfigError(f"--eta: of --scheduler ddim, got {eta} without it; leave it out")
        _check_unconditional(denoiser, conditions or Conditions())
        return sampler
    if not isinstance(denoiser, CheckpointRecipe) or kind not in PIPELINES:
        raise ConfigError(
            f"--scheduler {scheduler}: samples folders of diffusers pipelines, and the model is "
            f"{denoiser.label}; leave it out"
        )
    _check_options(sampler)
    return named_scheduler(
        store,
        denoiser,
        name=scheduler,
        num_steps=sampler.num_steps,
        eta=eta,
        conditions=conditions,
    )


def _check_unconditional(denoiser: DenoiserRecipe, asked: Conditions) -> None:
    """EDM's samplers are not guided."""
    for field in dataclasses.fields(asked):
        if getattr(asked, field.name) != field.default:
            raise ConfigError(
                f"--{field.name.replace('_', '-')}: of DiT and Stable Diffusion pipelines, and the model is "
                f"{denoiser.label}; leave it out"
            )


def _check_options(sampler: SamplerConfig) -> None:
    """Schedulers have the levels of their pipeline: of EDM's options they take the number of steps."""
    for field in dataclasses.fields(sampler):
        if field.name != "num_steps" and getattr(sampler, field.name) != field.default:
            raise ConfigError(
                f"--{field.name.replace('_', '-')}: belongs to EDM's samplers, and this model is sampled "
                "by a scheduler; leave it out"
            )
