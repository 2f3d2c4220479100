"""The audit job: planted copies are found at their rates, nothing alarms where there are none."""

from __future__ import annotations

import json
import os
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from audited_sets import PLANTED, planted, smooth_images
from job_runs import ROOT, check_comparison, run_job
from PIL import Image

from regimes.descriptors.network import NetworkDescriptor
from regimes.descriptors.options import DescriptorOptions
from regimes.errors import BadSource
from regimes.images.writing import encode_png
from regimes.jobs import audit
from regimes.jobs.support.audit.experiment import AuditedSets, AuditExperiment, AuditFeatures
from regimes.jobs.support.audit.results import default_name
from regimes.jobs.support.console import Stage
from regimes.scores.result import wilson_interval
from regimes.storage.artifacts import Store
from regimes.storage.descriptors import read_centre
from regimes.storage.images import ImagesRecipe, decode_source, ingest

TRAIN, HELDOUT = smooth_images(1000, 1), smooth_images(500, 2)
FEW = ("--gallery-pairs", "20", "--manifold-images", "100")


def write_folder(path: Path, images: np.ndarray) -> str:
    path.mkdir(parents=True)
    for number, image in enumerate(images):
        (path / f"{number:06d}.png").write_bytes(encode_png(image))
    return str(path)


def save(path: Path, images: np.ndarray) -> str:
    np.save(path, images)
    return str(path)


def run(tmp: Path, *options: str) -> int:
    return audit.main(["--output", str(tmp / "out"), "--name", "run", "--cpus", "1", *options])


def run_apart(tmp: Path, *options: str, expect: int = 0) -> str:
    """In a process of its own, as what runs on Ray must be; returns what it printed."""
    common = ("--output", str(tmp / "out"), "--name", "run", "--cpus", "1")
    return run_job("audit", *common, *options, expect=expect)


def results(tmp: Path) -> Path:
    return tmp / "out" / "audit" / "run"


def scores(tmp: Path) -> dict:
    return json.loads((results(tmp) / "scores.json").read_text())


def metrics(tmp: Path) -> dict:
    return {
        row["metric"]: row for row in pq.read_table(results(tmp) / "metrics.parquet").to_pylist()
    }


@pytest.fixture(scope="module")
def audited(tmp_path_factory) -> Path:
    """One audit of planted copies, with held-out images and flips."""
    tmp = tmp_path_factory.mktemp("planted")
    sets = (
        "--train", save(tmp / "train.npy", TRAIN),
        "--generated", write_folder(tmp / "generated", planted(TRAIN, 1000)),
        "--heldout", save(tmp / "heldout.npy", HELDOUT),
    )  # fmt: skip
    options = (*sets, "--descriptor", "pixels", "--count-flips", "--gallery-pairs", "160")
    (tmp / "options.json").write_text(json.dumps(options))
    assert run(tmp, *options, "--manifold-images", "300") == 0
    return tmp


def test_each_planted_group_is_found_at_its_rate(audited):
    """All 150 copies, no novel image, and of 800 ordinary ones 5%, to the Wilson interval."""
    table = pq.read_table(results(audited) / "scores.parquet").to_pydict()
    assert table["id"] == [f"{i:06d}.png" for i in range(1000)]
    flags = {name: np.array(table[name]) for name in table if name.startswith("is_")}
    for group in ("exact", "noisy", "flipped"):
        assert flags["is_copy"][PLANTED[group]].all()
    assert not flags["is_copy"][PLANTED["novel"]].any()
    low, high = wilson_interval(int(flags["is_copy"][PLANTED["ordinary"]].sum()), 800)
    assert low < 0.05 < high
    assert np.flatnonzero(flags["is_identical"]).tolist() == [*range(50), *range(100, 150)]
    assert flags["is_flip"][100:150].all()
    assert not flags["is_flip"][:100].any()
    assert flags["is_copy_ratio"][:50].all()
    assert table["nearest_id"][:150] == [f"{i:06d}" for i in range(150)]
    assert {f"is_copy_published_{t}" for t in ("0.5", "0.6", "0.75")} <= flags.keys()
    distances = np.array([table[name] for name in ("d1", "d2", "ratio")])
    np.testing.assert_allclose(distances[0] / distances[1], distances[2])
    check_comparison(audited / "out", "audit")


def test_every_number_comes_with_interval_null_and_threshold(audited):
    found = metrics(audited)
    expected = {
        "memorized", "memorized_published_0.6", "beyond_real", "identical", "flips", "ratio",
        "authentic", "c_t", "precision", "recall", "density", "coverage", "vendi", "frechet",
        "frechet_matched", "kernel", "duplicates_train", "duplicates_generated",
    }  # fmt: skip
    assert expected <= found.keys()
    for name, row in found.items():
        assert row["low"] <= row["value"] <= row["high"], name
    assert found["identical"]["value"] == 0.1
    assert found["memorized"]["null"] == pytest.approx(0.05, abs=1 / 500)
    assert found["memorized"]["low"] > found["memorized"]["null"]
    for name in ("memorized", "precision", "recall", "density", "coverage"):
        row = found[name]
        assert row["null_low"] <= row["null"] <= row["null_high"]
    assert found["frechet_matched"]["num_generated"] == 500


def test_the_answer_is_in_the_report_and_in_scores_json(audited):
    found = scores(audited)
    html = (results(audited) / "report.html").read_text()
    assert found["counts"]["identical"] == 100
    assert found["answer"][0].startswith("100 of 1,000 generated images equal a training image or ")
    for sentence in found["answer"]:
        assert sentence in html
    assert 'href="gallery/page-001.html"' in html
    assert "python jobs/audit.py --train" in html
    assert "--descriptor pixels" in html


def test_the_gallery_shows_the_most_similar_pairs_in_order(audited):
    folder = results(audited) / "gallery"
    names = {f"page-00{n}.{kind}" for n in (1, 2, 3, 4) for kind in ("html", "png")}
    assert {p.name for p in folder.iterdir()} == names
    first, last = ((folder / f"page-00{n}.html").read_text() for n in (1, 4))
    assert (first.count("<li"), last.count("<li")) == (40, 40)
    assert first.count('class="copy"') == 40
    assert "identical" in first
    values = [float(p.split("</b>")[0]) for p in (first + last).split("<b>")[1:]]
    assert values == sorted(values, reverse=True)
    with Image.open(folder / "page-001.png") as sheet:
        assert sheet.width > 1000
    drawn = {p.name for p in (results(audited) / "figures").iterdir()}
    figures = ("nearest", "borderline", "similarity", "thresholds")
    assert drawn == {f"{name}.{kind}" for name in figures for kind in ("png", "pdf")}


def test_a_second_run_computes_nothing_and_other_options_are_refused(audited, capsys):
    options = json.loads((audited / "options.json").read_text())
    before = {p: p.read_bytes() for p in results(audited).rglob("*.*")}
    assert run(audited, *options, "--manifold-images", "300") == 0
    assert capsys.readouterr().out.startswith("complete: nothing to compute")
    assert run(audited, *options, "--manifold-images", "200") == 1
    assert "another configuration" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in results(audited).rglob("*.*")} == before


@pytest.mark.parametrize(("fail_on", "reasons"), [("exact", 1), ("copies", 3)])
def test_copies_that_were_not_to_be_end_it_with_status_3(audited, capsys, fail_on, reasons):
    options = json.loads((audited / "options.json").read_text())
    assert run(audited, *options, "--manifold-images", "300", "--fail-on", fail_on) == 3
    said = capsys.readouterr()
    assert said.out.startswith("complete: nothing to compute")
    lines = said.err.splitlines()
    assert len(lines) == reasons
    assert lines[0] == (
        f"failed: --fail-on {fail_on}: 100 generated images equal a training image in every pixel"
    )


def test_features_of_an_interrupted_run_are_kept(tmp_path, capsys):
    options = (
        "--train", save(tmp_path / "t.npy", TRAIN[:150]),
        "--generated", write_folder(tmp_path / "g", planted(TRAIN, 200)),
        "--heldout", save(tmp_path / "h.npy", HELDOUT[:100]), "--descriptor", "pixels", "--count-flips",
    )  # fmt: skip
    assert run(tmp_path, *options, *FEW) == 0
    first = (results(tmp_path) / "scores.parquet").read_bytes()
    (results(tmp_path) / "manifest.json").unlink()
    shard = next((tmp_path / "out" / "artifacts" / "features").glob("*/shard-*.parquet"))
    (shard.parent / "manifest.json").unlink()
    shard.unlink()
    capsys.readouterr()
    assert run(tmp_path, *options, *FEW) == 0
    text = capsys.readouterr().out
    assert "4 image sets by pixels: 3 kept, 1 unit made" in text
    assert "3 sets kept" in text
    assert (results(tmp_path) / "scores.parquet").read_bytes() == first


def test_real_images_do_not_alarm(tmp_path):
    """Other images of the same kind: 5% pass the threshold, to the interval, and no rule is sure."""
    files = (
        "--train", save(tmp_path / "t.npy", TRAIN[:500]),
        "--generated", save(tmp_path / "g.npy", TRAIN[500:]),
        "--heldout", save(tmp_path / "h.npy", HELDOUT),
    )  # fmt: skip
    assert run(tmp_path, *files, *FEW, "--fail-on", "copies") == 0
    assert scores(tmp_path)["alarms"] == {}
    found = metrics(tmp_path)
    assert found["memorized"]["low"] < 0.05 < found["memorized"]["high"]
    assert found["identical"]["value"] == found["ratio"]["value"] == 0
    assert abs(found["c_t"]["value"]) < 3
    assert (
        "not measurably more or fewer than among unseen real images"
        in scores(tmp_path)["answer"][0]
    )


def test_few_images_without_heldout_ones_are_judged_by_a_descriptor_of_both_sets(tmp_path):
    """60 training images of 256 pixels and 100 new ones; then six of these are noisy copies."""
    images = smooth_images(160, 3, side=16)
    train, new = images[:60], images[60:]
    noise = np.random.default_rng(0).normal(0, 8, train[:6].shape)
    copies = np.clip(train[:6] + noise, 0, 255).astype(np.uint8)
    sets = {"new": new, "copies": np.concatenate([copies, new[6:]])}
    marked = {}
    for name, made in sets.items():
        (tmp_path / name).mkdir()
        files = (
            "--train", save(tmp_path / name / "t.npy", train),
            "--generated", save(tmp_path / name / "g.npy", made),
        )  # fmt: skip
        assert run(tmp_path / name, *files, *FEW) == 0
        found = scores(tmp_path / name)
        assert "fitted to 60 training images and 100 generated ones" in found["descriptor"]
        assert ("beyond" in found["alarms"]) is (name == "copies")
        table = pq.read_table(results(tmp_path / name) / "scores.parquet").to_pylist()
        marked[name] = sum(row["is_beyond_real"] for row in table[:6])
    assert "so the generator copies" not in " ".join(scores(tmp_path / "new")["answer"])
    assert marked == {"new": 0, "copies": 6}


def test_without_heldout_images_it_runs_and_says_what_is_weaker(tmp_path):
    files = (
        "--train", save(tmp_path / "t.npy", TRAIN[:400]),
        "--generated", save(tmp_path / "g.npy", planted(TRAIN, 200)),
    )  # fmt: skip
    assert run(tmp_path, *files, *FEW, "--descriptor", "pixels") == 0
    found = scores(tmp_path)
    assert found["reference"] == "train"
    assert found["counts"]["identical"] == 50
    assert "no held-out images" in " ".join(found["answer"])
    assert "c_t" not in metrics(tmp_path)
    assert "Pass --heldout" in (results(tmp_path) / "report.html").read_text()


def test_equal_sets_are_warned_about(tmp_path, capsys):
    path = save(tmp_path / "t.npy", TRAIN[:100])
    options = ("--train", path, "--generated", path, *FEW, "--descriptor", "pixels")
    assert run(tmp_path, *options, "--dry-run") == 0
    error = capsys.readouterr().err
    assert f"warning   --train and --generated hold the same images: {path}, {path}" in error


def test_dry_run_says_what_it_would_cost_and_writes_nothing(tmp_path, capsys):
    files = (
        "--train",
        save(tmp_path / "t.npy", TRAIN),
        "--generated",
        "digits",
        "--image-size",
        "8",
    )
    assert run(tmp_path, *files, "--dry-run") == 0
    text = capsys.readouterr().out
    for words in (
        "1,000 images, the first 8x8x1",
        "1,797 images",
        "2,797 images by whitened",
        "time",
    ):
        assert words in text
    assert not (tmp_path / "out").exists()
    assert "not counted" in text


def save_to_disk(path: Path, images: np.ndarray) -> str:
    """A Hugging Face dataset on disk."""
    import pyarrow as pa

    path.mkdir()
    rows = [{"bytes": encode_png(image), "path": None} for image in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, kind)})
    sink = pa.OSFile(str(path / "data-00000-of-00001.arrow"), "wb")
    with sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    names = [{"filename": "data-00000-of-00001.arrow"}]
    (path / "state.json").write_text(json.dumps({"_data_files": names}))
    return str(path)


def save_parquet(path: Path, images: np.ndarray) -> str:
    import pyarrow as pa

    pq.write_table(pa.table({"image": [encode_png(image) for image in images]}), path)
    return str(path)


def save_zip(path: Path, images: np.ndarray) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for number, image in enumerate(images):
            archive.writestr(f"{number:06d}.png", encode_png(image))
    return str(path)


def save_npz(path: Path, images: np.ndarray) -> str:
    np.savez(path, images=images)
    return str(path)


def save_artifact(path: Path, images: np.ndarray) -> str:
    from regimes.images.arrays import ArraySource

    source, store = ArraySource("made", images), Store(str(path))
    recipe = ImagesRecipe(
        fingerprint=source.fingerprint, image_size=None, channels=None, skip_bad=False
    )
    ingest(store, recipe, decode_source(source, recipe))
    return store.artifact(recipe).location.uri


FORMATS = {
    "folder": write_folder,
    "a.zip": save_zip,
    "a.npy": save,
    "a.npz": save_npz,
    "a.parquet": save_parquet,
    "dataset": save_to_disk,
    "artifact": save_artifact,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_images(name, tmp_path):
    spec = FORMATS[name](tmp_path / name, TRAIN[:10])
    opened = AuditedSets(AuditExperiment(train="digits", generated=spec)).sources["generated"]
    found = np.stack([opened.read(i) for i in range(len(opened.ids))])
    np.testing.assert_array_equal(found, TRAIN[:10])


class Grid(torch.nn.Module):
    """A descriptor that is a network: mean levels of a grid of cells, centred."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cells = torch.nn.functional.adaptive_avg_pool2d(x, 10).flatten(1)
        return cells - cells.mean(1, keepdim=True)


def grid(folder: Path) -> Path:
    torch.jit.script(Grid()).save(str(folder / "grid.pt"))
    return folder / "grid.pt"


@pytest.fixture
def network(tmp_path) -> str:
    return f"torchscript:{grid(tmp_path)}"


def test_networks_run_on_ray_for_images_of_any_size_and_damaged_ones_are_counted(tmp_path, network):
    """Copies enlarged to twice and to three times their size, in one folder, found by a network."""
    train = write_folder(tmp_path / "train", TRAIN[:60])
    (tmp_path / "train" / "broken.png").write_bytes(b"not an image")
    large = [image.repeat(k, 0).repeat(k, 1) for k in (2, 3) for image in TRAIN[:10]]
    generated = write_folder(tmp_path / "generated", [*large, *HELDOUT[:20]])
    heldout = save_to_disk(tmp_path / "heldout", HELDOUT[20:60])
    options = (
        "--train", train, "--generated", generated, "--heldout", heldout, "--descriptor", network,
        "--resize", "skew-10", "--count-flips", *FEW,
    )  # fmt: skip
    assert "broken.png: not a readable image" in run_apart(tmp_path, *options, expect=1)
    text = run_apart(tmp_path, *options, "--skip-bad-images")
    assert "train/broken.png: not readable" in text
    found, table = scores(tmp_path), pq.read_table(results(tmp_path) / "scores.parquet").to_pydict()
    assert found["left_out"] == {"train": 1, "generated": 0, "heldout": 0}
    assert all(table["is_copy"][:20])
    assert table["nearest_id"][:10] == table["nearest_id"][10:20]
    assert sum(table["is_copy"][20:]) <= 5  # 20 new images, 5% each: more has a chance of 1e-4
    assert not any(table["is_identical"])  # enlarged: not equal in every pixel
    assert "skew-10" in found["descriptor"]


def test_centred_features_of_a_network_are_those_of_the_library(tmp_path):
    """Descriptors whose cosines are all about 1 tell images apart once a mean is taken off."""

    class Level(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            cells = torch.nn.functional.adaptive_avg_pool2d(x, 10).flatten(1)
            return cells + 100.0

    torch.jit.script(Level()).save(str(tmp_path / "level.pt"))
    files = (
        "--train", save(tmp_path / "t.npy", TRAIN[:80]),
        "--generated", save(tmp_path / "g.npy", np.concatenate([TRAIN[:10], HELDOUT[:30]])),
        "--heldout", save(tmp_path / "h.npy", HELDOUT[30:90]),
        "--descriptor", f"torchscript:{tmp_path / 'level.pt'}", "--resize", "skew-10",
    )  # fmt: skip
    run_apart(tmp_path, *files, "--centre-images", "40", *FEW)
    found = metrics(tmp_path)
    assert found["memorized_published_0.75"]["value"] < 0.5  # uncentred: all of them
    assert scores(tmp_path)["counts"]["identical"] == 10
    assert "minus the mean of 40 training images" in scores(tmp_path)["descriptor"]


def test_the_first_image_of_every_set_may_be_unreadable(tmp_path, capsys):
    sets = []
    for name, images in (
        ("train", TRAIN[:60]),
        ("generated", np.concatenate([TRAIN[:10], HELDOUT[:50]])),
    ):
        sets += [f"--{name}", write_folder(tmp_path / name, images)]
        (tmp_path / name / "!broken.png").write_bytes(b"not an image")
    options = (*sets, *FEW, "--descriptor", "pixels")
    assert run(tmp_path, *options) == 1
    assert "!broken.png: not a readable image" in capsys.readouterr().err
    assert run(tmp_path, *options, "--skip-bad-images", "--dry-run") == 0
    assert "61 images, the first 10x10x1" in capsys.readouterr().out
    assert run(tmp_path, *options, "--skip-bad-images") == 0
    assert scores(tmp_path)["left_out"] == {"train": 1, "generated": 1}
    assert scores(tmp_path)["counts"]["identical"] == 10


@pytest.mark.parametrize("descriptor", ["torchscript", "inception-fid"])
def test_a_centre_is_taken_of_images_of_any_size_and_passes_over_unreadable_ones(
    tmp_path, network, descriptor, monkeypatch
):
    """Rows are unit(raw - mean over readable training images), also where raw features are kept."""
    mixed = [image.repeat(1 + i % 2, 0).repeat(1 + i % 2, 1) for i, image in enumerate(TRAIN[:20])]
    train = write_folder(tmp_path / "train", mixed)
    (tmp_path / "train" / "!broken.png").write_bytes(b"not an image")
    experiment = AuditExperiment(
        train=train, generated=save_artifact(tmp_path / "made", TRAIN[20:40]),
        skip_bad_images=True, centre_images=1000,
    )  # fmt: skip
    choice = DescriptorOptions(descriptor=network, resize="skew-10")
    monkeypatch.setattr(AuditFeatures, "raw", descriptor == "inception-fid")
    plan = AuditFeatures(Store(str(tmp_path / "out")), experiment, choice, AuditedSets(experiment))
    plan.ingest()
    plan.fit()
    describe = NetworkDescriptor.load(plan.network, plan.weights_path.read_bytes())
    mean = np.mean([describe.raw(image[None])[0].astype(float) for image in mixed], 0)
    np.testing.assert_allclose(read_centre(plan.store, plan.descriptor), mean, atol=1e-6)
    assert "minus the mean of those that can be read of 21 training images" in plan.words
    plan.recipes.pop("train")  # described on Ray, as the tests of the whole job do
    (recipe,) = plan.recipes.values()
    with Stage("describe", 1, "unit") as stage:
        plan._describe_here([recipe], stage)
    rows, raw = plan.read()
    moved = describe.raw(TRAIN[20:40]).astype(float) - mean
    expected = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    if raw:
        np.testing.assert_allclose(raw["generated"].values, moved + mean, atol=1e-5)
        np.testing.assert_allclose(rows["generated"].values, expected, atol=1e-5)
    else:
        np.testing.assert_allclose(rows["generated"].values, expected, atol=1e-5)


def test_searching_over_shards_or_lists_finds_the_same_copies(tmp_path):
    """Shards give the same table to the byte; of lists the recall is said."""
    common = ("--output", str(tmp_path / "out"), "--cpus", "2", *FEW)
    sets = ("--train", save(tmp_path / "t.npy", TRAIN[:400]),
            "--generated", save(tmp_path / "g.npy", np.concatenate([TRAIN[:20], HELDOUT[:80]])),
            "--heldout", save(tmp_path / "h.npy", HELDOUT[80:200]))  # fmt: skip
    run_job("audit", *common, "--name", "one", *sets)
    run_job("audit", *common, "--name", "three", *sets, "--shards", "3")
    assert "of the true neighbours of" not in read(tmp_path, "three", "scores.json").decode()
    assert read(tmp_path, "one", "scores.parquet") == read(tmp_path, "three", "scores.parquet")
    assert audit.main([*common, "--name", "lists", *sets, "--index", "ivf"]) == 0
    found = json.loads(read(tmp_path, "lists", "scores.json"))
    assert "of the true neighbours of" in " ".join(found["notes"])
    assert found["counts"]["identical"] == 20


def read(tmp: Path, name: str, file: str) -> bytes:
    return (tmp / "out" / "audit" / name / file).read_bytes()


BAD = [
    (lambda t: [], "--train: expected a folder or a file of images"),
    (lambda t: ["--train", "digits"], "--generated: expected a folder or a file"),
    (lambda t: ["--train", "digits", "--generated", str(t / "no")], "no such file or folder"),
    (lambda t: ["--train", "digits", "--generated", save(t / "f.npy", TRAIN[:5])], "at least 8 images"),
    (lambda t: ["--train", "digits", "--generated", save(t / "f.npy", TRAIN)], "pass --image-size"),
    (lambda t: [*digits(), "--calibration-quantile", "1"], "--calibration-quantile"),
    (lambda t: [*digits(), "--ratio-threshold", "0"], "--ratio-threshold"),
    (lambda t: [*digits(), "--published-thresholds", "1.5"], "--published-thresholds"),
    (lambda t: [*digits(), "--duplicate-distance", "1"], "--duplicate-distance"),
    (lambda t: [*digits(), "--gallery-pairs", "0"], "--gallery-pairs"),
    (lambda t: [*digits(), "--manifold-images", "3"], "--manifold-images"),
    (lambda t: [*digits(), "--shards", "0"], "--shards: expected at least 1"),
    (lambda t: [*digits(), "--centre-images", "1"], "--centre-images: expected 0"),
    (lambda t: [*digits(), "--centre-images", "9"], "--centre-images: whitened-pixels needs no"),
    (lambda t: [*digits(), "--ridge", "0"], "--ridge"),
    (lambda t: [*digits(), "--image-size", "0"], "--image-size"),
    (lambda t: [*digits(), "--image-size", "200"], "40000 values are too large to whiten"),
    (lambda t: [*digits(), "--descriptor", "nothing"], "--descriptor nothing: expected one of"),
    (lambda t: [*digits(), "--descriptor", f"torchscript:{t}/no.pt"], "no.pt: cannot be read"),
    (
        lambda t: [*digits(), "--descriptor", "sscd-disc-mixup", "--no-download"],
        "sscd_disc_mixup.torchscript.pt",
    ),
    (lambda t: [*digits(), "--descriptor", "dinov2"], "pass --download-unverified"),
    (lambda t: [*digits(), "--descriptor", "dinov2", "--download-unverified", "--no-download"],
     "--download-unverified: contradicts --no-download"),
    (lambda t: [*digits(), "--download-unverified"], "--download-unverified: whitened-pixels is no network"),
    (lambda t: [*digits(), "--descriptor", "sscd-disc-mixup", "--weights", save(t / "w.npy", TRAIN)],
     "expected SHA-256"),
    (lambda t: [*digits(), "--heldout", "digits"], "images are training images"),
    (lambda t: [*digits(), "--weights", "w", "--resize", "skew-8"],
     "--weights, --resize: whitened-pixels is no network"),
    (lambda t: [*digits(), "--descriptor-batch", "3", "--precision", "bf16", "--descriptor", "pixels"],
     "--precision, --descriptor-batch: pixels is no network"),
    (lambda t: [*digits(), "--descriptor", "pixels", "--ridge", "1"], "--ridge: pixels is not fitted"),
    (lambda t: [*digits(), "--descriptor", f"torchscript:{grid(t)}", "--ridge", "1"],
     "--ridge: torchscript-grid is not fitted"),
    (lambda t: [*digits(), "--index", "ivf", "--shards", "2"], "--shards 2: --index ivf searches in"),
    (lambda t: ["--train", "digits", "--generated", twice(t / "twice.zip"), "--image-size", "8"],
     "twice.zip: expected ids that differ, found 000003.png 2 times"),
    (lambda t: ["--train", "digits", "--generated", latin(t / "latin")],
     r"expected file names in UTF-8, found 'caf\udce9.png'"),
    (lambda t: ["--train", "digits", "--generated", os.fsdecode(os.fsencode(t) + b"/caf\xe9.npy")],
     "expected a path in UTF-8"),
]  # fmt: skip


def twice(path: Path) -> str:
    """An archive that holds one of its names twice."""
    with warnings.catch_warnings(), zipfile.ZipFile(save_zip(path, TRAIN[:9]), "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("000003.png", encode_png(TRAIN[20]))
    return str(path)


def latin(path: Path) -> str:
    """A folder with a file name in Latin-1."""
    write_folder(path, TRAIN[:9])
    os.rename(path / "000003.png", os.fsencode(path) + b"/caf\xe9.png")
    return str(path)


def digits() -> list[str]:
    return ["--train", "digits", "--generated", "digits"]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_bad_input_is_one_line(make, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("REGIMES_CACHE", str(tmp_path / "cache"))
    assert run(tmp_path, *make(tmp_path)) == 1
    lines = [x for x in capsys.readouterr().err.splitlines() if not x.startswith("warning")]
    (error,) = lines
    assert error.startswith("error: ")
    assert words in error
    assert not results(tmp_path).exists()


def test_images_that_are_all_equal_are_refused(tmp_path, capsys):
    black = save(tmp_path / "b.npy", np.zeros((20, 8, 8, 1), np.uint8))
    assert run(tmp_path, "--train", black, "--generated", black) == 1
    assert "cannot whiten images that are all equal" in capsys.readouterr().err
    assert run(tmp_path, "--train", black, "--generated", black, "--descriptor", "pixels") == 1
    assert "--train: expected 3 images or more that differ" in capsys.readouterr().err


def test_results_are_named_after_the_sets_and_all_options():
    one = AuditExperiment(train="a/train.zip", generated="b/made")
    two = AuditExperiment(train="a/train.zip", generated="b/made", count_flips=True)
    names = [default_name(e, audit.DEFAULT_DESCRIPTOR) for e in (one, two)]
    assert names[0].startswith("made-in-train-")
    assert names[0] != names[1]


def test_a_dataset_of_splits_is_named(tmp_path):
    (tmp_path / "ds").mkdir()
    (tmp_path / "ds" / "dataset_dict.json").write_text("{}")
    with pytest.raises(BadSource, match="splits"):
        AuditedSets(AuditExperiment(train=str(tmp_path / "ds"), generated="digits"))


def test_the_job_lists_itself():
    assert (ROOT / "jobs" / "audit.py").exists()
    from regimes.jobs.__main__ import names

    assert "audit" in names()
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
