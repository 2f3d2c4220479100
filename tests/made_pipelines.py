"""Tiny diffusers pipelines, with random weights."""

from __future__ import annotations

from pathlib import Path

import diffusers
import torch

UNET = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (8, 8),
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
VQ = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 3,
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
    "norm_num_groups": 4,
    "num_vq_embeddings": 32,
}


def unet(**options) -> diffusers.UNet2DModel:
    """A U-Net whose weights depend on nothing but its options."""
    torch.manual_seed(0)
    return diffusers.UNet2DModel(**(UNET | options)).eval()


def pixel_pipeline(scheduler=None, **options) -> diffusers.DDPMPipeline:
    """8x8 RGB images."""
    scheduler = scheduler or diffusers.DDPMScheduler()
    kind = (
        diffusers.DDIMPipeline
        if isinstance(scheduler, diffusers.DDIMScheduler)
        else diffusers.DDPMPipeline
    )
    return kind(unet=unet(**options), scheduler=scheduler)


def latent_pipeline(scheduler=None, **options) -> diffusers.LDMPipeline:
    """16x16 RGB images of latents of half their side."""
    network = unet(**options)
    vqvae = diffusers.VQModel(**VQ).eval()
    # Codes of the size of the latents, as trained ones are: the initial ones are all but equal.
    torch.nn.init.normal_(vqvae.quantize.embedding.weight, std=4)
    scheduler = scheduler or diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", clip_sample=False
    )
    return diffusers.LDMPipeline(vqvae=vqvae, unet=network, scheduler=scheduler)


def config(part) -> dict:
    """Configuration of a part of a pipeline, as ``save_pretrained`` writes it: without the list of what
    was left to defaults, which would be the defaults of another class when that reads it."""
    found = {k: v for k, v in part.config.items() if k != "_use_default_values"}
    return found | {"_class_name": type(part).__name__}


def save(pipeline, path: Path) -> Path:
    """The folder that ``save_pretrained`` writes."""
    pipeline.save_pretrained(path)
    return path
