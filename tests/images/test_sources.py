"""Sources: every kind gives the same pixels and ids, and what cannot be read is named."""

from __future__ import annotations

import os
import re
import struct
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import encode, ramp
from PIL import Image
from sklearn.datasets import load_digits

from regimes.errors import BadImage, BadSource
from regimes.images import parquet
from regimes.images.decode import decode
from regimes.images.sources import ArraySource, load_images, open_source


@pytest.fixture
def pixels(rng):
    """Five RGB images."""
    return rng.integers(0, 256, (5, 6, 4, 3), dtype=np.uint8)


NAMES = ["a/0.png", "a/1.PNG", "b.png", "c.png", "d/e/f.png"]


def write_folder(path, pixels, names=NAMES):
    for name, image in zip(names, pixels, strict=True):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(encode(image))
    (path / "notes.txt").write_text("not an image")
    return path


def write_zip(path, pixels, names=NAMES):
    with zipfile.ZipFile(path, "w") as archive:
        for name, image in reversed(list(zip(names, pixels, strict=True))):
            archive.writestr(name, encode(image))
        archive.writestr("notes.txt", "not an image")
    return path


def write_parquet(path, pixels, column, ids=NAMES, id_column="id"):
    files = [encode(image) for image in pixels]
    images = {
        "bytes": lambda: pa.array(files),
        "hugging-face": lambda: pa.array([{"bytes": f, "path": None} for f in files]),
        "tensor": lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(pixels),
    }[column]()
    pq.write_table(pa.table({id_column: list(ids), "image": images}), path)
    return path


def source_of(kind, path, pixels):
    """A source of each kind that holds the same images under the same ids."""
    if kind == "folder":
        return write_folder(path / "folder", pixels)
    if kind == "zip":
        return write_zip(path / "images.zip", pixels)
    if kind == "npz":
        np.savez(path / "images.npz", images=pixels, ids=np.array(NAMES))
        return path / "images.npz"
    return write_parquet(path / "images.parquet", pixels, kind)


KINDS = ["folder", "zip", "npz", "bytes", "hugging-face", "tensor"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_gives_the_same_pixels_and_ids(tmp_path, pixels, kind):
    source = open_source(str(source_of(kind, tmp_path, pixels)))
    ids, images, skipped = load_images(source)
    assert ids == NAMES
    np.testing.assert_array_equal(images, pixels)
    assert images.dtype == np.uint8
    assert skipped == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_crops_and_resizes_alike(tmp_path, pixels, kind):
    source = open_source(str(source_of(kind, tmp_path, pixels)))
    _, images, _ = load_images(source, image_size=3)
    for image, original in zip(images, pixels, strict=True):
        square = Image.fromarray(original).crop((0, 1, 4, 5))
        expected = np.asarray(square.resize((3, 3), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprint_is_stable_and_changes_with_one_byte(tmp_path, pixels, kind):
    first = open_source(str(source_of(kind, tmp_path, pixels))).fingerprint
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert open_source(str(tmp_path / source_of(kind, tmp_path, pixels))).fingerprint == first
    pixels[3, 0, 0, 0] ^= 1
    assert open_source(str(source_of(kind, tmp_path, pixels))).fingerprint != first


def test_fingerprint_of_a_folder_changes_with_a_name(tmp_path, pixels):
    first = open_source(str(write_folder(tmp_path / "x", pixels))).fingerprint
    (tmp_path / "x" / "c.png").rename(tmp_path / "x" / "c2.png")
    assert open_source(str(tmp_path / "x")).fingerprint != first


def test_linked_folders_are_searched_and_loops_left_out(tmp_path, pixels):
    write_folder(tmp_path / "real", pixels)
    linked = tmp_path / "linked"
    (linked / "own").mkdir(parents=True)
    (linked / "own" / "x.png").write_bytes(encode(pixels[0]))
    (linked / "a").symlink_to(tmp_path / "real" / "a")
    (linked / "d").symlink_to(tmp_path / "real" / "d")
    (tmp_path / "real" / "a" / "back").symlink_to(linked)
    source = open_source(str(linked))
    assert source.ids == ["a/0.png", "a/1.PNG", "d/e/f.png", "own/x.png"]
    assert source.labels == [0, 0, 1, 2]


def test_a_link_to_what_is_there_anyway_lists_no_image_twice(tmp_path, pixels):
    folder = write_folder(tmp_path / "x", pixels)
    before = open_source(str(folder)).ids
    for name, there in (("0first", "d"), ("latest", "a"), ("loop", "loop"), ("up", ".")):
        (folder / name).symlink_to(folder / there)
    for one, other in ((f"l{i}", f"l{(i + 1) % 6}") for i in range(6)):
        (tmp_path / one).mkdir()
        (tmp_path / one / "next").symlink_to(tmp_path / other)
        (folder / one).symlink_to(tmp_path / one)
    assert open_source(str(folder)).ids == before


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, pixels, monkeypatch):
    folder, scan = write_folder(tmp_path / "x", pixels), os.scandir

    def refuse(path):
        if os.path.basename(path) == "d":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(BadSource, match=r"x/d: cannot be listed \(Permission denied\); fix its"):
        open_source(str(folder))


def test_a_folder_in_a_zip_is_no_image_whatever_its_name(tmp_path, pixels):
    path = write_zip(tmp_path / "x.zip", pixels)
    with zipfile.ZipFile(path, "a") as archive:
        archive.mkdir("shots.png")
    assert open_source(str(path)).ids == NAMES


def test_fingerprint_of_a_folder_does_not_depend_on_where_it_is(tmp_path, pixels):
    folders = [write_folder(tmp_path / name, pixels) for name in "xy"]
    assert len({open_source(str(f)).fingerprint for f in folders}) == 1


@pytest.mark.parametrize("key", ["images", "samples", "arr_0"])
def test_npz_and_npy_arrays_are_read_with_row_numbers_as_ids(tmp_path, pixels, key):
    np.savez(tmp_path / "x.npz", **{key: pixels})
    np.save(tmp_path / "x.npy", pixels)
    for name in ("x.npz", "x.npy"):
        ids, images, _ = load_images(open_source(str(tmp_path / name)))
        assert ids == ["000000", "000001", "000002", "000003", "000004"]
        np.testing.assert_array_equal(images, pixels)


def test_npz_seeds_become_ids(tmp_path, pixels):
    np.savez(tmp_path / "x.npz", samples=pixels, seeds=np.array([5, 9, 2, 1, 0]))
    assert open_source(str(tmp_path / "x.npz")).ids == ["5", "9", "2", "1", "0"]


def test_gray_arrays_may_lack_the_channel_axis(tmp_path, pixels):
    np.save(tmp_path / "x.npy", pixels[..., 0])
    images = load_images(open_source(str(tmp_path / "x.npy")))[1]
    np.testing.assert_array_equal(images, pixels[..., :1])
    small = load_images(open_source(str(tmp_path / "x.npy")), image_size=2)[1]
    assert small.shape == (5, 2, 2, 1)


@pytest.mark.parametrize(("column", "ids"), [("seed", [7, 3, 5, 1, 2]), ("path", NAMES)])
def test_parquet_ids_come_from_seed_or_path(tmp_path, pixels, column, ids):
    path = write_parquet(tmp_path / "x.parquet", pixels, "bytes", ids=ids, id_column=column)
    assert open_source(str(path)).ids == [str(i) for i in ids]


def test_parquet_without_ids_uses_row_numbers(tmp_path, pixels):
    path = write_parquet(tmp_path / "x.parquet", pixels, "bytes", id_column="other")
    assert open_source(str(path)).ids[:2] == ["000000", "000001"]


def test_parquet_folder_is_read_in_the_order_of_its_files_past_other_files(tmp_path, pixels):
    write_parquet(tmp_path / "part-1.parquet", pixels[2:], "bytes", NAMES[2:])
    write_parquet(tmp_path / "part-0.parquet", pixels[:2], "bytes", NAMES[:2])
    (tmp_path / "README.md").write_text("a data card")
    source = open_source(str(tmp_path))
    ids, images, _ = load_images(source)
    assert ids == NAMES
    np.testing.assert_array_equal(images, pixels)
    before = source.fingerprint
    write_parquet(tmp_path / "part-1.parquet", pixels[1:4], "bytes", NAMES[2:])
    assert open_source(str(tmp_path)).fingerprint != before


class Unmerged:
    """A table whose columns stay in chunks, as Arrow leaves those of more than 2 GiB."""

    def __init__(self, table):
        self._table = table

    def to_table(self):
        return self

    def combine_chunks(self):
        return self

    def __getattr__(self, name):
        return getattr(self._table, name)

    def __getitem__(self, name):
        return self._table[name]

    def __len__(self):
        return len(self._table)


def test_parquet_of_more_than_2_gib_is_read_to_its_last_row(tmp_path, pixels, monkeypatch):
    files = [encode(image) for image in pixels]
    table = pa.table({"image": pa.chunked_array([files[:3], files[3:]])})
    pq.write_table(table, tmp_path / "x.parquet")
    monkeypatch.setattr(parquet.pad, "dataset", lambda *_, **__: Unmerged(table))
    images = load_images(open_source(str(tmp_path / "x.parquet")))[1]
    np.testing.assert_array_equal(images, pixels)


def test_parquet_files_of_different_columns_are_refused(tmp_path, pixels):
    write_parquet(tmp_path / "0.parquet", pixels, "bytes")
    pq.write_table(pa.table({"id": ["a"], "image": [1]}), tmp_path / "1.parquet")
    with pytest.raises(BadSource, match=r"not readable as Parquet .*int64 to binary"):
        open_source(str(tmp_path))


def test_digits_are_the_1797_images_of_scikit_learn():
    ids, images, _ = load_images(open_source("digits"))
    assert images.shape == (1797, 8, 8, 1)
    assert len(set(ids)) == 1797
    np.testing.assert_array_equal(np.round(images[..., 0] / 255 * 16), load_digits().images)
    assert sorted(set(images.flatten().tolist()))[::16] == [0, 255]


def test_corrupt_image_is_named_with_the_remedy(tmp_path, pixels):
    folder = write_folder(tmp_path / "x", pixels)
    data = (folder / "c.png").read_bytes()
    (folder / "c.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadImage, match=r"x/c\.png: not a readable image .*; replace or remove"):
        load_images(open_source(str(folder)))


def test_skip_bad_leaves_out_and_reports_exactly_the_bad_ones(tmp_path, pixels):
    folder = write_folder(tmp_path / "x", pixels)
    (folder / "c.png").write_bytes(b"")
    (folder / "a/0.png").write_bytes(b"nonsense")
    ids, images, skipped = load_images(open_source(str(folder)), skip_bad=True)
    assert ids == ["a/1.PNG", "b.png", "d/e/f.png"]
    np.testing.assert_array_equal(images, pixels[[1, 2, 4]])
    assert [s.split(": ")[0] for s in skipped] == [str(folder / "a/0.png"), str(folder / "c.png")]


def test_nothing_but_bad_images_is_an_error(tmp_path, pixels):
    folder = write_folder(tmp_path / "x", pixels[:1], ["a.png"])
    (folder / "a.png").write_bytes(b"nonsense")
    with pytest.raises(BadSource, match=r"no image could be read; first error: .*a\.png"):
        load_images(open_source(str(folder)), skip_bad=True)


def test_no_images_at_all_is_an_error():
    with pytest.raises(BadSource, match=r"no image could be read; .*the source is empty"):
        load_images(ArraySource("mine", np.empty((0, 2, 2, 1), np.uint8)))


def test_truncated_zip_is_refused(tmp_path, pixels):
    path = write_zip(tmp_path / "x.zip", pixels)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadSource, match=r"x\.zip: not a readable zip archive; create it again"):
        open_source(str(path))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_member_damaged_inside_a_zip_is_named(tmp_path, method):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.bmp", encode(ramp(6, 6, 3), "BMP"))
        archive.writestr("b.bmp", encode(ramp(6, 6, 3), "BMP"))
    data = bytearray(path.read_bytes())
    data[60:70] = bytes(b ^ 255 for b in data[60:70])
    path.write_bytes(bytes(data))
    with pytest.raises(BadSource, match=r"x\.zip/a\.bmp: damaged inside the archive"):
        load_images(open_source(str(path)))
    ids, _, skipped = load_images(open_source(str(path)), skip_bad=True)
    assert (ids, len(skipped)) == (["b.bmp"], 1)


def test_mixed_sizes_are_refused_with_both_named(tmp_path, pixels):
    folder = write_folder(tmp_path / "x", pixels[:2], ["a.png", "b.png"])
    (folder / "b.png").write_bytes(encode(ramp(3, 5)))
    message = r"images differ in size: a\.png is 4x6 RGB, b\.png is 5x3 gray; .*--image-size"
    with pytest.raises(BadSource, match=message):
        load_images(open_source(str(folder)))


def test_repeated_ids_are_refused(tmp_path, pixels):
    path = write_parquet(tmp_path / "x.parquet", pixels, "bytes", ids=["a"] * 5)
    with pytest.raises(BadSource, match="ids repeat; every image needs its own"):
        load_images(open_source(str(path)))


def test_ids_that_do_not_match_the_images_in_number_are_refused(tmp_path, pixels):
    np.savez(tmp_path / "x.npz", images=pixels, ids=np.array(["a", "b"]))
    with pytest.raises(BadSource, match="expected one id per image, got 2 ids for 5 images"):
        open_source(str(tmp_path / "x.npz"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "no such file or folder; expected images, or the word 'digits'"),
        ("x.tar", b"x", r"expected a folder, or a file ending in \.zip, .*, got \.tar"),
        ("noext", b"x", "got no suffix"),
        ("x.npy", b"nonsense", r"not a readable \.npy file"),
        ("x.npz", b"nonsense", r"not a readable \.npz file"),
        ("x.zip", b"nonsense", "not a readable zip archive"),
        ("x.parquet", b"nonsense", "not readable as Parquet"),
    ],
)
def test_unusable_path_is_named_with_the_reason(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadSource, match=f"{re.escape(str(tmp_path / name))}: .*{message}"):
        open_source(str(tmp_path / name))


def test_empty_folder_and_empty_zip_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    for name in ("empty", "empty.zip"):
        with pytest.raises(BadSource, match=rf"{name}: holds no images \(.*\.png"):
            open_source(str(tmp_path / name))


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_float_array_is_refused_with_the_conversion(tmp_path, pixels, name):
    if name == "x.npy":
        np.save(tmp_path / name, pixels / np.float32(255))
    else:
        np.savez(tmp_path / name, images=pixels / np.float32(255))
    with pytest.raises(
        BadSource, match=r"expected uint8 images .* got float32 .*astype\('uint8'\)"
    ):
        open_source(str(tmp_path / name))


def test_channels_first_array_is_refused(tmp_path, pixels):
    np.save(tmp_path / "x.npy", pixels.transpose(0, 3, 1, 2))
    with pytest.raises(BadSource, match="expected 1 or 3 channels last"):
        open_source(str(tmp_path / "x.npy"))


def test_pickled_array_is_refused_without_being_read(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadSource, match=r"not a readable \.npy file"):
        open_source(str(tmp_path / "x.npy"))


def test_npz_without_a_known_key_lists_what_it_holds(tmp_path, pixels):
    np.savez(tmp_path / "x.npz", foo=pixels)
    with pytest.raises(BadSource, match=r"expected a key 'images', found \['foo'\]"):
        open_source(str(tmp_path / "x.npz"))


def test_parquet_without_an_image_column_lists_its_columns(tmp_path):
    pq.write_table(pa.table({"id": ["a"], "text": ["b"]}), tmp_path / "x.parquet")
    with pytest.raises(BadSource, match="expected a column 'image', found id, text"):
        open_source(str(tmp_path / "x.parquet"))


def test_parquet_image_of_another_type_names_its_row(tmp_path):
    pq.write_table(pa.table({"image": ["text"]}), tmp_path / "x.parquet")
    with pytest.raises(BadSource, match=r"row 0: expected encoded bytes or a uint8 tensor"):
        load_images(open_source(str(tmp_path / "x.parquet")))


def test_image_larger_than_declared_by_its_header_is_refused():
    # A PNG header that promises far more pixels than Pillow allows (a decompression bomb).
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    data += struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(BadImage, match="bomb: not a readable image"):
        decode(data, "bomb")
