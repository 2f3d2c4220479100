"""Pretrained pipelines of complete checkpoint artifacts, ready to be sampled by schedulers."""

from __future__ import annotations

import json
from typing import Any

from regimes.denoisers.compute import Compute
from regimes.errors import BadCheckpoint, ConfigError
from regimes.pipelines.sampling import Pipeline, build_pipeline, prepare_pipeline
from regimes.pipelines.schedulers import SchedulerConfig, check_scheduler, own_scheduler
from regimes.storage.artifacts import Store
from regimes.storage.checkpoints import CONFIG, WEIGHTS, CheckpointRecipe, read_tensors


def load_pipeline(
    store: Store,
    recipe: CheckpointRecipe,
    *,
    device: str = "cpu",
    compute: Compute | None = None,
) -> Pipeline:
    """The pipeline of a complete artifact on a device.

    Raises:
        BrokenArtifact: if a file is missing or altered.
        BadCheckpoint: if its parts do not fit together.
    """
    artifact = store.artifact(recipe)
    name = f"{artifact.location.uri}/{WEIGHTS}"
    try:
        made = build_pipeline(_config(store, recipe), read_tensors(artifact.read(WEIGHTS), name))
    except ConfigError as error:
        raise BadCheckpoint(f"{name}: {error}") from error
    return prepare_pipeline(made, compute or Compute(), device)


def named_scheduler(
    store: Store, recipe: CheckpointRecipe, *, name: Any, num_steps: int, eta: float
) -> SchedulerConfig:
    """A scheduler that fits a pipeline of the store.

    Args:
        store: where the pipeline is.
        recipe: which.
        name: one of ``SCHEDULERS``; None takes the one that the pipeline was saved with.
        num_steps: of the solver.
        eta: of ddim.

    Raises:
        ConfigError: if there is no such scheduler, or it does not take the pipeline's configuration.
    """
    schedule = _config(store, recipe)["scheduler"]
    config = SchedulerConfig(name=name or own_scheduler(schedule), num_steps=num_steps, eta=eta)
    check_scheduler(schedule, config)
    return config


def _config(store: Store, recipe: CheckpointRecipe) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.artifact(recipe).read(CONFIG))
    return found
