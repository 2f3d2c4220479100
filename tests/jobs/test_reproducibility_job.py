"""The reproducibility job: planted agreement is found, reruns compute nothing, errors are one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import made_networks
import numpy as np
import pyarrow.parquet as pq
import pytest
from job_runs import ROOT, check_comparison, run_job
from PIL import Image

from regimes.jobs import reproducibility

N = 30


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (N, 8, 8, 3), np.uint8)


def write_folder(path: Path, images: np.ndarray, seeds: range | list[int] | None = None) -> str:
    path.mkdir(parents=True)
    for seed, image in zip(range(len(images)) if seeds is None else seeds, images):
        Image.fromarray(image).save(path / f"{seed:06d}.png")
    return str(path)


def planted(images: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Other images, but slightly noisy copies of the first ``share`` of them."""
    rng = np.random.default_rng(seed)
    other = rng.integers(0, 256, images.shape, np.uint8)
    same = round(share * len(images))
    noisy = images[:same].astype(int) + rng.integers(-5, 6, images[:same].shape)
    other[:same] = np.clip(noisy, 0, 255)
    return other


@pytest.fixture
def sets(tmp_path: Path, images: np.ndarray) -> list[str]:
    """The same images as a folder and, in another order, as an array; and a set that agrees in half."""
    order = np.random.default_rng(1).permutation(N)
    np.savez(tmp_path / "copy.npz", images=images[order], seeds=order)
    return [
        write_folder(tmp_path / "edm", images),
        str(tmp_path / "copy.npz"),
        write_folder(tmp_path / "half", planted(images, 0.5, 2)),
    ]


def run(tmp: Path, *options: str) -> int:
    return reproducibility.main(["--output", str(tmp / "out"), "--name", "run", *options])


def results(tmp: Path) -> Path:
    return tmp / "out" / "reproducibility" / "run"


def scores(tmp: Path) -> dict:
    return json.loads((results(tmp) / "scores.json").read_text())


def test_planted_agreement_is_found_and_written_for_people_and_programs(tmp_path, sets, capsys):
    assert run(tmp_path, "--sets", *sets) == 0
    found = scores(tmp_path)
    assert (found["names"], found["num_seeds"]) == (["edm", "copy", "half"], N)
    for name in ("rp", "mae_score"):
        np.testing.assert_allclose(
            found["matrices"][name], [[1, 1, 0.5], [1, 1, 0.5], [0.5, 0.5, 1]]
        )
    assert found["null"] == {"couples_per_pair": N * (N - 1), "exact": True}
    table = pq.read_table(results(tmp_path) / "scores.parquet").to_pylist()
    assert table == found["scores"]
    names = {p.relative_to(results(tmp_path)).as_posix() for p in results(tmp_path).rglob("*.*")}
    drawn = ("rp", "rp-calibrated", "mae", "similarity", "same-noise")
    assert {f"figures/{d}.{kind}" for d in drawn for kind in ("png", "pdf")} <= names
    assert {"report.html", "config.json"} <= names
    assert found["answer"][0] in capsys.readouterr().out
    report = (results(tmp_path) / "report.html").read_text()
    assert f"--sets {' '.join(sets)}" in report
    check_comparison(tmp_path / "out", "reproducibility")
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


def test_a_second_run_computes_nothing_and_another_configuration_is_refused(tmp_path, sets, capsys):
    run(tmp_path, "--sets", *sets)
    before = {p: p.read_bytes() for p in results(tmp_path).rglob("*.*")}
    capsys.readouterr()
    assert run(tmp_path, "--sets", *sets) == 0
    assert capsys.readouterr().out.startswith("complete: nothing to compute")
    assert run(tmp_path, "--sets", *sets, "--threshold", "0.7") == 1
    assert "another configuration (threshold 0.6, now 0.7); choose" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in results(tmp_path).rglob("*.*")} == before
    assert run(tmp_path, "--sets", *sets, "--no-resume") == 0
    assert {p: p.read_bytes() for p in results(tmp_path).rglob("*.*")} == before


def test_a_changed_image_is_noticed(tmp_path, sets, images, capsys):
    run(tmp_path, "--sets", *sets)
    Image.fromarray(255 - images[0]).save(Path(sets[0]) / "000000.png")
    assert run(tmp_path, "--sets", *sets) == 1
    assert (
        "another configuration (what it rests on has another content or version)"
        in capsys.readouterr().err
    )


def test_seeds_are_joined_and_missing_ones_listed_or_counted(tmp_path, images, capsys):
    first = write_folder(tmp_path / "a", images)
    second = write_folder(tmp_path / "b", images[3:], range(3, N))
    assert run(tmp_path, "--sets", first, second) == 1
    assert "b lacks 3 (0, 1, 2); 27 are in all sets" in capsys.readouterr().err
    assert run(tmp_path, "--sets", first, second, "--allow-partial") == 0
    assert "left out  a: 3 images" in capsys.readouterr().err
    found = scores(tmp_path)
    assert (found["num_seeds"], found["left_out"]) == (27, {"a": 3, "b": 0})
    assert found["matrices"]["rp"][0][1] == 1.0


def test_seeds_choose_images(tmp_path, sets):
    assert run(tmp_path, "--sets", *sets, "--seeds", "15-29") == 0
    found = scores(tmp_path)
    assert found["num_seeds"] == 15
    np.testing.assert_allclose(found["matrices"]["rp"], [[1, 1, 0], [1, 1, 0], [0, 0, 1]])


def test_images_of_other_sizes_and_channels_are_converted_on_request(tmp_path, images, capsys):
    gray = images.mean(3).astype(np.uint8)
    large = gray.repeat(2, 1).repeat(2, 2)
    a, b = write_folder(tmp_path / "a", images), write_folder(tmp_path / "b", large)
    assert run(tmp_path, "--sets", a, b) == 1
    assert "a has images of 8x8 RGB, b of 16x16 gray" in capsys.readouterr().err
    options = ("--sets", a, b, "--image-size", "8", "--channels", "1", "--descriptor", "pixels")
    assert run(tmp_path, *options) == 0
    assert scores(tmp_path)["matrices"]["rp"][0][1] > 0.9  # the same images, differently reduced


def test_whitening_can_be_fitted_to_real_images(tmp_path, sets, images):
    real = np.random.default_rng(9).integers(0, 256, (200, 8, 8, 3), np.uint8)
    np.save(tmp_path / "real.npy", real)
    assert run(tmp_path, "--sets", *sets, "--fit", str(tmp_path / "real.npy")) == 0
    found = scores(tmp_path)
    assert "fitted to 200 images of" in found["descriptor"]
    assert found["matrices"]["rp"][0][1] == 1.0


def test_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path, sets, capsys):
    assert run(tmp_path, "--sets", *sets, "--dry-run") == 0
    text = capsys.readouterr().out
    assert "3 pairs, up to 30 seeds" in text
    assert "all 870 couples" in text
    assert "not counted" in text
    assert not (tmp_path / "out").exists()


def test_models_are_sampled_and_compared_with_published_samples(tmp_path):
    """The empirical denoiser of 8 images makes those images, in this process and in Ray's."""
    import torch

    from regimes.denoisers.closed_form import EmpiricalDenoiser
    from regimes.images.pixels import to_float, to_uint8
    from regimes.samplers.edm import SamplerConfig, sample_seeds

    train = np.random.default_rng(3).integers(0, 256, (8, 4, 4, 1), np.uint8)
    np.save(tmp_path / "train.npy", train)
    torch.set_num_threads(1)
    config = SamplerConfig(num_steps=6)
    x = sample_seeds(EmpiricalDenoiser(to_float(train)), list(range(12)), (1, 4, 4), config=config)
    folder = write_folder(tmp_path / "made", to_uint8(x)[..., 0])
    model = f"empirical:{tmp_path / 'train.npy'}"
    options = ("--output", str(tmp_path / "out"), "--name", "run", "--cpus", "1", "--sets", folder)
    options += (model, "--seeds", "0-11", "--sampler.num-steps", "6")
    text = run_job("reproducibility", *options)
    assert "sample    1 model: 0 units kept, 1 made" in text
    assert scores(tmp_path)["matrices"]["mae_score"][0][1] == 1.0
    assert "complete" in run_job("reproducibility", *options)


def test_a_network_describes_and_is_centred_on_request(tmp_path, sets, capsys):
    """Class scores of random weights are alike for all images, until their mean is taken off."""
    made_networks.tiny_script(tmp_path / "tiny.pt")
    network = ("--descriptor", f"torchscript:{tmp_path / 'tiny.pt'}", "--resize", "skew-16")
    assert run(tmp_path, "--sets", *sets, *network) == 0
    plain = scores(tmp_path)
    assert "skew-16 output weights:" in plain["descriptor"]
    assert run(tmp_path, "--sets", *sets, *network, "--centre") == 1
    assert "another configuration" in capsys.readouterr().err
    assert run(tmp_path, "--sets", *sets, *network, "--centre", "--no-resume") == 0
    centred = scores(tmp_path)
    assert "minus the mean of 30 samples of each set" in centred["descriptor"]
    null = [[r["null"] for r in s["scores"] if r["score"] == "rp"] for s in (plain, centred)]
    assert min(null[0]) > 0.95
    assert max(null[1]) < 0.5


BAD = [
    (lambda t, s: [], "--sets: expected two sample sets or more, got 0"),
    (lambda t, s: ["--sets", s[0]], "two sample sets or more, got 1"),
    (lambda t, s: ["--sets", s[0], str(t / "no")], "no such file or folder"),
    (lambda t, s: ["--sets", s[0], str(t / "no.pkl")], "no.pkl: cannot be read"),
    (lambda t, s: ["--sets", *s, "--names", "a"], "--names: expected 3, one per set, got 1"),
    (lambda t, s: ["--sets", *s, "--threshold", "1.5"], "--threshold: expected"),
    (lambda t, s: ["--sets", *s, "--mae-threshold", "0"], "--mae-threshold: expected"),
    (lambda t, s: ["--sets", *s, "--calibration-quantile", "1"], "--calibration-quantile"),
    (lambda t, s: ["--sets", *s, "--ridge", "0"], "--ridge"),
    (lambda t, s: ["--sets", *s, "--image-size", "0"], "--image-size"),
    (lambda t, s: ["--sets", *s, "--sampler.num-steps", "3"], "--sampler: no set is a model"),
    (lambda t, s: ["--sets", *s, "--fit", "digits"], "--fit digits: images of shape (8, 8, 1)"),
    (lambda t, s: ["--sets", *s, "--descriptor", "pixels", "--fit", "digits"], "--fit: pixels is"),
    (lambda t, s: ["--sets", *s, "--descriptor", "pixels", "--ridge", "1"], "--ridge: pixels is"),
    (lambda t, s: ["--sets", *s, "--centre"], "--centre: whitened-pixels needs no centre"),
    (lambda t, s: ["--sets", *s, "--weights", "w.pt"], "--weights: whitened-pixels is no network"),
    (lambda t, s: ["--sets", *s, "--descriptor", "sscd"], "--descriptor sscd: expected one of"),
    (lambda t, s: ["--sets", s[0], "wiener:digits"], "sampled for --seeds"),
    (lambda t, s: ["--sets", s[0], "digits", "--channels", "1"], "0 are in all sets"),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_bad_input_is_one_line(make, words, tmp_path, sets, capsys):
    assert run(tmp_path, *make(tmp_path, sets)) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert words in error
    assert not results(tmp_path).exists()


def test_images_that_are_all_equal_cannot_be_whitened(tmp_path, capsys):
    black = np.zeros((4, 8, 8), np.uint8)
    sets = [write_folder(tmp_path / name, black) for name in "ab"]
    assert run(tmp_path, "--sets", *sets) == 1
    assert "cannot whiten images that are all equal" in capsys.readouterr().err


def test_images_too_large_to_whiten_are_refused_with_the_remedy(tmp_path, capsys):
    large = np.random.default_rng(0).integers(0, 256, (3, 128, 128), np.uint8)
    sets = [write_folder(tmp_path / name, large) for name in "ab"]
    assert run(tmp_path, "--sets", *sets) == 1
    assert "--descriptor pixels" in capsys.readouterr().err
    assert run(tmp_path, "--sets", *sets, "--descriptor", "pixels") == 0


def test_the_job_lists_itself():
    assert (ROOT / "jobs" / "reproducibility.py").exists()
    from regimes.jobs.__main__ import names

    assert "reproducibility" in names()
