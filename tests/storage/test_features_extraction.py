"""Extraction on Ray: the same features as in a plain loop, whatever happens on the way."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import extraction_run
import numpy as np
import pytest
import torch
from PIL import Image
from shared_ray import joined
from torch import nn

from regimes.actors import extraction
from regimes.actors.extraction import Hardware, _naming
from regimes.actors.reading import pack, source_of, unpack
from regimes.errors import ConfigError, WorkFailed
from regimes.images.sources import open_source
from regimes.storage.artifacts import Store
from regimes.storage.features import (
    Block,
    DescriptorRecipe,
    FeaturesRecipe,
    SourceRecipe,
    describe_block,
    load_descriptor,
    read_block,
    read_features,
    read_left_out,
)
from regimes.storage.images import ImagesRecipe


class Net(nn.Module):
    """Means of the channels and of their squares."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean((2, 3)), x.square().mean((2, 3))], 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(store, source, recipes, report) of a run."""
    base = tmp_path_factory.mktemp("extraction")
    folder, script = base / "pictures", base / "net.pt"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(18):
        pixels = rng.integers(0, 256, (9 + i % 2, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    (folder / "05b.png").write_bytes(b"nothing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(Net().eval()).save(str(script))
    with joined():
        report = extraction_run.run(str(base / "store"), str(folder), str(script))
    store = Store(str(base / "store"))
    recipes, _ = extraction_run.recipes(store, str(folder), str(script))
    return store, open_source(str(folder)), recipes, report


def in_a_loop(store, recipe, num_units, source=None):
    """Features by id, without Ray."""
    descriptor = load_descriptor(store, recipe.descriptor)
    found = {}
    for unit in range(num_units):
        block = read_block(store, recipe, unit, f"shard-{unit:06d}.parquet", source)
        found |= dict(zip(block.ids.tolist(), describe_block(descriptor, block), strict=True))
    return found


@pytest.mark.parametrize("which", [0, 1, 2])
def test_features_are_those_of_a_plain_loop_bit_for_bit(run, which):
    store, source, recipes, _ = run
    recipe = recipes[which]
    expected = in_a_loop(store, recipe, (8, 8, 5)[which], source)
    features = read_features(store, recipe)
    assert sorted(features.ids.tolist()) == sorted(expected)
    for image_id, row in zip(features.ids.tolist(), features.values, strict=True):
        np.testing.assert_array_equal(row, expected[image_id])


def test_seeds_stay_numbers(run):
    store, _, recipes, _ = run
    assert read_features(store, recipes[0]).ids.dtype == np.int64


def test_images_left_out_are_listed(run):
    store, _, recipes, _ = run
    assert list(read_left_out(store, recipes[2])) == ["05b.png"]
    assert read_left_out(store, recipes[0]) == {}


def test_reading_has_processes_of_its_own_where_it_feeds_gpus(run):
    report = run[3]
    assert report["describing"] >= 1
    assert report["merged"] == 0
    assert report["files_in_stages"] == report["files"]


def test_a_killed_actor_changes_nothing_and_what_is_lost_is_made_again(run):
    report = run[3]
    assert report["killed"] == 1
    assert len(report["files"]) == 8
    assert report["again"] == 1
    assert report["files_again"] == report["files"]


def test_no_thread_outlives_an_extraction(run):
    """One that let go of a block when Ray had ended took the whole process with it.

    Ray joins its executor; those of its own iterators are not, and which of them is late is chance.
    """
    threads = run[3]["threads"]
    assert any("Executor" in name for name, _ in threads)
    assert not any(alive for _, alive in threads)
    assert not {"iter_threaded", "Prefetcher"} & {name for name, _ in threads}


def test_a_bad_image_stops_the_run_by_name(run):
    assert run[3]["error"].startswith("BadImage: ")
    assert "05b.png" in run[3]["error"]
    assert run[3]["actors_gone"]  # the next extraction needs their CPUs


def test_a_unit_under_which_workers_die_is_named_when_the_others_are_done(run):
    error, shards, logged = run[3]["deadly"]
    assert error.startswith("WorkFailed: 1 of the work units failed")
    assert "shard-000003.parquet: workers died under it" in error
    assert shards == [f"shard-{unit:06d}.parquet" for unit in range(8) if unit != 3]
    assert logged == ""  # Ray Data would show a traceback per death


def test_a_descriptor_under_which_all_workers_die_is_named():
    """Where Ray gives up; it was left to wait for ever once, so that no real workers die here."""
    from ray.exceptions import WorkerCrashedError

    images = ImagesRecipe(fingerprint="x", image_size=None, channels=None, skip_bad=False)
    recipe = FeaturesRecipe(images=images, descriptor=DescriptorRecipe(name="pixels"))
    named = pytest.raises(WorkFailed, match=r"^pixels: workers died under more than 3 units")
    with named as raised, _naming([recipe], [{"recipe": 0, "unit": 0}]):
        raise WorkerCrashedError
    assert isinstance(raised.value.__cause__, WorkerCrashedError)
    with pytest.raises(ConfigError, match="its own"), _naming([recipe], [{"recipe": 0, "unit": 0}]):
        raise ConfigError("its own")


def test_a_folder_that_has_grown_is_listed_again(tmp_path):
    def listed():
        fingerprint = open_source(str(tmp_path)).fingerprint
        images = SourceRecipe(fingerprint=fingerprint, skip_bad=True, images_per_unit=4)
        recipe = FeaturesRecipe(images=images, descriptor=DescriptorRecipe(name="pixels"))
        return source_of(recipe, {images.address: str(tmp_path)})

    for count in (1, 2):
        Image.new("L", (4, 4)).save(tmp_path / f"{count}.png")
        assert len(listed().ids) == count
        assert listed() is listed()  # not every time


@pytest.mark.parametrize("ids", [["a", "b", "c"], [7, 5, 9], []])
def test_a_block_survives_the_way_between_processes(rng, ids):
    import pyarrow as pa

    from regimes.actors import reading

    groups = [
        (np.array([0, 2]), rng.integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)),
        (np.array([1]), rng.integers(0, 256, (1, 3, 3, 1), dtype=np.uint8)),
    ]
    kind = np.int64 if ids and isinstance(ids[0], int) else np.str_
    block = Block(np.array(ids, kind), groups if ids else [], {"x": "bad"})
    row = {"recipe": 0, "unit": 3} | pack(block)
    found = unpack(pa.Table.from_pylist([row], schema=reading._ROW), 0)
    assert found.ids.tolist() == ids
    assert found.left_out == {"x": "bad"}
    assert len(found.groups) == len(block.groups)
    for (positions, images), (expected, pixels) in zip(found.groups, block.groups, strict=True):
        np.testing.assert_array_equal(positions, expected)
        np.testing.assert_array_equal(images, pixels)


@pytest.mark.parametrize(
    ("units", "gpus", "expected"),
    [(12, 0, (4, 0, 2)), (100, 0, (4, 0, 3)), (1000, 0, (4, 0, 6)), (1000, 2, (2, 4, 2))],
)
def test_units_are_given_away_ahead_only_where_there_are_many(units, gpus, expected):
    machine = SimpleNamespace(start=lambda: None, cpus=4, gpus=gpus)
    recipes = [SimpleNamespace(descriptor=SimpleNamespace(network="a"))]
    plan = extraction._Plan.of(machine, recipes, units, None, Hardware())
    assert (plan.actors, plan.readers, plan.in_flight) == expected


@pytest.mark.parametrize("options", [{"threads": 0}, {"gpus_each": 0.0}])
def test_impossible_hardware_is_refused(options):
    with pytest.raises(ConfigError):
        Hardware(**options)
