"""Schedulers by name: the solvers of diffusers, built from a pipeline's own noise schedule.

    ddim         Song et al. 2021 (DDIM), equation 12; eta = 0 is the ODE, eta = 1 the posterior of DDPM
    ddpm         Ho et al. 2020, algorithm 2, on num_steps of the T steps
    plms         Liu et al. 2022 (PNDM) without Runge-Kutta steps: linear multistep of order 4
    dpm-solver++ Lu et al. 2022, DPM-Solver++(2M)
    unipc        Zhao et al. 2023, UniPC of order 2 with bh2
    euler, heun  Karras et al. 2022, algorithm 1 of order 1 and 2, on the pipeline's levels

The noise levels, the prediction type, clipping and the spacing of the steps are those of the pipeline's
``scheduler_config.json``; only the solver changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from regimes.errors import ConfigError

SchedulerName = Literal["ddim", "plms", "dpm-solver++", "unipc", "euler", "heun", "ddpm"]
SCHEDULERS: tuple[SchedulerName, ...] = get_args(SchedulerName)

_CLASSES: dict[SchedulerName, str] = {
    "ddim": "DDIMScheduler",
    "plms": "PNDMScheduler",
    "dpm-solver++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "ddpm": "DDPMScheduler",
}
_FIXED: dict[SchedulerName, dict[str, Any]] = {
    "plms": {"skip_prk_steps": True},
    # A pipeline's own configuration may name a stochastic variant, which is another solver.
    "dpm-solver++": {"algorithm_type": "dpmsolver++", "solver_order": 2},
    "unipc": {"solver_order": 2, "solver_type": "bh2"},
}
"""What a name promises, whatever the pipeline's configuration says."""
_LEARNED = ("learned", "learned_range")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """How samples of a pipeline are drawn."""

    name: SchedulerName
    """The solver."""
    num_steps: int = 50
    """Steps; see ``num_evaluations`` for what they cost."""
    eta: float = 0.0
    """ddim: noise per step, from 0 (deterministic) to 1 (as much as ddpm)."""

    def __post_init__(self) -> None:
        """Refuse what could not run, or what would change nothing."""
        if self.name not in SCHEDULERS:
            raise ConfigError(
                f"scheduler: expected one of {', '.join(SCHEDULERS)}, got {self.name!r:.40}"
            )
        if self.num_steps < 1:
            raise ConfigError(f"num_steps: expected at least 1, got {self.num_steps}")
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"eta: expected a number from 0 to 1, got {self.eta}")
        if self.eta and self.name != "ddim":
            raise ConfigError(
                f"eta: scheduler ddim alone reads it; expected 0 with {self.name}, got {self.eta}"
            )

    @property
    def num_evaluations(self) -> int:
        """Network calls per sample."""
        return _num_evaluations(self)

    @property
    def is_stochastic(self) -> bool:
        """Whether steps draw noise."""
        return self.name == "ddpm" or self.eta > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidedConfig(SchedulerConfig):
    """How samples of a pipeline are drawn that is conditional on classes or on prompts."""

    guidance: float
    """Scale w of F(null) + w (F(given) - F(null)): 1 is the conditional network by itself, 0 the
    unconditional one. (diffusers takes anything below 1 for 1.)"""
    prompts: str | None = None
    """SHA-256 of the list of prompts; None for a pipeline that reads none."""
    negative_prompt: str = ""
    """What guidance moves away from."""

    def __post_init__(self) -> None:
        """Refuse what could not run, or what would change nothing."""
        SchedulerConfig.__post_init__(self)
        if not 0 <= self.guidance < math.inf:
            raise ConfigError(f"guidance: expected a number from 0, got {self.guidance}")
        if self.negative_prompt and (self.prompts is None or self.guidance == 1):
            raise ConfigError(
                "negative_prompt: of pipelines that read prompts, with guidance other than 1; got "
                f"{self.negative_prompt!r:.40}"
            )

    @property
    def num_evaluations(self) -> int:
        """Network calls per sample."""
        calls = _num_evaluations(self)
        return calls if self.guidance == 1 else 2 * calls


def _num_evaluations(config: SchedulerConfig) -> int:
    if config.name == "heun":
        return 2 * config.num_steps - 1
    return config.num_steps + (config.name == "plms" and config.num_steps > 1)


def own_scheduler(scheduler: Mapping[str, Any]) -> SchedulerName:
    """Name of the solver that a pipeline was saved with.

    Args:
        scheduler: content of ``scheduler/scheduler_config.json``.

    Raises:
        ConfigError: if it is not among ``SCHEDULERS``.
    """
    kind = scheduler.get("_class_name")
    for name, known in _CLASSES.items():
        if kind == known:
            return name
    raise ConfigError(
        f"scheduler: the pipeline's own, {kind!r:.60}, is not supported; choose one of "
        f"{', '.join(SCHEDULERS)}"
    )


def make_scheduler(scheduler: Mapping[str, Any], config: SchedulerConfig, device: str) -> Any:
    """A diffusers scheduler at the start of its steps; it holds the history of one trajectory.

    Args:
        scheduler: content of ``scheduler/scheduler_config.json``.
        config: the solver and its number of steps.
        device: where its time steps lie.

    Raises:
        ConfigError: if the solver does not take this configuration.
    """
    import diffusers

    schedule = dict(scheduler)
    if schedule.get("variance_type") in _LEARNED:
        raise ConfigError(
            f"scheduler: expected a fixed variance, the pipeline has variance_type "
            f"{schedule['variance_type']!r}; learned variances are not supported"
        )
    last = schedule.get("num_train_timesteps", 1000)
    if isinstance(last, int) and config.num_steps > last:
        raise ConfigError(
            f"num_steps: expected at most {last}, the steps of the pipeline, got {config.num_steps}"
        )
    kind: Any = getattr(diffusers, _CLASSES[config.name])
    fixed = _FIXED.get(config.name, {})
    try:
        made = kind.from_config(schedule, **fixed)
        made.set_timesteps(config.num_steps, device=device)
    except (ValueError, TypeError, NotImplementedError, IndexError, ImportError) as error:
        raise _unfit(config, error) from error
    return made


def check_scheduler(scheduler: Mapping[str, Any], config: SchedulerConfig) -> None:
    """Refuse a solver that does not take a pipeline's configuration, before anything is sampled.

    Some solvers find out in their steps: all are run here on one pixel.

    Raises:
        ConfigError: as ``make_scheduler``.
    """
    made = make_scheduler(scheduler, config, "cpu")
    x = torch.zeros(1, 1, 1, 1)
    try:
        for t in made.timesteps:
            made.scale_model_input(x, t)
            x = made.step(torch.zeros_like(x), t, x).prev_sample
    except (ValueError, TypeError, NotImplementedError, IndexError) as error:
        raise _unfit(config, error) from error
    if not bool(torch.isfinite(x).all()):
        raise ConfigError(
            f"scheduler {config.name}: {config.num_steps} steps of this pipeline's schedule are not "
            "finite; take another number of steps or another scheduler"
        )


def _unfit(config: SchedulerConfig, error: Exception) -> ConfigError:
    detail = " ".join(str(error).split())
    return ConfigError(
        f"scheduler {config.name}: does not take this pipeline's configuration with "
        f"{config.num_steps} steps ({detail:.300}); choose another"
    )
