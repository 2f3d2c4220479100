"""How class and augmentation vectors enter the embedding of an EDM network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def add_labels(
    emb: Tensor,
    map_label: nn.Module | None,
    class_labels: Tensor | None,
    *,
    gain: float = 1.0,
    dropout: float = 0.0,
) -> Tensor:
    """Add the embedding of the class.

    A missing label is the zero vector (which a layer with bias does not map to zero). Dropped
    labels are zero vectors too: they teach the network its unconditional mode.

    Args:
        emb: (B, E).
        map_label: layer (., label_dim) -> (., E), or None for an unconditional network, which
            ignores labels, as EDM's do.
        class_labels: (B, label_dim) or (1, label_dim), or None.
        gain: the labels are multiplied by it.
        dropout: probability of dropping a label.

    Returns:
        (B, E).

    Raises:
        ValueError: if labels have another width.
    """
    if map_label is None:
        return emb
    width = int(map_label.in_features)  # type: ignore[arg-type]
    labels = emb.new_zeros((1, width)) if class_labels is None else class_labels.to(emb.dtype)
    labels = labels.reshape(-1, width) if labels.shape[-1] == width else labels
    if labels.ndim != 2 or labels.shape[-1] != width or len(labels) not in (1, len(emb)):
        raise ValueError(f"class_labels: expected ({len(emb)}, {width}), got {tuple(labels.shape)}")
    if dropout:
        keep = torch.rand(len(emb), 1, device=emb.device) >= dropout
        labels = labels * keep.to(labels.dtype)
    return emb + map_label(labels * gain)


def require_batch(layer: nn.Module | None, labels: Tensor, name: str) -> Tensor:
    """Map labels (B, width) -> (B, E) by a layer that must exist.

    Raises:
        ValueError: if the network was built without such labels.
    """
    if layer is None:
        raise ValueError(f"{name}: the network was built without them, expected None")
    mapped: Tensor = layer(labels.to(torch.float32))
    return mapped
