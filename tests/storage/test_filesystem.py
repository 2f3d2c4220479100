"""Locations: files appear whole or not at all, wherever they are."""

from __future__ import annotations

import errno
import os
import shutil

import pyarrow.fs as pafs
import pytest

from regimes.errors import StorageFailure
from regimes.storage.filesystem import Location


@pytest.fixture
def location(uri):
    return Location(uri)


def test_file_is_read_back_as_written(location):
    location.write("a.bin", b"\x00first")
    location.child("deep/er").write("b.bin", b"")
    assert location.read("a.bin") == b"\x00first"
    assert location.read("deep/er/b.bin") == b""
    assert location.child("deep").child("er").read("b.bin") == b""


def test_writing_again_replaces_the_file(location):
    location.write("a.bin", b"a longer first version")
    location.write("a.bin", b"second")
    assert location.read("a.bin") == b"second"
    assert location.sizes() == {"a.bin": 6}


def test_missing_file_is_a_file_not_found_error(location):
    location.write("there", b"x")
    with pytest.raises(FileNotFoundError):
        location.read("not-there")
    with pytest.raises(FileNotFoundError):
        location.child("no-folder").read("a")


def test_sizes_list_the_files_of_one_folder_only(location):
    assert location.sizes() == {}
    location.write("a", b"1")
    location.write("b", b"22")
    location.write("sub/c", b"333")
    assert location.sizes() == {"a": 1, "b": 2}


def test_remove_deletes_everything_and_may_be_repeated(location):
    location.remove()
    location.write("a", b"1")
    location.write("sub/c", b"333")
    location.remove()
    assert location.sizes() == {}
    assert location.child("sub").sizes() == {}
    location.remove()


def test_root_of_an_object_store_keeps_its_scheme():
    root = Location("memory://")
    assert not root.is_local
    root.child("regimes-root-test").write("a", b"1")
    assert Location("memory://regimes-root-test/").read("a") == b"1"
    root.child("regimes-root-test").remove()


def test_file_uri_is_the_local_path_it_names(tmp_path):
    folder = tmp_path / "with space"
    Location(folder.as_uri()).write("a", b"1")
    assert (folder / "a").read_bytes() == b"1"
    assert Location(f"{folder}/").read("a") == b"1"


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Location("~/x").write("a", b"1")
    assert (tmp_path / "x" / "a").read_bytes() == b"1"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("", "no path: cannot be used as a location .it is empty"),
        ("file://results/x", "file:///folder is absolute"),
        ("file://", "file:///folder is absolute"),
        ("file:///data/run#2", "%23 for #"),
        ("file:///data/run?2", "%3F for ?"),
        ("s3:/bucket/x", "one slash behind the scheme.* expected .*s3://bucket"),
        ("file:/data", "one slash behind the scheme"),
    ],
)
def test_a_location_that_would_be_another_than_was_meant_is_refused(uri, words):
    with pytest.raises(StorageFailure, match=words):
        Location(uri)


def test_a_file_uri_may_name_this_host_and_hold_any_character(tmp_path):
    Location((tmp_path / "50% #1?").as_uri().replace("file://", "file://localhost")).write(
        "a", b"1"
    )
    assert (tmp_path / "50% #1?" / "a").read_bytes() == b"1"
    assert Location("/").path == "/"


def test_unknown_scheme_is_refused_by_name():
    with pytest.raises(StorageFailure, match=r"nosuch://a: cannot be used as a location .*s3://"):
        Location("nosuch://a")


def test_local_write_leaves_no_temporary_file(tmp_path):
    Location(str(tmp_path)).write("a", b"1")
    assert os.listdir(tmp_path) == ["a"]


def test_file_is_invisible_until_it_is_whole(tmp_path, monkeypatch):
    location = Location(str(tmp_path))
    seen = []
    replace = os.replace

    def spy(source, target):
        seen.append((location.sizes(), os.path.exists(target), os.path.getsize(source)))
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    location.write("a", b"12345")
    assert seen == [({}, False, 5)]  # complete under another name that is not listed
    assert location.sizes() == {"a": 5}


def test_interrupted_write_is_not_listed(tmp_path, monkeypatch):
    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Location(str(tmp_path)).write("a", b"1")
    assert os.listdir(tmp_path) == []
    (tmp_path / "a.tmp-0123").write_bytes(b"1")  # what a kill -9 leaves
    assert Location(str(tmp_path)).sizes() == {}


def test_interrupted_upload_of_several_parts_leaves_no_half_file(monkeypatch):
    def interrupted(source, target, size):
        target.write(source.read(2))
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfileobj", interrupted)
    location = Location("memory://regimes-interrupted-test")
    with pytest.raises(KeyboardInterrupt):
        location.write("a", b"1234")
    assert location.sizes() == {}


def test_only_temporary_files_that_are_long_abandoned_are_swept(tmp_path):
    for name in ("a.tmp-0", "b.tmp-1", "c"):
        (tmp_path / name).write_bytes(b"1")
    for name in ("a.tmp-0", "c"):
        os.utime(tmp_path / name, (0, 0))
    Location(str(tmp_path)).sweep()
    assert sorted(os.listdir(tmp_path)) == ["b.tmp-1", "c"]
    Location(str(tmp_path / "not-there")).sweep()


def test_place_below_a_regular_file_is_a_storage_failure(tmp_path):
    (tmp_path / "file").write_text("x")
    location = Location(str(tmp_path / "file" / "output"))
    message = "output/a: cannot be written .Not a directory.; .*choose another --output"
    with pytest.raises(StorageFailure, match=message):
        location.write("a", b"1")
    assert os.listdir(tmp_path) == ["file"]


class FullDisk:
    """A stream on a disk without room: the first bytes fit, the rest do not."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        return None

    def write(self, data):
        with open(self.path, "wb") as stream:
            stream.write(data[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullFilesystem:
    def create_dir(self, path, recursive):
        pafs.LocalFileSystem().create_dir(path, recursive=recursive)

    def open_output_stream(self, path):
        return FullDisk(path)


def test_a_folder_that_another_run_removes_while_a_file_is_written_is_made_again(
    tmp_path, monkeypatch
):
    """As a run does with the checkpoints of a training that it has finished."""
    place, replace = Location(str(tmp_path / "folder")), os.replace

    def removed_meanwhile(source, target):
        monkeypatch.setattr(os, "replace", replace)
        place.remove()
        replace(source, target)

    monkeypatch.setattr(os, "replace", removed_meanwhile)
    place.write("a", b"1")
    assert place.sizes() == {"a": 1}


def test_full_disk_is_a_storage_failure_that_keeps_the_old_file(tmp_path):
    location = Location(str(tmp_path))
    location.write("a", b"the old one")
    location.filesystem = FullFilesystem()
    with pytest.raises(
        StorageFailure, match=r"/a: cannot be written .No space left on device.; free"
    ):
        location.write("a", b"a new one that does not fit")
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"the old one"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_device_without_room_is_a_storage_failure(tmp_path):
    location = Location(str(tmp_path))
    real = location.filesystem

    class OnFullDevice(FullFilesystem):
        def open_output_stream(self, path):
            return real.open_output_stream("/dev/full")

    location.filesystem = OnFullDevice()
    with pytest.raises(StorageFailure, match="No space left on device"):
        location.write("a", b"1")
    assert os.listdir(tmp_path) == []


def test_read_only_place_is_a_storage_failure(tmp_path):
    location = Location(str(tmp_path))

    class ReadOnly:
        def create_dir(self, path, recursive):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    location.filesystem = ReadOnly()
    with pytest.raises(
        StorageFailure, match=r"Read-only file system.; fix the permissions, or choose another"
    ):
        location.write("a", b"1")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("uri", "below"),
    [
        ("/tmp/a?b", "/tmp/a?b/n/m"), ("memory://", "memory://n/m"), ("memory://a", "memory://a/n/m"),
        ("gs://anonymous@b/a?scheme=http", "gs://anonymous@b/a/n/m?scheme=http"),
    ],
)  # fmt: skip
def test_addresses_below_a_place_lead_there(uri, below):
    place = Location(uri).child("n").child("m")
    assert place.uri == below
    assert Location(place.uri).path.lstrip("/") == place.path.lstrip("/")


@pytest.mark.parametrize("uri", ["s3://KEY:SE+CRET@bucket/x", "sftp://me:SE+CRET@host/x"])
def test_passwords_in_addresses_are_refused_and_not_repeated(uri):
    with pytest.raises(StorageFailure, match="would be printed") as raised:
        Location(uri)
    assert "SE+CRET" not in str(raised.value)


def test_a_place_below_a_file_is_said_to_be_one(tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(StorageFailure, match=r"a part of that path is a file: choose another"):
        Location(str(tmp_path / "file" / "below")).write("a", b"1")


def test_unreadable_file_is_a_storage_failure(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(StorageFailure, match="/a: cannot be read"):
        Location(str(tmp_path)).read("a")


def test_place_below_a_regular_file_holds_nothing(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileNotFoundError, match="file/a"):
        Location(str(tmp_path / "file")).read("a")
