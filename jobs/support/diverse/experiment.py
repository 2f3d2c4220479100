"""What a study of diverse samples is made of: its options, and the sets that they name."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

from regimes.errors import ConfigError
from regimes.images.sources import ImageSource
from regimes.jobs.support.chosen_descriptor import DEFAULT_RIDGE
from regimes.jobs.support.sample_sets import open_images, set_names
from regimes.jobs.support.set_features import SetFeatures
from regimes.scores.diversity import Gates
from regimes.scores.features import Features
from regimes.scores.planes import Library
from regimes.studies.audit import FEWEST
from regimes.studies.diverse import (
    CONTROL,
    DiverseRules,
    DiverseSets,
    Rule,
    fewest_calibrators,
)

REAL, GENERATED, HELDOUT = "real", "generated", "heldout"
_SEEDS = 5
_TSNE_POINTS = 31
_OF_RULES: dict[Rule, tuple[str, ...]] = {
    "calibrated": ("quantile", "gate_neighbours", "looseness", "least_realism", "copy_ratio"),
    "knn": ("neighbours",),
    "tsne-hull": ("tsne", "stability_seeds"),
}
"""Options that only one rule reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiverseExperiment:
    """What is compared, and when a sample counts as diverse."""

    real: str | None = None
    """Real images, all that the model was trained on among them: a folder, .zip, .npy, .npz, .parquet,
    CIFAR-10's archive, a Hugging Face dataset on disk, or the folder of a samples or images artifact."""
    generated: tuple[str, ...] = ()
    """One set of samples or several, of the same kinds, each judged by every rule. May be left out if
    --model makes some."""
    heldout: str | None = None
    """Real images that are not among --real: they calibrate, and are judged as a control. Without them
    real images are calibrated against one another, which duplicates among them disturb."""
    names: tuple[str, ...] = ()
    """Names of the sets of --generated; by default the last parts of their paths."""
    rule: tuple[Rule, ...] = ("calibrated",)
    """calibrated, knn, pca-hull, tsne-hull: one or several. Images are kept of the first."""
    quantile: float = 0.95
    """calibrated: share of calibration distances that a diverse sample must exceed."""
    looseness: float | None = 2.0
    """calibrated: a diverse sample must be within this many times the distance of some real image to its
    k-th neighbour; None does not ask."""
    gate_neighbours: int = 5
    """calibrated: that k."""
    least_realism: float | None = None
    """calibrated: realism that a diverse sample must have besides; None does not ask."""
    copy_ratio: float | None = 1 / 3
    """calibrated: a sample that is this much nearer to one real image than to any other is a copy; None
    does not ask."""
    neighbours: int = 3
    """knn: neighbours that set the radius of the balls around real images."""
    tsne: Library = "scikit-learn"
    """tsne-hull: scikit-learn as published, openTSNE faster from some ten thousand images on."""
    stability_seeds: int = _SEEDS
    """tsne-hull: maps that the selection is repeated on; the count is that of the first, seed 0."""
    keep_images: Literal["folder", "none"] = "folder"
    """Whether the diverse images are written as PNG files, named by id."""
    image_size: int | None = None
    """Crop the centre square of every image and resize it to this side, in pixels."""
    channels: Literal[1, 3] | None = None
    """Convert all images to gray (1) or colour (3)."""
    skip_bad_images: bool = False
    """Leave out images that cannot be decoded (and count them) instead of stopping."""
    centre_images: int = 0
    """Real images, drawn at random, whose mean feature is subtracted from those of a network before
    distances are taken; hulls are drawn of features as the network gives them, centred or not."""
    ridge: float = DEFAULT_RIDGE
    """Regularisation of whitened-pixels, in units of the mean eigenvalue."""

    count_flips: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        if not self.rule or len(set(self.rule)) < len(self.rule):
            raise ConfigError(
                f"--rule: expected one or more, each once, got {' '.join(self.rule) or 'none'}"
            )
        for name, least in (("gate_neighbours", 1), ("neighbours", 1), ("stability_seeds", 2)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"{_flag(name)}: expected at least {least}, got {getattr(self, name)}"
                )
        if self.image_size is not None and self.image_size < 1:
            raise ConfigError(f"--image-size: expected at least 1, got {self.image_size}")
        if not 0 < self.quantile < 1:
            raise ConfigError(f"--quantile: expected a number inside (0, 1), got {self.quantile}")
        for name in ("looseness", "least_realism", "copy_ratio", "ridge"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{_flag(name)}: expected a number above 0, got {value}")
        if self.centre_images != 0 and self.centre_images < 2:
            raise ConfigError(
                f"--centre-images: expected 0 (none), or at least 2, got {self.centre_images}"
            )
        self._check_unused()
        if self.tsne == "openTSNE" and importlib.util.find_spec("openTSNE") is None:
            raise ConfigError(
                "--tsne openTSNE: not installed; pip install openTSNE, or take scikit-learn"
            )

    def _check_unused(self) -> None:
        """An option of a rule that is not asked for would change nothing."""
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        for rule, names in _OF_RULES.items():
            for name in names:
                changed = getattr(self, name) != usual[name]
                if rule not in self.rule and changed:
                    raise ConfigError(
                        f"{_flag(name)}: belongs to --rule {rule}, which is not asked for; add it, or "
                        "leave the option out"
                    )

    @property
    def rules(self) -> DiverseRules:
        """The rules and their settings."""
        return DiverseRules(
            names=self.rule,
            quantile=self.quantile,
            gates=Gates(
                k=self.gate_neighbours,
                looseness=self.looseness,
                least_realism=self.least_realism,
                copy_ratio=self.copy_ratio,
            ),
            neighbours=self.neighbours,
            library=self.tsne,
            seeds=self.stability_seeds,
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


class OpenDiverseSets:
    """The sources of a study, opened: ``real``, ``generated/NAME`` for each, ``heldout``.

    Args:
        experiment: which.
        complete: whether no sets of samples come on top, so that one is needed here.

    Raises:
        ConfigError, BadSource: if one is missing, of no known kind, or too small for the rules.
    """

    def __init__(self, experiment: DiverseExperiment, *, complete: bool = True) -> None:
        self.specs = _specs(experiment, complete)
        self.sources: dict[str, ImageSource] = {
            name: open_images(spec) for name, spec in self.specs.items()
        }
        for name, source in self.sources.items():
            if len(source.ids) < FEWEST:
                raise ConfigError(
                    f"{option(name)} {self.specs[name]}: expected at least {FEWEST} images, got "
                    f"{len(source.ids)}"
                )
        self._check_enough(experiment)

    def _check_enough(self, experiment: DiverseExperiment) -> None:
        """Rules that need more images than there are fail before anything is described."""
        count = {name: len(source.ids) for name, source in self.sources.items()}
        judge = HELDOUT if HELDOUT in count else REAL
        needed: list[tuple[Rule, str, int, str]] = [
            ("calibrated", judge, fewest_calibrators(experiment.quantile), "--quantile"),
            ("knn", REAL, experiment.neighbours + 1, "--neighbours"),
        ]
        if experiment.looseness is not None or experiment.least_realism is not None:
            needed.append(("calibrated", REAL, experiment.gate_neighbours + 1, "--gate-neighbours"))
        for rule, name, least, why in needed:
            if rule in experiment.rule and count[name] < least:
                raise ConfigError(
                    f"--{name} {self.specs[name]}: expected at least {least} images for {why}, got "
                    f"{count[name]}"
                )
        for name in self.generated_keys if "tsne-hull" in experiment.rule else ():
            if count[REAL] + count[name] < _TSNE_POINTS:
                raise ConfigError(
                    f"--generated {self.specs[name]}: expected at least {_TSNE_POINTS} images with "
                    f"--real for tsne-hull, got {count[REAL] + count[name]}"
                )

    @property
    def generated_keys(self) -> list[str]:
        """Keys of the sets of samples, in the order given."""
        return [name for name in self.specs if name.startswith(f"{GENERATED}/")]

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of every set."""
        return {name: source.fingerprint for name, source in self.sources.items()}

    def warnings(self) -> list[str]:
        """Sets that are the same, which is seldom what was meant."""
        found, names = [], list(self.fingerprints)
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                if self.fingerprints[first] == self.fingerprints[second]:
                    found.append(
                        f"{option(first)} and {option(second)} hold the same images: "
                        f"{self.specs[first]}, {self.specs[second]}"
                    )
        return found

    def warn(self) -> None:
        """Print the warnings."""
        for text in self.warnings():
            print(f"warning   {text}", file=sys.stderr)


def option(key: str) -> str:
    """The option that a set was given with."""
    return f"--{key.partition('/')[0]}"


def shown(key: str) -> str:
    """What a set is called in tables: its own name, if it has one."""
    return key.partition("/")[2] or key


def _specs(experiment: DiverseExperiment, complete: bool) -> dict[str, str]:
    if experiment.real is None:
        raise ConfigError("--real: expected a folder or a file of images, got nothing")
    given = experiment.generated
    if complete and not given:
        raise ConfigError(
            "--generated: expected one set of images or more, or --model and --schedulers, got nothing"
        )
    names = set_names(given, experiment.names) if given else ()
    for name in names:
        if name == CONTROL or "/" in name:
            raise ConfigError(f"--names: {name!r} cannot name a set of samples; choose another")
    found = {REAL: experiment.real}
    found |= {f"{GENERATED}/{n}": spec for n, spec in zip(names, experiment.generated, strict=True)}
    return found if experiment.heldout is None else found | {HELDOUT: experiment.heldout}


@dataclass(frozen=True)
class DiverseFeatures(SetFeatures):
    """The features that a study compares; arguments and errors as of ``SetFeatures``.

    Features of networks are kept as the network gives them: the published rule draws its map of these,
    and rules of distances take the same rows at length 1. So one extraction serves every rule.
    """

    base: ClassVar[str] = REAL
    base_name: ClassVar[str] = "real images"

    experiment: DiverseExperiment
    sets: OpenDiverseSets

    @property
    def raw(self) -> bool:
        """Whether features are kept as the network gives them."""
        return self.choice.is_network

    @property
    def fitted(self) -> bool:
        """Whether the descriptor rests on the real images."""
        return self.choice.descriptor == "whitened-pixels"


def compared(rows: dict[str, Features]) -> DiverseSets:
    """Rows by the keys of the sets, as a study takes them."""
    return DiverseSets(
        real=rows[REAL],
        generated={shown(k): f for k, f in rows.items() if k.startswith(f"{GENERATED}/")},
        heldout=rows.get(HELDOUT),
    )


def unit_label(rows: dict[str, Features]) -> dict[str, Features]:
    """Rows of length 1, no longer called raw."""
    return {
        name: Features(f.ids, f.values, f.descriptor.removesuffix(" raw"))
        for name, f in rows.items()
    }
