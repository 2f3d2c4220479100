"""Shared fixtures. Every test runs on one thread, so that results do not depend on the machine."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import uuid

import fsspec
import numpy as np
import pytest
import torch

from regimes.scores.features import Features
from regimes.storage.artifacts import Store

torch.set_num_threads(1)


@pytest.fixture
def rng():
    """A numpy generator with a fixed seed."""
    return np.random.default_rng(20240)


@pytest.fixture
def torch_rng():
    """A torch generator with a fixed seed."""
    return torch.Generator().manual_seed(20240)


@pytest.fixture
def make_features():
    """Unit rows of values (N, D), with ids 0..N-1 unless given."""

    def make(values, ids=None, *, unit=True, descriptor="test"):
        rows = np.asarray(values, np.float64)
        if unit:
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        ids = np.arange(len(rows)) if ids is None else np.asarray(ids)
        return Features(ids, rows.astype(np.float32), descriptor)

    return make


@pytest.fixture(params=["local", "memory"])
def uri(request, tmp_path):
    """A fresh, empty location: a local folder, and one of fsspec's in-memory filesystem."""
    if request.param == "local":
        yield str(tmp_path / "store")
        return
    root = f"/{uuid.uuid4().hex}"
    yield f"memory:/{root}"
    memory = fsspec.filesystem("memory")
    if memory.exists(root):
        memory.rm(root, recursive=True)


@pytest.fixture
def store(uri):
    """A store at a fresh location of either kind."""
    return Store(uri)
