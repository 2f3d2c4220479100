"""Networks that train in milliseconds."""

from __future__ import annotations

import numpy as np

from regimes.training.architectures import NetworkConfig
from regimes.training.network import EDMTrainingConfig, NetworkTrainer

NETWORK = NetworkConfig(width=8, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(4,))
CONFIG = EDMTrainingConfig(
    batch_size=12, duration_kimg=1, lr_rampup_kimg=0.05, ema_halflife_kimg=0.1, augment=0.3
)


def some_images(num=20, size=8, channels=1):
    """Random images, the same every time."""
    return np.random.default_rng(0).integers(0, 256, (num, size, size, channels), dtype=np.uint8)


def make(config=CONFIG, network=NETWORK, **options):
    """A trainer of a small network."""
    images = options.pop("images", some_images())
    return NetworkTrainer(images, network, config, seed=options.pop("seed", 1), **options)
