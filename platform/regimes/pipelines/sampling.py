"""A pretrained pipeline and its samples.

    x_T = sigma_0 n           n ~ N(0, I), the first draw of the seed; sigma_0 is the scheduler's
    F   = network(scaled x_t, t)
    x_s = step(F, t, x_t)     along the scheduler's time steps, which end at a clean x
    y   = x, or decode(x / scaling_factor) for a latent pipeline, clipped to [-1, 1]

**A seed determines its sample.** A seed owns one generator (``regimes.noise``), consumed in a fixed order:
the initial noise, the class if the network knows classes, then the noise of every stochastic step, all
float32. For an unconditional network that is the order of diffusers' own pipelines, so the seed s gives
the image that these make of ``generator=[torch.Generator().manual_seed(s)]``. (LDMPipeline
passes no generator on to its steps, and scales the noise of euler and heun before it knows the steps: that
is so there for eta = 0 of the others.) Batches change a sample by rounding alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from regimes.denoisers.compute import Compute, prepare
from regimes.denoisers.pipelines import image_shape, num_classes
from regimes.errors import ConfigError
from regimes.noise import SeedNoise
from regimes.pipelines.schedulers import SchedulerConfig, make_scheduler
from regimes.samplers.edm import seed_labels

UNET, DECODER = "unet.", "vqvae."
"""What the names of the tensors of a latent pipeline begin with."""
DECODERS = ("VQModel", "AutoencoderKL")
Shape = tuple[int, int, int]


class Pipeline(nn.Module):
    """Network, schedule and decoder of a saved pipeline, in eval mode, without gradients.

    Args:
        network: called as ``network(x, t, class_labels=...).sample``.
        scheduler: content of ``scheduler/scheduler_config.json``.
        noise_shape: (C, H, W) of what the network denoises.
        num_classes: classes that it knows, 0 for none.
        decoder: makes images of latents; None if it denoises images.
    """

    def __init__(
        self,
        network: nn.Module,
        scheduler: Mapping[str, Any],
        noise_shape: Shape,
        *,
        num_classes: int = 0,
        decoder: Decoder | None = None,
    ) -> None:
        super().__init__()
        self.network, self.decoder = network, decoder
        self.scheduler = dict(scheduler)
        self.noise_shape, self.num_classes = noise_shape, num_classes

    @property
    def image_shape(self) -> Shape:
        """(C, H, W) of its samples."""
        return self.noise_shape if self.decoder is None else self.decoder.image_shape

    def decode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) float32 final state -> (B, C, H, W) float32 images, not clipped."""
        return x if self.decoder is None else self.decoder(x)


class Decoder(nn.Module):
    """Images of latents: ``decode(z / scaling_factor)`` of a ``VQModel`` or an ``AutoencoderKL``.

    A VQModel sends latents to the nearest code of its book first: a latent that lies between two codes
    to within rounding may go to either, so that batches can change a patch of the image.

    Args:
        autoencoder: of diffusers.
        latent_shape: (C, H, W) of the latents.
    """

    def __init__(self, autoencoder: Any, latent_shape: Shape) -> None:
        super().__init__()
        self.network: nn.Module = _Decode(autoencoder)
        config = autoencoder.config
        scale = 2 ** (len(config.block_out_channels) - 1)
        self.scaling_factor = float(config.scaling_factor)
        _, height, width = latent_shape
        self.image_shape: Shape = (int(config.out_channels), height * scale, width * scale)

    def forward(self, z: Tensor) -> Tensor:
        """(B, C, h, w) float32 latents -> (B, C, H, W) float32 images."""
        images: Tensor = self.network(z / self.scaling_factor)
        return images


class _Decode(nn.Module):
    """An autoencoder whose call is its decoder."""

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.autoencoder.decode(z).sample
        return images


def build_pipeline(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Pipeline:
    """The pipeline of saved parts, on the CPU.

    Args:
        config: ``unet`` and ``scheduler``, contents of their JSON files; a latent pipeline has ``vqvae``
            besides.
        state: weights by diffusers' names; those of a latent pipeline begin with ``UNET`` or ``DECODER``.

    Raises:
        ConfigError: if the parts are of a kind that is not supported, or do not fit together.
    """
    from diffusers import UNet2DModel

    unet = config["unet"]
    _check_kind("unet", unet, ("UNet2DModel",))
    shape = image_shape(unet)
    if unet.get("out_channels") != unet.get("in_channels"):
        raise ConfigError(
            f"unet: expected as many channels out as in, got {unet.get('out_channels')} and "
            f"{unet.get('in_channels')}; learned variances are not supported"
        )
    decoder, latent = None, "vqvae" in config
    network = _built(UNet2DModel, unet, _part(state, UNET) if latent else state, "unet")
    if latent:
        decoder = Decoder(_autoencoder(config["vqvae"], _part(state, DECODER), shape), shape)
    made = Pipeline(
        network, config["scheduler"], shape, num_classes=num_classes(unet), decoder=decoder
    )
    return made.eval().requires_grad_(False)


def prepare_pipeline(pipeline: Pipeline, compute: Compute, device: str) -> Pipeline:
    """The pipeline on a device, its network in the given arithmetic; latents are decoded in float32.

    Raises:
        ConfigError: as ``regimes.denoisers.compute.prepare``.
    """
    made = prepare(pipeline.to(device), compute)
    if made.decoder is not None:
        made.decoder = prepare(made.decoder, Compute())
    return made


def sample_pipeline(
    pipeline: Pipeline,
    seeds: Sequence[int],
    config: SchedulerConfig,
    *,
    class_index: int | None = None,
    noise_device: str = "cpu",
) -> Tensor:
    """Samples of the given seeds, as one batch.

    Args:
        pipeline: on its device.
        seeds: B integers.
        config: solver and number of steps.
        class_index: class of all samples; None takes the one that each seed draws.
        noise_device: where noise is drawn and the solver steps if it is "cuda"; "cpu" steps where the
            network is.

    Returns:
        (B, C, H, W) float32 on the CPU, in [-1, 1]; what is not finite is left as it is.

    Raises:
        ConfigError: if ``class_index`` is not a class, the noise device is missing, or the solver does
            not take the pipeline's configuration.
    """
    noise = SeedNoise(seeds, pipeline.noise_shape, device=noise_device)
    home = next(pipeline.network.parameters()).device
    place = noise.device if noise.device.type == "cuda" else home
    x = noise.latents().to(place)
    labels = seed_labels(noise, pipeline.num_classes, class_index)
    extra = {} if labels is None else {"class_labels": labels.argmax(1).to(home)}
    scheduler = make_scheduler(pipeline.scheduler, config, str(place))
    options = _step_options(config, noise)
    with torch.inference_mode():
        x = x * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t).to(home)
            F_x = pipeline.network(scaled, t.to(home), **extra).sample
            x = scheduler.step(F_x.to(place, torch.float32), t, x, **options).prev_sample
        images = pipeline.decode(x.to(home, torch.float32)).to(torch.float32)
    # Clipping would make white of infinity.
    return torch.where(images.isfinite(), images.clamp(-1, 1), images).cpu()


def _step_options(config: SchedulerConfig, noise: SeedNoise) -> dict[str, Any]:
    options: dict[str, Any] = {"eta": config.eta} if config.name == "ddim" else {}
    return options | ({"generator": noise.generators} if config.is_stochastic else {})


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _check_kind(part: str, config: Mapping[str, Any], kinds: Sequence[str]) -> None:
    kind = config.get("_class_name")
    if kind not in kinds:
        raise ConfigError(f"{part}: expected {' or '.join(kinds)}, got {kind!r:.60}")


def _autoencoder(config: Mapping[str, Any], state: Mapping[str, Tensor], latents: Shape) -> Any:
    import diffusers

    _check_kind("vqvae", config, DECODERS)
    if config.get("latent_channels") != latents[0]:
        raise ConfigError(
            f"vqvae: expected latents of {latents[0]} channels, as the unet has, got "
            f"{config.get('latent_channels')}"
        )
    return _built(getattr(diffusers, config["_class_name"]), config, state, "vqvae")


def _built(kind: Any, config: Mapping[str, Any], state: Mapping[str, Tensor], part: str) -> Any:
    try:
        network = kind.from_config(dict(config))
        network.load_state_dict(dict(state), strict=True)
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"{part}: its parts do not fit together: {detail:.400}") from error
    return network
