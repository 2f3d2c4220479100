"""Checkpoints: EDM's files read as inert data, and safetensors. Nothing in a file is executed."""

from regimes.checkpoints.edm import load_edm, read_edm
from regimes.checkpoints.summary import Summary, summarize
from regimes.checkpoints.weights import load_safetensors, read_safetensors, save_safetensors

__all__ = [
    "Summary",
    "load_edm",
    "load_safetensors",
    "read_edm",
    "read_safetensors",
    "save_safetensors",
    "summarize",
]
