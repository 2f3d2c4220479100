"""A pretrained pipeline and its samples.

    x_T = sigma_0 n           n ~ N(0, I), the first draw of the seed; sigma_0 is the scheduler's
    F   = network(scaled x_t, t)
    x_s = step(F, t, x_t)     along the scheduler's time steps, which end at a clean x
    y   = x, or decode(x / scaling_factor) for a latent pipeline, clipped to [-1, 1]

A conditional network may be guided: F = F(null) + w (F(given) - F(null)), given a class or a prompt.

**A seed determines its sample.** A seed owns one generator (``regimes.noise``), consumed in a fixed order:
the initial noise, the class if the network knows classes, then the noise of every stochastic step, all
float32. Its prompt is number s mod P of a list of P. For a network without classes, and for one with classes
where no step is stochastic, that is the order of diffusers' own pipelines, so the seed s gives
the image that these make of ``generator=[torch.Generator().manual_seed(s)]``, with the same class or
prompt. (LDMPipeline and DiTPipeline pass no generator on to their steps, and scale the noise of euler and
heun before they know the steps, or not at all: that is so there for eta = 0 of the others.) Batches change
a sample by rounding alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from regimes.errors import ConfigError
from regimes.noise import SeedNoise
from regimes.pipelines.model import Condition, Pipeline
from regimes.pipelines.schedulers import GuidedConfig, SchedulerConfig, make_scheduler
from regimes.pipelines.text import prompt_index
from regimes.samplers.edm import seed_labels


def sample_pipeline(
    pipeline: Pipeline,
    seeds: Sequence[int],
    config: SchedulerConfig,
    *,
    class_index: int | None = None,
    prompts: Sequence[str] = (),
    noise_device: str = "cpu",
) -> Tensor:
    """Samples of the given seeds, as one batch.

    Args:
        pipeline: on its device.
        seeds: B integers.
        config: solver and number of steps; a ``GuidedConfig`` for a pipeline that can be guided.
        class_index: class of all samples; None takes the one that each seed draws.
        prompts: the whole list, of which seed s takes number s mod P; for a pipeline that reads prompts.
        noise_device: where noise is drawn and the solver steps if it is "cuda"; "cpu" steps where the
            network is.

    Returns:
        (B, C, H, W) float32 on the CPU, in [-1, 1]; what is not finite is left as it is.

    Raises:
        ConfigError: if ``class_index`` is not a class, prompts are missing or not read, the network cannot
            be guided, the noise device is missing, or the solver does not take the pipeline's
            configuration.
    """
    noise = SeedNoise(seeds, pipeline.noise_shape, device=noise_device)
    home = pipeline.home
    place = noise.device if noise.device.type == "cuda" else home
    x = noise.latents().to(place)
    labels = seed_labels(noise, pipeline.num_classes, class_index)
    scheduler = make_scheduler(pipeline.scheduler, config, str(place))
    options = _step_options(config, noise)
    with torch.inference_mode():
        condition = _condition(pipeline, config, seeds, labels, prompts)
        x = x * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t).to(home)
            F_x = pipeline.predict(scaled, t.to(home), condition)
            x = scheduler.step(F_x.to(place), t, x, **options).prev_sample
        images = pipeline.decode(x.to(home, torch.float32)).to(torch.float32)
    # Clipping would make white of infinity.
    return torch.where(images.isfinite(), images.clamp(-1, 1), images).cpu()


def _condition(
    pipeline: Pipeline,
    config: SchedulerConfig,
    seeds: Sequence[int],
    labels: Tensor | None,
    prompts: Sequence[str],
) -> Condition | None:
    """What every seed is conditioned on."""
    if bool(prompts) != (pipeline.text is not None):
        wanted = "none, which this pipeline does not read" if prompts else "one or more"
        raise ConfigError(f"prompts: expected {wanted}, got {len(prompts)}")
    scale = config.guidance if isinstance(config, GuidedConfig) else 1.0
    if pipeline.text is not None:
        negative = config.negative_prompt if isinstance(config, GuidedConfig) else ""
        own = [prompts[prompt_index(seed, len(prompts))] for seed in seeds]
        return pipeline.by_prompt(own, scale, negative)
    if labels is not None:
        return pipeline.by_class(labels.argmax(1).to(pipeline.home), scale)
    if scale != 1:
        raise ConfigError(f"guidance: this pipeline is unconditional, got {scale}")
    return None


def _step_options(config: SchedulerConfig, noise: SeedNoise) -> dict[str, Any]:
    options: dict[str, Any] = {"eta": config.eta} if config.name == "ddim" else {}
    return options | ({"generator": noise.generators} if config.is_stochastic else {})
