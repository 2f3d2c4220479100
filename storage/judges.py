"""Judges as artifacts: what tells the classes of a set of images apart, and broken images from them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import safetensors.torch

from regimes.guidance.judge import Judge, fit_judge
from regimes.images.pixels import to_float
from regimes.storage.artifacts import Recipe, Store, to_json
from regimes.storage.images import Subset, read_images, read_labels, read_subset
from regimes.storage.tables import read_rows

WEIGHTS, LIMITS = "weights.safetensors", "limits.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRecipe(Recipe):
    """What determines a judge."""

    kind: ClassVar[str] = "judge"
    code_version: ClassVar[int] = 1

    train: Subset
    """Labelled images; those that the subset's split holds out set the limits."""
    seed: int


def make_judge(store: Store, recipe: JudgeRecipe) -> None:
    """Fit a judge and write its artifact, unless it is there."""
    artifact = store.artifact(recipe)
    if artifact.is_complete():
        return
    train, labels = read_subset(store, recipe.train)[1], read_labels(store, recipe.train)
    split = recipe.train.split
    unseen = split.heldout(recipe.train.half, recipe.train.size)
    images = read_images(store, recipe.train.images)[1]
    all_labels = read_rows(store.artifact(recipe.train.images), "label")[1]
    judge = fit_judge(
        to_float(train), labels, to_float(images[unseen]), all_labels[unseen], seed=recipe.seed
    )
    tensors = {**judge.weights, "reference": judge.reference}
    limits = {
        name: getattr(judge, name)
        for name in ("least_confidence", "largest_distance", "accuracy", "accepted")
    }
    artifact.finish(
        [
            artifact.write(WEIGHTS, safetensors.torch.save(tensors)),
            artifact.write(LIMITS, to_json(limits).encode()),
        ]
    )


def load_judge(store: Store, recipe: JudgeRecipe) -> Judge:
    """The judge of a complete artifact."""
    artifact = store.artifact(recipe)
    weights = safetensors.torch.load(artifact.read(WEIGHTS))
    reference = weights.pop("reference")
    return Judge(weights=weights, reference=reference, **json.loads(artifact.read(LIMITS)))
