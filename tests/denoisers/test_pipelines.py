"""diffusers models as denoisers: the three predictions, the levels, and DDIM as Euler steps."""

from __future__ import annotations

from types import SimpleNamespace

import diffusers
import pytest
import torch
from torch import nn

from regimes.denoisers.pipelines import (
    PipelineDenoiser,
    build_pipeline_denoiser,
    image_shape,
    num_classes,
)
from regimes.errors import ConfigError
from regimes.samplers.edm import SamplerConfig, sample

ABAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
UNET = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 8),
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "layers_per_block": 1,
}


def parts(prediction_type="epsilon", **unet):
    """Configurations and weights of a tiny pipeline, as diffusers saves them."""
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(**UNET, **unet)
    scheduler = diffusers.DDIMScheduler(prediction_type=prediction_type, clip_sample=False)
    return dict(network.config) | {"_class_name": "UNet2DModel"}, dict(scheduler.config), network


class Exact(nn.Module):
    """The exact predictor of one clean image y, in any parametrization."""

    def __init__(self, y, prediction):
        super().__init__()
        self.y, self.prediction = y, prediction

    def forward(self, x_t, t, class_labels=None):
        a, s = (v.sqrt().float()[:, None, None, None] for v in (ABAR[t], 1 - ABAR[t]))
        noise = (x_t - a * self.y) / s
        outputs = {"sample": self.y.expand_as(x_t), "epsilon": noise}
        outputs["v_prediction"] = a * noise - s * self.y
        return SimpleNamespace(sample=outputs[self.prediction])


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_every_prediction_of_the_exact_network_gives_the_clean_image(torch_rng, prediction):
    y = torch.rand(1, 1, 4, 4, generator=torch_rng) * 2 - 1
    denoiser = PipelineDenoiser(Exact(y, prediction), ABAR, prediction)
    for level in denoiser.sigmas[[0, 10, 400, 999]]:
        x = y + float(level) * torch.randn(3, 1, 4, 4, generator=torch_rng)
        tolerance = 1e-5 * max(1.0, float(level))  # float32: x is of the size of the noise
        torch.testing.assert_close(denoiser(x, level), y.expand_as(x), atol=tolerance, rtol=0)


def test_levels_are_those_of_the_schedule_and_round_to_themselves():
    denoiser = PipelineDenoiser(nn.Identity(), ABAR, "epsilon")
    assert denoiser.sigma_min == pytest.approx(0.0100005, rel=1e-5)
    assert denoiser.sigma_max == pytest.approx(157.407, rel=1e-4)
    assert torch.equal(denoiser.round_sigma(denoiser.sigmas), denoiser.sigmas)
    between = (denoiser.sigmas[3] * denoiser.sigmas[4]).sqrt() * 1.001
    assert denoiser.round_sigma(between) == denoiser.sigmas[4]


def test_euler_steps_are_ddim(torch_rng):
    unet, scheduler, network = parts()
    denoiser = build_pipeline_denoiser(unet, scheduler, network.state_dict())
    config = SamplerConfig(num_steps=6, solver="euler")
    latents = torch.randn(2, 1, 8, 8, generator=torch_rng)
    with torch.no_grad():
        found = sample(denoiser, latents, config=config)
        sigmas = config.sigmas(denoiser)
        # DDIM with eta = 0 (Song et al. 2021, equation 12), in x_t = x sqrt(abar), float64.
        x_t = latents.double() * sigmas[0] / (1 + sigmas[0] ** 2).sqrt()
        for i, sigma in enumerate(sigmas[:-1]):
            abar, abar_next = 1 / (1 + sigma**2), 1 / (1 + sigmas[i + 1] ** 2)
            t = (denoiser.sigmas - sigma).abs().argmin()
            noise = network(x_t.float(), t).sample.double()
            y = (x_t - (1 - abar).sqrt() * noise) / abar.sqrt()
            x_t = abar_next.sqrt() * y + (1 - abar_next).sqrt() * noise
    torch.testing.assert_close(found, x_t, atol=2e-4 * float(x_t.abs().max()), rtol=0)


def test_classes_reach_the_network(torch_rng):
    unet, scheduler, network = parts(num_class_embeds=3)
    denoiser = build_pipeline_denoiser(unet, scheduler, network.state_dict())
    x = torch.randn(2, 1, 8, 8, generator=torch_rng)
    assert num_classes(unet) == 3
    assert image_shape(unet) == (1, 8, 8)
    one, other = (denoiser(x, 1.0, torch.eye(3)[[c, c]]) for c in (0, 2))
    assert not torch.equal(one, other)


def test_what_is_not_a_pixel_model_is_refused():
    unet, scheduler, network = parts()
    with pytest.raises(ConfigError, match="expected a UNet2DModel"):
        build_pipeline_denoiser(unet | {"_class_name": "UNet2DConditionModel"}, scheduler, {})
    with pytest.raises(ConfigError, match="do not fit together"):
        build_pipeline_denoiser(unet, scheduler, {})
    with pytest.raises(ConfigError, match="prediction_type"):
        PipelineDenoiser(network, ABAR, "score")
    with pytest.raises(ConfigError, match="sample_size"):
        image_shape({"in_channels": 3})
