"""Which class a generated image is of, and whether it is an image of the data at all.

A small perceptron tells classes apart; it is also shown averages of two images, with half of each
class for an answer, so that it is not sure of them. An image is **rejected**, and counts as no mode, if the
perceptron is less sure than it is of nearly all held-out images, or if its nearest training image is
farther than that of nearly all held-out images: an average of two digits, or noise, is no new mode.
Both limits leave out a stated share of held-out images each, so the accepted share of real images is
known, and stands beside that of samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from regimes.noise import keyed_generator
from regimes.scores.modes import REJECTED

_HIDDEN, _STEPS, _RATE, _BATCH = 128, 1000, 3e-3, 256
_NOISE = 0.2  # standard deviation of the noise on training images, in units of [-1, 1]
_TILE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """A fitted classifier with its limits; see ``fit_judge``."""

    weights: Mapping[str, Tensor]
    """hidden (D, 128), hidden_bias, out (128, K), out_bias; float32."""
    reference: Tensor
    """(N, D) float32, the training images."""
    least_confidence: float
    """Highest class probability below which an image is rejected."""
    largest_distance: float
    """Root-mean-square distance to the nearest training image above which it is."""
    accuracy: float
    """Share of held-out images that are of the class they are said to be."""
    accepted: float
    """Share of held-out images that are not rejected."""

    @property
    def num_modes(self) -> int:
        """Classes."""
        return self.weights["out"].shape[1]

    def __call__(self, images: Tensor) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Judge images.

        Args:
            images: (N, C, H, W) floats, about in [-1, 1]; values outside are clipped.

        Returns:
            Class or ``REJECTED``, (N,); distance to the nearest training image, (N,), as root mean
            square over pixels in [-1, 1].
        """
        x = images.clamp(-1, 1).flatten(1).float()
        confidence, classes = _logits(self.weights, x).softmax(1).max(1)
        distances = nearest_distances(x, self.reference)
        good = (confidence >= self.least_confidence) & (distances <= self.largest_distance)
        modes = torch.where(good, classes, REJECTED)
        return modes.numpy(), distances.double().numpy()


def fit_judge(
    images: Tensor,
    labels: npt.NDArray[np.int64],
    heldout: Tensor,
    heldout_labels: npt.NDArray[np.int64],
    *,
    seed: int,
    leave_out: float = 0.025,
) -> Judge:
    """Train the classifier and set its limits.

    Args:
        images: (N, C, H, W) float32 in [-1, 1].
        labels: (N,) classes, 0 to K - 1.
        heldout: (M, C, H, W), images that are in no training set.
        heldout_labels: (M,) their classes.
        seed: of weights, batches and noise.
        leave_out: share of held-out images beyond either limit.

    Cost: about three seconds for 1,500 images of 8 x 8 pixels.
    """
    x, y = images.flatten(1).float(), torch.from_numpy(labels)
    weights = _train(x, y, seed)
    unseen = heldout.flatten(1).float()
    confidence, classes = _logits(weights, unseen).softmax(1).max(1)
    distances = nearest_distances(unseen, x)
    least = float(torch.quantile(confidence, leave_out))
    largest = float(torch.quantile(distances, 1 - leave_out))
    return Judge(
        weights=weights,
        reference=x,
        least_confidence=least,
        largest_distance=largest,
        accuracy=float((classes.numpy() == heldout_labels).mean()),
        accepted=float(((confidence >= least) & (distances <= largest)).float().mean()),
    )


def nearest_distances(x: Tensor, reference: Tensor) -> Tensor:
    """Root-mean-square distance of every row to its nearest row of the reference, (N,) float32."""
    nearest = [torch.cdist(part, reference).amin(1) for part in torch.split(x, _TILE)]
    return torch.cat(nearest) / x.shape[1] ** 0.5


def _logits(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    hidden = functional.silu(x @ weights["hidden"] + weights["hidden_bias"])
    return hidden @ weights["out"] + weights["out_bias"]


def _train(x: Tensor, y: Tensor, seed: int) -> dict[str, Tensor]:
    """Adam on noisy images; noise and batches are keyed, so that equal seeds give equal bytes."""
    pixels, classes = x.shape[1], int(y.max()) + 1
    start = keyed_generator("judge-init", seed)
    shapes = {"hidden": (pixels, _HIDDEN), "out": (_HIDDEN, classes)}
    weights: dict[str, Tensor] = {}
    for name, (inputs, outputs) in shapes.items():
        values = start.standard_normal((inputs, outputs)) / inputs**0.5
        weights[name] = nn.Parameter(torch.from_numpy(values.astype(np.float32)))
        weights[f"{name}_bias"] = nn.Parameter(torch.zeros(outputs))
    targets = functional.one_hot(y, classes).float()
    optimizer = torch.optim.Adam(weights.values(), lr=_RATE)
    for step in range(_STEPS):
        rng = keyed_generator("judge", seed, step)
        index = torch.from_numpy(rng.integers(0, len(x), (2, _BATCH)))
        noise = torch.from_numpy(rng.standard_normal((_BATCH, pixels), dtype=np.float32))
        share = torch.from_numpy(rng.uniform(0.3, 0.7, (_BATCH, 1)).astype(np.float32))
        share[: _BATCH // 2] = 1  # the other half of the batch are averages
        seen = share * x[index[0]] + (1 - share) * x[index[1]] + _NOISE * noise
        wanted = share * targets[index[0]] + (1 - share) * targets[index[1]]
        loss = functional.cross_entropy(_logits(weights, seen), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name: value.detach() for name, value in weights.items()}
