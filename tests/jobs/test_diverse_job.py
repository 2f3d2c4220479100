"""The study of diverse samples as a user runs it: planted novelty, nulls, formats, bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from audited_sets import smooth_images
from job_runs import ROOT, check_comparison, run_job
from PIL import Image
from scipy.spatial import ConvexHull
from scipy.stats import betabinom
from shapely.geometry import Point, Polygon
from sklearn.manifold import TSNE

from regimes.descriptors.pixels import Pixels
from regimes.images.writing import encode_png
from regimes.jobs import diverse
from regimes.jobs.support.diverse.experiment import DiverseExperiment, OpenDiverseSets
from regimes.jobs.support.diverse.results import default_name, file_names, image_folders
from regimes.scores.result import wilson_interval

REAL, HELDOUT = smooth_images(400, 1), smooth_images(200, 2)
NOTHING = "no more than chance: no evidence of anything new"


def half_new(count=300, seed=4):
    """The first half is like the real images, the second is noise: far, but not beyond all gates."""
    images = smooth_images(count, seed)
    noise = np.random.default_rng(seed).standard_normal(images[count // 2 :].shape)
    images[count // 2 :] = np.clip(128 + 60 * noise, 0, 255)
    return images


def save(path: Path, images: np.ndarray) -> str:
    np.save(path, images)
    return str(path)


def write_folder(path: Path, images: np.ndarray) -> str:
    path.mkdir(parents=True)
    for number, image in enumerate(images):
        (path / f"{number:06d}.png").write_bytes(encode_png(image))
    return str(path)


def run(tmp: Path, *options: str) -> int:
    return diverse.main(["--output", str(tmp / "out"), "--name", "run", "--cpus", "1", *options])


def results(tmp: Path) -> Path:
    return tmp / "out" / "diverse" / "run"


def scores(tmp: Path) -> dict:
    return json.loads((results(tmp) / "scores.json").read_text())


def table(tmp: Path) -> dict[tuple[str, str], dict]:
    rows = pq.read_table(results(tmp) / "metrics.parquet").to_pylist()
    return {(row["set"], row["rule"]): row for row in rows}


def images(tmp: Path, name: str) -> dict[str, np.ndarray]:
    rows = pq.read_table(results(tmp) / "scores.parquet").to_pandas()
    rows = rows[rows["set"] == name]
    return {column: rows[column].to_numpy() for column in rows}


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """One study of two sets: real-like images alone, and with as many new ones."""
    tmp = tmp_path_factory.mktemp("planted")
    options = [
        "--real", save(tmp / "real.npy", REAL), "--heldout", save(tmp / "heldout.npy", HELDOUT),
        "--generated", save(tmp / "same.npy", smooth_images(300, 3)),
        write_folder(tmp / "half", half_new()), "--rule", "calibrated", "knn", "pca-hull",
        "--descriptor", "pixels",
    ]  # fmt: skip
    (tmp / "options.json").write_text(json.dumps(options))
    assert run(tmp, *options) == 0
    return tmp


def test_planted_novelty_is_found_and_the_rest_at_the_rate_of_real_images(planted):
    """The 150 new images, and of the 150 others 5% within Wilson's interval."""
    found = images(planted, "half")
    assert found["id"].tolist() == [f"{i:06d}.png" for i in range(300)]
    for rule in ("calibrated", "knn"):
        selected = found[f"selected_{rule}"]
        assert selected[150:].all()
        null = table(planted)["half", rule]["null"]
        low, high = wilson_interval(int(selected[:150].sum()), 150)
        assert low < null < high
        assert table(planted)["half", rule]["verdict"] == "more than chance"
    row = table(planted)["half", "calibrated"]
    assert row["low"] < 0.5 + 0.05 / 2 < row["high"]
    assert found["plausible"].all()
    assert not found["copy"].any()
    check_comparison(planted / "out", "diverse")


def test_images_that_are_like_the_real_ones_are_no_evidence(planted):
    """The number selected is between the 1% and the 99% quantile of what calibration predicts."""
    for rule in ("calibrated", "knn", "pca-hull"):
        row = table(planted)["same", rule]
        assert not row["exceeds_null"]
        assert row["verdict"] == NOTHING
    row = table(planted)["same", "calibrated"]
    assert betabinom.ppf(0.01, 300, 10, 191) <= row["count"] <= betabinom.ppf(0.99, 300, 10, 191)
    assert row["low"] < 0.05 < row["high"]


def test_nearest_real_images_are_those_of_the_descriptor(planted):
    found = images(planted, "half")
    rows, real = Pixels()(half_new()), Pixels()(REAL)
    best = (rows @ real.T).argmax(1)
    assert found["nearest_id"].tolist() == [f"{i:06d}" for i in best]
    distance = np.linalg.norm(rows.astype(np.float64) - real[best], axis=1)
    np.testing.assert_allclose(found["distance"], distance, atol=1e-12)


def test_held_out_images_are_judged_too(planted):
    rows = table(planted)
    controls = {key for key, row in rows.items() if row["is_control"]}
    assert controls == {("held-out images", "pca-hull")}
    assert len(rows) == 7
    for row in rows.values():
        assert row["low"] <= row["fraction"] <= row["high"]
        assert row["count"] == round(row["fraction"] * row["num_generated"])
        assert row["exceeds_null"] == (row["count"] > row["critical"])


def test_the_images_that_are_kept_are_the_selected_ones(planted):
    for name, made in (("same", smooth_images(300, 3)), ("half", half_new())):
        found = images(planted, name)
        chosen = np.flatnonzero(found["selected_calibrated"])
        files = sorted((results(planted) / "diverse" / name).iterdir())
        assert [p.name for p in files] == [f"{i:06d}.png" for i in chosen]
        for index, path in zip(chosen, files, strict=True):
            with Image.open(path) as image:
                np.testing.assert_array_equal(np.asarray(image)[..., None], made[index])


def test_the_answer_is_in_the_report_and_in_scores_json(planted):
    found, html = scores(planted), (results(planted) / "report.html").read_text()
    assert found["answer"][0].startswith("Rule calibrated: more than chance in 1 of 2 sets: half (")
    assert found["calibrated_by"] == "held-out images"
    for sentence in found["answer"]:
        assert sentence in html
    assert "python jobs/diverse.py --real" in html
    drawn = {p.name for p in (results(planted) / "figures").iterdir()}
    names = ("shares", "sheet-1", "sheet-2", "pca-hull-1", "pca-hull-2", "pca-hull-heldout")
    assert drawn == {f"{name}.{kind}" for name in names for kind in ("png", "pdf")}


def test_a_second_run_computes_nothing_and_other_options_are_refused(planted, capsys):
    options = json.loads((planted / "options.json").read_text())
    before = {p: p.stat().st_mtime_ns for p in (planted / "out").rglob("*") if p.is_file()}
    assert run(planted, *options) == 0
    text = capsys.readouterr().out
    assert "complete: nothing to compute" in text
    assert NOTHING in text
    assert run(planted, *options, "--quantile", "0.9") == 1
    assert (
        "holds results of another configuration (quantile 0.95, now 0.9)" in capsys.readouterr().err
    )
    assert before == {p: p.stat().st_mtime_ns for p in (planted / "out").rglob("*") if p.is_file()}


def test_a_run_that_was_stopped_keeps_its_descriptors_and_no_resume_makes_all_anew(planted, capsys):
    options = json.loads((planted / "options.json").read_text())
    before = (results(planted) / "scores.parquet").read_bytes()
    (results(planted) / "manifest.json").unlink()
    assert run(planted, *options) == 0
    assert "4 kept, 0 units made" in capsys.readouterr().out
    assert (results(planted) / "scores.parquet").read_bytes() == before
    assert run(planted, *options, "--no-resume") == 0
    assert "0 kept, 4 units made" in capsys.readouterr().out
    assert (results(planted) / "scores.parquet").read_bytes() == before


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """The published rule on images of one distribution, t-SNE of 110 points with two seeds."""
    tmp = tmp_path_factory.mktemp("published")
    options = (
        "--real", save(tmp / "real.npy", REAL[:50]), "--generated", save(tmp / "b.npy", HELDOUT[:60]),
        "--rule", "tsne-hull", "--descriptor", "pixels", "--stability-seeds", "2",
        "--keep-images", "none",
    )  # fmt: skip
    (tmp / "options.json").write_text(json.dumps(options))
    assert run(tmp, *options) == 0
    return tmp


def test_tsne_hull_is_what_scikit_learn_scipy_and_shapely_give_by_the_published_steps(published):
    both = Pixels()(np.concatenate([REAL[:50], HELDOUT[:60]]))
    masks = []
    for seed in (0, 1):
        points = tsne_of(both, seed)
        hull, own = (Polygon(p[ConvexHull(p).vertices]) for p in (points[:50], points[50:]))
        masks.append(np.array([not hull.contains(Point(p)) for p in points[50:]]))
        if seed == 0:
            share = 100 * hull.intersection(own).area / hull.union(own).area
            vertices = len(ConvexHull(points[:50]).vertices)
            found = images(published, "b")
            assert found["selected_tsne_hull"].tolist() == masks[0].tolist()
            np.testing.assert_array_equal(found["tsne_hull_x"], points[50:, 0].astype(np.float64))
    row = table(published)["b", "tsne-hull"]
    assert row["count"] == masks[0].sum() > 0
    assert row["overlap_percent"] == pytest.approx(share, rel=1e-9)
    assert row["expected"] == pytest.approx(60 * vertices / 50)
    assert row["seed_counts"] == [int(mask.sum()) for mask in masks]
    overlap = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
    assert row["mean_jaccard"] == pytest.approx(overlap)
    assert found["tsne_hull_times_selected"].tolist() == np.sum(masks, 0).tolist()


def test_a_hull_count_that_does_not_exceed_its_null_is_flagged(published, capsys):
    row, html = table(published)["b", "tsne-hull"], (results(published) / "report.html").read_text()
    assert not row["exceeds_null"]
    assert row["count"] > 0
    (sentence,) = scores(published)["answer"]
    assert sentence.endswith(f"{NOTHING}.")
    for part in (sentence, "Over 2 seeds of t-SNE", "compatible with no novelty"):
        assert part in html
    assert not (results(published) / "diverse").exists()
    assert run(published, "--real", "digits", "--generated", "digits") == 1
    assert "another configuration" in capsys.readouterr().err


def test_maps_are_kept_by_a_run_that_was_stopped(published, monkeypatch):
    """The second run reads both maps; without them it has to make them."""
    options = json.loads((published / "options.json").read_text())
    before = (results(published) / "scores.parquet").read_bytes()
    made = []
    monkeypatch.setattr(
        "regimes.jobs.support.diverse.maps.tsne",
        lambda rows, seed, library: made.append((rows.shape, seed, library)) or tsne_of(rows, seed),
    )
    (results(published) / "manifest.json").unlink()
    assert run(published, *options) == 0
    assert made == []
    assert (results(published) / "scores.parquet").read_bytes() == before
    assert run(published, *options, "--no-resume") == 0
    assert made == [((110, 100), seed, "scikit-learn") for seed in (0, 1)]
    assert (results(published) / "scores.parquet").read_bytes() == before


def tsne_of(rows: np.ndarray, seed: int) -> np.ndarray:
    """The published call for seed 0; it ignores the seed, so that others start at random."""
    if seed == 0:
        return TSNE(n_components=2, random_state=0).fit_transform(rows)
    return TSNE(n_components=2, random_state=seed, init="random").fit_transform(rows)


def save_npz(path: Path, made: np.ndarray) -> str:
    np.savez(path, images=made)
    return str(path)


def save_parquet(path: Path, made: np.ndarray) -> str:
    pq.write_table(pa.table({"image": [encode_png(image) for image in made]}), path)
    return str(path)


def test_every_format_gives_the_same_row(tmp_path):
    made = half_new(40)
    specs = [
        write_folder(tmp_path / "folder", made), save(tmp_path / "one.npy", made),
        save_npz(tmp_path / "two.npz", made), save_parquet(tmp_path / "three.parquet", made),
    ]  # fmt: skip
    real = save(tmp_path / "real.npy", REAL[:100])
    assert run(tmp_path, "--real", real, "--generated", *specs, "--names", *"abcd") == 0
    rows = table(tmp_path)
    assert [name for name, _ in rows] == list("abcd")
    for name in "bcd":
        assert rows[name, "calibrated"] | {"set": "a"} == rows["a", "calibrated"]
    assert rows["a", "calibrated"]["count"] >= 20


class Grid(torch.nn.Module):
    """A descriptor that is a network: mean levels of a grid of cells, of no particular length."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x, 10).flatten(1)


def test_hulls_are_drawn_of_what_a_network_gives_and_damaged_images_are_counted(tmp_path):
    """On Ray, images of two sizes in one folder; by the principal components of raw features.

    The distances of the other rule are those of centred features.
    """
    torch.jit.script(Grid()).save(str(tmp_path / "grid.pt"))
    made = half_new(60)
    mixed = [image if i % 2 else image.repeat(2, 0).repeat(2, 1) for i, image in enumerate(made)]
    folder = write_folder(tmp_path / "made", mixed)
    (tmp_path / "made" / "broken.png").write_bytes(b"not an image")
    options = (
        "--output", str(tmp_path / "out"), "--name", "run", "--cpus", "1", "--generated", folder,
        "--real", save(tmp_path / "real.npy", REAL[:100]), "--rule", "pca-hull", "calibrated",
        "--descriptor", f"torchscript:{tmp_path}/grid.pt", "--resize", "skew-10",
        "--mean", "0.5", "--std", "0.5", "--centre-images", "60",
    )  # fmt: skip
    text = run_job("diverse", *options, "--skip-bad-images")
    assert "broken.png: not readable" in text
    assert scores(tmp_path)["left_out"] == {"real": 0, "generated/made": 1}
    values = (REAL[:100].reshape(100, -1) / 255 - 0.5) / 0.5
    _, directions = np.linalg.eigh(np.cov(values.T))
    ours = (made.reshape(60, -1) / 255 - 0.5) / 0.5 - values.mean(0)
    hull = Polygon(_hull_points((values - values.mean(0)) @ directions[:, -2:]))
    outside = [not hull.contains(Point(p)) for p in ours @ directions[:, -2:]]
    found = images(tmp_path, "made")
    assert found["selected_pca_hull"].tolist() == outside
    plain = np.flatnonzero(np.arange(60) % 2)  # not doubled: their features are known exactly
    centre = values[_drawn(100, 60)].mean(0)
    rows, real = (_unit(v - centre) for v in (ours[plain] + values.mean(0), values))
    distance = np.sqrt(((rows[:, None] - real) ** 2).sum(2).min(1))
    np.testing.assert_allclose(found["distance"][plain], distance, atol=1e-5)
    assert "minus the mean of those that can be read of 60 real images" in _descriptor(tmp_path)
    assert table(tmp_path)["made", "pca-hull"]["descriptor"].endswith(" raw")
    assert not table(tmp_path)["made", "calibrated"]["descriptor"].endswith(" raw")
    assert "features as the network gives them" in (results(tmp_path) / "report.html").read_text()


def _drawn(count: int, size: int) -> np.ndarray:
    """Positions that EDM's training draws with random_seed=0."""
    positions = np.arange(count)
    np.random.RandomState(0).shuffle(positions)
    return positions[:size]


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def _descriptor(tmp: Path) -> str:
    return scores(tmp)["descriptor"]


def _hull_points(points: np.ndarray) -> np.ndarray:
    return points[ConvexHull(points).vertices]


def test_a_dry_run_says_what_it_would_cost_and_leaves_nothing(tmp_path, capsys):
    sets = ("--real", save(tmp_path / "a.npy", REAL), "--generated", save(tmp_path / "b.npy", REAL))
    assert run(tmp_path, *sets, "--rule", "tsne-hull", "knn", "pca-hull", "--dry-run") == 0
    text = capsys.readouterr().out
    for part in (
        "400 images",
        "5 t-SNE maps per set by scikit-learn",
        "principal",
        "nearest",
        "time",
    ):
        assert part in text
    assert not (tmp_path / "out").exists()
    assert "not counted" in text


def both() -> list[str]:
    return ["--real", "digits", "--generated", "digits"]


BAD = [
    (lambda t: [], "--real: expected a folder or a file"),
    (lambda t: ["--real", "digits"], "--generated: expected one set"),
    (lambda t: ["--real", "digits", "--generated", str(t / "no")], "no such file or folder"),
    (lambda t: ["--real", "digits", "--generated", save(t / "f.npy", REAL[:5])], "at least 8 images"),
    (lambda t: ["--real", "digits", "--generated", save(t / "f.npy", REAL)], "pass --image-size"),
    (lambda t: ["--real", save(t / "r.npy", REAL[:10]), "--generated", "digits"], "19 images for --qu"),
    (lambda t: [*both(), "--heldout", save(t / "h.npy", REAL[:18])], "h.npy: expected at least 19"),
    (lambda t: ["--real", save(t / "r.npy", REAL[:9]), "--generated", save(t / "g.npy", REAL[:9]),
                "--rule", "tsne-hull"], "at least 31 images with --real"),
    (lambda t: ["--real", save(t / "r.npy", REAL[:9]), "--generated", save(t / "g.npy", REAL[:9]),
                "--rule", "knn", "--neighbours", "9"], "at least 10 images for --neighbours"),
    (lambda t: ["--real", save(t / "r.npy", REAL[:20]), "--generated", save(t / "g.npy", REAL[:9]),
                "--gate-neighbours", "20"], "at least 21 images for --gate-neighbours"),
    (lambda t: [*both(), "--quantile", "1"], "--quantile"),
    (lambda t: [*both(), "--looseness", "0"], "--looseness"),
    (lambda t: [*both(), "--least-realism", "-1"], "--least-realism"),
    (lambda t: [*both(), "--copy-ratio", "0"], "--copy-ratio"),
    (lambda t: [*both(), "--gate-neighbours", "0"], "--gate-neighbours"),
    (lambda t: [*both(), "--neighbours", "5"], "--neighbours: belongs to --rule knn"),
    (lambda t: [*both(), "--tsne", "openTSNE"], "--tsne: belongs to --rule tsne-hull"),
    (lambda t: [*both(), "--stability-seeds", "9"], "--stability-seeds: belongs to"),
    (lambda t: [*both(), "--rule", "tsne-hull", "--stability-seeds", "1"], "--stability-seeds"),
    (lambda t: [*both(), "--rule", "knn", "--quantile", "0.9"], "--quantile: belongs to --rule cal"),
    (lambda t: [*both(), "--rule", "knn", "knn"], "--rule: expected one or more, each once"),
    (lambda t: [*both(), "--names", "a", "b"], "--names: expected 1"),
    (lambda t: [*both(), "--names", "held-out images"], "cannot name a set of samples"),
    (lambda t: [*both(), "--image-size", "0"], "--image-size"),
    (lambda t: [*both(), "--ridge", "0"], "--ridge"),
    (lambda t: [*both(), "--ridge", "1", "--descriptor", "pixels"], "--ridge: pixels is not fitted"),
    (lambda t: [*both(), "--weights", "w"], "--weights: whitened-pixels is no network"),
    (lambda t: [*both(), "--centre-images", "1"], "--centre-images: expected 0"),
    (lambda t: [*both(), "--centre-images", "9"], "--centre-images: whitened-pixels needs no"),
    (lambda t: [*both(), "--descriptor", "nothing"], "--descriptor nothing: expected one of"),
    (lambda t: [*both(), "--descriptor", "squeezenet", "--no-download"], "squeezenet1_1-b8a52dc0"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), BAD)
def test_bad_input_is_one_line(make, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("REGIMES_CACHE", str(tmp_path / "cache"))
    assert run(tmp_path, *make(tmp_path)) == 1
    lines = [x for x in capsys.readouterr().err.splitlines() if not x.startswith("warning")]
    (error,) = lines
    assert error.startswith("error: ")
    assert words in error
    assert not results(tmp_path).exists()


def test_images_that_no_map_can_hold_are_refused(tmp_path, capsys):
    two = save(tmp_path / "two.npy", np.repeat(REAL[:2], 20, 0))
    options = ("--real", two, "--generated", two, "--rule", "pca-hull", "--descriptor", "pixels")
    assert run(tmp_path, *options) == 1
    assert "two, rule pca-hull: convex hull: expected at least 3 points" in capsys.readouterr().err


def test_a_missing_open_tsne_is_named_before_anything_is_done(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(tmp_path, *both(), "--rule", "tsne-hull", "--tsne", "openTSNE") == 1
    assert "pip install openTSNE" in capsys.readouterr().err


def test_names_of_sets_and_results(tmp_path):
    for parts in ("ddim/out", "plms/out"):
        save_folder = tmp_path / parts
        write_folder(save_folder, REAL[:8])
    specs = tuple(str(tmp_path / p) for p in ("ddim/out", "plms/out"))
    one = DiverseExperiment(real="digits", generated=specs)
    assert OpenDiverseSets(one).generated_keys == ["generated/ddim-out", "generated/plms-out"]
    two = DiverseExperiment(real="digits", generated=specs, quantile=0.9)
    names = [default_name(e, diverse.DEFAULT_DESCRIPTOR) for e in (one, two)]
    assert names[0].startswith("out-out-beside-digits-")
    assert names[0] != names[1]


def test_files_are_named_by_id_and_stay_in_their_folder():
    ids = ["00000/img1.png", "img1.png", "img1.jpg", "IMG1.png", "../../x.png", "data.npz#7", ".."]
    names = file_names(ids)
    assert names[:2] == ["00000/img1.png", "img1.png"]
    assert len({name.lower() for name in names}) == len(ids)
    assert all(not name.startswith(("/", ".")) and ".." not in name for name in names)
    folders = image_folders(["a b", "a-b", "\u00e4"])
    assert folders["a b"] == "diverse/a b"
    assert file_names(["K\u00f6pfe/x y.png", "a:b/*.png"]) == [
        "K\u00f6pfe/x y.png",
        "a-b.png",
    ]
    assert len(set(folders.values())) == 3


def test_the_job_lists_itself():
    assert (ROOT / "jobs" / "diverse.py").exists()
    from regimes.jobs.__main__ import names

    assert "diverse" in names()
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
