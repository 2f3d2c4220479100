"""Sample sets: images that were made from known seeds, wherever they come from.

A set is a folder of images (EDM's, with or without ``--subdirs``), a .zip, .npy, .npz or .parquet,
an artifact of samples, or a model, which is sampled first. Sets are compared seed by seed, so ids
are read as seeds if those of all sets can be; otherwise they are names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from regimes.errors import BadSource, ConfigError, IdMismatch
from regimes.images.arrays import ArraySource, row_ids
from regimes.images.names import is_utf8, seed_ids
from regimes.images.selection import Selection
from regimes.images.sources import ImageSource, open_source
from regimes.jobs.support.result_folder import slug
from regimes.samplers.edm import SamplerConfig
from regimes.scores.features import Ids
from regimes.storage.artifacts import RECIPE, Artifact, Recipe, Store
from regimes.storage.filesystem import Location
from regimes.storage.model_specs import CLOSED_FORMS, identify_model, import_model, is_model
from regimes.storage.samples import SamplesRecipe
from regimes.storage.seeds import Seeds
from regimes.storage.tables import read_rows

_IMAGE_ARTIFACTS = ("samples", "images")
_ARRAYS = (".npy", ".npz")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSet:
    """A set of images that exist."""

    name: str
    spec: str
    source: ImageSource

    @property
    def fingerprint(self) -> str:
        """Of the images."""
        return self.source.fingerprint

    @property
    def about(self) -> str:
        """Where the images are, in words."""
        numbered = list(self.source.ids) == row_ids(len(self.source.ids))
        path = Path(self.spec)
        if numbered and (path.suffix.lower() in _ARRAYS or path.is_dir()):
            return f"{self.spec} (numbered by row, from 0)"
        return self.spec


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSet:
    """A set that a model makes of seeds."""

    name: str
    spec: str
    recipe: SamplesRecipe

    @property
    def fingerprint(self) -> str:
        """Address of the samples, which the model and the seeds determine."""
        return self.recipe.address

    @property
    def about(self) -> str:
        """The model, in words."""
        return f"{self.spec}, sampled for seeds {self.recipe.seeds}"

    def prepare(self, store: Store) -> None:
        """Bring the model into the store, where workers find it."""
        import_model(store, self.spec)

    def made(self, store: Store) -> SourceSet:
        """The samples, once they are in the store."""
        artifact = store.artifact(self.recipe)
        return SourceSet(name=self.name, spec=self.spec, source=_open_artifact(artifact))


SetOfSamples = SourceSet | ModelSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which seeds are compared, and how models among the sets are sampled."""

    seeds: str | None
    """Seeds that models are sampled for, and that are taken of other sets; None takes all."""
    allow_partial: bool
    """Whether a set may lack some of them."""
    batch_size: int
    sampler: SamplerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found(Recipe):
    """An artifact that is opened by its folder."""

    kind: ClassVar[str] = "found"
    code_version: ClassVar[int] = 1


def set_names(specs: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """One name per set: those given, or the last parts of the paths that tell them apart.

    Raises:
        ConfigError: if names are too few, repeat or hold control characters.
    """
    if names:
        if len(names) != len(specs):
            raise ConfigError(f"--names: expected {len(specs)}, one per set, got {len(names)}")
    else:
        names = _distinct_tails(specs)
    if len(set(names)) < len(names) or not all(n.strip() and n.isprintable() for n in names):
        raise ConfigError(
            f"--names: expected {len(specs)} distinct printable names, got {', '.join(names)}"
        )
    return tuple(names)


def _distinct_tails(specs: Sequence[str]) -> list[str]:
    """Last parts of paths, as few as make them differ; closed forms keep their word."""
    forms = [spec.partition(":")[0] if spec.startswith(CLOSED_FORMS) else "" for spec in specs]
    parts = [re.split(r"[/:#]+", spec.rstrip("/")) for spec in specs]
    tails: list[str] = []
    for depth in range(1, max(map(len, parts)) + 1):
        kept = [[_short_hash(slug(p)) for p in one[-depth:]] for one in parts]
        tails = [
            "-".join(p for p in ([form] if form not in one else []) + one if p)
            for form, one in zip(forms, kept)
        ]
        if len(set(tails)) == len(tails):
            break
    return tails


def _short_hash(part: str) -> str:
    """The address of an artifact is long: its first eight digits do."""
    return part[:8] if re.fullmatch(r"[0-9a-f]{20}", part) else part


def open_set(name: str, spec: str, sampling: Sampling) -> SetOfSamples:
    """Find out what a set is; nothing is written, and nothing sampled.

    Raises:
        BadSource, BadCheckpoint: if there is nothing there, or nothing known.
        ConfigError: if a model has no seeds to be sampled for.
    """
    if not is_model(spec):
        return SourceSet(name=name, spec=spec, source=_chosen(open_images(spec), sampling))
    denoiser = identify_model(spec)
    if sampling.seeds is None:
        raise ConfigError(
            f"{spec}: a model, which is sampled for --seeds; pass them, as in --seeds 0-999"
        )
    recipe = SamplesRecipe(
        denoiser=denoiser,
        sampler=sampling.sampler,
        seeds=Seeds.parse(sampling.seeds),
        seeds_per_unit=sampling.batch_size,
    )
    return ModelSet(name=name, spec=spec, recipe=recipe)


def open_images(spec: str) -> ImageSource:
    """Images that exist: any source, or the folder of a samples or images artifact.

    Raises:
        BadSource: if there is nothing there, or nothing known.
    """
    if not is_utf8(spec):
        raise BadSource(f"{spec!a}: expected a path in UTF-8; rename it")
    if is_artifact(spec):
        return _open_artifact(Artifact(Location(spec), _Found()))
    if "://" in spec:
        raise BadSource(
            f"{spec}: expected the folder of a samples artifact, as in "
            "s3://bucket/regimes/artifacts/samples/...; copy other images to this machine"
        )
    return open_source(spec)


def is_artifact(spec: str) -> bool:
    """Whether these images are an artifact, of samples or of images."""
    is_folder = "://" in spec or Path(spec).is_dir()
    return is_folder and _artifact_kind(spec) in _IMAGE_ARTIFACTS


def _artifact_kind(spec: str) -> str | None:
    """What kind of artifact a folder is; shards without a recipe are those of an unfinished one."""
    location = Location(spec)
    try:
        kind = json.loads(location.read(RECIPE)).get("kind")
        return str(kind)
    except FileNotFoundError:
        return _IMAGE_ARTIFACTS[0] if _is_unfinished(location) else None
    except (ValueError, AttributeError) as error:
        raise BadSource(f"{spec}/{RECIPE}: not readable as JSON ({error})") from error


def _is_unfinished(location: Location) -> bool:
    try:
        return any(name.startswith("shard-") for name in location.sizes())
    except UnicodeDecodeError:  # no artifact has such a name; a source says which it is
        return False


def _open_artifact(artifact: Artifact) -> ArraySource:
    """All images of a complete artifact, checked against its manifest."""
    ids, images = read_rows(artifact, "image")
    return ArraySource(artifact.location.uri, images, [str(i) for i in ids])


def _chosen(source: ImageSource, sampling: Sampling) -> ImageSource:
    """The images of the wanted seeds only."""
    if sampling.seeds is None:
        return source
    known = seed_ids(source.ids)
    if known is None:
        raise ConfigError(
            f"--seeds: the ids of {source.name} are not seeds ({source.ids[0]}); expected names "
            "such as 000123.png"
        )
    parsed = Seeds.parse(sampling.seeds)
    place = {int(seed): i for i, seed in enumerate(known)}
    wanted = parsed.block(0, len(parsed))
    found = [place[seed] for seed in wanted if seed in place]
    if not found or (len(found) < len(wanted) and not sampling.allow_partial):
        first = next(seed for seed in wanted if seed not in place)
        raise IdMismatch(
            f"{source.name}: holds {len(found)} of the {len(wanted)} images of --seeds {parsed}, not "
            f"that of {first}; choose seeds that are there, or pass --allow-partial"
        )
    return Selection(source, found)


def shared_kind(ids: Sequence[Sequence[str]]) -> tuple[list[Ids], str]:
    """Ids of all sets in one form, and what that is: seeds if all are, else names.

    Args:
        ids: of each set.

    Returns:
        One (N,) array per set, int64 or strings, and "seed" or "name".
    """
    found = [seed_ids(one) for one in ids]
    seeds = [one for one in found if one is not None]
    if len(seeds) == len(found):
        return [*seeds], "seed"
    return [np.array(list(one), np.str_) for one in ids], "name"
