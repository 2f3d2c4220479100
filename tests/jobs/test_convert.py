"""``regimes convert``: the converted network is the same, and what cannot be converted is one line."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from job_runs import ROOT, environment

from regimes.checkpoints import load_edm, load_safetensors, read_edm
from regimes.images.sources import open_source
from regimes.jobs import convert

DATA = ROOT / "tests" / "data" / "edm"
FILES = sorted(path.stem for path in DATA.glob("*.pkl"))


def run(capsys, *arguments, expect=0):
    """Run the job in this process; returns what it printed, the error if it fails."""
    status = convert.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert status == expect, err
    return err if expect else out


def outputs(denoiser):
    x = torch.randn((2, *denoiser.image_shape), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return denoiser(x, torch.tensor([0.1, 9.0]))


@pytest.mark.parametrize("name", FILES)
def test_converted_network_gives_the_same_outputs_and_the_same_description(name, tmp_path, capsys):
    source, target = DATA / f"{name}.pkl", tmp_path / "new" / "net.safetensors"
    said = run(capsys, source, target)
    original, converted = load_edm(source), load_safetensors(target)
    assert torch.equal(outputs(converted), outputs(original))
    assert [p.name for p in sorted(target.parent.iterdir())] == ["net.json", "net.safetensors"]
    digests = [hashlib.sha256(p.read_bytes()).hexdigest() for p in (source, target)]
    assert f"file             {source} (sha256 {digests[0]})" in said
    assert f"written          {target} (sha256 {digests[1]})" in said
    described = json.loads((target.parent / "net.json").read_text(), parse_constant=pytest.fail)
    assert described["configuration"] == original.config
    assert described["weights_sha256"] == digests[1]
    state, expected = safetensors.torch.load_file(target), read_edm(source)[1]
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    again = run(capsys, target)
    assert again.splitlines()[1:] == said.splitlines()[1:5]


def test_description_states_what_the_network_is(capsys):
    said = run(capsys, DATA / "adm-edm-cond.pkl").splitlines()
    known = json.loads((DATA / "adm-edm-cond.json").read_text())
    assert said[1:] == [
        "architecture     ADM, widths 32, 64",
        f"parameters       {known['parameters']:,}",
        "images           16x16, 3 channels, 4 classes",
        "preconditioning  EDMPrecond, noise levels 0 to inf",
    ]


def test_conversion_is_deterministic_and_replaces_what_is_there(tmp_path, capsys):
    for name in ("a.safetensors", "b", "b"):
        run(capsys, DATA / "adm-edm-cond.pkl", tmp_path / name)
    for suffix in (".safetensors", ".json"):
        first, second = ((tmp_path / f"{n}{suffix}").read_bytes() for n in "ab")
        assert first == second
    assert len(list(tmp_path.iterdir())) == 4


def test_safetensors_are_converted_to_equal_safetensors(tmp_path, capsys):
    run(capsys, DATA / "adm-edm-cond.pkl", tmp_path / "a.safetensors")
    run(capsys, tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


class Command:
    """Leaves a file behind when it is unpickled by pickle."""

    def __reduce__(self):
        return os.mkdir, ("hacked",)


def test_hostile_checkpoints_are_refused_in_one_line_and_not_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("evil.pkl").write_bytes(pickle.dumps({"ema": Command()}))
    said = run(capsys, "evil.pkl", "out.safetensors", expect=1)
    assert said.startswith("error: evil.pkl: the file refers to 'posix.mkdir'")
    assert said.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["evil.pkl"]


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("missing.pkl", None, "missing.pkl: cannot be read (No such file or directory)"),
        ("missing.safetensors", None, "missing.safetensors: "),
        ("text.pkl", None, "text.pkl: not a pickle, or a damaged one"),
        ("text.safetensors", None, "text.safetensors: not a readable safetensors file"),
        (".", None, ".: cannot be read (Is a directory)"),
        ("net.pkl", "out.pkl", "out.pkl: weights are written as .safetensors only"),
        ("net.pkl", "out.pt", "out.pt: weights are written as .safetensors only"),
        ("net.pkl", "out.json", "out.json: weights are written as .safetensors only"),
        ("net.pkl", "folder", "folder: is a folder"),
        ("net.pkl", "text.pkl/x", "text.pkl/x.safetensors: cannot be written (File exists)"),
        ("net.safetensors", "./net.safetensors", "net.safetensors: is both IN and OUT"),
        ("net.safetensors", "net", "net.safetensors: is both IN and OUT"),
    ],
)
def test_what_cannot_be_converted_is_one_line(source, target, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("text.pkl").write_text("# text")
    Path("text.safetensors").write_text("# text")
    Path("net.pkl").write_bytes((DATA / "adm-edm-cond.pkl").read_bytes())
    run(capsys, "net.pkl", "net.safetensors")
    Path("net.json").unlink()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    said = run(capsys, source, *([] if target is None else [target]), expect=1)
    assert said.startswith(f"error: {words}")
    assert said.count("\n") == 1
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_images_become_a_dataset_of_edm(tmp_path, capsys):
    """The first images in order, with their classes, as EDM's own tool names them."""
    target = tmp_path / "new" / "digits.zip"
    said = run(capsys, "digits", target, "--max-images", "12", "--channels", "3")
    assert said.startswith(f"written          {target}: 12 of 1797 images, 10 classes (sha256 ")
    found, source = open_source(str(target)), open_source("digits")
    assert list(found.ids) == [f"00000/img{i:08d}.png" for i in range(12)]
    assert found.labels == list(source.labels[:12])
    for i in range(12):
        np.testing.assert_array_equal(found.read(i), source.read(i).repeat(3, axis=2))
    again = tmp_path / "again.zip"
    run(capsys, target, again, "--image-size", "4", "--max-images", "3")
    assert open_source(str(again)).read(0).shape == (4, 4, 3)
    run(capsys, target, tmp_path / "copy.zip")
    assert (tmp_path / "copy.zip").read_bytes() == target.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digits", "d.zip", "--max-images", "1798"], "--max-images: expected 1 to 1797"),
        (["digits", "d.zip", "--max-images", "0"], "--max-images: expected 1 to 1797"),
        (["digits", "d.zip", "--image-size", "0"], "--image-size: expected at least 1, got 0"),
        (["digits", "d.zip", "--image-size", "6"], "d.zip: image 0: EDM expects a square"),
        (["nowhere", "d.zip"], "nowhere: no such file or folder"),
        (["d.zip", "d.zip"], "d.zip: is both IN and OUT"),
        ([DATA / "adm-edm-cond.pkl", "--max-images", "3"], "--max-images: for images"),
    ],
)
def test_what_cannot_become_a_dataset_is_one_line(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = run(capsys, *arguments, expect=1)
    assert said.startswith(f"error: {words}")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_job_runs_without_ray(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from regimes.jobs import convert\n"
        f"assert convert.main([{str(DATA / 'adm-edm-cond.pkl')!r}, 'net']) == 0\n"
        "assert not {'ray', 'sklearn', 'diffusers', 'faiss'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env=environment() | {"PYTHONPATH": str(ROOT / "platform")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "net.safetensors").exists()
