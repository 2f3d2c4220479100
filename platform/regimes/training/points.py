"""Training on points of a mixture of low-rank Gaussians: no pixels, and no images to be turned.

    L = E[ lambda(sigma) ||D(y + sigma n; sigma) - y||^2 ],   ln sigma ~ N(p_mean, p_std^2)

the loss of EDM, over a finite set of points. Three models are trained alike: the low-rank parametric
one, a residual MLP, and a small U-Net. A step is a function of (seed, name, step) alone.

The published training kept EDM's augmentation and dropout on, for points too, which takes them out
of their subspaces; the U-Net can be trained that way, to see what it does to the rank.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from regimes.denoisers.molrg import LowRankMixture
from regimes.denoisers.preconditioning import EDM, Denoiser
from regimes.denoisers.residual_mlp import ResidualMLP
from regimes.denoisers.unet.build import build_denoiser
from regimes.errors import ConfigError
from regimes.images.molrg import MoLRG
from regimes.noise import keyed_generator
from regimes.training.augment import NUM_CONDITIONS, Augmentation
from regimes.training.ensemble import TrainingConfig
from regimes.training.loss import edm_loss

Kind = Literal["low-rank", "mlp", "unet"]
KINDS: tuple[Kind, ...] = ("low-rank", "mlp", "unet")
_CURVE_POINTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PointModel:
    """Which model."""

    kind: Kind
    width: int = 64
    """Units of the MLP, or base channels of the U-Net; the low-rank model has none."""
    steps: int = 1000
    """Length of its training."""
    learning_rate: float = 2e-3
    """Peak rate of AdamW."""
    restarts: int = 1
    """Trainings from other initial weights, of which the one of least training loss is kept: the loss of
    the low-rank model has local minima in which subspaces are mixed."""
    dropout: float = 0.0
    """Of the U-Net: probability that a feature is dropped."""
    augment: float = 0.0
    """Of the U-Net: probability of each transformation of EDM's pipe, as if points were images; mirroring
    in half of all cases. 0 leaves the points as they are."""

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        if self.kind not in KINDS:
            raise ConfigError(f"model: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        for name in ("width", "steps", "restarts"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{self.kind}: {name}: expected at least 1, got {getattr(self, name)}"
                )
        for name in ("dropout", "augment"):
            value, most = getattr(self, name), 0.0 if self.kind != "unet" else 1.0
            if not 0 <= value <= most or (name == "dropout" and value == 1):
                raise ConfigError(
                    f"{self.kind}: {name}: expected a probability, and 0 for all but the U-Net, got "
                    f"{value}"
                )


def build_point_model(model: PointModel, data: MoLRG, *, seed: int, name: str) -> Any:
    """A denoiser with initial weights that its seed and name determine.

    Args:
        model: which.
        data: what it is trained on: the low-rank model is told K and d, the others only the scale.
        seed: of the initial weights.
        name: of the model; others have other weights.
    """
    generator = torch.Generator().manual_seed(
        int(keyed_generator("point model", seed, name).integers(2**32))
    )
    if model.kind == "low-rank":
        return LowRankMixture(data.image_shape, data.num_classes, data.dim, generator)
    if model.kind == "mlp":
        network = ResidualMLP(data.image_shape, model.width, blocks=3)
        network.init_member(0, generator)
        return Denoiser(network, EDM(sigma_data=data.std))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        return build_denoiser(_unet(model, data))


def _unet(model: PointModel, data: MoLRG) -> dict[str, Any]:
    """DDPM++ with as many resolutions as the images have."""
    levels = min(3, data.side.bit_length())
    return {
        "preconditioning": "EDMPrecond",
        "model_type": "SongUNet",
        "img_resolution": data.side,
        "img_channels": data.channels,
        "sigma_data": data.std,
        "model_channels": model.width,
        "channel_mult": [1, *(2 for _ in range(levels - 1))],
        "num_blocks": 1,
        "attn_resolutions": [],
        "dropout": model.dropout,
        "augment_dim": NUM_CONDITIONS if model.augment else 0,
    }


def train_point_model(
    model: PointModel,
    data: MoLRG,
    points: Tensor,
    *,
    batch_size: int,
    seed: int,
    name: str,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[Any, float]:
    """The best of a model's restarts by its own training loss, and that loss.

    Args:
        model: which.
        data: the mixture that the points are of.
        points: (N, C, H, W) float32, the training set.
        batch_size: points per step.
        seed: of weights and batches.
        name: of the model.
        progress: called with (step over all restarts, mean loss).
    """
    config = TrainingConfig(batch_size=batch_size, learning_rate=model.learning_rate)
    best: tuple[Any, float] | None = None
    for restart in range(model.restarts):
        own, before = f"{name} {restart}", restart * model.steps

        def report(step: int, loss: float, before: int = before) -> None:
            if progress is not None:
                progress(before + step, loss)

        denoiser = build_point_model(model, data, seed=seed, name=own)
        how: dict[str, Any] = {"steps": model.steps, "std": data.std, "augment": model.augment}
        loss = train_points(denoiser, points, config, seed=seed, name=own, progress=report, **how)
        if best is None or loss < best[1]:
            best = denoiser, loss
    assert best is not None
    return best


def train_points(
    denoiser: Any,
    points: Tensor,
    config: TrainingConfig,
    *,
    steps: int,
    std: float,
    seed: int,
    name: str,
    augment: float = 0.0,
    progress: Callable[[int, float], None] | None = None,
) -> float:
    """Train a denoiser in place; it ends with averaged weights, in eval mode, without gradients.

    Args:
        denoiser: a module, called as ``D(x, sigma)``.
        points: (N, C, H, W) float32, the training set.
        config: options.
        steps: length of the run.
        std: standard deviation of the data, for the loss weight.
        seed: with ``name``, determines every batch.
        name: of the model.
        augment: probability of each transformation of the points; the denoiser is told which.
        progress: called with (step, mean loss since the last call) 20 times.

    Returns:
        Mean loss of the last twentieth of the run.
    """
    parameters = list(denoiser.parameters())
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(
        parameters, betas=(config.beta1, config.beta2), weight_decay=0.0, fused=True
    )
    losses: list[float] = []
    point = max(1, steps // _CURVE_POINTS)
    recent = 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(step, steps)
        loss = _loss(denoiser, points, config, std=std, augment=augment, key=(seed, name, step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - config.ema_decay(step, steps))
        losses.append(float(loss.detach()))
        if (step + 1) % point == 0 or step + 1 == steps:
            recent, losses = sum(losses) / len(losses), []
            if progress is not None:
                progress(step + 1, recent)
    with torch.no_grad():
        for parameter, value in zip(parameters, average, strict=True):
            parameter.copy_(value)
    _freeze(denoiser)
    return recent


def _freeze(denoiser: nn.Module) -> None:
    denoiser.eval().requires_grad_(False)


def _loss(
    denoiser: Any,
    points: Tensor,
    config: TrainingConfig,
    *,
    std: float,
    augment: float,
    key: tuple[int, str, int],
) -> Tensor:
    """() the mean loss of one step; dropout draws from torch's generator, which is lent a key."""
    y, sigma, noise = _batch(points, config, key)
    told = denoiser
    if augment:
        rng = keyed_generator("points augment", *key)
        done = Augmentation.draw(rng, len(y), probability=augment, xflip=True)
        conditions = torch.from_numpy(done.conditions())
        y, told = done.apply(y), functools.partial(denoiser, augment_labels=conditions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(keyed_generator("points dropout", *key).integers(2**32)))
        return edm_loss(told, y, sigma, noise, sigma_data=std).mean()


def _batch(
    points: Tensor, config: TrainingConfig, key: tuple[int, str, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Clean points (B, C, H, W), noise levels (B,) and noise of one step."""
    rng = keyed_generator("points", *key)
    index = torch.from_numpy(rng.integers(0, len(points), config.batch_size))
    ln_sigma = rng.standard_normal(config.batch_size) * config.p_std + config.p_mean
    noise = torch.from_numpy(rng.standard_normal((config.batch_size, *points.shape[1:])))
    return points[index], torch.from_numpy(ln_sigma).exp().float(), noise.float()
