"""Networks by name: the published architectures and preconditionings, as EDM's train.py offers them.

    ddpmpp   DDPM++: SongUNet, positional embedding, standard encoder
    ncsnpp   NCSN++: SongUNet, Fourier embedding, residual encoder, [1, 3, 3, 1] resampling
    adm      ADM: DhariwalUNet

EDM's released files whose names end in -vp and -ve hold ddpmpp and ncsnpp; the name is that of the
architecture, and their preconditioning is "edm".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from regimes.denoisers.unet.build import Config
from regimes.errors import ConfigError
from regimes.training.loss import EDMLoss, Loss, VELoss, VPLoss

Arch = Literal["ddpmpp", "ncsnpp", "adm"]
Precond = Literal["edm", "vp", "ve"]

_SONG = {"width": 128, "channel_mult": (2, 2, 2), "num_blocks": 4, "attn_resolutions": (16,)}
_SIZES: dict[str, dict[str, Any]] = {
    "ddpmpp": _SONG,
    "ncsnpp": _SONG,
    "adm": {
        "width": 192,
        "channel_mult": (1, 2, 3, 4),
        "num_blocks": 3,
        "attn_resolutions": (32, 16, 8),
    },
}
_KINDS: dict[str, Config] = {
    "ddpmpp": {"model_type": "SongUNet", "embedding_type": "positional"},
    "ncsnpp": {
        "model_type": "SongUNet",
        "embedding_type": "fourier",
        "encoder_type": "residual",
        "channel_mult_noise": 2,
        "resample_filter": [1, 3, 3, 1],
    },
    "adm": {"model_type": "DhariwalUNet"},
}
_PRECONDITIONINGS = {"edm": "EDMPrecond", "vp": "VPPrecond", "ve": "VEPrecond"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """Which network; what is None has the value published for the architecture."""

    arch: Arch = "ddpmpp"
    """ddpmpp (DDPM++), ncsnpp (NCSN++) or adm."""
    precond: Precond = "edm"
    """Preconditioning, and with it the law of the noise level in training."""
    width: int | None = None
    """Base channels: 128 (ddpmpp, ncsnpp) or 192 (adm)."""
    channel_mult: tuple[int, ...] | None = None
    """Channels of each resolution in units of the width: 2 2 2, or 1 2 3 4 (adm)."""
    num_blocks: int | None = None
    """Residual blocks per resolution: 4, or 3 (adm)."""
    attn_resolutions: tuple[int, ...] | None = None
    """Image sizes at which blocks attend: 16, or 32 16 8 (adm)."""
    dropout: float = 0.13
    """Probability that a feature is dropped in training."""
    conditional: bool = False
    """Whether the network is told the class of an image."""

    def __post_init__(self) -> None:
        """Refuse what has no meaning; the rest is checked when the network is built."""
        for name, known in (("arch", _KINDS), ("precond", _PRECONDITIONINGS)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r:.60}"
                )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout: expected a probability in [0, 1), got {self.dropout}")

    def resolved(self) -> NetworkConfig:
        """The same network with every None replaced: two ways to ask for one network are equal."""
        given = {n: getattr(self, n) for n in _SIZES[self.arch] if getattr(self, n) is not None}
        return replace(self, **(_SIZES[self.arch] | given))

    def build_config(
        self,
        *,
        img_resolution: int,
        img_channels: int,
        num_classes: int = 0,
        augment_dim: int = 0,
        condition_channels: int = 0,
    ) -> Config:
        """The configuration for ``regimes.denoisers.unet.build.build_denoiser``.

        Args:
            img_resolution: height and width of the images.
            img_channels: 1 or 3.
            num_classes: classes of the data; at least 1 if ``conditional``, else not used.
            augment_dim: 9 if training augments, else 0.
            condition_channels: channels of the frames that the network sees beside an image.

        Raises:
            ConfigError: if the network is conditional and there are no classes.
        """
        if self.conditional and num_classes < 1:
            raise ConfigError("conditional: expected images with class labels, found none")
        sizes = self.resolved()
        return {
            "preconditioning": _PRECONDITIONINGS[self.precond],
            "img_resolution": img_resolution,
            "img_channels": img_channels,
            "label_dim": num_classes if self.conditional else 0,
            "augment_dim": augment_dim,
            "model_channels": sizes.width,
            "channel_mult": list(sizes.channel_mult or ()),
            "num_blocks": sizes.num_blocks,
            "attn_resolutions": list(sizes.attn_resolutions or ()),
            "dropout": self.dropout,
            **({"condition_channels": condition_channels} if condition_channels else {}),
            **_KINDS[self.arch],
        }

    @property
    def loss(self) -> Loss:
        """The published loss that belongs to the preconditioning."""
        return self.loss_of(EDMLoss())

    def loss_of(self, edm: EDMLoss) -> Loss:
        """The loss that belongs to the preconditioning.

        Args:
            edm: what it is for edm.

        Raises:
            ConfigError: if that is changed, and the preconditioning has a law of its own.
        """
        losses: dict[str, Loss] = {"edm": edm, "vp": VPLoss(), "ve": VELoss()}
        if self.precond != "edm" and edm != EDMLoss():
            raise ConfigError(
                f"p_mean, p_std: are of precond edm; {self.precond} has its own law of the noise level"
            )
        return losses[self.precond]
