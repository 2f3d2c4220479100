"""A Hugging Face dataset on disk, written with pyarrow alone in the layout of ``save_to_disk``."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from regimes.errors import BadImage, BadSource
from regimes.images.sources import load_images, open_source

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(pixels):
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def save_to_disk(path, columns, *, files=2, **state):
    """The rows spread over Arrow stream files, and the two JSON files beside them."""
    table = pa.table(columns)
    path.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{files:05d}.arrow" for i in range(files)]
    cuts = np.linspace(0, len(table), files + 1).astype(int)
    for name, start, stop in zip(names, cuts, cuts[1:]):
        sink = pa.OSFile(str(path / name), "wb")
        with sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(start, stop - start))
    about = {"_data_files": [{"filename": name} for name in names], "_format_type": None, **state}
    (path / "state.json").write_text(json.dumps(about))
    (path / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return path


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (5, 6, 4, 3), dtype=np.uint8)


def images(pixels):
    return pa.array([{"bytes": png(p), "path": "same.png"} for p in pixels], IMAGE)


def test_rows_of_all_files_are_images_with_ids_and_labels(tmp_path, pixels):
    labels = pa.array([2, 0, 1, 0, 2])
    source = open_source(
        str(save_to_disk(tmp_path / "ds", {"image": images(pixels), "label": labels}))
    )
    assert source.ids == [f"{i:06d}" for i in range(5)]
    assert source.labels == [2, 0, 1, 0, 2]
    np.testing.assert_array_equal(load_images(source)[1], pixels)


def test_plain_bytes_another_column_name_and_own_ids_are_read(tmp_path, pixels):
    columns = {"img": pa.array([png(p) for p in pixels]), "id": pa.array(list("vwxyz"))}
    source = open_source(str(save_to_disk(tmp_path / "ds", columns)))
    assert (source.ids, source.labels) == (list("vwxyz"), None)
    np.testing.assert_array_equal(source.read(3), pixels[3])


def test_an_image_that_is_only_pointed_at_is_read_from_its_file(tmp_path, pixels):
    (tmp_path / "one.png").write_bytes(png(pixels[0]))
    column = pa.array([{"bytes": None, "path": str(tmp_path / "one.png")}], IMAGE)
    path = save_to_disk(tmp_path / "ds", {"image": column}, files=1)
    np.testing.assert_array_equal(open_source(str(path)).read(0), pixels[0])
    (tmp_path / "one.png").unlink()
    with pytest.raises(BadSource, match=r"one\.png cannot be read"):
        open_source(str(path)).read(0)


def test_the_fingerprint_changes_with_the_pixels_alone(tmp_path, pixels):
    first, again = (save_to_disk(tmp_path / n, {"image": images(pixels)}) for n in ("a", "b"))
    other = save_to_disk(tmp_path / "c", {"image": images(255 - pixels)})
    prints = [open_source(str(p)).fingerprint for p in (first, again, other)]
    assert prints[0] == prints[1] != prints[2]


def several_splits(tmp, px):
    for name in ("test", "train"):
        save_to_disk(tmp / "ds" / name, {"image": images(px)})
    (tmp / "ds" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))


def no_images(tmp, px):
    save_to_disk(tmp / "ds", {"text": pa.array(["a", "b"])})


def an_index(tmp, px):
    save_to_disk(tmp / "ds", {"image": images(px)}, _indices_data_files=[{"filename": "i.arrow"}])


def no_state(tmp, px):
    save_to_disk(tmp / "ds", {"image": images(px)})
    (tmp / "ds" / "state.json").write_text("{}")


def a_cut_file(tmp, px):
    path = save_to_disk(tmp / "ds", {"image": images(px)}) / "data-00001-of-00002.arrow"
    path.write_bytes(path.read_bytes()[:200])


def a_missing_label(tmp, px):
    labels = pa.array([0, None, 1, 0, 1])
    save_to_disk(tmp / "ds", {"image": images(px), "label": labels})


BAD = [
    (several_splits, r"2 splits \(test, train\); name one, as in .*ds/train"),
    (no_images, "expected a column 'image', found text"),
    (an_index, r"flatten_indices\(\)"),
    (no_state, "not the state of a dataset on disk"),
    (a_cut_file, "not readable as an Arrow stream"),
    (a_missing_label, "found none in row 1"),
]


@pytest.mark.parametrize(("make", "words"), BAD, ids=[make.__name__ for make, _ in BAD])
def test_what_cannot_be_used_is_named(make, words, tmp_path, pixels):
    make(tmp_path, pixels)
    with pytest.raises(BadSource, match=words):
        _ = open_source(str(tmp_path / "ds")).labels


def test_values_that_are_no_image_are_named_by_row(tmp_path):
    path = save_to_disk(tmp_path / "a", {"image": pa.array([b"not an image"])}, files=1)
    with pytest.raises(BadImage, match="row 0: not a readable image"):
        open_source(str(path)).read(0)
    path = save_to_disk(tmp_path / "b", {"image": pa.array([7])}, files=1)
    with pytest.raises(BadSource, match="row 0: expected encoded images"):
        open_source(str(path)).read(0)
