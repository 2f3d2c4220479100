"""A small network that learns the posterior mean E[x_0 | x_t] from examples alone.

It sees a noisy point and the time and guesses the clean point; squared error makes the best guess the
mean. The network F is three hidden layers of ReLU, wrapped as in EDM so that small noise is easy:

    D(x, t) = c_skip x + c_out F(c_in x, ln(t) / 4),   v = sigma_q^2 t,   s = variance of the data
    c_skip = s/(s + v),   c_out = sqrt(v s/(s + v)),   c_in = 1/sqrt(s + v)

At t near 0 the answer is nearly x, and F corrects it by no more than the noise. Without the wrapping,
as many steps leave samples several times farther from the curve.

Source: Karras et al. 2022 (arXiv 2206.00364), table 1, for noise levels sqrt(v).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from regimes.noise import keyed_generator
from regimes.threads import torch_threads
from regimes.toys.diffusion import Points

Draw = Callable[[int, np.random.Generator], Points]
"""(count, generator) -> (count, d) data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorConfig:
    """The network and its training."""

    width: int = 128
    """Units of each of the three hidden layers."""
    steps: int = 4000
    """Batches to train on; 0 leaves the network untrained."""
    batch_size: int = 512
    """Points per batch."""
    learning_rate: float = 5e-3
    """Peak rate of Adam, after a warm-up over 100 steps; then a cosine to 0."""
    first_time: float = 1e-3
    """Smallest t."""
    ema: float = 0.999
    """Decay of the average of the weights that is kept; at most 1 - 10/steps."""
    threads: int = 1
    """Threads of torch. Layers this small finish sooner than a second thread wakes up; and sums in
    another order would give another network."""


class Predictor(nn.Module):
    """The wrapped network.

    Args:
        dimension: d, of a point.
        data_variance: s, of a coordinate of the data.
        noise_variance: sigma_q^2, of the noise at t = 1.
        config: of the network.
        seed: of the initial weights.
    """

    def __init__(
        self,
        dimension: int,
        *,
        data_variance: float,
        noise_variance: float,
        config: PredictorConfig,
        seed: int,
    ) -> None:
        super().__init__()
        self.data_variance, self.noise_variance = data_variance, noise_variance
        self.config = config
        sizes = [dimension + 1, *3 * [config.width], dimension]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])
        _initialize(self.layers, seed)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(B, d) noisy points and (B,) times in (0, 1] -> (B, d) clean points, float32."""
        v, s = self.noise_variance * t[:, None], self.data_variance
        inputs = torch.cat([x / (s + v).sqrt(), t[:, None].log() / 4], dim=1)
        return s / (s + v) * x + (v * s / (s + v)).sqrt() * self.layers(inputs)

    def posterior_mean(self, x: Points, t: float | np.ndarray) -> Points:
        """What it guesses, as a sampler asks: (N, d) and one time or (N,) -> (N, d) float64."""
        times = torch.from_numpy(np.broadcast_to(np.asarray(t, np.float32), len(x)).copy())
        with torch.inference_mode(), torch_threads(self.config.threads):
            clean = self(torch.from_numpy(x.astype(np.float32)), times)
        return clean.numpy().astype(np.float64)


def train(
    predictor: Predictor,
    draw: Draw,
    *,
    seed: int,
    on_step: Callable[[], object] = lambda: None,
) -> Predictor:
    """Train on noisy points drawn afresh in every step.

    Half of the times are uniform in t, half in ln t: small noise is where samples get their shape, and
    uniform times would hardly visit it. Errors are weighted by 1/c_out^2, so that F itself is asked
    for the same precision at all times.

    Args:
        predictor: the network; it is changed, and ends with the average of its weights.
        draw: gives data.
        seed: of the batches; with the initial weights, it determines the result on one machine.
        on_step: called after each step.

    Returns:
        The predictor.
    """
    config = predictor.config
    parameters: list[Tensor] = list(predictor.parameters())
    if config.steps == 0:
        return predictor
    average = [p.detach().clone() for p in parameters]
    decay = min(config.ema, max(0.0, 1 - 10 / config.steps))
    optimizer = torch.optim.Adam(parameters, fused=True)
    with torch_threads(config.threads):
        for step in range(config.steps):
            rng = keyed_generator("toy-predictor", seed, step)
            for group in optimizer.param_groups:
                group["lr"] = _rate(config, step)
            optimizer.zero_grad()
            _loss(predictor, draw, rng).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(average, parameters, 1 - decay)
            on_step()
    with torch.no_grad():
        torch._foreach_copy_(parameters, average)
    return predictor


def _loss(predictor: Predictor, draw: Draw, rng: np.random.Generator) -> Tensor:
    """Weighted squared error of one batch."""
    config = predictor.config
    clean = torch.from_numpy(draw(config.batch_size, rng).astype(np.float32))
    u = rng.random(config.batch_size, dtype=np.float32)
    uniform = config.first_time + (1 - config.first_time) * u
    t = torch.from_numpy(
        np.where(np.arange(len(u)) % 2 == 0, uniform, np.float32(config.first_time) ** u)
    )
    noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
    v, s = predictor.noise_variance * t[:, None], predictor.data_variance
    error = predictor(clean + v.sqrt() * noise, t) - clean
    return ((s + v) / (v * s) * error.square()).mean()


def _rate(config: PredictorConfig, step: int) -> float:
    cosine = (1 + math.cos(math.pi * step / config.steps)) / 2
    return config.learning_rate * min(1.0, (step + 1) / 100) * cosine


def _initialize(layers: nn.Sequential, seed: int) -> None:
    """Uniform within 1/sqrt(inputs), as torch does, but by a seed of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in layers:
            if isinstance(layer, nn.Linear):
                bound = 1 / math.sqrt(layer.in_features)
                for p in (layer.weight, layer.bias):
                    p.uniform_(-bound, bound, generator=generator)
