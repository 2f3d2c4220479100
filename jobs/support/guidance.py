"""What a guidance sweep is asked, and what follows from it: recipes, cells and trials."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from regimes.errors import ConfigError
from regimes.guidance.config import Bandwidth, GuidanceConfig, Jacobian, Strength
from regimes.guidance.sampler import check_together
from regimes.images.pixels import to_float
from regimes.images.sources import open_source
from regimes.images.split import Split
from regimes.jobs.support.experiments import check_least
from regimes.samplers.config import SamplerConfig
from regimes.storage.artifacts import Recipe, Store
from regimes.storage.denoisers import DenoiserRecipe
from regimes.storage.guidance import (
    GuidedRecipe,
    ImageTarget,
    JudgeRecipe,
    KnownTarget,
    known_target,
)
from regimes.storage.images import Decoded, ImagesRecipe, Subset, decode_source
from regimes.storage.model_specs import identify_model
from regimes.storage.models import ModelRecipe
from regimes.studies.guidance import CellKey, Tolerance, baseline_key
from regimes.training.ensemble import TrainingConfig

LEAST_GROUPS = 2
_HELD_OUT = 6  # one image in so many sets the limits of the judge


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidanceExperiment:
    """What is swept: every kernel, strength, S_churn and group size with every factor."""

    target: Literal["images", "ring", "jumps"] = "images"
    """images: a model of images with classes. ring: Gaussians on a circle, and jumps: a glyph moved in
    eight directions; their denoisers are exact."""
    source: str = "digits"
    """Images with classes, for target images: "digits" (built in), a folder, .zip, .npz, .parquet, or
    CIFAR-10's archive. One in six is held out, and tells broken samples."""
    model: str | None = None
    """An unconditional model of such images, as --model of the generate job; by default a small network
    is trained on them here."""
    width: int = 256
    """Units per layer of the network that is trained."""
    blocks: int = 4
    """Its residual blocks."""
    steps: int = 4000
    """Its training steps."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0
    """Of the split, the network and the judge."""
    mode_weights: tuple[float, ...] = ()
    """Shares of the modes of ring and jumps; by default ten, or eight, equal ones."""
    factors: tuple[float, ...] = (0.0, 0.03, 0.1, 0.3, 1.0)
    """Strengths; 0, the baseline, is always among them."""
    churns: tuple[float, ...] = (0.0, 4.0)
    """S_churn of the sampler."""
    group_sizes: tuple[int, ...] = (10,)
    """B, particles that repel each other."""
    kernels: tuple[Literal["rbf", "iou", "cosine", "angular"], ...] = ("rbf", "iou")
    """What keeps particles apart."""
    strengths: tuple[Strength, ...] = ("linear", "cosine")
    """How the strength goes with the noise level."""
    space: Literal["x", "denoised"] = "denoised"
    """What is compared: the noisy state, or the estimate of the image."""
    jacobian: Jacobian = "identity"
    """How a force on the estimate acts on the state: exact goes back through the network."""
    bandwidth: Bandwidth = "median"
    """Of the kernel: fixed, in proportion to sigma, or by the median rule."""
    bandwidth_scale: float = 1.0
    """Multiplies the bandwidth."""
    average: bool = False
    """Divide forces by B."""
    lowest: float = 0.0
    """Guide only at noise levels from here ..."""
    highest: float = math.inf
    """... to here."""
    cap: float | None = None
    """Never let guidance be longer than so many times the slope of the sampler."""
    corrector: bool = True
    """Guide Heun's corrector too."""
    eta: float = 0.0
    """Noise of DDIM, with --sampler.solver euler and --churns 0."""
    groups: int = 100
    """Groups per cell."""
    first_seed: int = 0
    """Seed of the first sample; all cells of a group size get the same."""
    inlier_tolerance: float = 0.02
    """Drop of the share of accepted samples that counts as unchanged quality."""
    distance_tolerance: float = 0.05
    """Growth of the distance from the data that does, as a share."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        """Refuse what could not run, or what would be without effect."""
        for name in ("factors", "churns", "group_sizes", "kernels", "strengths"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ConfigError(
                    f"--{name.replace('_', '-')}: expected distinct values, got {values}"
                )
        check_least(self, {"groups": LEAST_GROUPS, "steps": 1, "width": 1, "blocks": 1})
        if self.sampler.s_churn:
            raise ConfigError("--sampler.s-churn: is swept; pass --churns")
        if min(self.group_sizes) < 2:
            raise ConfigError("--group-sizes: expected at least 2; one particle has none to repel")
        if self.target == "images" and self.mode_weights:
            raise ConfigError("--mode-weights: are of targets ring and jumps; leave them out")
        self._check_unused()

    def _check_unused(self) -> None:
        default = {"width": 256, "blocks": 4, "steps": 4000, "training": TrainingConfig()}
        trains = self.target == "images" and self.model is None
        changed = [name for name, value in default.items() if getattr(self, name) != value]
        if changed and not trains:
            raise ConfigError(f"--{changed[0]}: nothing is trained here; leave it out")
        if self.target != "images" and (self.model is not None or self.source != "digits"):
            raise ConfigError(
                f"--model, --source: target {self.target} has no images; leave them out"
            )

    @property
    def all_factors(self) -> tuple[float, ...]:
        """Ascending, 0 first."""
        return tuple(sorted({0.0, *self.factors}))

    @property
    def tolerance(self) -> Tolerance:
        """What counts as unchanged quality."""
        return Tolerance(inliers=self.inlier_tolerance, distance=self.distance_tolerance)

    @property
    def trains(self) -> bool:
        """Whether a network is trained here."""
        return self.target == "images" and self.model is None


PRESETS: dict[str, GuidanceExperiment] = {
    "digits": GuidanceExperiment(),
    "ring": GuidanceExperiment(
        target="ring",
        factors=(0.0, 1.0, 10.0, 100.0, 1000.0),
        churns=(0.0,),
        kernels=("rbf", "angular"),
        strengths=("linear", "cosine"),
        space="x",
        bandwidth="sigma",
        average=True,
        lowest=0.0317,
        eta=1.0,
        groups=100,
        sampler=SamplerConfig(
            num_steps=201,
            sigma_min=math.sqrt(0.001),
            sigma_max=1.0,
            discretization="ve",
            solver="euler",
        ),
    ),
    "jumps": GuidanceExperiment(
        target="jumps",
        factors=(0.0, 0.1, 0.3, 1.0, 3.0),
        churns=(0.0,),
        group_sizes=(8,),
        strengths=("linear",),
        groups=20,
        sampler=SamplerConfig(num_steps=22),
    ),
}


class GuidancePlan:
    """Everything a sweep makes, by recipes.

    Args:
        experiment: what is asked.

    Raises:
        ConfigError, BadSource: if it cannot be had.
    """

    def __init__(self, experiment: GuidanceExperiment) -> None:
        self.experiment = experiment
        self.decoded: Decoded | None = None
        self.images: ImagesRecipe | None = None
        if experiment.target == "images":
            self._open()
        for recipe in self.cells.values():
            check_together(recipe.sampler, recipe.guidance)

    def _open(self) -> None:
        source = open_source(self.experiment.source)
        self.images = ImagesRecipe(
            fingerprint=source.fingerprint, image_size=None, channels=None, skip_bad=False
        )
        self.decoded = decode_source(source, self.images)
        labels = self.decoded.labels
        where = f"--source {self.experiment.source}"
        if labels is None:
            problem = self.decoded.label_problem or "the source has none"
            raise ConfigError(f"{where}: expected images with classes ({problem})")
        if len(np.unique(labels)) < 2 or len(np.unique(labels)) <= labels.max():
            raise ConfigError(f"{where}: expected classes 0 to K - 1, each of them there")
        if len(labels) < 100:
            raise ConfigError(f"{where}: expected at least 100 images, got {len(labels)}")

    @property
    def probabilities(self) -> list[float]:
        """Of the modes in the data."""
        if self.decoded is None:
            default = [1 / 8] * 8 if self.experiment.target == "jumps" else [0.1] * 10
            return list(self.experiment.mode_weights) or default
        assert self.decoded.labels is not None
        return list(np.bincount(self.decoded.labels) / len(self.decoded.labels))

    @property
    def train(self) -> Subset:
        """The images that the network and the judge learn from."""
        assert self.images is not None
        assert self.decoded is not None
        count = len(self.decoded.ids)
        split = Split(num_images=count, seed=self.experiment.seed, parts=1)
        return Subset(images=self.images, split=split, half="A", size=count - count // _HELD_OUT)

    @cached_property
    def model(self) -> DenoiserRecipe | None:
        """What is sampled, for images."""
        e = self.experiment
        if e.target != "images":
            return None
        if e.model is not None:
            return identify_model(e.model)
        assert self.decoded is not None
        return ModelRecipe(
            train=self.train,
            width=e.width,
            blocks=e.blocks,
            steps=e.steps,
            sigma_data=round(float(to_float(self.decoded.images).std()), 4),
            training=e.training,
            seed=e.seed,
            ensemble=(f"w{e.width}-{self.train.label}",),
        )

    @cached_property
    def judge(self) -> JudgeRecipe | None:
        """What tells the classes of images apart."""
        if self.experiment.target != "images":
            return None
        return JudgeRecipe(train=self.train, seed=self.experiment.seed)

    @property
    def target(self) -> KnownTarget | ImageTarget:
        """What is sampled and judged."""
        e = self.experiment
        if e.target == "images":
            assert self.model is not None
            assert self.judge is not None
            return ImageTarget(denoiser=self.model, judge=self.judge)
        return KnownTarget(name=e.target, weights=tuple(self.probabilities))

    @cached_property
    def cells(self) -> dict[CellKey, GuidedRecipe]:
        """Every cell's recipe, baselines first."""
        return {key: self._recipe(key) for key in self._keys()}

    def _keys(self) -> Iterator[CellKey]:
        e = self.experiment
        places = list(itertools.product(e.group_sizes, e.churns))
        rows = list(itertools.product(e.kernels, e.strengths, places))
        guided = [
            CellKey(factor=f, s_churn=churn, group_size=size, kernel=kernel, strength=strength)
            for kernel, strength, (size, churn) in rows
            for f in e.all_factors[1:]
        ]
        for size, churn in places:
            yield baseline_key(
                CellKey(factor=0, s_churn=churn, group_size=size, kernel="", strength="")
            )
        yield from guided

    def _recipe(self, key: CellKey) -> GuidedRecipe:
        e = self.experiment
        guidance = GuidanceConfig(factor=0.0, group_size=key.group_size, eta=e.eta)
        if not key.is_baseline:
            guidance = GuidanceConfig(
                factor=key.factor,
                group_size=key.group_size,
                space=e.space,
                jacobian=e.jacobian,
                kernel=key.kernel,  # type: ignore[arg-type]
                bandwidth=e.bandwidth,
                width=e.bandwidth_scale,
                average=e.average,
                strength=key.strength,  # type: ignore[arg-type]
                cap=e.cap,
                lowest=e.lowest,
                highest=e.highest,
                corrector=e.corrector,
                eta=e.eta,
            )
        return GuidedRecipe(
            target=self.target,
            sampler=replace(e.sampler, s_churn=key.s_churn),
            guidance=guidance,
            groups=e.groups,
            first_seed=e.first_seed,
        )

    def trials(self, store: Store) -> list[list[GuidedRecipe]]:
        """Cells that are missing, those of a row together."""
        rows: dict[tuple[object, ...], list[GuidedRecipe]] = {}
        for key, recipe in self.cells.items():
            if store.missing([recipe]):
                rows.setdefault((*key.row, key.s_churn), []).append(recipe)
        return list(rows.values())

    @property
    def artifacts(self) -> Sequence[Recipe]:
        """Everything that is made here; images and imported models are kept by other jobs too."""
        made: list[Recipe] = [*self.cells.values()]
        if self.experiment.trains and self.model is not None:
            made.append(self.model)
        return made if self.judge is None else [*made, self.judge]

    def plane(
        self,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Origin (D,), two directions (2, D) and real points (N, 2) of the plane for figures.

        The ring's own plane, or the principal plane of real images (jumps: of the modes), fitted once.
        """
        target = self.target
        if isinstance(target, KnownTarget):
            mixture = known_target(target)
            real = mixture.centres.flatten(1).numpy()
            if target.name == "ring":
                shown = mixture.draw(2000, torch.Generator().manual_seed(0)).flatten(1).numpy()
                return np.zeros(2), np.eye(2), shown
        else:
            assert self.decoded is not None
            real = to_float(self.decoded.images).flatten(1).double().numpy()
        origin = real.mean(0)
        axes = np.linalg.svd(real - origin, full_matrices=False)[2][:2]
        return origin, axes, (real - origin) @ axes.T
