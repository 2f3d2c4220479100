"""Decoding a source and storing it, as the jobs do."""

from __future__ import annotations

from regimes.images.sources import ImageSource
from regimes.storage.artifacts import Store
from regimes.storage.images import ImagesRecipe, decode_source, ingest


def ingest_source(store: Store, source: ImageSource, recipe: ImagesRecipe) -> list[str]:
    """Store a source; returns the messages of images left out."""
    decoded = decode_source(source, recipe)
    ingest(store, recipe, decoded)
    return decoded.left_out
