"""EDM's checkpoints as denoisers: ``network-snapshot-*.pkl`` and ``training-state-*.pt``.

A snapshot holds the moving average of the weights under ``ema``, a training state the raw
weights under ``net``. Either is a tree of objects with their attributes; the configuration is in
the arguments that the root was made with, the weights are in the leaves. The network is built by
this project from the configuration, every name and shape must fit, and every attribute that both
sides have must agree.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regimes.checkpoints.pickles import read_checkpoint
from regimes.checkpoints.stubs import Context, Stub
from regimes.checkpoints.tensors import StoredTensor
from regimes.denoisers.unet.build import (
    PRECONDITIONINGS,
    Config,
    UNetDenoiser,
    restore_denoiser,
)
from regimes.errors import BadCheckpoint, ConfigError, UnsafeCheckpoint
from regimes.pickles.machine import shown

VERSION = 6
OLDEST_VERSION = 3
MAX_MODULES = 20_000
MAX_DEPTH = 16
MAX_TEXT = 200
MAX_INTEGER = 2**63
_NETWORKS = ("ema", "net")
_COMMON = ("img_resolution", "img_channels", "label_dim", "use_fp16")
_POSITIONAL = (*_COMMON, "sigma_min", "sigma_max", "sigma_data", "model_type")
_DERIVED = ("img_resolution", "in_channels", "out_channels", "label_dim")  # the root decides
_CHECKED = (
    "in_features", "out_features", "in_channels", "out_channels", "up", "down", "fused_resample",
    "num_groups", "eps", "num_channels", "max_positions", "endpoint", "emb_channels", "num_heads",
    "dropout", "skip_scale", "adaptive_scale", "label_dropout",
)  # fmt: skip
_CHECKED_ROOT = ("img_resolution", "img_channels", "label_dim", "sigma_min", "sigma_max")


def load_edm(path: str | Path, device: str | torch.device = "cpu") -> UNetDenoiser:
    """The denoiser of an EDM checkpoint.

    Nothing in the file is imported, evaluated or executed.

    Args:
        path: ``network-snapshot-*.pkl`` or ``training-state-*.pt``.
        device: where the denoiser goes.

    Returns:
        The denoiser in eval mode, without gradients, float32: ``net(x, sigma, class_labels=None)``.

    Raises:
        BadCheckpoint: if the file is missing, damaged, or does not describe the network it holds.
        UnsafeCheckpoint: if it asks for anything that is not on the list of an EDM checkpoint.

    Cost: one pass over the file, and memory for the file and the weights.
    """
    return _load(Path(path))[0].to(device)


def read_edm(path: str | Path) -> tuple[Config, dict[str, Tensor]]:
    """Configuration and state dict of an EDM checkpoint, checked as ``load_edm`` does.

    Args:
        path: ``network-snapshot-*.pkl`` or ``training-state-*.pt``.

    Returns:
        The configuration (see ``regimes.denoisers.unet.build``); parameters and buffers under the
        names of EDM's state dict, float32 on the CPU.

    Raises:
        BadCheckpoint: see ``load_edm``.
    """
    denoiser, state = _load(Path(path))
    return denoiser.config, state


def _load(path: Path) -> tuple[UNetDenoiser, dict[str, Tensor]]:
    top, context = read_checkpoint(path)
    try:
        _check_versions(context, path)
        root = _find_network(top)
        modules = dict(_walk(root))
        config = _read_config(root)
        state = _read_state(modules, context)
        denoiser = restore_denoiser(config, state)
        _cross_check(denoiser, root, modules)
    except BadCheckpoint as error:
        raise type(error)(f"{path}: {error}") from error
    except ConfigError as error:
        raise BadCheckpoint(f"{path}: {error}") from error
    return denoiser, state


def _check_versions(context: Context, path: Path) -> None:
    if not context.versions:
        raise BadCheckpoint("not an EDM checkpoint: it holds no persistent object")
    oldest = min(context.versions)
    if oldest < OLDEST_VERSION:
        raise BadCheckpoint(
            f"persistence version {oldest}; expected {VERSION} (from {OLDEST_VERSION} on is tried)"
        )
    if context.versions != {VERSION}:
        warnings.warn(
            f"{path}: persistence versions {sorted(context.versions)} were not tested; "
            f"expected {VERSION}",
            stacklevel=4,
        )


def _find_network(top: object) -> Stub:
    """The preconditioned network in a snapshot or a training state."""
    if type(top) is not dict:
        raise BadCheckpoint(f"expected a dict with 'ema' or 'net', found {shown(top)}")
    for key in _NETWORKS:
        found = top.get(key)
        if type(found) is Stub and found.class_name in PRECONDITIONINGS:
            return found
    keys = sorted(str(key)[:40] for key in top)[:10]
    raise BadCheckpoint(
        f"expected a network ({', '.join(PRECONDITIONINGS)}) under 'ema' or 'net', found the keys "
        f"{keys}"
    )


def _walk(root: Stub) -> Iterator[tuple[str, Stub]]:
    """Every module under its dotted name, the root under the empty one."""
    waiting, count = [("", root, 0)], 0
    while waiting:
        name, stub, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_MODULES:
            raise UnsafeCheckpoint(
                f"modules are nested deeper than {MAX_DEPTH} or more than {MAX_MODULES}"
            )
        yield name, stub
        for child_name, child in _members(stub, "_modules"):
            if type(child) is not Stub:
                raise BadCheckpoint(f"{name}: expected a module, found {shown(child)}")
            waiting.append((f"{name}.{child_name}".lstrip("."), child, depth + 1))


def _members(stub: Stub, kind: str) -> Iterator[tuple[str, object]]:
    """Modules, parameters or buffers of a module, without those that are None."""
    members = stub.state.get(kind, {})
    if type(members) is not dict:
        raise BadCheckpoint(f"{kind}: expected a dict, found {shown(members)}")
    for name, value in members.items():
        if type(name) is not str or len(name) > MAX_TEXT:
            raise BadCheckpoint(f"{kind}: expected short names, found {shown(name)}")
        if value is not None:
            yield name, value


def _read_state(modules: Mapping[str, Stub], context: Context) -> dict[str, Tensor]:
    """All parameters and persistent buffers, float32."""
    state: dict[str, Tensor] = {}
    for module_name, stub in modules.items():
        hidden = stub.state.get("_non_persistent_buffers_set")
        for kind in ("_parameters", "_buffers"):
            for name, stored in _members(stub, kind):
                if kind == "_buffers" and type(hidden) is set and name in hidden:
                    continue
                full = f"{module_name}.{name}".lstrip(".")
                state[full] = _read_tensor(full, stored, context)
    return state


def _read_tensor(name: str, stored: object, context: Context) -> Tensor:
    if type(stored) is not StoredTensor:
        raise BadCheckpoint(f"{name}: expected a tensor, found {shown(stored)}")
    context.charge(stored.span_bytes)
    tensor = stored.read()
    if not tensor.is_floating_point():
        raise BadCheckpoint(f"{name}: expected floating-point numbers, found {tensor.dtype}")
    tensor = tensor.to(torch.float32)
    if not tensor.isfinite().all():
        raise BadCheckpoint(f"{name}: holds NaN or infinite values; the training has diverged")
    return tensor


def _read_config(root: Stub) -> Config:
    """The arguments of the root; what they lack comes from its attributes and its model's."""
    parameters = PRECONDITIONINGS[root.class_name]
    args, kwargs = root.state.get("_init_args", ()), _plain_dict(root, "_init_kwargs")
    if type(args) is not tuple or len(args) > len(_POSITIONAL):
        raise BadCheckpoint("_init_args: expected a short tuple")
    positional = {k: _plain(k, v) for k, v in zip(_POSITIONAL, args, strict=False)}
    attributes = {
        key: _plain(key, root.state[key]) for key in (*_COMMON, *parameters) if key in root.state
    }
    model = dict(_members(root, "_modules")).get("model")
    if type(model) is not Stub:
        raise BadCheckpoint("the network has no module 'model'")
    inner = _plain_dict(model, "_init_kwargs")
    inner = {key: value for key, value in inner.items() if key not in _DERIVED}
    config: Config = {"preconditioning": root.class_name, "model_type": model.class_name}
    config |= inner | attributes | positional | kwargs
    # An unlimited range is the default, and JSON has no number for it.
    return {key: value for key, value in config.items() if value != math.inf}


def _plain_dict(stub: Stub, name: str) -> Config:
    values = stub.state.get(name, {})
    if type(values) is not dict or any(type(key) is not str for key in values):
        raise BadCheckpoint(f"{name}: expected a dict with names as keys")
    return {key: _plain(key, value) for key, value in values.items()}


def _plain(name: str, value: object) -> Any:
    """A value of the configuration: text, a number, or a short list of numbers."""
    if type(value) in (list, tuple) and len(value) <= 16:  # type: ignore[arg-type]
        return [_plain(name, item) for item in _flat(name, value)]
    is_number = type(value) in (bool, float) or (type(value) is int and abs(value) < MAX_INTEGER)
    if value is None or is_number or (type(value) is str and len(value) <= MAX_TEXT):
        return value
    raise BadCheckpoint(f"{name[:40]}: expected text, a number or a short list, got {shown(value)}")


def _flat(name: str, items: Any) -> Iterator[object]:
    for item in items:
        if type(item) not in (int, float):
            raise BadCheckpoint(f"{name[:40]}: expected a list of numbers, got {shown(item)} in it")
        yield item


def _cross_check(denoiser: UNetDenoiser, root: Stub, modules: Mapping[str, Stub]) -> None:
    """Compare classes and attributes of the file with those of the network that was built."""
    _check_attributes("root", _CHECKED_ROOT, denoiser, root, tolerance=1e-3)
    for name, module in denoiser.network.named_modules():
        full = f"model.{name}".rstrip(".")
        if full not in modules:
            raise BadCheckpoint(f"{full}: the file lacks this module")
        stub = modules[full]
        if stub.class_name != type(module).__name__:
            raise BadCheckpoint(
                f"{full}: expected a {type(module).__name__}, found a {stub.class_name}"
            )
        _check_attributes(full, _CHECKED, module, stub, tolerance=1e-9)


def _check_attributes(
    name: str, keys: tuple[str, ...], module: object, stub: Stub, *, tolerance: float
) -> None:
    for key in keys:
        expected, found = getattr(module, key, None), stub.state.get(key)
        if expected is None or found is None:
            continue
        value = _plain(key, found)
        if isinstance(value, (str, list)) or not math.isclose(expected, value, rel_tol=tolerance):
            raise BadCheckpoint(
                f"{name}.{key}: the configuration gives {expected!r}, the file holds {shown(found)}"
            )
