"""Sample names and seeds: each is read back from the other, and nothing else is taken for a seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regimes.images.names import sample_name, seed_ids
from regimes.images.sources import load_images, open_source
from regimes.images.writing import encode_png

quick = settings(deadline=None, derandomize=True, database=None)


@quick
@given(st.lists(st.integers(0, 2**59), unique=True, min_size=1), st.booleans())
def test_seeds_are_read_back_from_names_of_samples(seeds, subdirs):
    found = seed_ids([sample_name(s, subdirs=subdirs) for s in seeds])
    assert found.dtype == np.int64
    assert found.tolist() == seeds
    assert seed_ids([str(s) for s in seeds]).tolist() == seeds


def test_names_are_those_of_generate():
    assert sample_name(123, subdirs=False) == "000123.png"
    assert sample_name(123, subdirs=True) == "000000/000123.png"
    assert sample_name(54_321, subdirs=True) == "054000/054321.png"
    assert sample_name(1_234_567, subdirs=True) == "1234000/1234567.png"


@pytest.mark.parametrize(
    "ids",
    [
        [],
        ["000001.png", "notes.png"],
        ["000001.png", "a/000002.png"],
        ["001000/000002.png"],
        ["000000/001000.png"],
        ["digit-0001"],
        ["train/00001"],
        ["-1"],
        ["1.0"],
        ["\u0661\u0662"],
        ["9" * 30],
        ["000001.png", "000000/000001.png"],
        ["1", "000001"],
    ],
)
def test_ids_of_another_form_and_repeated_seeds_are_no_seeds(ids):
    assert seed_ids(ids) is None


def test_names_of_any_width_are_seeds():
    assert seed_ids(["00000.png", "1.png", "0000002.png", "03"]).tolist() == [0, 1, 2, 3]


@quick
@given(st.lists(st.text(), min_size=1))
def test_no_text_breaks_the_reading_of_seeds(ids):
    found = seed_ids(ids)
    assert found is None or len(found) == len(ids)


@pytest.mark.parametrize("subdirs", [False, True])
def test_folders_of_samples_have_paths_as_ids_and_their_seeds(tmp_path, rng, subdirs):
    seeds = [999, 1000, 5, 12_345]
    images = rng.integers(0, 256, (4, 4, 4, 3), dtype=np.uint8)
    for seed, image in zip(seeds, images, strict=True):
        path = tmp_path / sample_name(seed, subdirs=subdirs)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_png(image))
    source = open_source(str(tmp_path))
    ids, found, _ = load_images(source)
    assert ids == [sample_name(s, subdirs=subdirs) for s in sorted(seeds)]
    assert seed_ids(ids).tolist() == sorted(seeds)
    np.testing.assert_array_equal(found, images[np.argsort(seeds)])
    assert source.labels is None


def test_npz_without_images_beside_it_is_concatenated_in_the_order_of_names(tmp_path, rng):
    images = rng.integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "samples_10.npz", arr_0=images[:2])
    np.savez(tmp_path / "samples_2.npz", samples=images[2:])
    source = open_source(str(tmp_path))
    ids, found, _ = load_images(source)
    assert ids == ["000000", "000001", "000002", "000003", "000004"]
    assert seed_ids(ids).tolist() == [0, 1, 2, 3, 4]  # so they join with PNG files by row
    np.testing.assert_array_equal(found, images)
    assert source.labels is None


def test_npz_files_with_seeds_keep_them(tmp_path, rng):
    images = rng.integers(0, 256, (4, 4, 4, 1), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images[:2], seeds=[7, 5], labels=[1, 0])
    np.savez(tmp_path / "b.npz", images=images[2:], seeds=[9, 1], labels=[2, 2])
    source = open_source(str(tmp_path))
    assert source.ids == ["7", "5", "9", "1"]
    assert seed_ids(source.ids).tolist() == [7, 5, 9, 1]
    assert source.labels == [1, 0, 2, 2]
