"""Schedulers by name: what they cost, what they take, and what they refuse."""

from __future__ import annotations

import diffusers
import pytest
import torch
from made_pipelines import config

from regimes.errors import ConfigError
from regimes.pipelines.schedulers import (
    SCHEDULERS,
    SchedulerConfig,
    check_scheduler,
    make_scheduler,
    own_scheduler,
)

LINEAR = config(diffusers.DDPMScheduler())


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("num_steps", [1, 2, 8])
def test_evaluations_are_the_time_steps_of_the_scheduler(name, num_steps):
    asked = SchedulerConfig(name=name, num_steps=num_steps)
    assert len(make_scheduler(LINEAR, asked, "cpu").timesteps) == asked.num_evaluations
    check_scheduler(LINEAR, asked)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_solver_finds_the_clean_point_of_the_exact_network(name):
    """One clean point y: the exact noise predictor is (x_t - sqrt(abar) y) / sqrt(1 - abar)."""
    schedule = LINEAR | {"clip_sample": False}
    scheduler = make_scheduler(schedule, SchedulerConfig(name=name, num_steps=50), "cpu")
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    y = torch.tensor([[[[0.5]]]])
    x = torch.randn(1, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    x = x * scheduler.init_noise_sigma
    generator = torch.Generator().manual_seed(1)
    extra = {"generator": generator} if name == "ddpm" else {}
    for t in scheduler.timesteps:
        x_t = scheduler.scale_model_input(x, t)
        a = abar[round(float(t))].float()
        noise = (x_t - a.sqrt() * y) / (1 - a).sqrt()
        x = scheduler.step(noise, t, x, **extra).prev_sample
    # The levels end at sigma_0 = 0.01, and fractional time steps are rounded here.
    torch.testing.assert_close(x, y, atol=0.03, rtol=0)


def test_the_name_decides_and_the_schedule_is_the_pipelines():
    saved = LINEAR | {"algorithm_type": "sde-dpmsolver++", "beta_end": 0.01}
    made = make_scheduler(saved, SchedulerConfig(name="dpm-solver++", num_steps=4), "cpu")
    assert made.config.algorithm_type == "dpmsolver++"
    assert float(made.betas[-1]) == pytest.approx(0.01)


def test_own_scheduler_is_that_of_the_class():
    assert own_scheduler({"_class_name": "PNDMScheduler"}) == "plms"
    assert own_scheduler({"_class_name": "DDIMScheduler"}) == "ddim"
    with pytest.raises(ConfigError, match=r"'KarrasVeScheduler', is not supported; choose one of"):
        own_scheduler({"_class_name": "KarrasVeScheduler"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "ddpn"}, "scheduler: expected one of ddim"),
        ({"name": "ddim", "num_steps": 0}, "num_steps: expected at least 1"),
        ({"name": "ddim", "eta": 1.5}, "eta: expected a number from 0 to 1"),
        ({"name": "unipc", "eta": 0.5}, "eta: scheduler ddim alone"),
    ],
)
def test_options_without_effect_or_sense_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        SchedulerConfig(**options)


@pytest.mark.parametrize(
    ("changed", "name", "words"),
    [
        ({}, "ddim", "num_steps: expected at most 1000"),
        ({"variance_type": "learned_range"}, "ddpm", "learned variances are not supported"),
        ({"prediction_type": "sample"}, "plms", "scheduler plms: does not take"),
        ({"beta_schedule": "sigmoid"}, "ddim", "scheduler ddim: does not take"),
    ],
)
def test_a_schedule_that_a_solver_does_not_take_is_refused_in_one_line(changed, name, words):
    num_steps = 8 if changed else 1001
    with pytest.raises(ConfigError, match=words) as caught:
        check_scheduler(LINEAR | changed, SchedulerConfig(name=name, num_steps=num_steps))
    assert len(str(caught.value).splitlines()) == 1
