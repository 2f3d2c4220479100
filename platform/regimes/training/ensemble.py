"""Training an ensemble: E models of one shape, each on its own images, as one computation.

Every member has a key (a string that names its cell of the grid). Its initial weights and the
images, noise levels and noise of step t are drawn from generators keyed by (seed, member key, t)
alone. So a member's training data does not depend on its neighbours in the ensemble, and a run
resumed at step t repeats exactly what an uninterrupted run would have done.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from regimes.denoisers.preconditioning import EDM, Denoiser
from regimes.denoisers.residual_mlp import ResidualMLP
from regimes.errors import ConfigError
from regimes.noise import keyed_generator
from regimes.training.loss import edm_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Options of the training loop; the defaults are those of the digits experiment."""

    batch_size: int = 64
    """Images per member and step."""
    learning_rate: float = 2e-3
    """Peak rate of AdamW, reached after the warm-up, then a cosine to 0."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    beta1: float = 0.9
    """AdamW, first moment."""
    beta2: float = 0.99
    """AdamW, second moment."""
    p_mean: float = -1.2
    """Mean of ln sigma."""
    p_std: float = 1.2
    """Standard deviation of ln sigma."""
    ema: float = 0.999
    """Largest decay of the weight average (shorter runs use a smaller one)."""

    def __post_init__(self) -> None:
        """Refuse what could not train."""
        if self.batch_size < 1:
            raise ConfigError(f"batch_size: expected at least 1, got {self.batch_size}")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema: expected a decay in [0, 1), got {self.ema}")

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Rate of step ``step`` of ``steps``: linear warm-up times cosine decay."""
        warmup = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        return self.learning_rate * warmup * (1 + math.cos(math.pi * step / steps)) / 2

    def ema_decay(self, step: int, steps: int) -> float:
        """Decay of the weight average after ``step``.

        At most 1 - 10 / steps, so that short runs forget their start too, and (1 + t) / (10 + t)
        early on, which removes the bias towards the initial weights.
        """
        return min(self.ema, max(0.0, 1 - 10 / steps), (1 + step) / (10 + step))


class EnsembleTrainer:
    """State of a training run: weights, their average, optimizer moments and the step count.

    Args:
        keys: E different strings, the names of the members.
        images: E tensors (N_e, C, H, W) float32 in [-1, 1], the training set of each member.
        width: units per layer of the residual MLP.
        blocks: its number of residual blocks.
        steps: length of the run (the schedules depend on it).
        sigma_data: standard deviation of the data.
        seed: the run's seed.
        config: options.

    Raises:
        ValueError: if keys repeat, or keys and images differ in number, or a training set is empty.
    """

    def __init__(
        self,
        keys: Sequence[str],
        images: Sequence[Tensor],
        *,
        width: int,
        blocks: int,
        steps: int,
        sigma_data: float,
        seed: int,
        config: TrainingConfig,
    ) -> None:
        if len(set(keys)) != len(keys) or len(keys) != len(images):
            raise ValueError(f"expected one set of images per distinct key, got {list(keys)}")
        if any(len(y) == 0 for y in images):
            raise ValueError("expected at least one image per member")
        self.keys, self.steps, self.seed, self.config = tuple(keys), steps, seed, config
        self.sigma_data = sigma_data
        self.step_count = 0
        self._sizes = [len(y) for y in images]
        self._offsets = np.concatenate([[0], np.cumsum(self._sizes)[:-1]])
        self._pool = torch.cat(list(images))
        shape = self._pool.shape[1], self._pool.shape[2], self._pool.shape[3]
        self.network = ResidualMLP(shape, width, blocks=blocks, members=len(keys))
        for member, key in enumerate(self.keys):
            init_seed = int(keyed_generator("init", seed, key).integers(2**32))
            self.network.init_member(member, torch.Generator().manual_seed(init_seed))
        self.denoiser = Denoiser(self.network, EDM(sigma_data=sigma_data))
        self._parameters: list[Tensor] = list(self.network.parameters())
        self._ema = [p.detach().clone() for p in self._parameters]
        # Fused AdamW is about three times faster than the loop on a CPU (LOG.md).
        self._optimizer = torch.optim.AdamW(
            self._parameters, betas=(config.beta1, config.beta2), weight_decay=0.0, fused=True
        )

    def step(self) -> Tensor:
        """Train every member on one batch of its own; returns the E losses, (E,) float32."""
        y, sigma, noise = self._batch(self.step_count)
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.step_count, self.steps)
        losses = edm_loss(self.denoiser, y, sigma, noise, sigma_data=self.sigma_data).mean(1)
        self._optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        decay = self.config.ema_decay(self.step_count, self.steps)
        with torch.no_grad():
            torch._foreach_lerp_(self._ema, self._parameters, 1 - decay)
        self.step_count += 1
        return losses.detach()

    def _batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Clean images (E, B, C, H, W), noise levels (E, B) and noise (E, B, C, H, W) of one step."""
        batch = self.config.batch_size
        index = np.empty((len(self.keys), batch), np.int64)
        ln_sigma = np.empty((len(self.keys), batch), np.float32)
        noise = np.empty((len(self.keys), batch, *self._pool.shape[1:]), np.float32)
        for e, key in enumerate(self.keys):
            rng = keyed_generator("train", self.seed, key, step)
            index[e] = self._offsets[e] + rng.integers(0, self._sizes[e], batch)
            ln_sigma[e] = rng.standard_normal(batch, dtype=np.float32)
            rng.standard_normal(out=noise[e], dtype=np.float32)
        sigma = torch.from_numpy(ln_sigma * self.config.p_std + self.config.p_mean).exp()
        return self._pool[torch.from_numpy(index)], sigma, torch.from_numpy(noise)

    def member_weights(self, member: int) -> dict[str, Tensor]:
        """Averaged weights of one member: the state dict of a ``ResidualMLP`` with one member."""
        names = [name for name, _ in self.network.named_parameters()]
        return {
            name: average[member : member + 1].clone()
            for name, average in zip(names, self._ema, strict=True)
        }

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, as a flat dict of tensors."""
        state: dict[str, Tensor] = {"step_count": torch.tensor(self.step_count)}
        for i, (p, average) in enumerate(zip(self._parameters, self._ema, strict=True)):
            state |= {f"weights.{i}": p.detach(), f"ema.{i}": average}
            for name, value in self._optimizer.state.get(p, {}).items():
                state[f"adam.{i}.{name}"] = value
        return {name: value.clone() for name, value in state.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state``; the next step is bit for bit the one that was not taken.

        Raises:
            KeyError, ValueError: if the state belongs to another ensemble.
        """
        self.step_count = int(state["step_count"])
        with torch.no_grad():
            for i, (p, average) in enumerate(zip(self._parameters, self._ema, strict=True)):
                for target, name in ((p, f"weights.{i}"), (average, f"ema.{i}")):
                    if target.shape != state[name].shape:
                        raise ValueError(
                            f"{name}: {target.shape} expected, {state[name].shape} found"
                        )
                    target.copy_(state[name])
                prefix = f"adam.{i}."
                self._optimizer.state[p] = {
                    name.removeprefix(prefix): value.clone()
                    for name, value in state.items()
                    if name.startswith(prefix)
                }
