"""The spectrum job: digits with a trained model, resumed; images alone; published files; wrong input."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from job_runs import check_comparison, counts, run_job
from made_networks import save_script

from regimes.errors import ConfigError
from regimes.images.sources import load_images, open_source
from regimes.images.split import Split
from regimes.jobs.spectrum import _main, _of_class, _without_classes
from regimes.jobs.support import console
from regimes.jobs.support.console import RunOptions
from regimes.jobs.support.spectrum.experiment import PIXELS, SpectrumExperiment, SpectrumSets
from regimes.jobs.support.spectrum.results import Measured
from regimes.samplers.config import SamplerConfig
from regimes.spectra.files import read_spectrum
from regimes.spectra.rows import Rows
from regimes.storage.artifacts import Store

SMALL = ("--num-images", "150", "--splits", "39", "--control", "39", "--principal", "2")


class Blocks(torch.nn.Module):
    """(B, 3, 6, 6) in [0, 1] -> (B, 9): means of blocks of 2 x 2, of the first channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x[:, :1], 2).flatten(1)


def job(output, *options, expect=0, name="a"):
    return run_job(
        "spectrum",
        "--output",
        str(output),
        "--name",
        name,
        "--cpus",
        "2",
        *SMALL,
        *options,
        expect=expect,
    )


def scores(output, name="a"):
    return json.loads((output / "spectrum" / name / "scores.json").read_text())


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spectrum")
    text = job(folder, "--steps", "40", "--width", "16")
    assert "w16-n898-A on 898 images: trained" in text
    return folder


def test_digits_are_compared_with_a_model_trained_for_it(output):
    found = scores(output)
    sets = {row["set"]: row for row in found["scores"]}
    assert set(sets) == {"trained", "mixture", "mixture, as images"}
    assert sets["trained"]["differs"] is True  # 40 steps of training
    assert {row["num_rows"] for row in sets.values()} == {150}
    assert [row["set"] for row in found["control"]] == ["mixture"]
    assert found["quantisation"]["clipped"] > 0.1
    folder = output / "spectrum" / "a"
    spectrum, about = read_spectrum(folder / "spectra" / "real.npz")
    assert (spectrum.num_rows, spectrum.width, about["rows"]) == (150, 64, "pixels in [0, 1]")
    _, images, _ = load_images(open_source("digits"))
    with np.load(folder / "principal" / "real.npz") as principal:
        x = images.reshape(len(images), -1) / 255
        assert principal["mean"] == pytest.approx(x.mean(0))
        values = np.linalg.eigvalsh(np.cov(x, rowvar=False))[::-1]
        assert principal["eigenvalues"] == pytest.approx(values[:2], rel=1e-6)
        assert principal["explained"] == pytest.approx(values[:2] / values.sum(), rel=1e-6)
    assert (folder / "report.html").stat().st_size > 50_000
    check_comparison(output, "spectrum")


def test_it_resumes(output):
    again = job(output, "--steps", "40", "--width", "16")
    assert "complete: nothing to compute" in again
    other = job(output, "--steps", "40", "--width", "16", "--normalisation", "per-image", name="b")
    assert "w16-n898-A on 898 images: kept" in other
    assert counts(other, "sample") == (1, 0)
    refused = job(output, "--steps", "41", "--width", "16", expect=1)
    assert "holds results of another configuration" in refused


def test_a_dry_run_says_what_would_be_done_and_makes_nothing(tmp_path):
    text = job(tmp_path / "out", "--dry-run")
    assert "compare   150 images of each, 156 spectra of side 64" in text
    assert "not counted" in text
    assert "trained: w128-n898-A, 150 samples, to be sampled" in text
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, count, side in (("real", 120, 6), ("made", 70, 6), ("large", 70, 7)):
        x = rng.integers(0, 256, (count, side, side, 1), dtype=np.uint8)
        np.savez(folder / f"{name}.npz", images=x, labels=np.arange(count) % 2)
    return folder


def test_sets_of_images_by_class_and_published_files(images, tmp_path):
    options = (
        "--real",
        str(images / "real.npz"),
        "--sets",
        str(images / "made.npz"),
        "--num-images",
        "30",
    )
    first = (*options, "--normalisation", "raw", "--published-names", "--per-class")
    text = job(tmp_path, *first, "--mixture.by", "class")
    assert "compare   3 groups, 9 comparisons" in text
    found = scores(tmp_path)
    assert {row["group"] for row in found["scores"]} == {"all images", "class 0", "class 1"}
    folder = tmp_path / "spectrum" / "a" / "published"
    with np.load(images / "made.npz") as arrays:
        x = arrays["images"][:30].reshape(30, -1) / 255
    values = np.load(folder / "made_n30_gramian_eigenvalues.npy")
    assert values == pytest.approx(np.linalg.svd(x, compute_uv=False) ** 2)
    assert np.load(folder / "made_p2_n30_norms.npy") == pytest.approx(np.linalg.norm(x, axis=1))
    # What was written is read, and compared.
    file = str(folder / "made_n30_gramian_eigenvalues.npy")
    job(tmp_path, *options, "--normalisation", "raw", "--spectra", file, name="b")
    names = [row["set"] for row in scores(tmp_path, "b")["scores"]]
    assert names[:2] == ["made_n30_gramian_eigenvalues", "made"]
    refused = job(tmp_path, *options, "--spectra", file, expect=1, name="c")
    assert "of 30 images, raw; expected 30 images, covariance" in refused


def test_classifiers_are_trained_on_every_set(images, tmp_path):
    options = (
        "--real",
        str(images / "real.npz"),
        "--sets",
        str(images / "made.npz"),
        "--num-images",
        "60",
    )
    text = job(tmp_path, *options, "--classifier-sizes", "5", "20", "--control", "0")
    found = scores(tmp_path)["classifiers"]
    assert {row["source"] for row in found if "source" in row} >= {"real", "made", "mixture"}
    assert any("classif" in sentence for sentence in scores(tmp_path)["answer"])
    assert "classify" in text
    figures = tmp_path / "spectrum" / "a" / "figures"
    assert len(list(figures.glob("*.png"))) == 7
    unlabelled = images / "plain.npy"
    np.save(unlabelled, np.random.default_rng(1).integers(0, 256, (60, 6, 6, 1), dtype=np.uint8))
    refused = job(
        tmp_path, "--real", str(unlabelled), "--sets", "--classifier-sizes", "5", expect=1, name="b"
    )
    assert "--classifier-sizes" in refused


def test_features_of_a_network_are_compared_as_the_network_gives_them(images, tmp_path):
    path = save_script(Blocks(), tmp_path / "blocks.pt")
    options = (
        "--real",
        str(images / "real.npz"),
        "--sets",
        str(images / "made.npz"),
        "--num-images",
        "60",
    )
    descriptor = (
        "--descriptor",
        f"torchscript:{path}",
        "--resize",
        "skew-6",
        "--mean",
        "0",
        "0",
        "0",
        "--std",
        "1",
        "1",
        "1",
    )
    job(tmp_path, *options, *descriptor, "--normalisation", "raw")
    spectrum, about = read_spectrum(tmp_path / "spectrum" / "a" / "spectra" / "real.npz")
    assert spectrum.width == 9
    assert "as the network gives them" in about["rows"]
    with np.load(images / "real.npz") as arrays:
        x = arrays["images"].astype(np.float64)
    blocks = x.reshape(120, 3, 2, 3, 2, 1).mean((2, 4, 5)).reshape(120, 9)
    chosen = Split(num_images=120, seed=0).indices("B")[:60]
    ratio = spectrum.values / (np.linalg.svd(blocks[chosen], compute_uv=False) ** 2)
    assert ratio == pytest.approx(np.full(9, ratio[0]), rel=1e-4)  # the network's scale of pixels
    assert {row["set"] for row in scores(tmp_path)["scores"]} == {"made", "mixture"}


def samplers(*options):
    """How the sets of models are sampled, by name."""
    found = console.read_options(
        list(options), [SpectrumExperiment(), PIXELS, RunOptions()], job="spectrum", about=""
    )
    return {n: r.sampler for n, r in SpectrumSets(Store("memory://r"), found[0]).models.items()}


def test_the_levels_of_the_small_network_are_its_own_and_not_those_of_other_models():
    models = ("--sets", "trained", "wiener:digits", "--names", "small", "other")
    plain = samplers(*models)
    assert plain["other"] == SamplerConfig()
    assert plain["small"] == SamplerConfig(sigma_min=0.02, sigma_max=20.0)
    given = samplers(*models, "--sampler.sigma-max", "5")
    assert {s.sigma_max for s in given.values()} == {5.0}
    assert given["small"].sigma_min == 0.02


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--seeds", "0-9"), "--seeds, --sampler: no set is a model"),
        (("--sampler.num-steps", "9"), "--seeds, --sampler: no set is a model"),
        (("--steps", "9"), "--steps: nothing is trained here"),
        (("--width", "9"), "--width: nothing is trained here"),
        (("--principal", "0", "--solver", "lanczos"), "--solver: no principal images"),
        (("--no-with-mixture", "--control", "99"), "--control: no mixture is fitted"),
    ],
)
def test_options_that_would_change_nothing_are_refused(images, tmp_path, options, text):
    given = ["--real", str(images / "real.npz"), "--sets", str(images / "made.npz"), *options]
    with pytest.raises(ConfigError, match=text):
        _main([*given, "--dry-run", "--output", str(tmp_path)])
    assert not any(tmp_path.iterdir())


def test_spectra_of_another_run_have_names_of_their_own():
    saved = ("run/spectra/real.npz", "run/spectra/mixture-as-images.npz", "run/b.npz")
    usual = SpectrumExperiment(sets=("a.npz",), spectra=saved)
    assert usual.set_names == ("a", "saved real", "saved mixture-as-images", "b")
    assert SpectrumExperiment(sets=("x/b.npz",), spectra=saved[2:]).set_names == ("x-b", "run-b")
    named = SpectrumExperiment(sets=("a.npz",), spectra=saved[:1], names=("one", "two"))
    assert named.set_names == ("one", "two")
    for taken in ("real", "real, other half", "mixture-as-images"):
        with pytest.raises(ConfigError, match=f"--names {taken}: taken by the study"):
            SpectrumExperiment(sets=("a.npz",), names=(taken,))


def test_sets_without_a_class_are_named():
    values = np.random.default_rng(0).standard_normal((60, 3))
    rows = {name: Rows(values=values) for name in ("real", "some", "plain")}
    measured = Measured(
        rows=rows,
        labels={"real": np.arange(60) % 3, "some": np.arange(60) % 2, "plain": None},
        where={},
        what="features",
        shape=None,
        notes=[],
        saved={},
    )
    assert _without_classes(measured, SpectrumExperiment(per_class=True)) == [
        "Without classes, and so not among single classes: plain."
    ]
    assert _without_classes(measured, SpectrumExperiment()) == []
    assert [len(r) for r in _of_class(measured, 1).values()] == [20, 30]
    with pytest.raises(ConfigError, match="--per-class: some has no image of class 2"):
        _of_class(measured, 2)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--sets", "{images}/large.npz"), "--sets {images}/large.npz: images of shape (7, 7, 1)"),
        (("--real", "{images}/nothing", "--sets", "{images}/made.npz"), "nothing: no such file"),
        (("--descriptor", "whitened-pixels"), "--descriptor whitened-pixels: whitening takes away"),
        (("--splits", "5"), "--splits: expected at least 39"),
        (("--sets", "{images}/made.npz", "--names", "real"), "--names real: taken by the study"),
        (("--sets", "gmm:digits"), "gmm:digits: draws images by itself"),
        (("--no-with-mixture", "--mixture.components", "3"), "--mixture: no mixture is fitted"),
        (("--spectra", "{images}/made.npz"), "made.npz: expected a spectrum"),
    ],
)
def test_wrong_input_is_named_in_one_line(images, tmp_path, options, text):
    given = [o.format(images=images) for o in options]
    real = () if "--real" in given else ("--real", str(images / "real.npz"))
    said = job(tmp_path, *real, *given, expect=1)
    line = next(line for line in said.splitlines() if line.startswith("error: "))
    assert text.format(images=images) in line
