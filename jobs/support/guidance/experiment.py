"""What a guidance sweep is asked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from regimes.callables import PYTHON, is_target
from regimes.errors import ConfigError
from regimes.guidance.config import Bandwidth, Jacobian, Space, Strength
from regimes.guidance.targets import JUMP_DIRECTIONS
from regimes.images.clips import ClipConfig
from regimes.jobs.support.chosen_descriptor import DEFAULT_RIDGE
from regimes.jobs.support.memorization.experiment import check_least
from regimes.samplers.config import SamplerConfig
from regimes.studies.guidance import Tolerance
from regimes.training.architectures import NetworkConfig
from regimes.training.ensemble import TrainingConfig
from regimes.training.network import EDMTrainingConfig

LEAST_GROUPS = 2
_GRAY_LEVEL = 2 / 255  # of one pixel in [-1, 1]
_OF_KERNELS = (
    *("jacobian", "bandwidth", "bandwidth_scale", "average"),
    *("lowest", "highest", "cap", "corrector"),
)
PUBLISHED = "published"
KERNELS = ("rbf", "iou", "cosine", "angular", PUBLISHED)
CLIP_NETWORK = NetworkConfig(
    width=16, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(6, 7, 8), dropout=0.0
)
CLIP_TRAINING = EDMTrainingConfig(
    batch_size=64,
    duration_kimg=120,
    learning_rate=2e-3,
    lr_rampup_kimg=5,
    ema_halflife_kimg=10,
    augment=0.0,
    p_mean=-0.4,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidanceExperiment:
    """What is swept: every kernel, strength, S_churn and group size with every factor."""

    target: Literal["images", "clips", "ring", "jumps"] = "images"
    """images: a model of images with classes. clips: a model that continues clips of moving digits, whose
    modes are the directions. ring: Gaussians on a circle, and jumps: a glyph moved in eight directions;
    their denoisers are exact."""
    source: str = "digits"
    """Images with classes, for target images: "digits" (built in), MNIST's folder, another folder, .zip,
    .npz, .parquet, CIFAR-10's archive, or clips:middle. One in six is held out, and tells broken samples."""
    clips: ClipConfig = field(default_factory=ClipConfig)
    """Of target clips: those to learn from. A window is c frames that the model sees and the one that it
    learns. Held-out digits are continued from just before a change."""
    network: NetworkConfig = field(default_factory=lambda: CLIP_NETWORK)
    """The network that continues clips."""
    network_training: EDMTrainingConfig = field(default_factory=lambda: CLIP_TRAINING)
    """How it is trained; its p-mean moves the law of the noise level."""
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
    kernels: tuple[str, ...] = ("rbf", "iou")
    """What keeps particles apart: rbf, iou, cosine, angular, your own as python:MODULE:CALLABLE (a function
    of (G, B, D) to (G, B, B) dissimilarities, by torch), or published: not a kernel but the whole method as
    the thesis published it, with its errors, for comparison."""
    strengths: tuple[Strength, ...] = ("linear", "cosine")
    """How the strength goes with the noise level."""
    space: Space = "denoised"
    """What is compared: the noisy state, the estimate of the image, or its features: of --descriptor."""
    ridge: float = DEFAULT_RIDGE
    """Of descriptor whitened-pixels, in units of the mean eigenvalue."""
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
        self._check_weights()
        for kernel in self.kernels:
            _check_kernel(kernel)
        self._check_unused()
        if self.target == "clips":
            self._check_clips()

    def _check_weights(self) -> None:
        weights = self.mode_weights
        if not weights:
            return
        if self.target in ("images", "clips"):
            raise ConfigError("--mode-weights: are of targets ring and jumps; leave them out")
        if min(weights) <= 0 or not math.isclose(sum(weights), 1, rel_tol=1e-9):
            raise ConfigError(f"--mode-weights: expected positive shares of sum 1, got {weights}")
        if len(weights) < 2 or (self.target == "jumps" and len(weights) != len(JUMP_DIRECTIONS)):
            wanted = len(JUMP_DIRECTIONS) if self.target == "jumps" else "2 or more"
            raise ConfigError(f"--mode-weights: expected {wanted} shares, got {len(weights)}")

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
        of_clips = (self.clips, self.network, self.network_training)
        if self.target != "clips" and of_clips != (ClipConfig(), CLIP_NETWORK, CLIP_TRAINING):
            raise ConfigError("--clips, --network, --network-training: are of target clips")
        if PUBLISHED in self.kernels and (self.eta or self.space != "denoised"):
            raise ConfigError(
                "kernel published: compares estimates; expected space denoised, eta 0"
            )
        if self.kernels == (PUBLISHED,):
            self._check_published_alone()

    def _check_published_alone(self) -> None:
        """The published method has a bandwidth, a schedule and a window of its own."""
        for f in fields(self):
            if f.name in _OF_KERNELS and getattr(self, f.name) != f.default:
                raise ConfigError(
                    f"--{f.name.replace('_', '-')}: kernel published has its own; leave it out, or sweep "
                    "another kernel too"
                )

    def _check_clips(self) -> None:
        if not self.clips.movement.mode_names:
            raise ConfigError(
                f"--clips.motion {self.clips.motion}: has no directions to choose from; expected circle or "
                "horizontal"
            )
        if self.clips.window < 2 or self.clips.num_digits > 1:
            raise ConfigError("--clips: expected a window of at least 2 frames, and one digit")
        if self.clips.part != "all" or self.clips.windows != "all":
            raise ConfigError(
                "--clips.part, --clips.windows: are chosen by the job; leave them out"
            )
        if self.network.conditional:
            raise ConfigError("--network.conditional: clips are continued without classes")

    @property
    def all_factors(self) -> tuple[float, ...]:
        """Ascending, 0 first."""
        return tuple(sorted({0.0, *self.factors}))

    @property
    def tolerance(self) -> Tolerance:
        """What counts as unchanged quality."""
        # The exact modes of jumps have no width: samples are at them, but for the solver's rounding.
        least = _GRAY_LEVEL if self.target == "jumps" else 0.0
        return Tolerance(
            inliers=self.inlier_tolerance, distance=self.distance_tolerance, least_distance=least
        )

    @property
    def trains(self) -> bool:
        """Whether a network is trained here."""
        return self.target == "images" and self.model is None


def _check_kernel(kernel: str) -> None:
    is_own = kernel.startswith(PYTHON) and is_target(kernel.removeprefix(PYTHON))
    if kernel not in KERNELS and not is_own:
        raise ConfigError(
            f"--kernels {kernel}: expected some of {', '.join(KERNELS)}, python:MODULE:CALLABLE"
        )


# Small digits on small canvases: minutes on a CPU. The published 16 on 32 pixels ask for a GPU.
_CIRCLE = GuidanceExperiment(
    target="clips",
    clips=ClipConfig(motion="circle", canvas=12, digit=6, jump=3, window=2, clips=4000),
    factors=(0.0, 0.03, 0.1, 0.3, 1.0),
    churns=(0.0, 1.0),
    group_sizes=(8,),
    kernels=("rbf", "iou", "published"),
    strengths=("linear",),
    groups=40,
    distance_tolerance=0.1,
    sampler=SamplerConfig(
        num_steps=22
    ),  # with fewer the published Heun step leaves noise under churn
)
_HORIZONTAL = replace(
    _CIRCLE,
    clips=ClipConfig(
        motion="horizontal", canvas=14, digit=6, frames=12, window=4, clips=500, probability=0.7
    ),
    group_sizes=(2,),
    groups=100,
)
_SMOKE: dict[str, Any] = {
    "network": replace(CLIP_NETWORK, width=8),
    "network_training": replace(CLIP_TRAINING, batch_size=8, duration_kimg=0.08),
    "factors": (0.0, 0.1),
    "churns": (0.0,),
    "kernels": ("rbf",),
    "groups": 20,
    "sampler": SamplerConfig(num_steps=3),
}
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
    "circle": _CIRCLE,
    "horizontal": _HORIZONTAL,
    "circle-smoke": replace(_CIRCLE, **_SMOKE),
    "horizontal-smoke": replace(_HORIZONTAL, **_SMOKE),
}
