"""The generate job: EDM's images from EDM's files, in every format, by any number of replicas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from job_runs import ROOT, finish, run_job, start_job
from PIL import Image
from sklearn.datasets import load_digits

from regimes.images.sources import load_images, open_source
from regimes.jobs import generate

EDM = ROOT / "tests" / "data" / "edm"


def options_of(output: Path, model: str) -> tuple[str, ...]:
    path = model if "/" in model or ":" in model else str(EDM / f"{model}.pkl")
    return "--model", path, "--output", str(output), "--cpus", "2"


def job(output: Path, *options: str, model: str, expect: int = 0) -> str:
    return run_job("generate", *options_of(output, model), *options, expect=expect)


def flags(sampler: dict[str, float]) -> list[str]:
    """EDM's sampler options as the job's flags."""
    return [t for k, v in sampler.items() for t in (f"--{k.lower().replace('_', '-')}", str(v))]


CASE = 1  # with churn


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """Samples of the conditional network for its reference seeds, by (replicas, batch size)."""
    about = json.loads((EDM / "adm-edm-cond.json").read_text())["cases"][CASE]
    seeds = ("--seeds", ",".join(map(str, about["seeds"])), "--format", "npz", "--float")
    results = {}
    for replicas, batch in ((1, 2), (2, 2), (2, 3)):
        output = tmp_path_factory.mktemp(f"conditional-{replicas}-{batch}")
        how = ("--replicas", str(replicas), "--batch-size", str(batch))
        text = job(output, *seeds, *how, *flags(about["sampler"]), model="adm-edm-cond")
        assert "4 seeds: 0 units kept, 2 made" in text
        with np.load(output / "samples.npz") as arrays:
            results[replicas, batch] = dict(arrays)
    return about["seeds"], results


def test_images_are_those_of_the_original_code(conditional):
    """Of all four networks, without the job: tests/checkpoints/test_edm_networks.py."""
    seeds, results = conditional
    expected, found = np.load(EDM / "adm-edm-cond.npz"), results[2, 3]
    assert found["seeds"].tolist() == seeds
    assert (found["images"].dtype, found["samples"].dtype) == (np.uint8, np.float64)
    reference = expected[f"images_{CASE}"]
    assert found["samples"].shape == reference.shape
    assert np.abs(found["samples"] - reference).max() <= 1e-4 * np.abs(reference).max()
    levels = np.clip(reference * 127.5 + 128, 0, 255)
    near_a_step = np.abs(levels - np.round(levels)) < 1e-3
    levels = levels.astype(np.uint8)
    same = (found["images"].transpose(0, 3, 1, 2) == levels) | near_a_step
    assert same.all()
    labels = expected[f"class_labels_{CASE}"].argmax(1)
    assert found["labels"].tolist() == labels.tolist()


def test_images_depend_on_neither_replicas_nor_the_batch(conditional):
    _, results = conditional
    one, two, other = results[1, 2], results[2, 2], results[2, 3]
    for key in ("images", "samples", "labels"):
        np.testing.assert_array_equal(one[key], two[key])
    difference = np.abs(other["samples"] - one["samples"]).max()
    assert difference <= 1e-5 * np.abs(one["samples"]).max()
    assert np.abs(other["images"].astype(int) - one["images"]).max() <= 1


def test_formats_hold_the_same_images_and_a_second_run_computes_nothing(tmp_path):
    common = ("--max-images", "5", "--seeds", "3,998-1001", "--num-steps", "4")

    def run(*options: str) -> str:
        return job(tmp_path / "out", *common, *options, model="empirical:digits")

    made = job(tmp_path / "out", *common, "--subdirs", model="empirical:digits")
    assert "5 seeds: 0 units kept, 1 made" in made
    names = sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.glob("out/0*/*.png")
    )
    assert names == [
        *("000000/000003.png", "000000/000998.png", "000000/000999.png"),
        *("001000/001000.png", "001000/001001.png"),
    ]
    assert "complete: nothing to compute; 5 images" in run("--subdirs")
    damaged = tmp_path / "out" / names[1]
    content = damaged.read_bytes()
    damaged.write_bytes(b"")
    text = job(tmp_path / "out", *common, "--subdirs", model="empirical:digits", expect=1)
    assert names[1] in text
    assert len(text.strip().splitlines()) == 1
    damaged.write_bytes(content)
    with Image.open(tmp_path / "out" / names[0]) as png:
        assert png.size == (8, 8)
    assert "1 unit kept, 0 made" in run("--format", "npz")
    assert "1 unit kept, 0 made" in run("--format", "parquet")
    arrays = np.load(tmp_path / "out" / "samples.npz")
    assert sorted(arrays.files) == ["images", "seeds"]
    for name, image in zip(names, arrays["images"], strict=True):
        with Image.open(tmp_path / "out" / name) as png:
            np.testing.assert_array_equal(np.asarray(png), image[:, :, 0])
    table = pq.read_table(tmp_path / "out" / "samples.parquet")
    assert table["id"].to_pylist() == arrays["seeds"].tolist()
    ids, images, _ = load_images(open_source(str(tmp_path / "out" / "samples.parquet")))
    assert list(map(int, ids)) == arrays["seeds"].tolist()
    np.testing.assert_array_equal(images, arrays["images"])
    # At sigma = .002 the empirical denoiser returns a training image: the first five digits.
    train = {
        np.floor(i / 16 * 255 + 0.5).astype(np.uint8).tobytes() for i in load_digits().images[:5]
    }
    assert {image.tobytes() for image in arrays["images"]} <= train
    other = (*common[:-1], "5")
    error = job(tmp_path / "out", *other, model="empirical:digits", expect=1)
    assert "holds samples of another configuration" in error


def test_folder_never_mixes_two_exports(tmp_path):
    options = ("--max-images", "4", "--num-steps", "2")

    def pngs() -> list[str]:
        return sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png"))

    job(tmp_path, *options, "--seeds", "0-5", model="empirical:digits")
    assert len(pngs()) == 6
    job(tmp_path, *options, "--seeds", "0-5", "--subdirs", model="empirical:digits")
    assert pngs() == [f"000000/{seed:06d}.png" for seed in range(6)]
    job(tmp_path, *options, "--seeds", "0-2", "--no-resume", model="wiener:digits")
    assert pngs() == ["000000.png", "000001.png", "000002.png"]
    (tmp_path / "manifest.json").unlink()  # as after a kill in the middle of an export
    error = job(tmp_path, *options, "--seeds", "0-1", model="wiener:digits", expect=1)
    assert "another configuration (seeds.ranges [0, 2], now [0, 1]); choose" in error


def test_images_of_others_are_never_replaced(tmp_path):
    (tmp_path / "000007.png").write_bytes(b"mine")
    options = ("--max-images", "4", "--seeds", "0-1", "--num-steps", "2", "--no-resume")
    text = job(tmp_path, *options, model="empirical:digits", expect=1)
    assert "holds 1 image that this job did not write (000007.png)" in text
    assert (tmp_path / "000007.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--model: expected a checkpoint"),
        (["--model", "nothing-here.pkl"], "nothing-here.pkl: cannot be read"),
        (
            ["--model", "winer:digits"],
            "winer:digits: neither a file or folder nor one of empirical:, ",
        ),
        (["--model", str(ROOT / "README.md")], "README.md"),
        (["--model", str(ROOT / "tests")], "expected a folder saved by a diffusers pipeline"),
        (["--model", "empirical:nowhere"], "nowhere: no such file or folder"),
        (["--model", "wiener:digits", "--max-images", "1798"], "expected 1 to 1797"),
        (["--model", "x.pkl", "--max-images", "3"], "--max-images"),
        (["--model", "x.pkl", "--seeds", "5-1"], "expected ascending ranges"),
        (["--model", str(EDM / "ddpmpp-vp-uncond.pkl"), "--float"], "PNG files hold no floats"),
        (["--model", "x.pkl", "--format", "npz", "--subdirs"], "--subdirs"),
        (["--model", "x.pkl", "--batch-size", "0"], "--batch-size"),
        (["--model", "x.pkl", "--num-steps", "0"], "num_steps"),
        (["--model", "x.pkl", "--s-churn", "-1"], "s_churn"),
        (["--model", "x.pkl", "--replicas", "0"], "--replicas"),
        (["--model", "x.pkl", "--gpus-per-replica", "1.5"], "or a whole number of GPUs; got 1.5"),
        (["--model", "x.pkl", "--gpus-per-replica", "2", "--device", "cpu"], "with --device cpu"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, capsys, options, words):
    assert generate.main([*options, "--output", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert len(captured.err.strip().splitlines()) == 1
    assert words in captured.err


@pytest.mark.parametrize("job", ["memorization", "jacobian", "diverse", "audit", "spectrum"])
def test_jobs_that_spread_no_model_refuse_several_gpus_per_replica(job):
    text = run_job(job, "--gpus-per-replica", "2", "--dry-run", expect=1)
    assert text.startswith("error: --gpus-per-replica: expected a share in (0, 1]; only generate")
    assert len(text.strip().splitlines()) == 1


def test_several_gpus_are_not_waited_for_on_a_machine_without(tmp_path):
    several = ("--gpus-per-replica", "999", "--num-steps", "2")
    text = finish(start_job("generate", *options_of(tmp_path, "ddpmpp-vp-uncond"), *several), 1)
    assert "error: --gpus-per-replica 999: expected a machine with 999 GPUs, found" in text


def test_dry_run_tells_the_cost_and_leaves_nothing(tmp_path, capsys):
    options = ["--model", str(EDM / "adm-edm-cond.pkl"), "--seeds", "0-49999", "--dry-run"]
    assert generate.main([*options, "--output", str(tmp_path / "new")]) == 0
    text = capsys.readouterr().out
    assert "828,003 parameters" in text
    assert "not counted" in text
    assert "50,000 images 16x16x3, 35 evaluations each" in text
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("model", "asked", "words"),
    [
        (str(EDM / "adm-edm-cond.pkl"), "99", "class_index: expected 0 to "),
        (str(EDM / "ddpmpp-vp-uncond.pkl"), "0", "class_index: the model is unconditional, got 0"),
        ("gmm:digits", "99", "--class 99: expected a class of the mixture"),
    ],
)
def test_dry_run_refuses_a_class_that_a_model_does_not_have(tmp_path, capsys, model, asked, words):
    options = ["--model", model, "--class", asked, "--n", "4", "--dry-run"]
    assert generate.main([*options, "--output", str(tmp_path / "new")]) == 1
    assert words in capsys.readouterr().err


def test_sampling_a_hostile_file_executes_nothing(tmp_path):
    (tmp_path / "evil.pkl").write_bytes(
        b"cos\nsystem\n(S'touch " + str(tmp_path / "x").encode() + b"'\ntR."
    )
    text = job(tmp_path / "out", model=str(tmp_path / "evil.pkl"), expect=1)
    assert "os.system" in text or "posix.system" in text
    assert not (tmp_path / "x").exists()
