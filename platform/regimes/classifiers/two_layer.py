"""Two-layer classifiers of vectors, several at once, trained for a number of steps fixed beforehand.

    logits = W2 relu(W1 (x - m) / s + b1) + b2          m, s: mean image, and one scale, of its own images
    theta <- AdamW(theta, gradient of the mean cross-entropy of a batch), the rate falling to 0 by a cosine

Nothing is chosen by looking at other images: the weights are those after the last step. Initial weights
and the order of images are keyed by the member's seed; members share no weights and no numbers, they are
only multiplied together, so that a member depends on its neighbours by rounding alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from regimes.errors import ConfigError
from regimes.noise import keyed_generator

_AT_ONCE = 4096  # rows that are classified together


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoLayerConfig:
    """Options of training; the hidden width is the published one."""

    hidden: int = 64
    """Hidden units."""
    steps: int = 600
    """Updates, the same number for every size of training set."""
    batch_size: int = 64
    """Images per update; all of them, where there are fewer."""
    learning_rate: float = 3e-3
    """Rate at the start."""
    weight_decay: float = 1e-2
    """Decoupled decay of AdamW."""

    def __post_init__(self) -> None:
        """Refuse what could not train."""
        for name in ("hidden", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate: expected above 0, got {self.learning_rate}")
        if not self.weight_decay >= 0:
            raise ConfigError(f"weight_decay: expected 0 or more, got {self.weight_decay}")


class TwoLayers:
    """M trained classifiers.

    Args:
        mean: (M, 1, D) and
        scale: (M, 1, 1), of the images each was trained on.
        weights: W1 (M, D, H), b1 (M, 1, H), W2 (M, H, K), b2 (M, 1, K).
    """

    def __init__(self, mean: Tensor, scale: Tensor, weights: Sequence[Tensor]) -> None:
        self.mean, self.scale, self.weights = mean, scale, list(weights)

    def logits(self, x: Tensor) -> Tensor:
        """(M, B, D), or (1, B, D) for the same rows to all, -> (M, B, K)."""
        w1, b1, w2, b2 = self.weights
        hidden = ((x - self.mean) / self.scale) @ w1 + b1
        return functional.relu(hidden) @ w2 + b2

    def scores(self, x: Tensor) -> npt.NDArray[np.float64]:
        """(N, D) -> (M, N, K) class probabilities."""
        with torch.inference_mode():
            parts = [
                self.logits(rows[None].to(self.mean)).softmax(-1).cpu()
                for rows in torch.split(x, _AT_ONCE)
            ]
        return torch.cat(parts, 1).to(torch.float64).numpy()


def train_two_layers(
    x: Tensor,
    listed: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    num_classes: int,
    *,
    seeds: Sequence[int],
    config: TwoLayerConfig | None = None,
) -> TwoLayers:
    """Train one classifier per seed.

    Args:
        x: (N, D) float32, the images or features of a source.
        listed: (M, n) rows that each member trains on.
        labels: (M, n) their classes, from 0 to K - 1.
        num_classes: K.
        seeds: M seeds, of initial weights and order.
        config: options.

    Cost: ``steps`` updates on M ``batch_size`` rows, whatever n.
    """
    config = config or TwoLayerConfig()
    rows, y = (torch.from_numpy(v).to(x.device) for v in (listed, labels))
    made = TwoLayers(
        *_statistics(x, rows), _initial(x, seeds, config.hidden, num_classes=num_classes)
    )
    optimizer = torch.optim.AdamW(
        made.weights, lr=config.learning_rate, weight_decay=config.weight_decay
    )
    for step, places in enumerate(_batches(listed.shape[1], seeds, config)):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 + math.cos(math.pi * step / config.steps)) / 2
        index = torch.from_numpy(places).to(x.device)
        logits = made.logits(x[rows.gather(1, index)]).flatten(0, 1)
        loss = functional.cross_entropy(logits, y.gather(1, index).flatten(), reduction="sum")
        optimizer.zero_grad(set_to_none=True)
        (loss / places.shape[1]).backward()
        optimizer.step()
    made.weights = [w.detach() for w in made.weights]
    return made


def _statistics(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (M, 1, D) and root mean variance (M, 1, 1) of every member's images."""
    own = [x[r] for r in rows]
    mean = torch.stack([o.mean(0, keepdim=True) for o in own])
    scale = torch.stack([(o - m).square().mean().sqrt() for o, m in zip(own, mean)])
    return mean, scale.clamp_min(1e-12).reshape(-1, 1, 1)


def _initial(x: Tensor, seeds: Sequence[int], hidden: int, *, num_classes: int) -> list[Tensor]:
    """He et al. 2015 for the first layer, zeros for the second: calls start even."""
    d = x.shape[1]
    draws = [
        keyed_generator("two-layer-init", seed).standard_normal((d, hidden), np.float32)
        for seed in seeds
    ]
    first = torch.from_numpy(np.stack(draws)) * math.sqrt(2 / d)
    shapes = ((1, hidden), (hidden, num_classes), (1, num_classes))
    others = [torch.zeros(len(seeds), *shape) for shape in shapes]
    return [w.to(x).requires_grad_(True) for w in (first, *others)]


def _batches(
    count: int, seeds: Sequence[int], config: TwoLayerConfig
) -> list[npt.NDArray[np.int64]]:
    """Places (M, B) among a member's images, for every step: shuffles, one after another."""
    size = min(config.batch_size, count)
    epochs = -(-config.steps * size // count)
    orders = np.stack(
        [
            np.concatenate(
                [keyed_generator("two-layer-order", s, e).permutation(count) for e in range(epochs)]
            )
            for s in seeds
        ]
    )
    return [orders[:, i * size : (i + 1) * size] for i in range(config.steps)]
