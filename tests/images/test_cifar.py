"""CIFAR-10's archive: every way it may have been pickled gives the same images, and nothing runs."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import re
import struct
import tarfile

import numpy as np
import pytest
from cifar_format import FOLDER, FORMS, TRAIN, batch_bytes, write_cifar_archive, write_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from watch import nothing_runs

from regimes.errors import BadCheckpoint, BadSource, UnsafeCheckpoint
from regimes.images.cifar import open_cifar10
from regimes.images.sources import load_images, load_labels, open_source
from regimes.pickles.arrays import PickledArray, read_arrays


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (13, 32, 32, 3), dtype=np.uint8)


LABELS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 0])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "c.tgz", FOLDER])
def test_every_form_gives_the_same_images_labels_and_fingerprint(tmp_path, images, form, name):
    path = write_cifar_archive(tmp_path / name, images, LABELS, form=form)
    train, test = open_source(str(path)), open_source(f"{path}#test")
    ids, found, _ = load_images(train)
    assert ids == [f"train/{i:05d}" for i in range(10)]
    np.testing.assert_array_equal(found, images[:10])
    np.testing.assert_array_equal(load_labels(train, ids), LABELS[:10])
    assert load_images(test)[0] == ["test/00000", "test/00001", "test/00002"]
    np.testing.assert_array_equal(load_images(test)[1], images[10:])
    assert test.labels == [5, 8, 0]
    assert open_source(f"{path}#train").fingerprint == train.fingerprint
    reference = write_cifar_archive(tmp_path / "reference", images, LABELS)
    assert open_source(str(reference)).fingerprint == train.fingerprint
    assert open_source(f"{reference}#test").fingerprint == test.fingerprint != train.fingerprint


def test_the_helper_writes_what_python_unpickles_as_the_published_batches(images):
    for form in FORMS:
        batch = pickle.loads(
            batch_bytes("data_batch_1", images[:4], LABELS[:4], form), encoding="bytes"
        )
        assert set(batch) == {b"batch_label", b"labels", b"data", b"filenames"}
        assert batch[b"data"].dtype == np.uint8
        # Red first, row by row: CIFAR-10's published layout.
        np.testing.assert_array_equal(batch[b"data"][:, 1024:1056], images[:4, 0, :, 1])
        assert batch[b"labels"] == LABELS[:4].tolist()


def test_a_batch_of_the_published_size_is_read(tmp_path):
    image = np.arange(3072, dtype=np.uint32).reshape(32, 32, 3).astype(np.uint8)
    images = np.repeat(image[None], 10_000, 0)
    images[9_999] += 1
    content = batch_bytes("data_batch_1", images, np.arange(10_000) % 10)
    assert len(content) > 30_720_000
    found = read_arrays(content)
    assert found["data"].values.shape == (10_000, 3072)
    assert found["labels"] == (np.arange(10_000) % 10).tolist()
    assert found["data"].values[9_999, 0] == 1


def test_other_batches_in_the_archive_do_not_count(tmp_path, images):
    files = {n: batch_bytes(n, images[:1], LABELS[:1]) for n in (*TRAIN, "data_batch_6", "test")}
    write_files(tmp_path / "c.tar.gz", files)
    assert len(open_source(str(tmp_path / "c.tar.gz")).ids) == 5


@pytest.mark.parametrize("name", ["c.tar.gz", "folder"])
def test_missing_batches_are_named(tmp_path, images, name):
    files = {n: batch_bytes(n, images[:1], LABELS[:1]) for n in TRAIN if n != "data_batch_3"}
    write_files(tmp_path / name, files)
    with pytest.raises(BadSource, match=r"expected CIFAR-10's batches, lacks data_batch_3;"):
        open_source(str(tmp_path / name))
    with pytest.raises(BadSource, match="lacks test_batch"):
        open_source(f"{tmp_path / name}#test")


def test_a_part_of_another_source_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 4, 4, 1), np.uint8))
    with pytest.raises(BadSource, match="expected CIFAR-10 or MNIST before '#test'"):
        open_source(f"{tmp_path / 'x.npy'}#test")
    with pytest.raises(BadSource, match="no such file or folder"):
        open_source(f"{tmp_path / 'missing.tar.gz'}#test")


def test_a_path_that_ends_like_a_part_is_a_path(tmp_path, images):
    path = write_cifar_archive(tmp_path / "my#test", images, LABELS)
    assert open_source(str(path)).ids[0] == "train/00000"
    assert open_source(f"{path}#test").ids[0] == "test/00000"


# --- what can be wrong ---------------------------------------------------------------------------


class Command:
    """Runs a command when it is unpickled by pickle."""

    def __reduce__(self):
        return os.system, ("echo hacked",)


def refusal(tmp_path, content, kind=BadSource):
    """The one-line message with which an archive with this first batch is refused."""
    write_files(tmp_path / "c.tar.gz", dict.fromkeys(TRAIN, b"") | {"data_batch_1": content})
    with nothing_runs(), pytest.raises(kind) as info:
        open_cifar10(tmp_path / "c.tar.gz")
    message = str(info.value)
    assert message.startswith(f"{tmp_path / 'c.tar.gz'}/data_batch_1: ")
    assert "\n" not in message
    return message


@pytest.fixture(autouse=True)
def _warm_up(tmp_path):
    """Let tarfile and gzip import what they import on first use."""
    open_cifar10(
        write_cifar_archive(tmp_path / "w.tgz", np.zeros((5, 32, 32, 3), np.uint8), [0] * 5)
    )


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", ["top", "data", "labels", "beside"])
def test_commands_are_refused_by_name_and_not_run(tmp_path, images, protocol, place):
    batch = {b"data": images[:1].reshape(1, -1), b"labels": [1], b"x": None}
    key = {"data": b"data", "labels": b"labels", "beside": b"x"}.get(place)
    content = Command() if key is None else batch | {key: [Command()]}
    message = refusal(tmp_path, pickle.dumps(content, protocol=protocol))
    if protocol >= 2:  # before, numpy itself asks for copyreg
        assert f"'{os.system.__module__}.system'" in message
    assert "nothing was executed" in message


@pytest.mark.parametrize(
    "names",
    [
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("numpy.lib.npyio", "load"),
        ("builtins", "eval"),
        ("copy_reg", "_reconstructor"),
        ("torch.storage", "_load_from_bytes"),
        ("torch_utils.persistence", "_reconstruct_persistent_obj"),
        ("collections", "OrderedDict"),
    ],
)
def test_names_that_no_array_needs_are_refused(tmp_path, names):
    content = b"\x80\x02c" + "\n".join(names).encode() + b"\nU\x04echo\x85R."
    assert f"'{'.'.join(names)}'" in refusal(tmp_path, content)


def test_edm_checkpoints_may_hold_no_arrays_and_arrays_no_checkpoints(tmp_path):
    from regimes.checkpoints.pickles import read_checkpoint

    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps(np.zeros(3), protocol=4))
    with pytest.raises(UnsafeCheckpoint, match="_reconstruct"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps({b"a": 1}, protocol=4))
    with pytest.raises(UnsafeCheckpoint, match="a key is of type bytes"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps(bytearray(3), protocol=5))
    with pytest.raises(UnsafeCheckpoint, match="BYTEARRAY8"):
        read_checkpoint(path)


def reconstruct(shape, raw, code=b"u1"):
    """A pickle of one array with a shape and bytes of the test's choice."""
    content = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    content += b"(K\x01" + pickle.dumps(shape, 2)[2:-1]
    content += b"cnumpy\ndtype\nU" + bytes([len(code)]) + code + b"K\x00K\x01\x87R\x89"
    return content + b"T" + struct.pack("<i", len(raw)) + raw + b"tb."


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (reconstruct((2**40,), b"abc"), "declares shape"),
        (reconstruct((2**39, 2**39), b"abc"), "declares shape"),
        (reconstruct((2**80,), b"abc"), "size"),
        (reconstruct((-3,), b"abc"), "size"),
        (reconstruct((1,) * 9, b"a"), "at most 8"),
        (reconstruct([3], b"abc"), "sizes"),
        (reconstruct((3,), b"abc", b"O8"), "only numeric"),
        (reconstruct((1,), b"abcdefgh", b"O"), "only numeric"),
        (reconstruct((3,), b"abc", b"V1"), "only numeric"),
        (b"\x80\x02}T\xff\xff\xff\x7fabc.", "announced"),
        (b"", "announced"),
        (b"\x80\x02" + b"]" * 5000 + b".", "nesting is deeper"),
        (b"\x80\x02(I1\nI2\nu.", "expected a dict to fill|stack is empty"),
        (pickle.dumps([1], 2), "expected a dict"),
        (pickle.dumps({b"labels": []}, 2), "expected 'data' uint8 .* found no array"),
    ],
)
def test_damaged_and_hostile_arrays_are_refused(tmp_path, content, words):
    assert re.search(words, refusal(tmp_path, content))


def test_copies_of_one_array_without_end_are_refused():
    text = b"T" + struct.pack("<i", 2000) + b"a" * 2000 + b"q\x000"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
    once = empty + b"(K\x01M\xd0\x07\x85" + dtype + b"\x89h\x00tb0"  # 120 bytes that make 2000
    assert read_arrays(b"\x80\x02" + text + once * 3 + b"N.") is None
    with pytest.raises(UnsafeCheckpoint, match="more copies"):
        read_arrays(b"\x80\x02" + text + once * 40 + b"N.")


@pytest.mark.parametrize(
    ("data", "labels", "words"),
    [
        (np.zeros((2, 3072), np.float32), [1, 2], "found float32"),
        (np.zeros((2, 3071), np.uint8), [1, 2], r"found uint8 \(2, 3071\)"),
        (np.zeros(3072, np.uint8), [1], r"found uint8 \(3072,\)"),
        (np.zeros((2, 3072), np.uint8), [1], "2 integers from 0 to 9"),
        (np.zeros((2, 3072), np.uint8), [1, 10], "2 integers from 0 to 9"),
        (np.zeros((2, 3072), np.uint8), [1, -1], "2 integers from 0 to 9"),
        (np.zeros((2, 3072), np.uint8), [1, "a"], "2 integers from 0 to 9"),
        (np.zeros((2, 3072), np.uint8), None, "2 integers from 0 to 9"),
    ],
)
def test_batches_of_other_data_are_refused(tmp_path, data, labels, words):
    content = pickle.dumps({b"data": data, b"labels": labels}, 4)
    assert re.search(words, refusal(tmp_path, content))


@pytest.mark.parametrize("labels", [np.array([4, 2]), [np.int64(4), np.uint8(2)]])
def test_labels_that_numpy_made_are_read(labels):
    for protocol in (2, 4, 5):
        found = read_arrays(pickle.dumps({"labels": labels}, protocol))["labels"]
        values = found.values.tolist() if isinstance(found, PickledArray) else found
        assert values == [4, 2]


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i8", ">f4", "f8", "f2", "?"])
def test_arrays_are_those_of_numpy(protocol, dtype, rng):
    for values in (
        rng.integers(0, 99, (3, 4, 5)).astype(dtype),
        np.asfortranarray(rng.integers(0, 99, (3, 4)).astype(dtype)),
        np.zeros((0, 7), dtype),
        np.ones((), dtype),
    ):
        found = read_arrays(pickle.dumps(values, protocol)).values
        np.testing.assert_array_equal(found, values)
        assert found.dtype == values.dtype


def test_truncated_archives_are_refused_in_one_line(tmp_path, images):
    whole = write_cifar_archive(tmp_path / "c.tar.gz", images, LABELS).read_bytes()
    path = tmp_path / "cut.tar.gz"
    for length in [0, 5, *np.linspace(20, len(whole) - 1, 25).astype(int)]:
        path.write_bytes(whole[:length])
        with pytest.raises(
            BadSource, match=r"^\S+cut\.tar\.gz: not a readable .* download it again$"
        ):
            open_source(str(path))


def test_archives_that_are_none_or_hold_links_are_refused(tmp_path, images):
    (tmp_path / "text.tar.gz").write_bytes(gzip.compress(b"text" * 1000))
    with pytest.raises(BadSource, match=r"not a readable \.tar\.gz archive"):
        open_source(str(tmp_path / "text.tar.gz"))
    (tmp_path / "secret").write_bytes(batch_bytes("data_batch_1", images[:1], LABELS[:1]))
    with tarfile.open(tmp_path / "link.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo(f"{FOLDER}/data_batch_1")
        entry.type, entry.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        archive.addfile(entry)
    with pytest.raises(BadSource, match="expected one plain file"):
        open_source(str(tmp_path / "link.tar.gz"))


def test_repeated_and_oversized_members_are_refused(tmp_path, images, monkeypatch):
    content = batch_bytes("data_batch_1", images[:1], LABELS[:1])
    with tarfile.open(tmp_path / "twice.tar.gz", "w:gz") as archive:
        for _ in range(2):
            entry = tarfile.TarInfo(f"{FOLDER}/data_batch_1")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with pytest.raises(BadSource, match="expected one plain file of that name"):
        open_source(str(tmp_path / "twice.tar.gz"))
    monkeypatch.setattr("regimes.images.cifar._MAX_BATCH_BYTES", len(content) - 1)
    path = write_cifar_archive(tmp_path / "folder", images, LABELS, per_batch=1)
    with pytest.raises(BadSource, match=r"data_batch_1: \d+ bytes; a batch has at most"):
        open_source(str(path))
    monkeypatch.setattr("regimes.images.cifar._MAX_ARCHIVE_BYTES", 1000)
    with pytest.raises(BadSource, match="unpacks to more than 1000 bytes"):
        open_source(str(tmp_path / "twice.tar.gz"))


@settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=400,
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_random_damage_is_read_or_refused_and_nothing_runs(data):
    form = data.draw(st.sampled_from(FORMS))
    images = np.arange(2 * 3072, dtype=np.uint32).reshape(2, 32, 32, 3).astype(np.uint8)
    content = bytearray(batch_bytes("data_batch_1", images, [1, 2], form))
    blob = content.find(images[0].transpose(2, 0, 1).tobytes()[:64])
    head = list(range(blob if blob > 0 else 300)) + list(range(len(content) - 200, len(content)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.sampled_from(head))] = data.draw(st.integers(0, 255))
    messages = []
    with nothing_runs():
        try:
            read_arrays(bytes(content))
        except BadCheckpoint as error:
            messages.append(str(error))
    assert not any("\n" in message for message in messages)
