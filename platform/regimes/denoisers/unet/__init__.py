"""The U-Nets of EDM: SongUNet (DDPM++, NCSN++) and DhariwalUNet (ADM), with preconditioning."""

from regimes.denoisers.unet.build import UNetDenoiser, build_denoiser
from regimes.denoisers.unet.config import DhariwalConfig, SongConfig
from regimes.denoisers.unet.dhariwal import DhariwalUNet
from regimes.denoisers.unet.song import SongUNet

__all__ = [
    "DhariwalConfig",
    "DhariwalUNet",
    "SongConfig",
    "SongUNet",
    "UNetDenoiser",
    "build_denoiser",
]
