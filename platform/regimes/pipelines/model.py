"""A pretrained pipeline: the network that denoises, its schedule, what conditions it, and its decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from regimes.denoisers.compute import Compute, prepare
from regimes.denoisers.pipelines import image_shape, num_classes
from regimes.denoisers.spread import place
from regimes.errors import ConfigError
from regimes.pipelines.text import TextEncoder, build_text_encoder

DECODERS = ("VQModel", "AutoencoderKL")
TRANSFORMERS = ("DiTTransformer2DModel", "Transformer2DModel")
_FOREIGN = ("addition_embed_type", "class_embed_type", "encoder_hid_dim", "time_cond_proj_dim")
"""Conditions of text networks beside text, which the published ones of this kind do not have."""
Shape = tuple[int, int, int]
State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Condition:
    """What a batch is conditioned on, and what guidance moves away from.

    The prediction is F(null) + scale (F(given) - F(null)), Ho and Salimans 2022; without ``null`` it
    is F(given).
    """

    given: Tensor
    """(B,) classes, or (B, L, E) states of prompts."""
    null: Tensor | None = None
    """The same of no class, or of the negative prompt."""
    scale: float = 1.0


class Pipeline(nn.Module):
    """Network, schedule and decoder of a saved pipeline, in eval mode, without gradients.

    Args:
        network: called as ``network(x, t, KEYWORD=...).sample``, the keyword being ``class_labels`` or
            ``encoder_hidden_states`` for one that is conditional.
        scheduler: content of ``scheduler/scheduler_config.json``.
        noise_shape: (C, H, W) of what the network denoises. It may predict more channels, which are
            dropped: variances, of which no solver here makes use.
        num_classes: classes that it knows, 0 for none.
        has_null_class: whether class number ``num_classes`` stands for none.
        text: makes states of prompts; None if it reads none.
        decoder: makes images of latents; None if it denoises images.
    """

    def __init__(
        self,
        network: nn.Module,
        scheduler: Mapping[str, Any],
        noise_shape: Shape,
        *,
        num_classes: int = 0,
        has_null_class: bool = False,
        text: TextEncoder | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        super().__init__()
        self.network, self.decoder, self.text = network, decoder, text
        self.scheduler = dict(scheduler)
        self.noise_shape, self.num_classes = noise_shape, num_classes
        self.has_null_class = has_null_class

    @property
    def image_shape(self) -> Shape:
        """(C, H, W) of its samples."""
        return self.noise_shape if self.decoder is None else self.decoder.image_shape

    @property
    def home(self) -> torch.device:
        """Where it computes."""
        return next(self.network.parameters()).device

    def predict(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The network's output for (B, C, H, W) states at one time step, guided if asked for."""
        if condition is None:
            return self._call(x, t)
        if condition.null is None:
            return self._call(x, t, condition.given)
        both = self._call(torch.cat([x, x]), t, torch.cat([condition.null, condition.given]))
        null, given = both.chunk(2)
        return null + condition.scale * (given - null)

    def _call(self, x: Tensor, t: Tensor, given: Tensor | None = None) -> Tensor:
        keyword = "class_labels" if self.text is None else "encoder_hidden_states"
        extra = {} if given is None else {keyword: given}
        F_x: Tensor = self.network(x, t.expand(len(x)), **extra).sample
        return F_x[:, : self.noise_shape[0]].to(torch.float32)

    def by_class(self, labels: Tensor, scale: float) -> Condition:
        """Conditions of (B,) classes.

        Raises:
            ConfigError: if guidance is asked of a network that knows no class for none.
        """
        if scale == 1:
            return Condition(labels)
        if not self.has_null_class:
            raise ConfigError(f"guidance: this network knows no unconditional class, got {scale}")
        return Condition(labels, torch.full_like(labels, self.num_classes), scale)

    def by_prompt(self, prompts: Sequence[str], scale: float, negative: str) -> Condition:
        """Conditions of B prompts."""
        assert self.text is not None
        given = self.text(prompts)
        if scale == 1:
            return Condition(given)
        return Condition(given, self.text([negative]).expand_as(given), scale)

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


def build_pipeline(config: Mapping[str, Any], states: Mapping[str, State]) -> Pipeline:
    """The pipeline of saved parts, on the CPU.

    Args:
        config: contents of the JSON files of the networks and the scheduler, by part, and the tokenizer;
            see ``regimes.pipelines.folders``.
        states: weights of every network, by part.

    Raises:
        ConfigError: if the parts are of a kind that is not supported, or do not fit together.
    """
    if "transformer" in config:
        made = _by_class(config, states)
    elif "text_encoder" in config:
        made = _by_text(config, states)
    else:
        made = _by_unet(config, states)
    return made.eval().requires_grad_(False)


def _by_unet(config: Mapping[str, Any], states: Mapping[str, State]) -> Pipeline:
    unet = config["unet"]
    shape = _checked_shape(unet, "UNet2DModel")
    network = _network("unet", unet, ("UNet2DModel",), states["unet"])
    decoder = _decoder("vqvae", config, states, shape, DECODERS) if "vqvae" in config else None
    return Pipeline(
        network, config["scheduler"], shape, num_classes=num_classes(unet), decoder=decoder
    )


def _by_class(config: Mapping[str, Any], states: Mapping[str, State]) -> Pipeline:
    found = config["transformer"]
    network = _network("transformer", found, TRANSFORMERS, states["transformer"])
    return Pipeline(
        network,
        config["scheduler"],
        shape := image_shape(found, "transformer"),
        num_classes=int(found.get("num_embeds_ada_norm") or 0),
        has_null_class=True,
        decoder=_decoder("vae", config, states, shape, ("AutoencoderKL",)),
    )


def _by_text(config: Mapping[str, Any], states: Mapping[str, State]) -> Pipeline:
    unet = config["unet"]
    for name in _FOREIGN:
        if unet.get(name) is not None:
            raise ConfigError(f"unet: {name} is not supported, got {unet[name]!r:.40}")
    shape = _checked_shape(unet, "UNet2DConditionModel")
    network = _network("unet", unet, ("UNet2DConditionModel",), states["unet"])
    text = build_text_encoder(config["text_encoder"], config["tokenizer"], states["text_encoder"])
    width, asked = config["text_encoder"].get("hidden_size"), unet.get("cross_attention_dim")
    if width != asked:
        raise ConfigError(f"unet: expected states {width} wide, as prompts have, it takes {asked}")
    decoder = _decoder("vae", config, states, shape, ("AutoencoderKL",))
    return Pipeline(network, config["scheduler"], shape, text=text, decoder=decoder)


def _checked_shape(unet: Mapping[str, Any], kind: str) -> Shape:
    if unet.get("_class_name") != kind:
        raise ConfigError(f"unet: expected {kind}, got {unet.get('_class_name')!r:.60}")
    if unet.get("out_channels") != unet.get("in_channels"):
        raise ConfigError(
            f"unet: expected as many channels out as in, got {unet.get('out_channels')} and "
            f"{unet.get('in_channels')}; learned variances are not supported"
        )
    return image_shape(unet)


def _decoder(
    part: Literal["vqvae", "vae"],
    config: Mapping[str, Any],
    states: Mapping[str, State],
    latents: Shape,
    kinds: Sequence[str],
) -> Decoder:
    if config[part].get("latent_channels") != latents[0]:
        raise ConfigError(
            f"{part}: expected latents of {latents[0]} channels, as are denoised, got "
            f"{config[part].get('latent_channels')}"
        )
    return Decoder(_network(part, config[part], kinds, states[part]), latents)


def _network(part: str, config: Mapping[str, Any], kinds: Sequence[str], state: State) -> Any:
    """A network of diffusers; its class is one of ``kinds``, whatever the configuration says."""
    import diffusers

    kind = str(config.get("_class_name"))
    if kind not in kinds:
        raise ConfigError(f"{part}: expected {' or '.join(kinds)}, got {kind!r:.60}")
    name = kinds[0] if part == "transformer" else kind  # an older name of the same network
    try:
        network = getattr(diffusers, name).from_config(dict(config))
        network.load_state_dict(dict(state), strict=True)
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"{part}: its parts do not fit together: {detail:.400}") from error
    return network


def prepare_pipeline(
    pipeline: Pipeline, compute: Compute, device: str, others: Sequence[str] = ()
) -> Pipeline:
    """The pipeline on a device, or on several, its network in the given arithmetic; all else in float32.

    Raises:
        ConfigError: as ``regimes.denoisers.compute.prepare`` and ``regimes.denoisers.spread.place``.
    """
    made = prepare(place(pipeline, device, others), compute)
    if made.decoder is not None:
        made.decoder = prepare(made.decoder, Compute())
    return made
