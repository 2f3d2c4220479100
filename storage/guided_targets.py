"""What a guidance sweep samples, and what tells the modes of its samples apart.

Three kinds: a mixture whose denoiser and modes are exact, a model of images with classes, and a model that
continues clips, whose modes are the directions in which a digit can go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regimes.denoisers.preconditioning import ContinuedFrames
from regimes.guidance.directions import MEASURES, movements
from regimes.guidance.targets import MixtureDenoiser, jumps, ring
from regimes.images.pixels import to_float
from regimes.samplers.edm import SampledDenoiser
from regimes.scores.modes import REJECTED
from regimes.storage.artifacts import Store
from regimes.storage.denoisers import DenoiserRecipe, load_denoiser
from regimes.storage.images import ImagesRecipe, read_images
from regimes.storage.judges import JudgeRecipe, load_judge
from regimes.storage.networks import NetworkRecipe

_FAR = 4.0  # standard deviations from a centre beyond which a sample of a mixture is rejected
_POINT = 1.0  # distance from a mode that has no width of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTarget:
    """A mixture whose denoiser and modes are exact."""

    measures: ClassVar[tuple[str, ...]] = ()

    name: Literal["ring", "jumps"]
    weights: tuple[float, ...]
    """Of the modes, in the data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTarget:
    """A model of images, and the judge of what it makes."""

    measures: ClassVar[tuple[str, ...]] = ()

    denoiser: DenoiserRecipe
    judge: JudgeRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTarget:
    """A model that continues clips, and the clips that it continues: group g the g-th of them."""

    measures: ClassVar[tuple[str, ...]] = MEASURES

    denoiser: NetworkRecipe
    clips: ImagesRecipe
    """Windows of frames that end behind a change; their last frame is not shown to the model."""
    displacements: tuple[tuple[int, int], ...]
    """(dx, dy) of the modes in pixels."""


Target = KnownTarget | ImageTarget | ClipTarget


@dataclass(frozen=True, slots=True)
class Sampled:
    """A target ready to be sampled."""

    image_shape: tuple[int, int, int]
    """(C, H, W) of a sample."""
    denoiser: Callable[[Sequence[int]], SampledDenoiser]
    """Of a batch, given the number of the group of each of its rows."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found of N samples."""

    modes: npt.NDArray[np.int64]
    """(N,), -1 for rejected ones."""
    quality: npt.NDArray[np.float64]
    """(N,), distance from the data."""
    measures: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    """What else, (N,) each, by name."""


Judgement = Callable[[Tensor, npt.NDArray[np.int64]], Judged]
"""Samples (N, C, H, W), and the number of the group of each, (N,)."""


def known_target(target: KnownTarget) -> MixtureDenoiser:
    """The mixture itself."""
    if target.name == "jumps":
        return jumps(weights=target.weights)
    return ring(len(target.weights), weights=target.weights)


def target_of(store: Store, target: Target, device: str = "cpu") -> Sampled:
    """The denoiser of a target, on a device."""
    if isinstance(target, KnownTarget):
        mixture = known_target(target)
        return Sampled(mixture.image_shape, lambda _: mixture)
    loaded = load_denoiser(
        store, target.denoiser, device=device, continues=isinstance(target, ClipTarget)
    )
    if isinstance(target, ImageTarget):
        return Sampled(loaded.image_shape, lambda _: loaded.denoiser)
    frames = seen_frames(store, target).to(device)

    def continued(groups: Sequence[int]) -> SampledDenoiser:
        rows = torch.tensor(list(groups)) % len(frames)
        return ContinuedFrames(loaded.denoiser, frames[rows.to(device)])  # type: ignore[arg-type]

    return Sampled(loaded.image_shape, continued)


def seen_frames(store: Store, target: ClipTarget) -> Tensor:
    """(M, c, H, W) float32 in [-1, 1], what the model sees of each clip."""
    windows = to_float(read_images(store, target.clips)[1])
    return windows[:, : target.denoiser.condition_channels]


def judgement(store: Store, target: Target) -> Judgement:
    """What tells modes apart."""
    if isinstance(target, KnownTarget):
        mixture = known_target(target)
        return lambda x, _: _nearest(mixture, x)
    if isinstance(target, ImageTarget):
        judge = load_judge(store, target.judge)
        return lambda x, _: Judged(*judge(x))
    last = seen_frames(store, target)[:, -1].double().numpy()
    return lambda x, groups: _moved(target, last, x, groups)


def _nearest(mixture: MixtureDenoiser, x: Tensor) -> Judged:
    modes, distances = mixture.nearest(x)
    near = distances <= (_FAR * mixture.std or _POINT)
    return Judged(torch.where(near, modes, REJECTED).numpy(), distances.numpy())


def _moved(
    target: ClipTarget, last: npt.NDArray[np.float64], x: Tensor, groups: npt.NDArray[np.int64]
) -> Judged:
    seen = last[groups % len(last)]
    found = movements(x[:, 0].double().numpy(), seen, target.displacements)
    measures = {name: getattr(found, name) for name in target.measures}
    return Judged(found.modes, found.quality, measures)
