"""Sample sets: every format that papers publish is read, and ids are seeds wherever they can be."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regimes.errors import BadSource, BrokenArtifact, ConfigError, IdMismatch
from regimes.jobs.support.sample_sets import (
    ModelSet,
    Sampling,
    SourceSet,
    open_set,
    set_names,
    shared_kind,
)
from regimes.samplers.edm import SamplerConfig
from regimes.storage.artifacts import Artifact, Store
from regimes.storage.filesystem import Location
from regimes.storage.images import Subset
from regimes.storage.samples import SamplesRecipe
from regimes.storage.tables import write_shard

SEEDS = [3, 998, 1000, 12345]
EDM = Path(__file__).parents[1] / "data" / "edm" / "ddpmpp-vp-uncond.pkl"


def sampling(seeds: str | None = None, *, allow_partial: bool = False) -> Sampling:
    return Sampling(seeds=seeds, allow_partial=allow_partial, batch_size=8, sampler=SamplerConfig())


@pytest.fixture
def images(rng) -> np.ndarray:
    return rng.integers(0, 256, (4, 5, 5, 3), np.uint8)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def flat_folder(tmp: Path, images: np.ndarray) -> Path:
    for seed, image in zip(SEEDS, images):
        (tmp / f"{seed:06d}.png").write_bytes(png(image))
    return tmp


def subdirs(tmp: Path, images: np.ndarray) -> Path:
    for seed, image in zip(SEEDS, images):
        folder = tmp / f"{seed - seed % 1000:06d}"
        folder.mkdir(exist_ok=True)
        (folder / f"{seed:06d}.png").write_bytes(png(image))
    return tmp


def npz(tmp: Path, images: np.ndarray) -> Path:
    np.savez(tmp / "dump.npz", images=images, seeds=SEEDS)
    return tmp / "dump.npz"


def artifact(tmp: Path, images: np.ndarray) -> Path:
    made = Artifact(Location(str(tmp / "made")), RECIPE)
    parts = [slice(0, 2), slice(2, 4)]
    made.finish(
        [
            write_shard(made, unit, np.array(SEEDS[part]), {"image": images[part]})
            for unit, part in enumerate(parts)
        ]
    )
    return tmp / "made"


def _recipe() -> SamplesRecipe:
    model = open_set("m", str(EDM), sampling("0-3"))
    assert isinstance(model, ModelSet)
    return model.recipe


RECIPE = _recipe()


@pytest.mark.parametrize("make", [flat_folder, subdirs, npz, artifact])
def test_published_formats_give_the_same_images_under_the_same_seeds(make, tmp_path, images):
    one = open_set("s", str(make(tmp_path, images)), sampling())
    assert isinstance(one, SourceSet)
    (ids,), kind = shared_kind([one.source.ids])
    assert kind == "seed"
    order = np.argsort(ids)
    assert ids[order].tolist() == SEEDS
    for position, image in zip(order, images):
        np.testing.assert_array_equal(one.source.read(int(position)), image)


@pytest.mark.parametrize("key", ["samples", "arr_0"])
def test_dumps_without_seeds_are_numbered_by_row_and_say_so(key, tmp_path, images):
    np.savez(tmp_path / "dump.npz", **{key: images})
    one = open_set("s", str(tmp_path / "dump.npz"), sampling())
    (ids,), kind = shared_kind([one.source.ids])
    assert (ids.tolist(), kind) == ([0, 1, 2, 3], "seed")
    assert one.about.endswith("(numbered by row, from 0)")
    assert not open_set("s", str(npz(tmp_path, images)), sampling()).about.endswith(")")


def test_one_set_without_seeds_makes_all_ids_names():
    ids, kind = shared_kind([["000001.png", "000002.png"], ["cat.png", "000001.png"]])
    assert kind == "name"
    assert [one.tolist() for one in ids] == [
        ["000001.png", "000002.png"],
        ["cat.png", "000001.png"],
    ]


def test_chosen_seeds_are_read_and_no_others(tmp_path, images):
    folder = str(flat_folder(tmp_path, images))
    one = open_set("s", folder, sampling("1000,998"))
    assert list(one.source.ids) == ["001000.png", "000998.png"]
    assert one.fingerprint != open_set("s", folder, sampling()).fingerprint


def test_chosen_seeds_that_are_not_there_are_an_error_or_left_out(tmp_path, images):
    folder = str(flat_folder(tmp_path, images))
    with pytest.raises(IdMismatch, match="holds 1 of the 2 images of --seeds 3-4, not that of 4"):
        open_set("s", folder, sampling("3-4"))
    one = open_set("s", folder, sampling("3-4", allow_partial=True))
    assert list(one.source.ids) == ["000003.png"]
    with pytest.raises(IdMismatch, match="holds 0 of the 2"):
        open_set("s", folder, sampling("5-6", allow_partial=True))


def test_seeds_of_images_that_have_none_are_refused(tmp_path, images):
    (tmp_path / "cat.png").write_bytes(png(images[0]))
    with pytest.raises(ConfigError, match=r"not seeds \(cat.png\)"):
        open_set("s", str(tmp_path), sampling("0-3"))


def test_a_damaged_or_unfinished_artifact_is_named(tmp_path, images):
    folder = artifact(tmp_path, images)
    shard = folder / "shard-000001.parquet"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(BrokenArtifact, match=r"shard-000001\.parquet: .* bytes expected"):
        open_set("s", str(folder), sampling())
    for name in ("manifest.json", "recipe.json"):
        (folder / name).unlink()
    with pytest.raises(BrokenArtifact, match="not complete yet"):
        open_set("s", str(folder), sampling())


def test_a_remote_folder_must_be_an_artifact(images):
    store = Store("memory://sample-sets")
    try:
        made = store.artifact(RECIPE)
        made.finish([write_shard(made, 0, np.array(SEEDS), {"image": images})])
        one = open_set("s", made.location.uri, sampling())
        assert [int(i) for i in one.source.ids] == SEEDS
        with pytest.raises(BadSource, match="expected the folder of a samples artifact"):
            open_set("s", "memory://sample-sets/elsewhere", sampling())
    finally:
        store.root.remove()


def test_models_are_recognised_and_need_seeds(tmp_path):
    found = open_set("m", str(EDM), sampling("0-3,9"))
    assert isinstance(found, ModelSet)
    assert len(found.recipe.seeds) == 5
    assert found.fingerprint == found.recipe.address
    with pytest.raises(ConfigError, match="sampled for --seeds"):
        open_set("m", str(EDM), sampling())


def test_a_closed_form_is_that_of_all_images_of_its_source():
    found = open_set("m", "wiener:digits", sampling("0-3"))
    assert isinstance(found, ModelSet)
    train = found.recipe.denoiser.train
    assert isinstance(train, Subset)
    assert train.size == len(train.split.indices("A")) == 1797


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        (["runs/edm", "runs/ct.zip"], ("edm", "ct")),
        (["a/samples", "b/samples/"], ("a-samples", "b-samples")),
        (["empirical:digits", "wiener:digits"], ("empirical-digits", "wiener-digits")),
        ([f"artifacts/samples/{'0123456789' * 2}", "edm.pkl"], ("01234567", "edm")),
    ],
)
def test_names_are_the_last_parts_of_paths_that_differ(specs, expected):
    assert set_names(specs, ()) == expected


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a"], "expected 2"),
        (["a", "a"], "distinct"),
        (["a", "b\n"], "printable"),
        (["a", " "], "d"),
    ],
)
def test_unusable_names_are_refused(names, words):
    with pytest.raises(ConfigError, match=words):
        set_names(["x", "y"], names)


def test_the_same_set_twice_needs_names():
    with pytest.raises(ConfigError, match="--names"):
        set_names(["x", "x"], ())
    assert set_names(["x", "x"], ["one", "two"]) == ("one", "two")
