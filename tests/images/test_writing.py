"""Writing: what is written is read back unchanged, and equal images give equal bytes."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from regimes.errors import BadSource, StorageFailure
from regimes.images.decode import decode
from regimes.images.sources import load_images, open_source
from regimes.images.writing import encode_png, stream_npz, write_edm_zip


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))


@settings(deadline=None, derandomize=True, database=None)
@given(shapes.flatmap(lambda s: arrays.arrays(np.uint8, s)), st.integers(0, 9))
def test_png_is_read_back_unchanged(image, level):
    data = encode_png(image, compress_level=level)
    np.testing.assert_array_equal(decode(data, "x"), image)
    assert encode_png(image.copy(), compress_level=level) == data


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8),
                                   np.zeros((4, 4, 3))])  # fmt: skip
def test_arrays_that_are_no_image_are_not_encoded(image):
    with pytest.raises(BadSource, match="image to encode: expected uint8"):
        encode_png(image)


def test_edm_archive_is_laid_out_as_dataset_tool_does(tmp_path, rng):
    images = rng.integers(0, 256, (1001, 2, 2, 1), dtype=np.uint8)
    write_edm_zip(tmp_path / "x.zip", images, np.arange(1001) % 10)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        names = archive.namelist()
        assert names[0] == "00000/img00000000.png"
        assert names[999:] == ["00000/img00000999.png", "00001/img00001000.png", "dataset.json"]
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}
        content = json.loads(archive.read("dataset.json"))
        stored = archive.read(names[7])
    assert content == {"labels": [[n, i % 10] for i, n in enumerate(names[:-1])]}
    # Uncompressed: the pixels stand in the file as they are, after the filter byte of each row.
    row = bytes([0, *images[7, 1, :, 0]])
    assert row in stored
    assert Image.open(io.BytesIO(stored)).mode == "L"


def test_edm_archive_without_labels_says_null(tmp_path, pixels):
    write_edm_zip(tmp_path / "x.zip", pixels, None)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert json.loads(archive.read("dataset.json")) == {"labels": None}
    assert open_source(str(tmp_path / "x.zip")).labels is None


def test_edm_archive_depends_on_its_content_alone(tmp_path, pixels):
    write_edm_zip(tmp_path / "a.zip", pixels, [1, 2, 3])
    write_edm_zip(tmp_path / "b.zip", iter(list(pixels)), (1, 2, 3))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    write_edm_zip(tmp_path / "b.zip", pixels, [1, 2, 4])
    assert (tmp_path / "a.zip").read_bytes() != (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)], None, "image 1: expected"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 1), np.uint8)], None, "image 1: expected"),
        ([np.zeros((8, 4, 3), np.uint8)], None, "image 0: EDM expects a square .* got 4x8"),
        ([np.zeros((12, 12, 3), np.uint8)], None, "image 0: EDM expects .* power of two .* 12x12"),
        (
            [np.zeros((8, 8, 4), np.uint8)],
            None,
            r"image 0: expected uint8 .* got uint8 \(8, 8, 4\)",
        ),
        ([np.zeros((8, 8, 3))], None, "image 0: expected uint8 .* got float64"),
        ([], None, "there are no images"),
        (
            [np.zeros((8, 8, 3), np.uint8)],
            [1, 2],
            "expected one integer label for each of 1 images",
        ),
        ([np.zeros((8, 8, 3), np.uint8)], [0.5], "expected one integer label .* got float64"),
        ([np.zeros((8, 8, 3), np.uint8)], [-1], "expected labels of at least 0, got -1"),
    ],
)
def test_datasets_that_edm_would_not_read_are_not_written(tmp_path, images, labels, words):
    (tmp_path / "x.zip").write_bytes(b"old")
    with pytest.raises(BadSource, match=rf"x\.zip: {words}"):
        write_edm_zip(tmp_path / "x.zip", images, labels)
    assert (tmp_path / "x.zip").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


def test_an_archive_that_cannot_be_written_is_named(tmp_path, pixels):
    with pytest.raises(StorageFailure, match=r"missing/x\.zip: cannot be written"):
        write_edm_zip(tmp_path / "missing" / "x.zip", pixels, None)


def test_an_interrupted_archive_leaves_nothing(tmp_path, pixels):
    def images():
        yield pixels[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_edm_zip(tmp_path / "x.zip", images(), None)
    assert list(tmp_path.iterdir()) == []


# --- npz -----------------------------------------------------------------------------------------

MEMBERS = {
    "seeds": np.arange(7),
    "images": np.arange(7 * 2 * 2 * 3, dtype=np.uint8).reshape(7, 2, 2, 3),
    "samples": np.linspace(-1, 1, 7 * 12).reshape(7, 3, 2, 2),
    "big": np.arange(7).astype(">f4"),
    "text": np.array(["a", "bc"] * 3 + ["d"]),
    "none": np.zeros((0, 3), np.float32),
}


def streamed(block):
    members = {}
    for name, a in MEMBERS.items():
        blocks = [a[i : i + block] for i in range(0, len(a), block)]
        members[name] = (a.shape, a.dtype, iter(blocks))
    sink = io.BytesIO()
    stream_npz(sink, members)
    return sink.getvalue()


@pytest.mark.parametrize("block", [1, 3, 7])
def test_npz_of_blocks_is_read_by_numpy_unchanged(block):
    with np.load(io.BytesIO(streamed(block)), allow_pickle=False) as found:
        assert list(found) == list(MEMBERS)
        for name, expected in MEMBERS.items():
            np.testing.assert_array_equal(found[name], expected)
            assert found[name].dtype == expected.dtype


def test_npz_bytes_do_not_depend_on_blocks_and_its_images_win_over_samples(tmp_path):
    assert streamed(1) == streamed(3) == streamed(100)
    (tmp_path / "x.npz").write_bytes(streamed(2))
    ids, images, _ = load_images(open_source(str(tmp_path / "x.npz")))
    assert ids == ["0", "1", "2", "3", "4", "5", "6"]
    np.testing.assert_array_equal(images, MEMBERS["images"])


@pytest.mark.parametrize(
    ("shape", "dtype", "blocks", "words"),
    [
        ((3, 2), np.uint8, [np.zeros((2, 2), np.uint8)], "expected 3 rows, the blocks held 2"),
        ((3, 2), np.uint8, [np.zeros((4, 2), np.uint8)], "expected 3 rows, the blocks held 4"),
        ((3, 2), np.uint8, [np.zeros((3, 3), np.uint8)], r"expected blocks uint8 \(n, 2\)"),
        ((3, 2), np.uint8, [np.zeros((3, 2), np.int8)], "got int8"),
        ((3,), object, [np.array([None] * 3)], "expected a plain dtype"),
        ((), np.uint8, [], "at least one axis"),
    ],
)
def test_blocks_that_do_not_fit_their_announcement_are_refused(shape, dtype, blocks, words):
    with pytest.raises(ValueError, match=words):
        stream_npz(io.BytesIO(), {"x": (shape, dtype, blocks)})


class Sink(io.RawIOBase):
    """Forgets the blocks but the first bytes and the last, and counts."""

    def __init__(self):
        self.position, self.tail, self.largest = 0, b"", 0

    def writable(self):
        return True

    def seekable(self):
        return False

    def write(self, data):
        size = len(data)
        self.largest = max(self.largest, size)
        self.position += size
        self.tail = (self.tail + bytes(data[-4096:]))[-4096:]
        return size


def test_npz_beyond_zip_s_limit_uses_zip64_and_one_block_of_memory():
    block = np.zeros(2**28, np.uint8)  # nine of them are more than the 2 GiB at which zipfile stops
    sink = Sink()
    stream_npz(sink, {"x": ((9 * 2**28,), np.uint8, (block for _ in range(9)))})
    assert sink.position > 9 * 2**28
    assert sink.largest <= 2**28
    num_bytes = (9 * 2**28 + 128).to_bytes(8, "little")  # the data and a header of 128 bytes
    assert num_bytes in sink.tail


def test_archives_hold_no_time_and_no_system(tmp_path, pixels):
    write_edm_zip(tmp_path / "x.zip", pixels, None)
    (tmp_path / "x.npz").write_bytes(streamed(3))
    for name, count in (("x.zip", 4), ("x.npz", len(MEMBERS))):
        entries = zipfile.ZipFile(tmp_path / name).infolist()
        assert len(entries) == count
        assert {e.date_time for e in entries} == {(1980, 1, 1, 0, 0, 0)}
        assert {(e.create_system, e.external_attr >> 16) for e in entries} == {(3, 0o644)}
