"""Tiny diffusers pipelines, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def randomized(network: torch.nn.Module, std: float = 0.2) -> torch.nn.Module:
    """What starts at zero (DiT's last layer, so that nothing could be told apart) does not."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(std * torch.randn(p.shape, generator=generator))
    return network.eval()


def vae(**options) -> diffusers.AutoencoderKL:
    """Images of twice the side of their latents, of 4 channels."""
    torch.manual_seed(2)
    usual: dict[str, Any] = {k: v for k, v in VQ.items() if k != "num_vq_embeddings"}
    usual |= {"latent_channels": 4, "scaling_factor": 0.18215, "sample_size": 16}
    made = diffusers.AutoencoderKL(**(usual | options)).eval()
    # The scale of real ones: z / 0.18 would be far from what a decoder of these weights keeps apart.
    return randomized(made, 0.02)


def class_pipeline(scheduler=None, num_classes=1000, learned=True) -> diffusers.DiTPipeline:
    """16x16 RGB images of one of several classes, by a transformer that predicts variances too."""
    torch.manual_seed(3)
    transformer = diffusers.DiTTransformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=8 if learned else 4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
        patch_size=2,
        norm_num_groups=4,
        num_embeds_ada_norm=num_classes,
    )
    scheduler = scheduler or diffusers.DDIMScheduler(clip_sample=False)
    return diffusers.DiTPipeline(
        transformer=randomized(transformer), vae=vae(), scheduler=scheduler
    )


def tokenizer(**options):
    """A CLIP tokenizer of single bytes and the word cat, 12 tokens long."""
    from transformers import CLIPTokenizer

    signs = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    words = [*signs, *(s + "</w>" for s in signs), "ca", "cat</w>"]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {word: i for i, word in enumerate(words)}
    merges = [("c", "a"), ("ca", "t</w>")]
    return CLIPTokenizer(vocab=vocab, merges=merges, **({"model_max_length": 12} | options))


def text_pipeline(scheduler=None, tokens=None, **text) -> diffusers.StableDiffusionPipeline:
    """16x16 RGB images of prompts."""
    from transformers import CLIPTextConfig, CLIPTextModel

    tokens = tokens or tokenizer()
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    size |= {"num_attention_heads": 2, "max_position_embeddings": 12}
    ids = {f"{t}_token_id": getattr(tokens, f"{t}_token_id") for t in ("bos", "eos", "pad")}
    torch.manual_seed(4)
    encoder = CLIPTextModel(CLIPTextConfig(vocab_size=len(tokens), **(size | ids | text)))
    torch.manual_seed(5)
    network = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
    )
    return diffusers.StableDiffusionPipeline(
        unet=randomized(network, 0.1),
        vae=vae(),
        text_encoder=randomized(encoder, 0.1),
        tokenizer=tokens,
        scheduler=scheduler or diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def config(part) -> dict:
    """Configuration of a part of a pipeline, as ``save_pretrained`` writes it: without the list of what
    was left to defaults, which would be the defaults of another class when that reads it."""
    found = {k: v for k, v in part.config.items() if k != "_use_default_values"}
    return found | {"_class_name": type(part).__name__}


def save(pipeline, path: Path) -> Path:
    """The folder that ``save_pretrained`` writes."""
    pipeline.save_pretrained(path)
    return path
