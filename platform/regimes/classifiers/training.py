"""Training a classifier, resumable to the last bit on a CPU.

One step on B images:

    theta <- Adam or SGD(theta, gradient of the mean cross-entropy),    rate  lr s(t / T),
    s = 1 (constant) or (1 + cos(pi t / T)) / 2 (cosine)

    sample i of step t is image order[t B + i],  a shuffle of all listed images per epoch,
                                                 keyed by (seed, epoch)

Mirroring is keyed by (seed, step), and so is whatever the network draws itself (dropout, dropped
branches). All batches are full, whatever the number of images. Images are scaled as torchvision's ImageNet
weights expect, with or without such weights.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from regimes.errors import ConfigError
from regimes.images.pixels import Images
from regimes.noise import keyed_generator

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, per channel
_AT_ONCE = 128  # images that are classified together


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierTrainingConfig:
    """Options of training; the defaults are those of the published chest X-ray experiment."""

    optimizer: Literal["adam", "sgd"] = "adam"
    """Rule of the update."""
    learning_rate: float = 1e-3
    """Rate at the start."""
    momentum: float = 0.9
    """Of SGD; Adam has its own."""
    weight_decay: float = 0.0
    """L2 penalty."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How the rate changes over the run."""
    batch_size: int = 128
    """Images per step."""
    epochs: float = 20.0
    """Passes over the listed images; all arms list equally many, so that they take equal steps."""
    evaluations: int = 20
    """Times at which the validation images are classified; the best one gives the weights."""
    flip: bool = False
    """Mirror half of the training images left-right."""

    def __post_init__(self) -> None:
        """Refuse what could not train."""
        least = {"batch_size": 2, "evaluations": 1}  # batch normalisation needs two images
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ConfigError(f"{name}: expected at least {lowest}, got {getattr(self, name)}")
        for name in ("learning_rate", "epochs"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        if not self.weight_decay >= 0:
            raise ConfigError(f"weight_decay: expected 0 or more, got {self.weight_decay}")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum: expected a number in [0, 1), got {self.momentum}")

    def num_steps(self, num_images: int) -> int:
        """Steps of a run on so many listed images."""
        return max(1, math.ceil(self.epochs * num_images / self.batch_size))

    def evaluation_steps(self, num_images: int) -> list[int]:
        """Steps after which the validation images are classified, the last step included."""
        steps = self.num_steps(num_images)
        points = min(self.evaluations, steps)
        return [steps * (i + 1) // points for i in range(points)]

    def rate(self, step: int, num_steps: int) -> float:
        """Learning rate of a step."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (1 + math.cos(math.pi * step / num_steps)) / 2


def network_input(images: Images, device: torch.device | str = "cpu") -> Tensor:
    """(N, H, W, C) uint8, C = 1 or 3 -> (N, 3, H, W) float32, scaled; gray becomes three equal channels."""
    x = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2)
    x = x.float().expand(-1, 3, -1, -1) / 255
    mean, std = (torch.tensor(v, device=device).reshape(3, 1, 1) for v in (_MEAN, _STD))
    return ((x - mean) / std).contiguous()


class ClassifierTrainer:
    """State of a training run: weights, the optimizer's moments and the step count.

    Args:
        network: what to train; it is changed in place.
        images: (N, H, W, C) uint8.
        labels: (N,) classes.
        listed: (M,) positions to train on; one listed twice is seen twice as often.
        config: options.
        seed: of batches, mirroring and dropout.
        device: where to compute.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Images,
        labels: npt.NDArray[np.int64],
        listed: npt.NDArray[np.int64],
        config: ClassifierTrainingConfig,
        *,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.network = network.to(device)
        self.images, self.labels, self.listed = images, labels, listed
        self.config, self.seed, self.device = config, seed, torch.device(device)
        self.step_count = 0
        self._order = functools.lru_cache(maxsize=2)(self._draw_order)
        self._parameters = dict(self.network.named_parameters())
        self._optimizer = _optimizer(config, list(self._parameters.values()))

    @property
    def steps(self) -> int:
        """Length of the run."""
        return self.config.num_steps(len(self.listed))

    def _draw_order(self, epoch: int) -> npt.NDArray[np.int64]:
        return keyed_generator("classifier-order", self.seed, epoch).permutation(len(self.listed))

    def batch(self, step: int) -> npt.NDArray[np.int64]:
        """(B,) positions of the images of a step."""
        start = step * self.config.batch_size
        samples = np.arange(start, start + self.config.batch_size)
        epochs, places = np.divmod(samples, len(self.listed))
        chosen = [self._order(int(e))[places[epochs == e]] for e in np.unique(epochs)]
        return self.listed[np.concatenate(chosen)]

    def step(self) -> Tensor:
        """Take the next step.

        Returns:
            () float32 on the device, the mean cross-entropy of its batch.

        Raises:
            ConfigError: if the images are too small for the network.
        """
        index = self.batch(self.step_count)
        x = network_input(self._mirrored(self.images[index]), self.device)
        y = torch.from_numpy(self.labels[index]).to(self.device)
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.rate(self.step_count, self.steps)
        self.network.train()
        self._optimizer.zero_grad(set_to_none=True)
        with _keyed_draws(self.seed, self.step_count, self.device):
            loss = functional.cross_entropy(self._logits(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.step_count += 1
        return loss.detach()

    def _mirrored(self, images: Images) -> Images:
        if not self.config.flip:
            return images
        draw = keyed_generator("classifier-flip", self.seed, self.step_count).random(len(images))
        return np.where((draw < 0.5)[:, None, None, None], images[:, :, ::-1], images)

    def _logits(self, x: Tensor) -> Tensor:
        try:
            logits: Tensor = self.network(x)
        except (RuntimeError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ConfigError(
                f"--network: cannot classify images of {x.shape[3]}x{x.shape[2]} "
                f"({str(error).splitlines()[0]:.120}); pass another --image-size"
            ) from error
        return logits

    def probabilities(self, images: Images) -> npt.NDArray[np.float32]:
        """(N, H, W, C) uint8 -> (N, K) class probabilities, in eval mode."""
        self.network.eval()
        parts = []
        with torch.inference_mode():
            for start in range(0, len(images), _AT_ONCE):
                x = network_input(images[start : start + _AT_ONCE], self.device)
                parts.append(self._logits(x).float().softmax(1).cpu().numpy())
        return np.concatenate(parts)

    def weights(self) -> dict[str, Tensor]:
        """The network's weights and buffers, on the CPU."""
        return {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Put weights of ``weights`` back."""
        self.network.load_state_dict(weights)

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, as a flat dict of tensors on the CPU."""
        state = {f"weights.{name}": value for name, value in self.weights().items()}
        state["step_count"] = torch.tensor(self.step_count)
        for name, p in self._parameters.items():
            for key, value in self._optimizer.state.get(p, {}).items():
                state[f"optimizer.{key}.{name}"] = value.detach().cpu().clone()
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state``; on a CPU the next step is to the bit the one not taken."""
        prefix = "weights."
        self.load_weights(
            {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        )
        self.step_count = int(state["step_count"])
        keys = ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")
        for name, p in self._parameters.items():
            found = {k: state.get(f"optimizer.{k}.{name}") for k in keys}
            moments = {
                # Adam counts its steps on the CPU, wherever its moments are.
                k: v.clone() if k == "step" else v.to(self.device, copy=True)
                for k, v in found.items()
                if v is not None
            }
            if moments:
                self._optimizer.state[p] = moments


def _optimizer(
    config: ClassifierTrainingConfig, parameters: list[nn.Parameter]
) -> torch.optim.Optimizer:
    lr, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=lr, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=lr, weight_decay=decay, momentum=config.momentum)


@contextlib.contextmanager
def _keyed_draws(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Let torch's generators depend on (seed, step) inside, and be untouched outside."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(keyed_generator("classifier-dropout", seed, step).integers(2**63)))
        yield
