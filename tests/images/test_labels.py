"""Labels: each kind of source gives the class of each image, and folders that are no classes none."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits

from regimes.errors import BadSource, IdMismatch
from regimes.images.names import sample_name
from regimes.images.sources import ArraySource, load_images, load_labels, open_source
from regimes.images.writing import encode_png, write_edm_zip


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)


def write(path, pixels, names, *, dataset=None):
    """A folder, or a .zip, of the images under these names, and dataset.json if given."""
    files = {n: encode_png(p) for n, p in zip(names, pixels)}
    if dataset is not None:
        files["dataset.json"] = json.dumps(dataset).encode()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    return open_source(str(path))


CLASSES = ["dog/b.png", "dog/a.png", "ant/x/c.png", "cat/a.png", "ant/z.png", "cat/b.png"]
BOTH = pytest.mark.parametrize("name", ["folder", "images.zip"])


@BOTH
def test_class_folders_are_numbered_in_sorted_order(tmp_path, pixels, name):
    source = write(tmp_path / name, pixels, CLASSES)
    assert source.ids == sorted(CLASSES)
    assert source.labels == [0, 0, 1, 1, 2, 2]
    ids, _, _ = load_images(source)
    labels = load_labels(source, ids)
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]


@BOTH
@pytest.mark.parametrize(
    "names",
    [
        ["a.png", "b/c.png", "d/e.png"],  # one image in no folder
        ["all/a.png", "all/b.png"],  # one folder is no choice
        ["a.png", "b.png"],
        [sample_name(s, subdirs=True) for s in (0, 999, 1000, 54_321, 1_000_000)],
        ["00000/img00000999.png", "00001/img00001000.png"],  # EDM's own, without dataset.json
    ],
)
def test_folders_that_are_no_classes_give_no_labels(tmp_path, pixels, name, names):
    source = write(tmp_path / name, pixels, names)
    assert source.labels is None
    assert load_labels(source, source.ids) is None


@pytest.mark.parametrize(
    "names",
    [
        ["000000/001000.png", "001000/000999.png"],  # not the thousand of the folder
        ["000000/cat.png", "001000/dog.png"],
        ["1/000001.png", "2/000002.png"],
    ],
)
def test_folders_of_digits_that_are_no_thousands_are_classes(tmp_path, pixels, names):
    assert write(tmp_path / "x", pixels, names).labels == [0, 1]


@BOTH
def test_dataset_json_gives_the_labels_whatever_its_order(tmp_path, pixels, name):
    pairs = [["dog/b.png", 7], ["dog/a.png", 0], ["ant/x/c.png", 3], ["cat/a.png", 3],
             ["ant/z.png", 1], ["cat/b.png", 2], ["not/there.png", 9]]  # fmt: skip
    source = write(tmp_path / name, pixels, CLASSES, dataset={"labels": pairs, "more": 1})
    assert dict(zip(source.ids, source.labels)) == dict(pairs[:-1])
    assert load_labels(source, ["cat/b.png", "dog/b.png"]).tolist() == [2, 7]


@BOTH
def test_dataset_json_with_null_means_no_labels_even_of_class_folders(tmp_path, pixels, name):
    assert write(tmp_path / name, pixels, CLASSES, dataset={"labels": None}).labels is None


@BOTH
@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ({"labels": [["dog/b.png", 7]]}, r"found none for ant/x/c\.png \(5 lack one\)"),
        ({}, "KeyError"),
        ([], "TypeError"),
        ({"labels": {"a": 1}}, "expected a list of labels or null, got dict"),
        ({"labels": [["dog/b.png", [0, 1]]]}, "expected each label as"),
        ({"labels": [["dog/b.png", 1.0]]}, "expected each label as"),
        ({"labels": [["dog/b.png", True]]}, "expected each label as"),
        ({"labels": [["dog/b.png", -1]]}, "expected each label as"),
        ({"labels": [["dog/b.png"]]}, "expected each label as"),
        ({"labels": [["dog/b.png", 1], ["dog/b.png", 2]]}, "once per name"),
    ],
)
def test_unusable_dataset_json_is_named_and_the_images_are_still_read(
    tmp_path, pixels, name, dataset, words
):
    source = write(tmp_path / name, pixels, CLASSES, dataset=dataset)
    assert len(load_images(source)[0]) == 6
    with pytest.raises(BadSource, match=rf"{name}/dataset\.json: .*{words}"):
        load_labels(source, source.ids)


def test_dataset_json_that_is_not_json_is_named(tmp_path, pixels):
    write(tmp_path / "x", pixels, CLASSES)
    for content in (b"{", b"\xff", b"[" * 100_000):
        (tmp_path / "x" / "dataset.json").write_bytes(content)
        with pytest.raises(BadSource, match=r"dataset\.json: expected \{"):
            _ = open_source(str(tmp_path / "x")).labels


def test_labels_are_part_of_the_fingerprint(tmp_path, pixels):
    plain = write(tmp_path / "x", pixels, CLASSES).fingerprint
    dataset = {"labels": [[n, 0] for n in CLASSES]}
    first = write(tmp_path / "x", pixels, CLASSES, dataset=dataset).fingerprint
    dataset["labels"][0][1] = 1
    second = write(tmp_path / "x", pixels, CLASSES, dataset=dataset).fingerprint
    assert len({plain, first, second}) == 3
    arrays = [ArraySource("x", pixels, labels=v) for v in (None, [0] * 6, [0] * 5 + [1])]
    assert len({a.fingerprint for a in arrays}) == 3


def test_npz_and_parquet_labels_are_read(tmp_path, pixels):
    np.savez(tmp_path / "x.npz", images=pixels, labels=np.arange(6, dtype=np.uint8))
    files = [encode_png(p) for p in pixels]
    pq.write_table(pa.table({"image": files, "label": list(range(6))}), tmp_path / "x.parquet")
    np.savez(tmp_path / "y.npz", images=pixels)
    for name in ("x.npz", "x.parquet"):
        assert open_source(str(tmp_path / name)).labels == [0, 1, 2, 3, 4, 5]
    assert open_source(str(tmp_path / "y.npz")).labels is None


def test_digits_know_their_classes():
    source = open_source("digits")
    assert source.labels == load_digits().target.tolist()


@pytest.mark.parametrize(
    "labels", [np.zeros(6), np.zeros(5, int), np.zeros((6, 10), int), np.array(list("abcdef"))]
)
def test_unusable_npz_labels_are_an_error_where_they_are_used(tmp_path, pixels, labels):
    np.savez(tmp_path / "x.npz", images=pixels, labels=labels)
    source = open_source(str(tmp_path / "x.npz"))
    assert len(load_images(source)[0]) == 6
    with pytest.raises(BadSource, match="expected 6 integer labels, one per image"):
        load_labels(source, source.ids)


def test_negative_and_missing_labels_are_named(tmp_path, pixels):
    with pytest.raises(BadSource, match="expected labels of at least 0, got -1"):
        _ = ArraySource("x", pixels, labels=[0, 1, -1, 2, 3, 4]).labels
    files = [encode_png(p) for p in pixels[:3]]
    table = pa.table({"image": files, "label": [1, None, 2]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(BadSource, match="found none in row 1"):
        _ = open_source(str(tmp_path / "x.parquet")).labels


def test_labels_of_an_unknown_id_are_an_error(pixels):
    with pytest.raises(IdMismatch, match="1 are not, as nowhere"):
        load_labels(ArraySource("x", pixels, labels=[0] * 6), ["000001", "nowhere"])


def test_edm_archives_are_read_with_the_labels_they_were_written_with(tmp_path, pixels):
    write_edm_zip(tmp_path / "x.zip", pixels, [5, 0, 0, 2, 9, 1])
    source = open_source(str(tmp_path / "x.zip"))
    ids, images, _ = load_images(source)
    np.testing.assert_array_equal(images, pixels)
    assert load_labels(source, ids).tolist() == [5, 0, 0, 2, 9, 1]


def test_labels_that_cannot_be_used_do_not_stop_work_that_needs_none(tmp_path, rng):
    from regimes.storage.images import ImagesRecipe, decode_source

    images = rng.integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    for name, content in (
        ("partial", {"labels": [["0.png", 1]]}),
        ("vectors", {"labels": [[f"{i}.png", [0.5, 0.5]] for i in range(3)]}),
        ("nothing", {}),
    ):
        folder = tmp_path / name
        folder.mkdir()
        for i, image in enumerate(images):
            (folder / f"{i}.png").write_bytes(encode_png(image))
        (folder / "dataset.json").write_text(json.dumps(content))
        recipe = ImagesRecipe(fingerprint="x", image_size=None, channels=None, skip_bad=False)
        decoded = decode_source(open_source(str(folder)), recipe)
        assert decoded.labels is None
        assert "dataset.json" in decoded.label_problem
        np.testing.assert_array_equal(decoded.images, images)


def test_names_written_on_windows_are_found(tmp_path, rng):
    (tmp_path / "00000").mkdir()
    image = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    (tmp_path / "00000" / "a.png").write_bytes(encode_png(image))
    pairs = {"labels": [["00000\\a.png", 2]]}
    (tmp_path / "dataset.json").write_text(json.dumps(pairs))
    assert open_source(str(tmp_path)).labels == [2]
