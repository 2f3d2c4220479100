"""Real checkpoints with random damage either load or are refused, and nothing runs."""

from __future__ import annotations

import functools
import io
import os
import pickletools
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from edm_format import DATA, FILES, dump, save, snapshot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from watch import nothing_runs

from regimes.checkpoints import load_edm, load_safetensors, save_safetensors
from regimes.denoisers.unet import build_denoiser
from regimes.errors import RegimesError

SNIPPETS = [
    b"cos\nsystem\nX\x04\x00\x00\x00echo\x85R",
    b"\x8c\x08builtins\x8c\x04eval\x93\x8c\x03123\x85R",
    b"cposix\nsystem\n",
    b"(S'echo'\nios\nsystem\n",
    b"ctorch.storage\n_load_from_bytes\nC\x04abcd\x85R",
    b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}\x85R",
    b"cnumpy\ndtype\n\x8c\x02O8\x85R",
    b"}", b"]", b")", b"(", b"0", b"1", b"2", b"R", b"b", b"\x81", b"\x93", b".", b"\x94", b"t", b"u",
    b"h\x00", b"h\x01", b"h\x07", b"j\xff\x00\x00\x00", b"N", b"\x88", b"K\xff", b"M\xff\xff", b"s",
    b"J\xff\xff\xff\x7f", b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x8c\x02os", b"a", b"e",
]  # fmt: skip
HUGE = [2**16, 2**31 - 1, 2**32 - 1]
settings_of_all = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def structure(data):
    """Boundaries of operations, and the bytes of operations other than blocks of weights."""
    starts = [position for _, _, position in pickletools.genops(data)]
    ends = [*starts[1:], len(data)]
    small = [p for s, e in zip(starts, ends, strict=True) for p in range(s, min(e, s + 40))]
    # Every nested stream begins with operations too.
    streams = [p for s, e in zip(starts, ends, strict=True) if e - s > 400
               for p in range(s, s + 380, 3)]  # fmt: skip
    return starts, small + streams


@functools.lru_cache
def original(name):
    """(bytes, boundaries of operations, positions worth changing) of a pickle."""
    data = (DATA / f"{name}.pkl").read_bytes() if name in FILES else tiny_pickles()[name]
    return data, *structure(data)


@functools.lru_cache
def tiny_pickles():
    """A snapshot of a tiny network, and the pickle inside its training state."""
    torch.manual_seed(0)
    config = {
        "preconditioning": "iDDPMPrecond", "M": 10, "img_resolution": 4, "img_channels": 1,
        "model_channels": 4, "channel_mult": [1], "num_blocks": 1, "model_type": "SongUNet",
    }  # fmt: skip
    content = snapshot(build_denoiser(config))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        whole = dump(content, path).read_bytes()
        with zipfile.ZipFile(save({"net": content["ema"]}, path)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
    root = next(name.removesuffix("/data.pkl") for name in parts if name.endswith(".pkl"))
    return {"tiny": whole, "state": parts.pop(f"{root}/data.pkl"), "rest": parts, "root": root}


def archived(pickled):
    """A training state whose pickle was replaced."""
    tiny, out = tiny_pickles(), io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in {f"{tiny['root']}/data.pkl": pickled, **tiny["rest"]}.items():
            archive.writestr(name, content)
    return out.getvalue()


@st.composite
def mutated(draw, name):
    """A real file with one to three changes (sampled_from would be slow on such long lists)."""
    whole, starts, small = original(name)
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["byte", "bit", "insert", "drop", "number", "cut", "swap"]))
        at = small[draw(st.integers(0, len(small) - 1))] % max(1, len(data))
        boundary = starts[draw(st.integers(0, len(starts) - 1))] % max(1, len(data))
        if kind == "byte":
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "bit" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "insert":
            data[boundary:boundary] = draw(st.sampled_from(SNIPPETS))
        elif kind == "drop":
            del data[boundary : boundary + draw(st.integers(1, 64))]
        elif kind == "number":
            data[at : at + 4] = draw(st.sampled_from(HUGE)).to_bytes(4, "little")
        elif kind == "swap":
            other = small[draw(st.integers(0, len(small) - 1))] % max(1, len(data) - 16)
            data[at : at + 16] = data[other : other + 16]
        else:
            del data[at:]
    return bytes(data)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("mutated") / "file.pkl"
    # Warm up: torch imports some of itself on first use.
    path.write_bytes(archived(tiny_pickles()["state"]))
    load_edm(path)
    for name in FILES:
        load_edm(DATA / f"{name}.pkl")
    return path


def outcome(content, path, load=load_edm):
    """ "loaded" or "refused"; anything else is an error of the test."""
    path.write_bytes(content)
    called, message = [], None
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(os, "system", called.append)
        with nothing_runs():
            try:
                load(path)
            except RegimesError as error:
                message = str(error)
    assert called == []
    assert message is None or "\n" not in message
    return "loaded" if message is None else "refused"


def check(strategy, path, examples, load=load_edm):
    """Run many examples; returns how often each outcome came."""
    counts = {"loaded": 0, "refused": 0}

    @settings(settings_of_all, max_examples=examples)
    @given(content=strategy)
    def run(content):
        counts[outcome(content, path, load)] += 1

    run()
    return counts


@pytest.mark.parametrize(
    ("name", "examples"),
    [("ddpmpp-vp-uncond", 60), ("ncsnpp-ve-uncond", 60), ("adm-edm-cond", 60), ("tiny", 800)],
)
def test_mutated_snapshots_load_or_are_refused(name, examples, path):
    counts = check(mutated(name), path, examples)
    assert min(counts.values()) > 2  # the mutations are neither all harmless nor all fatal
    assert sum(counts.values()) >= examples


def test_mutated_training_states_load_or_are_refused(path):
    counts = check(mutated("state").map(archived), path, examples=400)
    assert min(counts.values()) > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_many_mutated_snapshots_load_or_are_refused(name, path):
    counts = check(mutated(name), path, examples=1000)
    assert min(counts.values()) > 10


def test_random_bytes_are_refused(path):
    piece = st.one_of(st.binary(max_size=20), st.sampled_from(SNIPPETS))
    pickles = st.lists(piece, max_size=40).map(lambda pieces: b"\x80\x04" + b"".join(pieces))
    assert check(pickles, path, examples=400)["loaded"] == 0


def test_mutated_safetensors_load_or_are_refused(path):
    save_safetensors(load_edm(DATA / "ddpmpp-vp-uncond.pkl"), path)
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")

    @st.composite
    def changed(draw):
        content = bytearray(data)
        for _ in range(draw(st.integers(1, 3))):
            content[draw(st.integers(0, header - 1))] = draw(st.integers(0, 255))
        return bytes(content[: draw(st.sampled_from([len(data), len(data), header, 7]))])

    counts = check(changed(), path, 100, load_safetensors)
    assert counts["refused"] > 50
