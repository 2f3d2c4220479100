"""Artifacts on a real S3 server, which refuses requests now and then."""

from __future__ import annotations

import dataclasses
import json
import threading

import numpy as np
import pytest
from object_store import BUCKET, object_store

from regimes.errors import StorageFailure
from regimes.storage import retries
from regimes.storage.artifacts import Store
from regimes.storage.filesystem import Location
from regimes.storage.images import ImagesRecipe
from regimes.storage.tables import iter_shards, left_over, read_rows, shard_name, write_shard

RECIPE = ImagesRecipe(fingerprint="s3", image_size=None, channels=None, skip_bad=False)
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def server():
    """An S3 server for all tests of this file."""
    with object_store() as running:
        yield running


@pytest.fixture
def folder(server, request, monkeypatch):
    """An empty place on the server; nothing fails until told."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.02)
    server.faults(share=0.0)
    yield f"s3://{BUCKET}/{request.node.name}"
    server.faults(share=0.0)


def make(store, units):
    return [
        write_shard(
            store.artifact(RECIPE), u, np.arange(3 * u, 3 * u + 3), {"image": IMAGES[3 * u :][:3]}
        )
        for u in units
    ]


def check(store):
    ids, images = read_rows(store.artifact(RECIPE))
    assert ids.tolist() == list(range(30))
    np.testing.assert_array_equal(images, IMAGES)


def test_files_are_written_listed_read_and_removed(folder):
    place = Location(f"{folder}/with space, ü")
    place.write("a", b"1")
    place.child("sub").write("b", b"22")
    assert place.read("a") == b"1"
    assert place.sizes() == {"a": 1}
    assert place.names() == ["a", "sub/b"]
    assert place.folders() == ["sub"]
    with pytest.raises(FileNotFoundError):
        place.read("c")
    place.delete("a")
    place.delete("a")
    assert place.sizes() == {}
    place.child("sub").remove()
    place.child("sub").remove()
    assert place.names() == []


def test_a_file_of_many_parts_appears_whole(folder):
    part = np.random.default_rng(1).bytes(2**20)
    place = Location(folder)
    with place.create("large") as stream:
        for _ in range(12):
            stream.write(part)
        assert place.sizes() == {}
    assert place.read("large") == part * 12


def test_an_upload_that_is_given_up_leaves_no_file(folder):
    place = Location(folder)

    def half():
        with place.create("half") as stream:
            stream.write(b"x" * 1000)
            raise ValueError("changed my mind")

    with pytest.raises(ValueError, match="changed my mind"):
        half()
    assert place.sizes() == {}


def test_an_artifact_survives_refused_requests_and_a_503_in_the_middle_of_its_manifest(
    server, folder
):
    store = Store(folder)
    server.faults(share=0.1, names=["manifest.json"])
    store.artifact(RECIPE).finish(make(store, range(10)))
    check(Store(folder))
    Store(folder).artifact(RECIPE).verify()
    counts = server.faults()
    assert counts["manifest.json"] == 1
    assert counts["refused"] >= 3


def test_a_server_that_always_refuses_is_named_after_several_attempts(server, folder, monkeypatch):
    monkeypatch.setattr(retries, "ATTEMPTS", 2)
    server.faults(share=1.0)
    with pytest.raises(StorageFailure, match=r"/a: cannot be written .*; free"):
        Location(folder).write("a", b"1")
    assert server.faults()["refused"] >= 2


@pytest.mark.parametrize("what", ["write", "read", "list"])
def test_a_bucket_that_is_not_there_is_named_without_waiting(server, folder, monkeypatch, what):
    monkeypatch.setattr(retries.time, "sleep", lambda s: pytest.fail("waited"))
    place = Location("s3://no-such-bucket/folder")
    if what == "list":
        assert place.sizes() == {}
        return
    with pytest.raises((StorageFailure, FileNotFoundError), match="no-such-bucket/folder/a"):
        place.write("a", b"1") if what == "write" else place.read("a")


def test_writers_of_one_artifact_at_once_leave_it_complete_and_correct(server, folder):
    server.faults(share=0.05)
    errors = []

    def work(order):
        try:
            store = Store(folder)
            store.artifact(RECIPE).finish(make(store, order))
        except Exception as error:
            errors.append(error)

    orders = [range(10), range(9, -1, -1), range(10)]
    threads = [threading.Thread(target=work, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    check(Store(folder))
    listed = json.loads(Store(folder).artifact(RECIPE).location.read("manifest.json"))["files"]
    expected = [dataclasses.asdict(e) for e in Store(folder).artifact(RECIPE).files]
    assert listed == expected
    assert len(listed) == 10


def test_an_interrupted_artifact_goes_on_from_the_shards_that_are_there(folder):
    store = Store(folder)
    made = make(store, range(6))
    artifact = Store(folder).artifact(RECIPE)
    assert artifact.present() == {shard_name(u) for u in range(6)}
    kept = [left_over(artifact, shard_name(u), np.arange(3 * u, 3 * u + 3)) for u in range(6)]
    assert kept == made
    artifact.finish(kept + make(store, range(6, 10)))
    assert len(list(iter_shards(Store(folder).artifact(RECIPE)))) == 10
    check(Store(folder))
