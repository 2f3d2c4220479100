"""Classifiers by their torchvision names, with initial weights that depend on the seed alone."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regimes.errors import BadCheckpoint, ConfigError
from regimes.noise import keyed_generator

# Without their second head, which only training would use.
_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
_SECOND_HEADS = ("aux1.", "aux2.", "AuxLogits.")


def check_network_name(name: str) -> None:
    """Refuse a name that is not one of torchvision's classifiers.

    Raises:
        ConfigError: with the nearest names.
    """
    from torchvision import models  # type: ignore[import-untyped]

    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, 3) or ["resnet50", "resnet18"]
        raise ConfigError(
            f"--network {name}: torchvision has no such classifier; did you mean {', '.join(near)}?"
        )


def build_classifier(
    name: str, num_classes: int, *, seed: int, pretrained: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """A torchvision classifier; torch's global generator is left alone.

    Args:
        name: such as resnet50.
        num_classes: outputs.
        seed: of the initial weights.
        pretrained: a state dict to start from, such as that of ImageNet weights; the last layer,
            whose classes are others, always starts anew.

    Returns:
        (B, 3, H, W) float -> (B, num_classes) logits.

    Raises:
        ConfigError: if there is no such network.
        BadCheckpoint: if the state dict is not of this network.
    """
    check_network_name(name)
    with torch.random.fork_rng(devices=[]):
        start = int(keyed_generator("classifier-init", seed).integers(2**63))
        torch.default_generator.manual_seed(start)
        network = _build(name, num_classes)
    if pretrained is not None:
        _load(network, pretrained, _head(name, num_classes), name)
    return network


def _build(name: str, num_classes: int) -> nn.Module:
    from torchvision import models

    options = _OPTIONS.get(name, {})
    network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    return network


def _head(name: str, num_classes: int) -> set[str]:
    """Names of the weights whose shapes depend on the number of classes."""
    with torch.device("meta"):
        few, more = (_build(name, n).state_dict() for n in (num_classes, num_classes + 1))
    return {key for key in few if few[key].shape != more[key].shape}


def _load(network: nn.Module, state: Mapping[str, Tensor], head: set[str], name: str) -> None:
    own = network.state_dict()
    # Files written by old versions of torch lack the count of batches, which nothing here uses.
    wanted = {k for k in own if k not in head and not k.endswith("num_batches_tracked")}
    given = {k: v for k, v in state.items() if not k.startswith(_SECOND_HEADS)}
    wrong = sorted(
        [k for k in wanted if k not in given or given[k].shape != own[k].shape]
        + [k for k in given if k not in own]
    )
    if wrong:
        raise BadCheckpoint(
            f"--weights: expected those of {name}, but {len(wrong)} tensors are missing, too many or "
            f"of another shape, as {wrong[0]}; pass the file of the same network"
        )
    with torch.no_grad():
        for key in wanted:
            own[key].copy_(given[key])
