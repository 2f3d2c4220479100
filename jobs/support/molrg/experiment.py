"""What a MoLRG study is made of: its options, its presets, and the models of its grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from regimes.errors import ConfigError
from regimes.images.molrg import MoLRG
from regimes.jobs.support.jacobian.experiment import PUBLISHED_SIGMAS
from regimes.storage.molrg import MeasuresRecipe, PointModelRecipe
from regimes.training.points import Kind, PointModel

HALVES: tuple[Literal["A"], Literal["B"]] = ("A", "B")


@dataclass(frozen=True, slots=True, kw_only=True)
class MoLRGExperiment:
    """What is drawn, trained and measured."""

    data: MoLRG = field(default_factory=MoLRG)
    """The mixture of the rank curves; the published figure has n = 48, K = 2, d = 6."""
    per_class: int = 350
    """Points per class of the rank curves."""
    models: tuple[Kind, ...] = ("low-rank", "mlp", "unet")
    """Models of the rank curves."""
    transition_models: tuple[Kind, ...] = ("low-rank", "mlp")
    """Models of the phase transition; each is trained twice per cell, on disjoint points."""
    dims: tuple[int, ...] = (3, 6)
    """Dimensions d of the phase transition."""
    per_dim: tuple[float, ...] = (0.5, 1, 2, 4, 16)
    """Points per class of the phase transition, in units of d."""
    sigmas: tuple[float, ...] = tuple(float(s) for s in PUBLISHED_SIGMAS)
    """Noise levels of the rank curves."""
    mlp_width: int = 128
    """Units of the MLP."""
    unet_width: int = 16
    """Base channels of the U-Net."""
    unet_dropout: float = 0.0
    """Dropout of the U-Net; the published code leaves it at 0.13."""
    unet_augment: float = 0.0
    """Probability of EDM's augmentations for the U-Net, which take points out of their subspaces; the
    published code leaves it at 0.12."""
    low_rank_steps: int = 400
    """Training steps of the low-rank model, for each restart."""
    mlp_steps: int = 1500
    """Training steps of the MLP."""
    unet_steps: int = 1000
    """Training steps of the U-Net."""
    restarts: int = 6
    """Of the low-rank model; the one of least training loss is kept."""
    batch_size: int = 128
    """Points per step."""
    num_points: int = 16
    """Held-out points at which Jacobians are ranked."""
    num_samples: int = 256
    """Seeds that the models of the phase transition sample; as many held-out points are GL's null."""
    seed: int = 0
    """Of weights and batches; that of the data is --data.seed."""

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        for name in ("per_class", "batch_size", "num_points", "num_samples"):
            least = 2 if name.startswith("num") else 1
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag}: expected at least {least}, got {getattr(self, name)}")
        for name in ("models", "transition_models", "dims", "per_dim", "sigmas"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag}: expected one value or more, each once, got {values}")
        if min(*self.per_dim, *self.sigmas, 1) <= 0:
            raise ConfigError("--per-dim, --sigmas: expected numbers above 0")
        is_regularized = (self.unet_dropout, self.unet_augment) != (0, 0)
        if is_regularized and "unet" not in (*self.models, *self.transition_models):
            raise ConfigError("--unet-dropout, --unet-augment: no model is a unet")
        if self.unet_augment and self.data.side < 4:
            raise ConfigError(f"--unet-augment: expected a side of 4 or more, got {self.data.side}")
        self.point_model("unet")  # refuses what is no probability
        for dim in self.dims:  # refuses subspaces that do not fit
            self.mixture(dim)

    def mixture(self, dim: int) -> MoLRG:
        """The mixture of the phase transition at d dimensions."""
        d = self.data
        return MoLRG(
            num_classes=d.num_classes, dim=dim, side=d.side, channels=d.channels, seed=d.seed
        )

    def counts(self, dim: int) -> list[int]:
        """Points per class of the phase transition, ascending; two at least."""
        return sorted({max(2, round(dim * ratio)) for ratio in self.per_dim})

    def point_model(self, kind: Kind) -> PointModel:
        """Size and training of one kind of model."""
        if kind == "low-rank":
            return PointModel(
                kind=kind, steps=self.low_rank_steps, learning_rate=0.05, restarts=self.restarts
            )
        width = {"mlp": self.mlp_width, "unet": self.unet_width}[kind]
        steps = {"mlp": self.mlp_steps, "unet": self.unet_steps}[kind]
        if kind == "mlp":
            return PointModel(kind=kind, width=width, steps=steps)
        return PointModel(
            kind=kind,
            width=width,
            steps=steps,
            dropout=self.unet_dropout,
            augment=self.unet_augment,
        )


SMALL = MoLRGExperiment(
    dims=(3,),
    per_dim=(1, 4),
    per_class=64,
    sigmas=(10.0, 1.0, 0.1),
    low_rank_steps=60,
    mlp_steps=60,
    unet_steps=10,
    unet_width=8,
    mlp_width=32,
    restarts=1,
    num_points=4,
    num_samples=16,
)
PRESETS = {"default": MoLRGExperiment(), "smoke": SMALL}
"""smoke shows that everything runs; its models have learned next to nothing."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Everything that is trained and measured."""

    exact: MeasuresRecipe
    curves: dict[Kind, MeasuresRecipe]
    """By model."""
    cells: dict[tuple[Kind, int, int], tuple[MeasuresRecipe, MeasuresRecipe]]
    """(model, d, M) -> halves A and B."""

    @property
    def all(self) -> list[MeasuresRecipe]:
        """Every measure once."""
        found = [self.exact, *self.curves.values()]
        found += [recipe for pair in self.cells.values() for recipe in pair]
        return list({recipe.address: recipe for recipe in found}.values())

    @property
    def trials(self) -> list[list[MeasuresRecipe]]:
        """What is trained together: the U-Net, which takes longest, begins."""
        alone = [*reversed(self.curves.values()), self.exact]
        return [[recipe] for recipe in alone] + [list(pair) for pair in self.cells.values()]


def make_grid(e: MoLRGExperiment) -> Grid:
    """The recipes of an experiment."""
    curves = {kind: _measures(e, _model(e, e.data, e.per_class, kind, "A"), 0) for kind in e.models}
    cells = {}
    for kind in e.transition_models:
        for dim in e.dims:
            for per_class in e.counts(dim):
                models = [_model(e, e.mixture(dim), per_class, kind, half) for half in HALVES]
                a, b = (_measures(e, model, e.num_samples) for model in models)
                cells[kind, dim, per_class] = (a, b)
    exact = MeasuresRecipe(
        data=e.data, model=None, sigmas=e.sigmas, num_points=e.num_points, num_samples=0
    )
    return Grid(exact, dict(curves), cells)


def _model(
    e: MoLRGExperiment, data: MoLRG, per_class: int, kind: Kind, half: Literal["A", "B"]
) -> PointModelRecipe:
    return PointModelRecipe(
        data=data,
        per_class=per_class,
        half=half,
        model=e.point_model(kind),
        batch_size=e.batch_size,
        seed=e.seed,
    )


def _measures(e: MoLRGExperiment, model: PointModelRecipe, num_samples: int) -> MeasuresRecipe:
    return MeasuresRecipe(
        data=model.data,
        model=model,
        sigmas=e.sigmas,
        num_points=e.num_points,
        num_samples=num_samples,
    )
