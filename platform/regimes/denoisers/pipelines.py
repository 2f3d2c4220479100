"""Unconditional diffusers models as denoisers.

A discrete-time model predicts from x_t = sqrt(abar_t) y + sqrt(1 - abar_t) n at steps t = 0..T-1.
With sigma_t = sqrt((1 - abar_t) / abar_t) and x = x_t / sqrt(abar_t) = y + sigma_t n this is a
denoiser D(x; sigma) like any other, known at the T levels sigma_t, and every sampler here applies.

    epsilon       D = x - sigma F            F the network's output at x / sqrt(1 + sigma^2) and t
    sample        D = F
    v_prediction  D = x / (1 + sigma^2) - sigma / sqrt(1 + sigma^2) F      (Salimans & Ho 2022)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regimes.errors import ConfigError

PREDICTIONS = ("epsilon", "sample", "v_prediction")


class PipelineDenoiser(nn.Module):
    """A diffusers ``UNet2DModel`` with the noise levels of its scheduler.

    Called as ``net(x, sigma, class_labels=None)``, like ``Denoiser``; use it at the levels that
    ``round_sigma`` returns. Predictions are not clipped.

    Args:
        network: called as ``network(x, t, class_labels=...).sample``.
        alphas_cumprod: (T,) abar_t, decreasing.
        prediction_type: one of ``PREDICTIONS``.

    Raises:
        ConfigError: if the prediction type is another.
    """

    sigmas: Tensor

    def __init__(self, network: nn.Module, alphas_cumprod: Tensor, prediction_type: str) -> None:
        super().__init__()
        if prediction_type not in PREDICTIONS:
            raise ConfigError(
                f"prediction_type: expected one of {', '.join(PREDICTIONS)}, got {prediction_type!r}"
            )
        self.network, self.prediction_type = network, prediction_type
        abar = alphas_cumprod.to(torch.float64).clamp(min=1e-12)  # "zero terminal SNR" ends at 0
        self.register_buffer("sigmas", ((1 - abar) / abar).sqrt(), persistent=False)

    @property
    def sigma_min(self) -> float:
        """sigma_0."""
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        """sigma_{T-1}."""
        return float(self.sigmas[-1])

    def _steps(self, sigma: Tensor) -> Tensor:
        """Index of the nearest level in ln sigma, the shape of ``sigma``."""
        levels = sigma.to(self.sigmas).unsqueeze(-1).log()
        return (levels - self.sigmas.log()).abs().argmin(-1)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest noise level that the network knows."""
        return self.sigmas[self._steps(sigma)].to(sigma)

    def forward(
        self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None
    ) -> Tensor:
        """Denoise.

        Args:
            x: (B, C, H, W), noisy images; computed in float32 whatever the dtype.
            sigma: (B,) or a scalar, positive.
            class_labels: (B, L) float32 one-hot rows, for a model with classes.

        Returns:
            (B, C, H, W) float32, the estimate of E[y | x].
        """
        x = x.to(torch.float32)
        level = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).expand(len(x))
        scale = level[:, None, None, None].to(torch.float32)
        total = (1 + scale**2).sqrt()
        extra = {} if class_labels is None else {"class_labels": class_labels.argmax(1)}
        F_x = self.network(x / total, self._steps(level), **extra).sample.to(torch.float32)
        if self.prediction_type == "sample":
            return F_x
        if self.prediction_type == "epsilon":
            return x - scale * F_x
        return x / total**2 - scale / total * F_x


def build_pipeline_denoiser(
    unet: Mapping[str, Any], scheduler: Mapping[str, Any], state: Mapping[str, Tensor]
) -> PipelineDenoiser:
    """The denoiser of a saved pipeline's parts, on the CPU, in eval mode, without gradients.

    Args:
        unet: content of ``unet/config.json``.
        scheduler: content of ``scheduler/scheduler_config.json``.
        state: weights of the network, by diffusers' names.

    Raises:
        ConfigError: if the parts are of a kind that is not supported, or do not fit together.
    """
    from diffusers import DDPMScheduler, UNet2DModel

    kind = unet.get("_class_name")
    if kind != "UNet2DModel":
        raise ConfigError(f"unet: expected a UNet2DModel (pixels, no text), got {kind!r:.60}")
    try:
        network = UNet2DModel.from_config(dict(unet))  # type: ignore[no-untyped-call]
        network.load_state_dict(dict(state), strict=True)
        schedule = DDPMScheduler.from_config(dict(scheduler))  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, TypeError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"the pipeline's parts do not fit together: {detail:.400}") from error
    denoiser = PipelineDenoiser(
        network, schedule.alphas_cumprod, str(schedule.config.prediction_type)
    )
    return denoiser.eval().requires_grad_(False)


def num_classes(unet: Mapping[str, Any]) -> int:
    """Classes that the network of a configuration knows, 0 for none."""
    return int(unet.get("num_class_embeds") or 0)


def image_shape(unet: Mapping[str, Any], part: str = "unet") -> tuple[int, int, int]:
    """(C, H, W) of one sample.

    Args:
        unet: configuration of the network.
        part: what to call it in an error.

    Raises:
        ConfigError: if the configuration does not say.
    """
    size, channels = unet.get("sample_size"), unet.get("in_channels")
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    if not all(isinstance(v, int) for v in (height, width, channels)):
        raise ConfigError(
            f"{part}: expected sample_size and in_channels, got {size} and {channels}"
        )
    return int(channels or 0), int(height or 0), int(width or 0)
