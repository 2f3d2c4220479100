"""What a network is, in the words of its papers: for people, and as JSON beside its weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from regimes.checkpoints.weights import FORMAT
from regimes.denoisers.unet.build import Config, UNetDenoiser
from regimes.denoisers.unet.config import SongConfig, UNetConfig

_SONG_NAMES = {
    ("positional", "standard", "standard"): "DDPM++",
    ("fourier", "residual", "standard"): "NCSN++",
}
"""Names of the SongUNet variants by embedding, encoder and decoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a denoiser is."""

    architecture: str
    """DDPM++, NCSN++ or ADM, or the parts of a SongUNet that is neither; the width of each level."""
    parameters: int
    """Numbers that training adjusts."""
    resolution: int
    """Height and width of the images."""
    channels: int
    """Channels of the images."""
    classes: int
    """Classes of a conditional network; 0 is unconditional."""
    preconditioning: str
    """EDMPrecond, VPPrecond, VEPrecond or iDDPMPrecond."""
    sigma_min: float
    """Lowest noise level that the network was made for."""
    sigma_max: float
    """Highest noise level; infinite if there is no limit."""

    @property
    def lines(self) -> list[str]:
        """One line per fact, the name in front."""
        conditional = f"{self.classes} classes" if self.classes else "unconditional"
        gray = "gray" if self.channels == 1 else f"{self.channels} channels"
        levels = f"{self.sigma_min:g} to {self.sigma_max:g}"
        return [
            f"architecture     {self.architecture}",
            f"parameters       {self.parameters:,}",
            f"images           {self.resolution}x{self.resolution}, {gray}, {conditional}",
            f"preconditioning  {self.preconditioning}, noise levels {levels}",
        ]


def summarize(denoiser: UNetDenoiser) -> Summary:
    """The facts about a denoiser."""
    return Summary(
        architecture=_architecture(denoiser),
        parameters=sum(p.numel() for p in denoiser.parameters()),
        resolution=denoiser.img_resolution,
        channels=denoiser.img_channels,
        classes=denoiser.label_dim,
        preconditioning=str(denoiser.config["preconditioning"]),
        sigma_min=denoiser.sigma_min,
        sigma_max=denoiser.sigma_max,
    )


def _architecture(denoiser: UNetDenoiser) -> str:
    config = denoiser.network.config
    assert isinstance(config, UNetConfig)
    name = "ADM"
    if isinstance(config, SongConfig):
        parts = (config.embedding_type, config.encoder_type, config.decoder_type)
        other = "SongUNet with {} embedding, {} encoder, {} decoder".format(*parts)
        name = _SONG_NAMES.get(parts, other)
    widths = ", ".join(str(config.level_channels(i)) for i in range(len(config.channel_mult)))
    return f"{name}, widths {widths}"


def config_json(denoiser: UNetDenoiser, *, weights_sha256: str) -> bytes:
    """The configuration and what it means, as JSON that a person can read.

    Args:
        denoiser: the network.
        weights_sha256: of the safetensors file that this JSON lies beside; it holds the same
            configuration.

    Returns:
        UTF-8 text. Noise levels without limit are null, since JSON has no number for them.
    """
    config: Config = denoiser.config
    facts = {k: None if v == float("inf") else v for k, v in asdict(summarize(denoiser)).items()}
    content = {
        "format": FORMAT,
        "configuration": config,
        "summary": facts,
        "weights_sha256": weights_sha256,
    }
    return (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
