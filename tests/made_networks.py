"""Small networks made on the spot, in the files and folders in which published ones come."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn


class Tiny(nn.Module):
    """A convolution and a linear layer: 5 features of images with 3 channels."""

    def __init__(self, dimension: int = 5, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.out = nn.Linear(8, dimension)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(self.conv(x)).relu().mean((2, 3)))


class Divides(nn.Module):
    """Features that are infinite where an image is black."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1 / x.mean((2, 3))


class Maps(nn.Module):
    """Feature maps, not features."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def save_script(module: nn.Module, path: Path) -> Path:
    """A TorchScript file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module.eval()).save(str(path))
    return path


def tiny_script(path: Path, **options: int) -> Path:
    """A TorchScript file of ``Tiny`` with weights of a fixed seed."""
    torch.manual_seed(3)
    return save_script(Tiny(**options), path)


def torchvision_file(model: str, path: Path) -> Path:
    """A state dict with random weights of a fixed seed, in torch.save's format."""
    import torchvision

    torch.manual_seed(4)
    options = {"init_weights": False} if model in ("inception_v3", "vgg16") else {}
    torch.save(torchvision.models.get_model(model, weights=None, **options).state_dict(), path)
    return path


def mean_levels(images: torch.Tensor) -> torch.Tensor:
    """A user's function: mean and spread of the levels, (B, H, W, C) uint8 -> (B, 2)."""
    levels = images.flatten(1).float()
    return torch.stack([levels.mean(1), levels.std(1)], 1)


class Levels(nn.Module):
    """A user's module."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return mean_levels(images)


NOT_CALLABLE = 3
