"""From a plain configuration to a denoiser, in the vocabulary of EDM's checkpoints.

A configuration is a flat dict of JSON values. ``preconditioning`` is one of EDMPrecond, VPPrecond,
VEPrecond and iDDPMPrecond; ``model_type`` is SongUNet or DhariwalUNet; ``img_resolution``,
``img_channels``, ``label_dim``, the numbers of the preconditioning and, for networks that continue clips,
``condition_channels`` follow; every other key is a field of the network's configuration. What is not
given has EDM's default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

# torch.device as a context imports it on first use; loading a checkpoint shall import nothing.
import torch.utils._device
from torch import Tensor, nn

from regimes.denoisers.preconditioning import EDM, IDDPM, VE, VP, Denoiser, Preconditioning
from regimes.denoisers.unet.config import DhariwalConfig, SongConfig
from regimes.denoisers.unet.dhariwal import DhariwalUNet
from regimes.denoisers.unet.song import SongUNet
from regimes.errors import ConfigError

Config = dict[str, Any]
LEVELS = "u"
"""Key of iDDPM's noise levels in a state dict."""
_PREFIX = "model."
_MAX_LEVELS = 10_000
_MAX_NUMBER = 1e30


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One of EDM's preconditioning classes."""

    preconditioning: type[Any]
    parameters: tuple[str, ...]
    model_type: str
    outputs: int = 1  # output channels per image channel


_KINDS = {
    "EDMPrecond": _Kind(
        preconditioning=EDM,
        parameters=("sigma_min", "sigma_max", "sigma_data"),
        model_type="DhariwalUNet",
    ),
    "VPPrecond": _Kind(
        preconditioning=VP,
        parameters=("beta_d", "beta_min", "M", "epsilon_t"),
        model_type="SongUNet",
    ),
    "VEPrecond": _Kind(
        preconditioning=VE, parameters=("sigma_min", "sigma_max"), model_type="SongUNet"
    ),
    "iDDPMPrecond": _Kind(
        preconditioning=IDDPM,
        parameters=("C_1", "C_2", "M"),
        model_type="DhariwalUNet",
        outputs=2,
    ),
}
PRECONDITIONINGS = {name: kind.parameters for name, kind in _KINDS.items()}
"""Names of the preconditioning classes, and the numbers each takes."""
_COMMON = (
    "preconditioning",
    "img_resolution",
    "img_channels",
    "condition_channels",
    "label_dim",
    "use_fp16",
)


class UNetDenoiser(Denoiser):
    """A SongUNet or DhariwalUNet with its preconditioning.

    Called as ``net(x, sigma, class_labels=None)``: x (B, C, H, W) in [-1, 1] plus noise, sigma (B,)
    or a scalar, class_labels (B, label_dim) one-hot or None for "no class".

    Args:
        network: the raw network.
        preconditioning: how it was trained.
        config: the configuration both were built from.
    """

    def __init__(
        self, network: nn.Module, preconditioning: Preconditioning, config: Config
    ) -> None:
        super().__init__(network, preconditioning)
        self.config = config
        self.img_resolution = int(config["img_resolution"])
        self.img_channels = int(config["img_channels"])
        self.label_dim = int(config.get("label_dim", 0))
        self.condition_channels = int(config.get("condition_channels", 0))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one sample."""
        return self.img_channels, self.img_resolution, self.img_resolution

    def checkpoint_state(self) -> dict[str, Tensor]:
        """Parameters and buffers under EDM's names."""
        state = {_PREFIX + name: value for name, value in self.network.state_dict().items()}
        if isinstance(self.preconditioning, IDDPM):
            state[LEVELS] = self.preconditioning.u
        return state

    def load_checkpoint_state(self, state: Mapping[str, Tensor], *, assign: bool = False) -> None:
        """Load parameters and buffers under EDM's names; every name and shape must fit.

        Args:
            state: as of ``checkpoint_state``.
            assign: take the given tensors themselves, as a network on the meta device must.

        Raises:
            ConfigError: if names or shapes differ.
        """
        levels = state.get(LEVELS) if isinstance(self.preconditioning, IDDPM) else None
        weights = {
            (name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else f"({name})"): value
            for name, value in state.items()
            if value is not levels
        }
        try:
            self.network.load_state_dict(weights, strict=True, assign=assign)
        except RuntimeError as error:
            detail = " ".join(str(error).split())
            raise ConfigError(f"weights do not fit the network: {detail[:600]}") from error
        if isinstance(self.preconditioning, IDDPM) and levels is not None:
            self.preconditioning = _iddpm_with_levels(self.preconditioning, levels)


def build_denoiser(config: Mapping[str, object]) -> UNetDenoiser:
    """A denoiser with initial weights (drawn from torch's global generator).

    Args:
        config: see the module's docstring.

    Returns:
        The denoiser, in training mode.

    Raises:
        ConfigError: if a key is unknown or missing, or a value is out of range.
    """
    complete = dict(config)
    kind = _kind(complete)
    complete.setdefault("model_type", kind.model_type)
    preconditioning = _preconditioning(kind, complete)
    network = _network(kind, complete)
    return UNetDenoiser(network, preconditioning, complete)


def restore_denoiser(config: Mapping[str, object], state: Mapping[str, Tensor]) -> UNetDenoiser:
    """A denoiser with given weights, on the CPU, in eval mode, without gradients.

    Args:
        config: see the module's docstring.
        state: parameters and buffers under EDM's names; the denoiser takes them, without a copy.

    Raises:
        ConfigError: if the configuration is invalid, or names and shapes do not fit it.
    """
    with torch.device("meta"):  # initial weights would be drawn for nothing
        denoiser = build_denoiser(config)
    denoiser.load_checkpoint_state(state, assign=True)
    return denoiser.eval().requires_grad_(False)


def _kind(config: Config) -> _Kind:
    name = config.get("preconditioning")
    if name not in _KINDS:
        raise ConfigError(f"preconditioning: expected one of {tuple(_KINDS)}, got {name!r:.60}")
    return _KINDS[name]


def _preconditioning(kind: _Kind, config: Config) -> Preconditioning:
    values = {k: _parameter(k, config[k]) for k in kind.parameters if k in config}
    made: Preconditioning = kind.preconditioning(**values)
    return made


def _parameter(name: str, value: object) -> float | int:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not (0 <= value <= _MAX_NUMBER or value == math.inf):  # type: ignore[operator]
        raise ConfigError(f"{name}: expected a number of at least 0, got {value!r:.60}")
    if name != "M":
        return float(value)  # type: ignore[arg-type]
    if not isinstance(value, int) or not 1 <= value <= _MAX_LEVELS:
        raise ConfigError(f"M: expected an integer from 1 to {_MAX_LEVELS}, got {value!r:.60}")
    return value


def _network(kind: _Kind, config: Config) -> nn.Module:
    missing = [k for k in ("img_resolution", "img_channels") if k not in config]
    if missing:
        raise ConfigError(f"configuration lacks {missing}")
    known = {*_COMMON, "model_type", *kind.parameters}
    options = {k: v for k, v in config.items() if k not in known}
    channels, outputs = config["img_channels"], kind.outputs
    options |= {
        "img_resolution": config["img_resolution"],
        "in_channels": _with_condition(channels, config.get("condition_channels", 0)),
        "out_channels": channels * outputs if isinstance(channels, int) else channels,
        "label_dim": config.get("label_dim", 0),
    }
    if config["model_type"] == "SongUNet":
        return SongUNet(_options(SongConfig, options))
    if config["model_type"] == "DhariwalUNet":
        return DhariwalUNet(_options(DhariwalConfig, options))
    raise ConfigError(
        f"model_type: expected 'SongUNet' or 'DhariwalUNet', got {config['model_type']!r:.60}"
    )


def _with_condition(channels: object, condition: object) -> object:
    """Input channels; what is no integer is refused where the network's configuration is checked."""
    if not isinstance(condition, int) or isinstance(condition, bool) or condition < 0:
        raise ConfigError(f"condition_channels: expected 0 or more, got {condition!r:.60}")
    return channels + condition if isinstance(channels, int) else channels


def _options(cls: type[Any], options: Config) -> Any:
    unknown = sorted(str(k)[:60] for k in set(options) - {field.name for field in fields(cls)})
    if unknown:
        raise ConfigError(f"unknown options {unknown[:10]} of {cls.__name__}")
    return cls(**options)


def _iddpm_with_levels(preconditioning: IDDPM, levels: Tensor) -> IDDPM:
    """The stored levels win: recomputed on another machine they could round differently."""
    if levels.shape != (preconditioning.M + 1,):
        raise ConfigError(
            f"u: expected {preconditioning.M + 1} noise levels, got shape {tuple(levels.shape)}"
        )
    return IDDPM(
        M=preconditioning.M,
        C_1=preconditioning.C_1,
        C_2=preconditioning.C_2,
        levels=tuple(levels.tolist()),
    )
