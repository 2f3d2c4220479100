"""Pretrained pipelines of complete checkpoint artifacts, ready to be sampled by schedulers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from regimes.denoisers.compute import Compute
from regimes.errors import BadCheckpoint, ConfigError
from regimes.pipelines.model import Pipeline, build_pipeline, prepare_pipeline
from regimes.pipelines.schedulers import (
    GuidedConfig,
    SchedulerConfig,
    SchedulerName,
    check_scheduler,
    own_scheduler,
)
from regimes.storage.artifacts import Store
from regimes.storage.checkpoints import CONFIG, CheckpointRecipe, Format, pipeline_states
from regimes.storage.prompts import keep_prompts

GUIDANCE: dict[Format, float] = {"class-pipeline": 4.0, "text-pipeline": 7.5}
"""Scale by format where none is given: that of diffusers' pipeline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What samples of a conditional pipeline are conditioned on, beside a class."""

    guidance: float | None = None
    """Scale; None takes that of ``GUIDANCE``."""
    prompts: tuple[str, ...] = ()
    """The list of which seed s takes number s mod its length."""
    negative_prompt: str = ""
    """What guidance moves away from."""


def load_pipeline(
    store: Store,
    recipe: CheckpointRecipe,
    *,
    device: str = "cpu",
    compute: Compute | None = None,
    others: Sequence[str] = (),
) -> Pipeline:
    """The pipeline of a complete artifact on a device, spread over ``others`` too if there are any.

    Raises:
        BrokenArtifact: if a file is missing or altered.
        BadCheckpoint: if its parts do not fit together.
    """
    artifact = store.artifact(recipe)
    name = artifact.location.uri
    try:
        states = pipeline_states(recipe.format, artifact.read, name)
        made = build_pipeline(_config(store, recipe), states)
    except ConfigError as error:
        raise BadCheckpoint(f"{name}: {error}") from error
    return prepare_pipeline(made, compute or Compute(), device, others)


def named_scheduler(
    store: Store,
    recipe: CheckpointRecipe,
    *,
    name: SchedulerName | None,
    num_steps: int,
    eta: float,
    conditions: Conditions | None = None,
) -> SchedulerConfig:
    """A scheduler that fits a pipeline of the store, and what it is conditioned on.

    Args:
        store: where the pipeline is, and where its prompts go.
        recipe: which.
        name: one of ``SCHEDULERS``; None takes the one that the pipeline was saved with.
        num_steps: of the solver.
        eta: of ddim.
        conditions: guidance and prompts, for a pipeline that takes them.

    Raises:
        ConfigError: if there is no such scheduler, it does not take the pipeline's configuration, or the
            pipeline does not take these conditions.
    """
    schedule, c = _config(store, recipe)["scheduler"], conditions or Conditions()
    _check_conditions(recipe, c)
    name = name or own_scheduler(schedule)
    config = SchedulerConfig(name=name, num_steps=num_steps, eta=eta)
    check_scheduler(schedule, config)
    if recipe.format not in GUIDANCE:
        return config
    return GuidedConfig(
        name=name,
        num_steps=num_steps,
        eta=eta,
        guidance=GUIDANCE[recipe.format] if c.guidance is None else c.guidance,
        prompts=keep_prompts(store, c.prompts).sha256 if c.prompts else None,
        negative_prompt=c.negative_prompt,
    )


def _check_conditions(recipe: CheckpointRecipe, asked: Conditions) -> None:
    if asked.guidance is not None and recipe.format not in GUIDANCE:
        raise ConfigError(
            f"--guidance: of pipelines with a class or a prompt for none (DiT, Stable Diffusion), and the "
            f"model is {recipe.label}; leave it out"
        )
    if asked.prompts and recipe.format != "text-pipeline":
        raise ConfigError(
            f"--prompts: of pipelines that read text, and the model is {recipe.label}; leave it out"
        )
    if recipe.format == "text-pipeline" and not asked.prompts:
        raise ConfigError(
            f"--prompts: {recipe.label} reads text; expected prompts, or a file with one per line "
            "(jobs/generate.py takes them)"
        )
    if asked.negative_prompt and recipe.format != "text-pipeline":
        raise ConfigError(
            f"--negative-prompt: of pipelines that read text, and the model is {recipe.label}; leave it out"
        )


def _config(store: Store, recipe: CheckpointRecipe) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.artifact(recipe).read(CONFIG))
    return found
