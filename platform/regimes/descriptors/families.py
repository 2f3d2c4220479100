"""Building networks from their weights: one function per kind of network.

Every function gives f: what ``Preprocessing`` makes -> (B, D), or, where the network takes uint8
images itself, (B, H, W, C) uint8 -> (B, D), C = 1 or 3.

What a file may do. State dicts are read as data: safetensors, or torch.save's format by this project's
own reader, which executes nothing. A TorchScript file is a program in a restricted language: it cannot
import modules, but it computes what it likes and may use bugs of its interpreter; load files that you
trust alone (the registry's are checked where their hash is known). ``python:`` runs the user's code,
and is accepted from the user's command line only.
"""

from __future__ import annotations

import importlib
import io
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from regimes.callables import load_callable
from regimes.checkpoints.pickles import read_checkpoint
from regimes.checkpoints.tensors import StoredTensor
from regimes.descriptors.registry import Family
from regimes.errors import BadCheckpoint, BadDescriptor

Network = Callable[[Tensor], Tensor]


def stored_weights(family: Family, path: Path) -> bytes:
    """A file of weights in the form that ``build_network`` takes and workers load.

    Args:
        family: the kind of network.
        path: TorchScript, or a state dict as .safetensors or in torch.save's format.

    Returns:
        The TorchScript file as it is; a state dict as safetensors.

    Raises:
        BadDescriptor: if the file cannot be read or is something else.
        UnsafeCheckpoint: if it holds anything but tensors in plain containers.
    """
    if family == "torchscript":
        try:
            return path.read_bytes()
        except OSError as error:
            raise BadDescriptor(f"{path}: cannot be read ({error.strerror})") from error
    return bytes(safetensors.torch.save(_read_state(path)))


def _read_state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise BadDescriptor(f"{path}: not a readable safetensors file ({error})") from error
    try:
        found, _ = read_checkpoint(path)
        return _tensors(found, path)
    except BadCheckpoint as error:
        if type(error) is not BadCheckpoint:
            raise  # something unsafe keeps its own name
        raise BadDescriptor(str(error)) from error


def _tensors(found: object, path: Path) -> dict[str, Tensor]:
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found:
        raise BadDescriptor(f"{path}: expected a state dict, found {type(found).__name__}")
    if not all(isinstance(value, StoredTensor) for value in found.values()):
        raise BadDescriptor(f"{path}: expected a state dict of tensors alone")
    return {str(name): value.read() for name, value in found.items()}


def build_network(
    family: Family, model: str, layer: str, data: bytes | None, *, name: str, device: str
) -> Network:
    """A network in eval mode on a device.

    Args:
        family: the kind of network.
        model: which architecture; MODULE:CALLABLE for python.
        layer: where features are taken.
        data: what ``stored_weights`` gave; None for python.
        name: of the descriptor, for errors.
        device: where it computes.

    Raises:
        BadDescriptor: if weights do not fit, or a package it needs is not installed.
    """
    network = _BUILDERS[family](model, layer, data or b"", name)
    if isinstance(network, nn.Module):
        network = network.eval().to(device)
    return network


def _torchscript(model: str, layer: str, data: bytes, name: str) -> Network:
    try:
        jit: Any = torch.jit
        with warnings.catch_warnings():  # torch deprecates TorchScript; SSCD is published in it
            warnings.simplefilter("ignore", FutureWarning)
            network: Network = jit.load(io.BytesIO(data), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BadDescriptor(f"{name}: not a TorchScript file ({reason[0]:.200})") from error
    return network


def _torchvision(model: str, layer: str, data: bytes, name: str) -> Network:
    models = _package("torchvision.models", name, "torchvision")
    # Google's Inception weights expect levels in [-1, 1]: the network itself converts.
    options = {"transform_input": True} if model == "inception_v3" else {}
    with torch.device("meta"):  # no time is spent on random weights
        options |= {"init_weights": False} if model in ("inception_v3", "vgg16") else {}
        network = models.get_model(model, weights=None, **options)
    _fill(network, data, name)
    return _cut(network, layer)


def _cut(network: Any, layer: str) -> Network:
    """The part of a torchvision network up to a layer; ``scores`` is all of it."""
    if layer == "scores":
        return network
    if layer == "penultimate":
        network.classifier = network.classifier[:-1]
    elif hasattr(network, "fc"):
        network.fc, network.AuxLogits = nn.Identity(), None
    elif isinstance(network.classifier[-1], nn.Linear):
        network.classifier = nn.Identity()
    else:  # SqueezeNet, whose classes are a convolution before the pooling
        network.classifier = nn.AdaptiveAvgPool2d(1)
    return network


def _fidelity(model: str, layer: str, data: bytes, name: str) -> Network:
    module = _package("torch_fidelity.feature_extractor_inceptionv3", name, "torch-fidelity")
    with tempfile.TemporaryDirectory() as folder:
        # Its constructor unpickles a file: it gets one that was written here, of plain tensors.
        path = f"{folder}/weights.pth"
        torch.save(_state(data, name), path)
        try:
            network = module.FeatureExtractorInceptionV3(
                model, [layer], feature_extractor_weights_path=path
            )
        except RuntimeError as error:
            raise _unfit(name, error) from error
    return _Fidelity(network)


class _Fidelity(nn.Module):
    """torch-fidelity's layout: (B, 3, H, W) uint8 -> a tuple of features."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, images: Tensor) -> Tensor:
        planes = images.permute(0, 3, 1, 2)
        features: Tensor = self.extractor(planes.expand(-1, 3, -1, -1).contiguous())[0]
        return features


def _timm(model: str, layer: str, data: bytes, name: str) -> Network:
    timm = _package("timm", name, "timm")
    # Positions are those of the training resolution, interpolated to the images' at each call.
    network = timm.create_model(model, pretrained=False, num_classes=0, dynamic_img_size=True)
    _fill(network, data, name)
    return network


def _open_clip(model: str, layer: str, data: bytes, name: str) -> Network:
    open_clip = _package("open_clip", name, "open_clip_torch")
    network = open_clip.create_model(model, pretrained=None).visual
    visual = {
        key.removeprefix("visual."): value
        for key, value in _state(data, name).items()
        if key.startswith("visual.")
    }
    _load(network, visual, name)
    return network


def _python(model: str, layer: str, data: bytes, name: str) -> Network:
    network: Network = load_callable(model, name)
    return network


_BUILDERS: dict[Family, Callable[[str, str, bytes, str], Network]] = {
    "torchscript": _torchscript,
    "torchvision": _torchvision,
    "torch-fidelity": _fidelity,
    "timm": _timm,
    "open-clip": _open_clip,
    "python": _python,
}


def _package(module: str, name: str, project: str) -> Any:
    """Import a package that only some descriptors need."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BadDescriptor(
            f"{name}: needs {module.partition('.')[0]}, which cannot be imported ({error}); "
            f"pip install {project}"
        ) from error


def _state(data: bytes, name: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise BadDescriptor(f"{name}: weights are not readable safetensors ({error})") from error


def _fill(network: nn.Module, data: bytes, name: str) -> None:
    _load(network, _state(data, name), name)


def _load(network: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Give a network its weights; every name and shape must fit."""
    # Counters that older files lack; they play no part in eval mode.
    for key, value in network.state_dict().items():
        if key.endswith(".num_batches_tracked"):
            state.setdefault(key, torch.zeros((), dtype=value.dtype))
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise _unfit(name, error) from error


def _unfit(name: str, error: RuntimeError) -> BadDescriptor:
    words = " ".join(str(error).split())
    return BadDescriptor(f"{name}: the weights do not fit the network ({words:.300})")
