"""Shards: plain Parquet with ids and shapes; the same rows give the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingesting import ingest_source

from regimes.descriptors.pixels import Pixels, WhitenedPixels
from regimes.errors import BadImage, BrokenArtifact
from regimes.images.pixels import pixel_vectors
from regimes.images.sources import ArraySource, open_source
from regimes.images.split import Split
from regimes.storage import images as images_module
from regimes.storage.artifacts import FileEntry, Recipe
from regimes.storage.features import (
    DescriptorRecipe,
    FeaturesRecipe,
    fit_descriptor,
    load_descriptor,
    read_features,
    read_unit,
    write_unit,
)
from regimes.storage.images import ImagesRecipe, Subset, read_images, read_subset
from regimes.storage.tables import (
    decode_rows,
    encode_rows,
    left_over,
    read_rows,
    shard_name,
    write_shard,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy(Recipe):
    kind: ClassVar[str] = "toy"
    code_version: ClassVar[int] = 1


def images(rng, n=6, shape=(4, 3, 1)):
    return rng.integers(0, 256, (n, *shape), dtype=np.uint8)


IDS = [np.arange(10, 16), np.array(["a", "b/ü", "", "d", "e", "ffff"])]


@pytest.mark.parametrize("ids", IDS, ids=["seeds", "names"])
@pytest.mark.parametrize("shape", [(4, 3, 1), (4, 3, 3), (1, 1, 1)])
def test_image_rows_survive_the_way_through_a_file(rng, ids, shape):
    values = images(rng, shape=shape)
    found_ids, found = decode_rows(encode_rows(ids, {"image": values}), "x")
    np.testing.assert_array_equal(found_ids, ids)
    np.testing.assert_array_equal(found, values)
    assert found_ids.dtype.kind == ids.dtype.kind
    assert found.dtype == np.uint8


def test_feature_rows_survive_bit_for_bit(rng):
    values = rng.standard_normal((6, 11)).astype(np.float32)
    values[0, 0] = np.float32(1e-42)
    found = decode_rows(encode_rows(IDS[0], {"feature": values}), "x")[1]
    assert found.tobytes() == values.tobytes()


def test_same_rows_give_the_same_bytes_whatever_their_strides(rng):
    values = images(rng)
    first = encode_rows(IDS[0], {"image": values})
    again = encode_rows(IDS[0].copy(), {"image": values.copy()})
    fortran = encode_rows(IDS[0], {"image": np.asfortranarray(values)})
    moved = encode_rows(
        IDS[0],
        {"image": np.ascontiguousarray(values.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)},
    )
    assert first == again == fortran == moved
    changed = values.copy()
    changed[0, 0, 0, 0] ^= 1
    assert encode_rows(IDS[0], {"image": changed}) != first


def test_shard_is_readable_by_plain_pyarrow_with_ids_and_shapes(rng, tmp_path):
    values = images(rng, shape=(4, 3, 3))
    (tmp_path / "x.parquet").write_bytes(encode_rows(IDS[0], {"image": values}))
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.column_names == ["id", "image"]
    assert table["id"].type == pa.int64()
    assert table["id"].to_pylist() == IDS[0].tolist()
    assert table["image"].type == pa.fixed_shape_tensor(pa.uint8(), (4, 3, 3))
    np.testing.assert_array_equal(table["image"].combine_chunks().to_numpy_ndarray(), values)


def test_shard_is_an_image_source(rng, tmp_path):
    values = images(rng)
    (tmp_path / "x.parquet").write_bytes(encode_rows(IDS[0], {"image": values}))
    source = open_source(str(tmp_path / "x.parquet"))
    assert source.ids == [str(i) for i in IDS[0]]
    np.testing.assert_array_equal(source.read(2), values[2])


@pytest.mark.parametrize("damage", [lambda d: d[:-9], lambda d: b"", lambda d: b"nonsense" * 9])
def test_file_that_is_not_parquet_is_named(rng, damage):
    data = encode_rows(IDS[0], {"image": images(rng)})
    with pytest.raises(BrokenArtifact, match=r"the-file: not readable as Parquet .*delete it"):
        decode_rows(damage(data), "the-file")


def test_names_of_shards_sort_in_the_order_of_units():
    names = [shard_name(unit) for unit in (0, 9, 10, 99, 100, 123456)]
    assert names == sorted(names)
    assert names[0] == "shard-000000.parquet"


def test_rows_of_an_artifact_come_in_the_order_of_units(rng, store):
    artifact = store.artifact(Toy())
    values = images(rng)
    entries = [
        write_shard(artifact, unit, IDS[0][rows], {"image": values[rows]})
        for unit, rows in ((1, slice(4, 6)), (0, slice(0, 4)))
    ]
    artifact.finish([*entries, artifact.write("other.json", b"{}")])
    ids, found = read_rows(artifact)
    np.testing.assert_array_equal(ids, IDS[0])
    np.testing.assert_array_equal(found, values)
    assert [(e.name, e.num_rows) for e in artifact.files] == [
        ("other.json", 0),
        ("shard-000000.parquet", 4),
        ("shard-000001.parquet", 2),
    ]


def test_entry_of_a_shard_left_by_an_earlier_run_is_that_of_its_writer(rng, store):
    artifact = store.artifact(Toy())
    entry = write_shard(artifact, 3, IDS[0], {"image": images(rng)})
    assert left_over(artifact, shard_name(3), IDS[0]) == entry
    assert left_over(artifact, shard_name(9), IDS[0]) is None
    artifact.location.write(shard_name(4), b"cut short")
    with pytest.raises(BrokenArtifact, match=r"shard-000004\.parquet: not readable as Parquet"):
        left_over(artifact, shard_name(4), IDS[0])


def test_a_left_over_shard_with_other_rows_is_refused(rng, store):
    artifact = store.artifact(Toy())
    write_shard(artifact, 3, IDS[0], {"image": images(rng)})
    with pytest.raises(BrokenArtifact, match="holds other rows than expected"):
        left_over(artifact, shard_name(3), IDS[0][::-1])


# --- image and feature artifacts -----------------------------------------------------------------


@pytest.fixture
def source(rng):
    return ArraySource("mine", images(rng, 23, (4, 4, 1)), [f"i{n:02d}" for n in range(23)])


def recipe_of(source):
    return ImagesRecipe(
        fingerprint=source.fingerprint, image_size=None, channels=None, skip_bad=False
    )


def test_ingested_source_is_read_back_in_several_shards(store, source, monkeypatch):
    monkeypatch.setattr(images_module, "IMAGES_PER_SHARD", 10)
    assert ingest_source(store, source, recipe_of(source)) == []
    ids, found = read_images(store, recipe_of(source))
    assert ids.tolist() == source.ids
    np.testing.assert_array_equal(found, np.stack([source.read(i) for i in range(23)]))
    files = store.artifact(recipe_of(source)).files
    assert [f.num_rows for f in files] == [10, 10, 3]


def test_ingest_applies_the_size_of_the_recipe(store, source):
    recipe = ImagesRecipe(
        fingerprint=source.fingerprint, image_size=2, channels=None, skip_bad=False
    )
    ingest_source(store, source, recipe)
    found = read_images(store, recipe)[1]
    assert found.shape == (23, 2, 2, 1)
    np.testing.assert_array_equal(found[5], source.read(5, image_size=2))


def test_ingest_stops_at_or_reports_bad_images(store, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(b"nonsense")
    (tmp_path / "pictures/b.pgm").write_bytes(b"")
    from PIL import Image

    Image.new("L", (4, 4)).save(tmp_path / "pictures/c.png")
    bad = open_source(str(tmp_path / "pictures"))
    strict = ImagesRecipe(
        fingerprint=bad.fingerprint, image_size=None, channels=None, skip_bad=False
    )
    with pytest.raises(BadImage, match=r"a\.png"):
        ingest_source(store, bad, strict)
    assert not store.artifact(strict).is_complete()
    lenient = ImagesRecipe(
        fingerprint=bad.fingerprint, image_size=None, channels=None, skip_bad=True
    )
    assert len(ingest_source(store, bad, lenient)) == 1
    assert read_images(store, lenient)[0].tolist() == ["c.png"]


def subset_of(source, size, half="A"):
    return Subset(
        images=recipe_of(source), split=Split(num_images=23, seed=1), half=half, size=size
    )


def test_subset_holds_the_images_of_its_split(store, source):
    ingest_source(store, source, recipe_of(source))
    subset = subset_of(source, 5)
    ids, found = read_subset(store, subset)
    index = subset.split.indices("A")[:5]
    assert ids.tolist() == [source.ids[i] for i in index]
    np.testing.assert_array_equal(found, np.stack([source.read(int(i)) for i in index]))
    assert subset.label == "n5-A"


@pytest.mark.parametrize("name", ["whitened-pixels", "pixels"])
def test_stored_features_are_those_of_the_descriptor(store, source, name):
    ingest_source(store, source, recipe_of(source))
    subset = subset_of(source, 11)
    whiten = name == "whitened-pixels"
    descriptor = DescriptorRecipe(
        name=name, fit=subset if whiten else None, ridge=0.5 if whiten else None
    )
    fit_descriptor(store, descriptor)
    recipe = FeaturesRecipe(images=recipe_of(source), descriptor=descriptor)
    ids, pictures = read_unit(store, recipe, shard_name(0))
    artifact = store.artifact(recipe)
    describe = load_descriptor(store, descriptor)
    artifact.finish([write_unit(store, recipe, 0, ids, describe(pictures))])
    found = read_features(store, recipe)
    expected = WhitenedPixels.fit(read_subset(store, subset)[1]) if whiten else Pixels()
    assert found.ids.tolist() == source.ids
    np.testing.assert_array_equal(found.values, expected(pictures))
    assert found.values.shape == (23, pixel_vectors(pictures).shape[1])


def test_entries_count_rows_and_bytes():
    entry = FileEntry.of("x", b"abc", 7)
    assert (entry.name, entry.num_bytes, entry.num_rows) == ("x", 3, 7)
    # sha256 of "abc", FIPS 180-2
    assert entry.sha256.startswith(
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
