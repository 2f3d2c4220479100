"""Writes denoisers in EDM's pickle format, so that tests can make checkpoints of any network.

The writer is Python's own pickle module, with stand-ins for the modules that EDM's files refer to.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import torch
from torch import nn

DATA = Path(__file__).resolve().parents[1] / "data" / "edm"
SOURCE = "raise RuntimeError('source text embedded in a checkpoint was executed')\n"
FILES = ("ddpmpp-vp-uncond", "ddpmpp-edm-augment", "ncsnpp-ve-uncond", "adm-edm-cond")


def _reconstruct_persistent_obj(meta):
    raise AssertionError("the writer never reads")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class Persistent:
    """An object as EDM's persistence decorator pickles it."""

    def __init__(self, class_name, state, version=6):
        self.class_name, self.state, self.version = class_name, state, version

    def __reduce__(self):
        meta = {
            "type": "class",
            "version": self.version,
            "module_src": SOURCE,
            "class_name": self.class_name,
            "state": self.state,
        }
        return _reconstruct_persistent_obj, (meta,)


@contextlib.contextmanager
def edm_modules():
    """Make torch_utils.persistence importable for the pickler."""
    module = types.ModuleType("torch_utils.persistence")
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    fakes = {"torch_utils": types.ModuleType("torch_utils"), "torch_utils.persistence": module}
    sys.modules.update(fakes)
    try:
        yield
    finally:
        for name in fakes:
            del sys.modules[name]


def module_state(module, version):
    plain = {k: v for k, v in vars(module).items() if isinstance(v, (bool, int, float, str))}
    if "skip_scale" in plain:
        plain["skip_scale"] = np.float64(plain["skip_scale"])
    children = {k: persist(m, version) for k, m in module._modules.items() if m is not None}
    absent = {k: None for k, m in module._modules.items() if m is None}
    return {
        **plain,
        "_parameters": dict(module._parameters),
        "_buffers": dict(module._buffers),
        "_non_persistent_buffers_set": set(),
        "_modules": children,
        **absent,
        "_init_args": (),
        "_init_kwargs": {},
    }


def persist(module, version=6):
    state = module_state(module, version)
    if not isinstance(module, nn.ModuleDict):
        return Persistent(type(module).__name__, state, version)
    container = object.__new__(nn.ModuleDict)
    container.__dict__.update(state)
    return container


def snapshot(denoiser, *, version=6, **changes):
    """The object EDM would pickle: the network under 'ema', with changed arguments if any."""
    kwargs = {k: v for k, v in denoiser.config.items() if k != "preconditioning"} | changes
    state = {
        "training": False,
        "_parameters": {},
        "_buffers": {k: v for k, v in denoiser.checkpoint_state().items() if k == "u"},
        "_modules": {"model": persist(denoiser.network, version)},
        "img_resolution": denoiser.img_resolution,
        "sigma_min": denoiser.sigma_min,
        "sigma_max": denoiser.sigma_max,
        "_init_args": (),
        "_init_kwargs": kwargs,
    }
    root = Persistent(denoiser.config["preconditioning"], state, version)
    return {"ema": root, "loss_fn": Persistent("EDMLoss", {"P_mean": -1.2}), "augment_pipe": None}


def dump(content, path, protocol=4):
    """Write a snapshot as EDM does."""
    with edm_modules():
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def save(content, path, *, legacy=False):
    """Write a training state as EDM does."""
    with edm_modules():
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path
