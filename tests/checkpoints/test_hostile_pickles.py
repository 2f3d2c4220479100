"""Hostile and damaged checkpoints are refused by name, and nothing in them runs."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from edm_format import DATA, FILES, Persistent, dump, edm_modules, save, snapshot
from watch import nothing_runs

from regimes.checkpoints import load_edm, pickles
from regimes.checkpoints.pickles import read_checkpoint
from regimes.denoisers.unet import build_denoiser
from regimes.errors import BadCheckpoint, UnsafeCheckpoint

EVIL = [
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("__builtin__", "eval"),
    ("subprocess", "Popen"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch.storage", "_load_from_bytes.__globals__"),
    ("collections", "Counter"),
    ("collections", "OrderedDict.fromkeys"),
    ("numpy", "load"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("torch_utils.persistence", "_src_to_module"),
    ("dnnlib.util", "open_url"),
    ("importlib", "import_module"),
    ("copyreg", "_reconstructor"),
]


def refusal(content, path, error=UnsafeCheckpoint):
    """The one-line message with which the bytes are refused."""
    path.write_bytes(content)
    with nothing_runs(), pytest.raises(error) as info:
        load_edm(path)
    message = str(info.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.fixture(scope="module", autouse=True)
def _warm_up(tmp_path_factory):
    """Let torch and zipfile import what they import on first use."""
    load_edm(DATA / "adm-edm-cond.pkl")
    load_edm(save({"net": snapshot(tiny())["ema"]}, tmp_path_factory.mktemp("warm") / "file"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network-snapshot-000000.pkl"


@pytest.fixture(scope="module")
def real():
    return (DATA / "ddpmpp-vp-uncond.pkl").read_bytes()


def short(text):
    return b"\x8c" + bytes([len(text)]) + text.encode()


@pytest.mark.parametrize(("module", "name"), EVIL)
def test_globals_that_are_not_on_the_list_are_refused_by_name(module, name, path):
    by_line = f"c{module}\n{name}\n".encode()
    forms = [
        by_line + b"S'echo hacked'\n\x85R.",
        b"\x80\x02" + by_line + b"X\x04\x00\x00\x00echo\x85R.",
        b"\x80\x04" + short(module) + short(name) + b"\x93" + short("echo") + b"\x85R.",
        b"(S'echo hacked'\ni" + f"{module}\n{name}\n.".encode(),
        b"(" + by_line + b"S'echo hacked'\no.",
        b"\x80\x02" + by_line + b")\x81}b.",
        b"\x80\x04}" + short("ema") + by_line + b"s.",
    ]
    for content in forms:
        assert f"'{module}.{name}'" in refusal(content, path)


class Evil:
    """Runs a command when it is unpickled by pickle."""

    def __reduce__(self):
        return os.system, ("echo hacked",)


class Elsewhere:
    """A harmless class that no checkpoint needs."""


@pytest.mark.parametrize("protocol", range(6))
def test_a_command_beside_a_good_network_is_refused(protocol, path):
    content = pickle.dumps({"ema": 1, "x": [Evil()]}, protocol=protocol)
    assert f"'{os.system.__module__}.system'" in refusal(content, path)


def test_a_command_before_a_real_file_is_refused(real, path):
    message = refusal(real[:2] + b"cos\nsystem\nX\x04\x00\x00\x00echo\x85R0" + real[2:], path)
    assert "'os.system'" in message
    assert "nothing was executed" in message


def test_classes_that_are_not_on_the_list_are_refused(path):
    assert "Elsewhere" in refusal(pickle.dumps({"ema": Elsewhere()}), path)
    dump({"ema": Persistent("Trojan", {})}, path)
    assert "'Trojan'" in refusal(path.read_bytes(), path)


def nested(payload):
    """A pickle that hands a byte string to torch.storage._load_from_bytes."""
    blob = b"B" + struct.pack("<I", len(payload)) + payload
    return b"\x80\x02ctorch.storage\n_load_from_bytes\n" + blob + b"\x85R."


def evil_pickle():
    return b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00echo\x85R."


def test_payloads_in_nested_streams_are_refused_by_name(path):
    head = b"".join(
        pickle.dumps(value, protocol=2)
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", evil_pickle())
    for payload in (evil_pickle(), head + evil_pickle(), archive.getvalue()):
        assert "'posix.system'" in refusal(nested(payload), path)
        assert "'posix.system'" in refusal(payload, path)


def test_streams_inside_streams_are_refused(path):
    head = b"".join(
        pickle.dumps(value, protocol=2)
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    )
    inner = head + nested(b"x" * 300)
    assert "inside one of its own streams" in refusal(nested(inner), path)


def test_nested_bytes_that_are_no_storage_are_refused(path):
    with edm_modules():
        buffer = io.BytesIO()
        torch.save({"a": torch.ones(2)}, buffer, _use_new_zipfile_serialization=False)
    assert "something else than a storage" in refusal(nested(buffer.getvalue()), path)
    assert "not a storage" in refusal(nested(pickle.dumps(3)), path, BadCheckpoint)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x04" + b"(" * 100_000 + b"t" * 100_000 + b".",
        b"\x80\x04" + b"}" * 100_000,
        b"(" * 300 + b"l" * 300 + b".",
    ],
)
def test_deep_nesting_is_refused(content, path):
    assert "nesting is deeper" in refusal(content, path)


def test_deep_structures_built_from_inside_are_no_network(path):
    refusal(b"\x80\x04)" + b"\x85" * 200_000 + b".", path, BadCheckpoint)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x8e" + struct.pack("<Q", 2**60) + b"abc.", "announced"),
        (b"\x8d" + struct.pack("<Q", 2**63) + b"abc.", "announced"),
        (b"B" + struct.pack("<I", 2**31) + b"abc.", "announced"),
        (b"X" + struct.pack("<I", 2**32 - 1) + b"abc.", "announced"),
        (b"\x8b" + struct.pack("<I", 2**31 - 1) + b"abc.", "integer of"),
        (b"\x96" + struct.pack("<Q", 2**40) + b".", "BYTEARRAY8"),
        (b"\x82\x01.", "extension registry"),
        (b"\x97.", "out-of-band"),
        (b"Pabc\n.", "outside of itself"),
        (b"I" + b"9" * 5000 + b"\n.", "does not end"),
    ],
)
def test_huge_and_odd_declarations_are_refused(content, words, path):
    assert words in refusal(content, path, BadCheckpoint)


def stream_of(numel_declared, numel_written, data):
    """A nested stream of one storage of float32."""
    pid = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    head = b"".join(
        pickle.dumps(value, protocol=2)
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    )
    number = b"\x8a\x08" + struct.pack("<q", numel_declared)
    body = b"\x80\x02" + pid + number + b"NtQ."
    return head + body + pickle.dumps(["0"], 2) + struct.pack("<q", numel_written) + data


def test_storages_larger_than_their_data_are_refused(path):
    for declared, written in ((2**39, 2**39), (2**62, 2**62), (4, 2**39), (2**39, 4), (-1, -1)):
        assert "storage declares" in refusal(nested(stream_of(declared, written, b"x" * 16)), path)
    left_over = nested(stream_of(1, 1, b"x" * 16))
    assert "left over" in refusal(left_over, path, BadCheckpoint)


def tensor_of(offset, size, stride):
    storage = nested(stream_of(4, 4, b"x" * 16))[2:-1]
    pieces = b"".join(pickle.dumps(v, 2)[2:-1] for v in (offset, size, stride))
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + pieces + b"\x89}tR."


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (2**39,), (0,)),
        (0, (5,), (1,)),
        (3, (2,), (1,)),
        (0, (2, 2**30), (1, 0)),
        (-1, (1,), (1,)),
        (0, (1, 1), (1,)),
        (0, (-4,), (1,)),
        (0, (2,), (-1,)),
        (2**70, (1,), (1,)),
        (0, (1.5,), (1,)),
        (0, (1,) * 9, (1,) * 9),
        (0, [4], [1]),
    ],
)
def test_tensors_that_reach_beyond_their_storage_are_refused(offset, size, stride, path):
    refusal(tensor_of(offset, size, stride), path, BadCheckpoint)


def test_shared_structure_that_grows_exponentially_is_refused(path):
    # Each line holds the one before twice: 2^100 items to walk, hash, compare or print.
    laughs = b"\x80\x04)\x940" + b"".join(
        b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x940" for i in range(100)
    )
    top = b"h\x64"
    for ending in (
        b"}" + top + b"Ns.",  # as a key
        b"\x8f(" + top + b"\x90.",  # in a set
        top + b".",
        b"ctorch\nSize\n" + top + b"R.",
        b"ctorch.storage\n_load_from_bytes\n" + top + b"\x85R.",
        b"cnumpy\ndtype\n" + top + b"\x85R.",
        b"ctorch\ndevice\n" + top + b"\x85R.",
        b"}" + short("ema") + top + b"s.",
    ):
        refusal(laughs + ending, path, BadCheckpoint)


def test_copies_of_one_object_without_end_are_refused(path):
    items = b"](" + b"".join(short(f"k{i}") + b"N\x86" for i in range(1000)) + b"e\x940"
    once = b"ccollections\nOrderedDict\nh\x00\x85R0"
    assert "more copies" in refusal(b"\x80\x04" + items + once * 3000 + b".", path)
    text = b"X" + struct.pack("<I", 100_000) + b"a" * 100_000 + b"\x940"
    once = b"c_codecs\nencode\nh\x00" + short("latin1") + b"\x86R0"
    assert "more copies" in refusal(b"\x80\x04" + text + once * 100 + b".", path)
    stream = stream_of(24_000, 24_000, b"x" * 96_000)
    blob = b"B" + struct.pack("<I", len(stream)) + stream + b"\x940"
    once = b"ctorch.storage\n_load_from_bytes\nh\x00\x85R0"
    assert "more copies" in refusal(b"\x80\x04" + blob + once * 100 + b".", path)


def tiny():
    torch.manual_seed(0)
    return build_denoiser(
        {
            "preconditioning": "EDMPrecond",
            "model_type": "SongUNet",
            "img_resolution": 4,
            "img_channels": 1,
            "model_channels": 4,
            "channel_mult": [1],
            "num_blocks": 1,
        }
    )


def test_modules_that_hold_each_other_are_refused(path):
    content = snapshot(tiny())
    members = content["ema"].state["_modules"]
    child = Persistent("UNetBlock", {"_modules": {}})
    for _ in range(14):  # 2^14 paths through 14 modules, twice
        child = Persistent("UNetBlock", {"_modules": {"a": child, "b": child}})
    members |= {"x": child, "y": child}
    assert "nested deeper" in refusal(dump(content, path).read_bytes(), path)
    loop = snapshot(tiny())
    enc = loop["ema"].state["_modules"]["model"].state["_modules"]["enc"]
    enc.__dict__["_modules"]["4x4_block0"].state["_modules"]["self"] = enc
    assert "nested deeper" in refusal(dump(loop, path).read_bytes(), path)


def test_one_large_storage_in_many_tensors_is_refused(path):
    content = snapshot(tiny())
    shared = torch.nn.Parameter(torch.zeros(100_000))
    names = {f"p{i}": shared for i in range(1000)}
    content["ema"].state["_modules"]["model"].state["_parameters"] = names
    assert "more copies" in refusal(dump(content, path).read_bytes(), path)


@pytest.mark.parametrize("dtype", ["O8", "V8", "S5", "U3", "M8", "c16", "f16"])
def test_numpy_types_that_are_not_numbers_are_refused(dtype, path):
    content = b"\x80\x04cnumpy\ndtype\n" + short(dtype) + b"\x89\x88\x87R."
    assert dtype in refusal(content, path)


@pytest.mark.parametrize("value", [np.float64(0.2), np.float32(3), np.int64(-4), np.uint8(7)])
def test_numpy_numbers_become_plain_ones(value, path):
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps({"a": value}, protocol=protocol))
        (found,) = read_checkpoint(path)[0].values()
        assert found == value
        assert type(found) in (int, float)


def test_plain_values_are_those_of_pickle_in_every_protocol(path):
    value = {
        "text": "é\n'\\", "none": None, "flags": [True, False], "tuple": ((), (1,), (1, 2, 3, 4)),
        "numbers": [0, 255, 256, -1, 2**31 - 1, -(2**40), 10**30, 0.1, float("inf"), -1e-300],
        "bytes": b"\x00\xff", "set": {1, 2, "a"}, 7: {"nested": [[], {}]},
    }  # fmt: skip
    for protocol in range(2, 6):
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        assert read_checkpoint(path)[0] == value
    del value["bytes"], value["set"]
    for protocol in range(2):
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        assert read_checkpoint(path)[0] == value


@pytest.mark.parametrize("name", FILES)
def test_truncated_files_are_refused(name, path):
    whole = (DATA / f"{name}.pkl").read_bytes()
    for length in [0, 1, 2, 17, *np.linspace(100, len(whole) - 1, 20).astype(int)]:
        refusal(whole[:length], path, BadCheckpoint)


def test_truncated_training_states_are_refused(path):
    for legacy in (False, True):
        whole = save({"net": snapshot(tiny())["ema"]}, path, legacy=legacy).read_bytes()
        for length in np.linspace(5, len(whole) - 1, 15).astype(int):
            refusal(whole[:length], path, BadCheckpoint)


def rezip(whole, change, compression=zipfile.ZIP_STORED):
    """An archive with each (name, content) replaced by those that ``change`` returns."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            for new_name, content in change(name, old.read(name)):
                new.writestr(new_name, content)
    return out.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_that_torch_would_not_write_are_refused(path):
    whole = save({"net": snapshot(tiny())["ema"]}, path).read_bytes()
    keep = lambda name, content: [(name, content)]  # noqa: E731
    path.write_bytes(rezip(whole, keep))
    load_edm(path)
    assert "compress" in refusal(rezip(whole, keep, zipfile.ZIP_DEFLATED), path)
    twice = rezip(whole, lambda n, c: [(n, c)] * (2 if n.endswith("data/0") else 1))
    assert "repeats" in refusal(twice, path)
    without = rezip(whole, lambda n, c: [] if n.endswith("data/0") else [(n, c)])
    assert "missing" in refusal(without, path, BadCheckpoint)
    shorter = rezip(whole, lambda n, c: [(n, c[:-4] if n.endswith("data/0") else c)])
    assert "storage declares" in refusal(shorter, path)
    big = rezip(whole, lambda n, c: [(n, b"big" if n.endswith("byteorder") else c)])
    assert "big-endian" in refusal(big, path, BadCheckpoint)
    evil = rezip(whole, lambda n, c: [(n, evil_pickle() if n.endswith(".pkl") else c)])
    assert "'posix.system'" in refusal(evil, path)
    none = rezip(whole, lambda n, c: [] if n.endswith(".pkl") else [(n, c)])
    assert "data.pkl" in refusal(none, path, BadCheckpoint)


def test_damage_in_the_weights_of_an_archive_is_noticed(path):
    whole = bytearray(save({"net": snapshot(tiny())["ema"]}, path).read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith("data/0"))
    whole[info.header_offset + 200] ^= 1
    refusal(bytes(whole), path, BadCheckpoint)


def test_a_storage_of_an_archive_is_checked_once_for_all_its_tensors(path, monkeypatch):
    """Else a small file could have a large storage read a hundred thousand times."""
    base = torch.arange(1000, dtype=torch.float32)
    save({"ema": {f"p{i}": base[i : i + 2] for i in range(500)}}, path)
    read = []
    content = pickles._content
    monkeypatch.setattr(pickles, "_content", lambda *a: read.append(a) or content(*a))
    tensors = read_checkpoint(path)[0]["ema"]
    for i in range(500):
        assert tensors[f"p{i}"].read().tolist() == [i, i + 1]
    assert len(read) == 1
