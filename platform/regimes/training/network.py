"""Training one network as EDM does (Karras et al. 2022, appendix F.2), resumable to the last bit.

One step on B images, the n-th image being the first of them:

    g      = ls / B  sum_i  lambda(sigma_i) ||D(y_i + sigma_i n_i) - y_i||^2,   its gradient;
             NaN becomes 0, infinities +-1e5
    theta <- Adam(theta, g),    rate  lr min(n / ramp, 1), 0 in the first step
    ema   <- beta ema + (1 - beta) theta,    beta = 0.5^(B / min(half-life, ratio n))

A batch is a function of (seed, step) alone (``regimes.training.batches``), so is dropout. It may be
cut into microbatches, and into the shares of several workers: gradients add up, and results differ
by rounding alone.

Departures from the published loop: the order of the images, keyed dropout, the filters of the
augmentation (each described where it is), and noise levels computed in float64.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regimes.denoisers.unet.build import UNetDenoiser, build_denoiser
from regimes.errors import ConfigError
from regimes.images.pixels import Images
from regimes.later import LATER
from regimes.noise import keyed_generator
from regimes.training.architectures import NetworkConfig
from regimes.training.augment import NUM_CONDITIONS
from regimes.training.batches import Batch, BatchStream
from regimes.training.dropout import KeyedDropout
from regimes.training.loss import EDMLoss, weighted_error
from regimes.training.workers import Alone, Workers, share

Precision = Literal["float32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_LARGEST_GRADIENT = 1e5


@dataclass(frozen=True, slots=True, kw_only=True)
class EDMTrainingConfig:
    """Options of the training loop that change what is learned; the defaults are the published ones."""

    batch_size: int = 512
    """Images per step, over all workers."""
    duration_kimg: float = 200_000
    """Length of the run, in thousands of images."""
    learning_rate: float = 1e-3
    """Rate of Adam after the ramp; it never decays."""
    lr_rampup_kimg: float = 10_000
    """Length of the linear ramp of the rate from 0, in thousands of images."""
    ema_halflife_kimg: float = 500
    """Half-life of the average of the weights, in thousands of images."""
    ema_rampup_ratio: float | None = 0.05
    """Largest half-life as a fraction of the images seen; None never shortens it."""
    augment: float = 0.12
    """Probability of each geometric augmentation; 0 switches the whole pipe off, mirroring too."""
    xflip: bool = True
    """Whether the augmentation pipe mirrors half of the images left-right."""
    precision: Precision = "float32"
    """Arithmetic of the network: float32 (TF32 is off), or mixed with bf16 or fp16."""
    loss_scale: float = 1.0
    """Factor of the loss; matters to fp16, whose gradients can underflow."""
    p_mean: float = field(default=-1.2, metadata=LATER)
    """Mean of ln sigma in training, with precond edm; larger ones train more on high noise."""
    p_std: float = field(default=1.2, metadata=LATER)
    """Standard deviation of ln sigma."""

    def __post_init__(self) -> None:
        """Refuse what could not train."""
        for name in ("batch_size", "duration_kimg", "learning_rate", "loss_scale"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        for name in ("lr_rampup_kimg", "ema_halflife_kimg", "ema_rampup_ratio"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(f"{name}: expected 0 or more, got {value}")
        if not 0 <= self.augment <= 1:
            raise ConfigError(f"augment: expected a probability in [0, 1], got {self.augment}")
        if not self.p_std > 0 or not np.isfinite([self.p_mean, self.p_std]).all():
            raise ConfigError(
                f"p_mean, p_std: expected numbers, p_std above 0, got {self.p_mean} and {self.p_std}"
            )
        if self.precision not in ("float32", *_DTYPES):
            raise ConfigError(
                f"precision: expected float32, bf16 or fp16, got {self.precision!r:.60}"
            )

    @property
    def edm_loss(self) -> EDMLoss:
        """The loss of precond edm."""
        return EDMLoss(p_mean=self.p_mean, p_std=self.p_std)

    @property
    def steps(self) -> int:
        """Number of steps: the first at whose end ``duration_kimg`` is reached."""
        return max(1, -(-round(self.duration_kimg * 1000) // self.batch_size))

    def learning_rate_at(self, images_seen: int) -> float:
        """Rate of a step that starts after this many images."""
        ramp = self.lr_rampup_kimg * 1000
        return self.learning_rate * (min(images_seen / ramp, 1.0) if ramp else 1.0)

    def ema_decay(self, images_seen: int) -> float:
        """Beta of a step that starts after this many images; 0 in the first."""
        half_life = self.ema_halflife_kimg * 1000
        if self.ema_rampup_ratio is not None:
            half_life = min(half_life, images_seen * self.ema_rampup_ratio)
        return float(0.5 ** (self.batch_size / max(half_life, 1e-8)))


class NetworkTrainer:
    """State of a training run: weights, their average, Adam's moments and the step count.

    Args:
        images: (N, S, S, C) uint8, the training set; with ``condition_channels`` windows of frames, (N,
            S, S, condition_channels + C): a frame behind those that the network sees.
        network: which network.
        config: options that change what is learned.
        seed: of the initial weights, the batches and dropout.
        labels: (N,) int64 classes from 0, for a conditional network.
        num_classes: how many there are; the largest label plus 1 if not given.
        condition_channels: the first channels of the images are seen by the network, without noise, and
            the others learned.
        device: where to compute.
        microbatch: most images to compute at once; None takes this worker's whole share.
        workers: this process among those that train the network together.

    Raises:
        ConfigError: if images are not square, the network does not fit them, labels are missing, or
            there are more workers than images in a batch.

    Weights, average, moments and gradients take 20 bytes per parameter.
    """

    def __init__(
        self,
        images: Images,
        network: NetworkConfig,
        config: EDMTrainingConfig,
        *,
        seed: int,
        labels: npt.NDArray[np.int64] | None = None,
        num_classes: int | None = None,
        condition_channels: int = 0,
        device: torch.device | str = "cpu",
        microbatch: int | None = None,
        workers: Workers | None = None,
    ) -> None:
        self.condition_channels = condition_channels
        self.config, self.seed, self.device = config, seed, torch.device(device)
        self.workers: Workers = workers or Alone()
        self.microbatch = config.batch_size if microbatch is None else microbatch
        self._check(images)
        self.step_count = 0
        if not network.conditional:
            labels, num_classes = None, 0
        elif labels is not None and num_classes is None:
            num_classes = int(labels.max()) + 1
        self.denoiser = _initial_denoiser(
            images, network, config, seed, num_classes or 0, condition_channels
        )
        self.denoiser.train().to(self.device)
        self.dropout = KeyedDropout(self.denoiser.network, seed)
        self.loss = network.loss_of(config.edm_loss)
        self.batches = BatchStream(
            images,
            batch_size=config.batch_size,
            loss=self.loss,
            seed=seed,
            augment=config.augment,
            xflip=config.xflip,
            labels=labels,
            num_classes=num_classes or 0,
            condition_channels=condition_channels,
            device=self.device,
        )
        self._parameters: dict[str, Tensor] = dict(self.denoiser.network.named_parameters())
        self._ema = {name: p.detach().clone() for name, p in self._parameters.items()}
        # Fused Adam is one kernel instead of a dozen; measured in tests/benchmarks.
        self._optimizer = torch.optim.Adam(
            self._parameters.values(), betas=(0.9, 0.999), eps=1e-8, fused=True
        )

    def _check(self, images: Images) -> None:
        if len(images) == 0 or images.shape[1] != images.shape[2]:
            raise ConfigError(
                f"images: expected square ones, got {len(images)} of "
                f"{images.shape[1]}x{images.shape[2]}; choose a size to crop them to"
            )
        if not 0 <= self.condition_channels < images.shape[3]:
            raise ConfigError(
                f"condition_channels: expected fewer than the {images.shape[3]} channels of a window of "
                f"frames, got {self.condition_channels}"
            )
        if self.microbatch < 1:
            raise ConfigError(f"microbatch: expected at least 1, got {self.microbatch}")
        if self.workers.count > self.config.batch_size:
            raise ConfigError(
                f"workers: expected at most one per image of a batch ({self.config.batch_size}), "
                f"got {self.workers.count}"
            )

    @property
    def steps(self) -> int:
        """Length of the run."""
        return self.config.steps

    @property
    def num_parameters(self) -> int:
        """Numbers that are learned."""
        return sum(p.numel() for p in self._parameters.values())

    def step(self) -> Tensor:
        """Take the next step.

        Returns:
            () float32 on the device, the loss per pixel, averaged over the batch of all workers.
        """
        start, stop = share(self.workers, self.config.batch_size)
        return self.train_on(self.batches.batch(self.step_count, start, stop), first=start)

    def train_on(self, batch: Batch, *, first: int = 0) -> Tensor:
        """Take a step on a given batch, this worker's share from sample number ``first`` on.

        Returns:
            As of ``step``.
        """
        images_seen = self.step_count * self.config.batch_size
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(images_seen)
        with _exact_float32():
            loss = self._accumulate(batch, first)
        loss = self._combine(loss)
        self._optimizer.step()
        parameters, averages = list(self._parameters.values()), list(self._ema.values())
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1 - self.config.ema_decay(images_seen))
        self.step_count += 1
        return loss

    def _accumulate(self, batch: Batch, first: int) -> Tensor:
        """Add up gradients over the microbatches; returns the sum of the losses per pixel."""
        self._optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for start in range(0, len(batch), self.microbatch):
            part = batch.slice(start, start + self.microbatch)
            at = first + start
            with self.dropout.samples(self.step_count, at, at + len(part), self.device):
                error = self._error(part).sum()
            scale = self.config.loss_scale / self.config.batch_size
            (error * scale).backward()  # type: ignore[no-untyped-call]
            total += error.detach() / part.y[0].numel()
        return total

    def _error(self, batch: Batch) -> Tensor:
        """(B,) weighted errors, the network in the arithmetic of the configuration."""
        dtype = _DTYPES.get(self.config.precision)
        denoiser = self.denoiser
        if batch.frames is not None:
            denoiser = functools.partial(denoiser, condition=batch.frames)  # type: ignore[assignment]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            return weighted_error(
                denoiser,
                self.loss,
                batch.y,
                batch.sigma,
                batch.noise,
                class_labels=batch.class_labels,
                augment_labels=batch.conditions,
            )

    def _combine(self, loss: Tensor) -> Tensor:
        """Sum gradients and losses over the workers; returns the loss of the batch."""
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        if self.workers.count > 1:
            flat = torch.cat([*(g.flatten() for g in gradients), loss.reshape(1)])
            self.workers.add(flat)
            sizes = [*(g.numel() for g in gradients), 1]
            *parts, loss = flat.split(sizes)  # type: ignore[no-untyped-call]
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
        for gradient in gradients:
            torch.nan_to_num(
                gradient, nan=0.0, posinf=_LARGEST_GRADIENT, neginf=-_LARGEST_GRADIENT, out=gradient
            )
        return (loss / self.config.batch_size).reshape(())

    def averaged_state(self) -> dict[str, Tensor]:
        """The averaged weights with the network's buffers, under EDM's names, on the CPU."""
        state = self.denoiser.checkpoint_state()
        averages = {f"model.{name}": value for name, value in self._ema.items()}
        return {name: value.detach().cpu().clone() for name, value in (state | averages).items()}

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, as a flat dict of tensors on the CPU."""
        state: dict[str, Tensor] = {"step_count": torch.tensor(self.step_count)}
        for name, p in self._parameters.items():
            state |= {f"weights.{name}": p.detach(), f"ema.{name}": self._ema[name]}
            for key, value in self._optimizer.state.get(p, {}).items():
                state[f"adam.{key}.{name}"] = value
        return {name: value.cpu().clone() for name, value in state.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state``; on a CPU the next step is to the bit the one not taken.

        Raises:
            KeyError, ValueError: if the state belongs to another network.
        """
        self.step_count = int(state["step_count"])
        with torch.no_grad():
            for name, p in self._parameters.items():
                for target, key in ((p, f"weights.{name}"), (self._ema[name], f"ema.{name}")):
                    if target.shape != state[key].shape:
                        raise ValueError(
                            f"{key}: {target.shape} expected, {state[key].shape} found"
                        )
                    target.copy_(state[key])
                keys = ("exp_avg", "exp_avg_sq", "step") if self.step_count else ()
                self._optimizer.state[p] = {
                    key: state[f"adam.{key}.{name}"].to(self.device, copy=True) for key in keys
                }


def _initial_denoiser(
    images: Images,
    network: NetworkConfig,
    config: EDMTrainingConfig,
    seed: int,
    num_classes: int,
    condition_channels: int,
) -> UNetDenoiser:
    """A network whose initial weights depend on the seed alone; torch's generator is left alone."""
    _, size, _, channels = images.shape
    build_config = network.build_config(
        img_resolution=size,
        img_channels=channels - condition_channels,
        condition_channels=condition_channels,
        num_classes=num_classes,
        augment_dim=NUM_CONDITIONS if config.augment else 0,
    )
    with torch.random.fork_rng(devices=[]):
        # This generator alone: torch.manual_seed would seed the GPUs' too.
        torch.default_generator.manual_seed(int(keyed_generator("init", seed).integers(2**63)))
        return build_denoiser(build_config)


@contextlib.contextmanager
def _exact_float32() -> Iterator[None]:
    """Switch TF32 off: convolutions on NVIDIA GPUs use it by default, the published runs did not."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
