"""Artifacts on a server that speaks Google's protocol and refuses requests now and then."""

from __future__ import annotations

import numpy as np
import pytest
from object_store import google_store

from regimes.storage import retries
from regimes.storage.artifacts import Store
from regimes.storage.filesystem import Location
from regimes.storage.images import ImagesRecipe
from regimes.storage.tables import read_rows, write_shard

RECIPE = ImagesRecipe(fingerprint="gs", image_size=None, channels=None, skip_bad=False)
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def server():
    """A server for all tests of this file, that refuses one in twenty requests."""
    with google_store(refused=0.05) as address:
        yield address


def test_files_and_folders_are_written_listed_read_and_removed(server):
    place = Location(server("with space, ü"))
    place.write("a", b"1")
    place.child("sub").write("b", b"22")
    place.child("sub/deeper").write("c", b"333")
    assert place.read("a") == b"1"
    assert place.sizes() == {"a": 1}
    assert place.names() == ["a", "sub/b", "sub/deeper/c"]
    assert place.folders() == ["sub"]
    assert place.child("sub").folders() == ["deeper"]
    with pytest.raises(FileNotFoundError, match=r"ü/c\?endpoint"):
        place.read("c")
    place.delete("a")
    place.delete("a")
    assert place.sizes() == {}
    place.child("sub").remove()
    place.child("sub").remove()
    assert place.names() == []


def test_artifacts_are_whole_where_requests_are_refused(server):
    store = Store(server("artifact"))
    artifact = store.artifact(RECIPE)
    entries = [
        write_shard(artifact, u, np.arange(3 * u, 3 * u + 3), {"image": IMAGES[3 * u :][:3]})
        for u in range(10)
    ]
    artifact.finish(entries)
    again = Store(server("artifact")).artifact(RECIPE)
    again.verify()
    ids, images = read_rows(again)
    assert ids.tolist() == list(range(30))
    np.testing.assert_array_equal(images, IMAGES)


def test_a_place_without_credentials_is_not_asked_again():
    words = "UNAVAILABLE: Retry policy exhausted, with a last message of Could not create a OAuth2 access"
    words += " token to authenticate the request"
    assert retries.is_final(OSError(words))
