"""One way to reach files, wherever they are.

A location is a path or a URI. Local paths, s3:// and gs:// are served by pyarrow; every other
scheme by the fsspec package that registers it. A file appears whole or not at all: local files are
written under a temporary name and renamed, object stores receive one put. What may work the next time
is tried again for a while (see ``retries``), then named.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import functools
import io
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import quote, unquote, urlsplit

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs

from regimes.errors import StorageFailure
from regimes.storage.retries import NO_SUCH_DIRECTORY, persist

_PYARROW_SCHEMES = ("s3", "gs", "gcs")
# Of gs://; Arrow's own is 15 minutes, in silence.
_PATIENCE, _PATIENCE_S = "retry_limit_seconds", 20
_ONE_SLASH = re.compile("(?i)[a-z][a-z0-9+.-]+:/(?!/)")
_SECRET = re.compile("[^/]+://[^/@]*:[^/@]*@")
_NO_SECRETS = (
    "an address with a password before the @ would be printed and recorded; give the password to the store's "
    "client instead (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what the client reads)"
)
_SPOOL_BYTES = 64 * 2**20
_LONGEST_REASON = 300  # characters: some stores answer with a page
_STALE_S = 600.0  # a file that nobody has written to for so long is nobody's


class Location:
    """A folder on some filesystem.

    Args:
        uri: a local path, file:// URI, or any URI that pyarrow or fsspec know.

    Raises:
        StorageFailure: if the scheme is unknown or the place is out of reach.
    """

    def __init__(self, uri: str) -> None:
        stripped = str(uri).rstrip("/") or str(uri)[:1]
        self.uri = str(uri) if stripped.endswith(":") else stripped  # memory:// is a root
        self.is_local = "://" not in self.uri or self.uri.startswith("file://")
        if _SECRET.match(self.uri):
            raise StorageFailure(_NO_SECRETS)
        try:
            found = persist(
                lambda: _resolve(self.uri, self.is_local)
            )  # may ask for a bucket's region
            self.filesystem, self.path = found
            if self.is_local:
                self.uri = self.path  # absolute: workers have working directories of their own
        except (OSError, ValueError, ImportError, pa.ArrowInvalid) as error:
            raise StorageFailure(
                f"{self.uri or 'no path'}: cannot be used as a location ({error}); "
                "expected a local path or a URI such as s3://bucket/folder"
            ) from error

    def child(self, name: str) -> Location:
        """The folder ``name`` below this one."""
        below = copy.copy(self)
        below.path = f"{self.path.rstrip('/')}/{name}" if self.path else name
        base, mark, query = self.uri.partition("?")
        root = base if base.endswith("://") else f"{base.rstrip('/')}/"
        below.uri = below.path if self.is_local else f"{root}{name}{mark}{query}"
        return below

    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            FileNotFoundError: if it does not exist.
            StorageFailure: if it cannot be read.
        """

        def attempt() -> bytes:
            with self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
                return bytes(stream.read())

        try:
            return persist(attempt)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(self.child(name).uri) from error
        except OSError as error:
            raise StorageFailure(
                f"{self.child(name).uri}: cannot be read ({_reason(error)})"
            ) from error

    def chunks(self, name: str, size: int) -> Iterator[bytes]:
        """Content of a large file, ``size`` bytes at a time; errors as of ``read``."""
        try:
            with persist(lambda: self.filesystem.open_input_file(f"{self.path}/{name}")) as file:
                start, end = 0, persist(file.size)
                while start < end:
                    chunk = persist(functools.partial(file.read_at, min(size, end - start), start))
                    start += len(chunk)
                    yield chunk
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(self.child(name).uri) from error
        except OSError as error:
            raise StorageFailure(
                f"{self.child(name).uri}: cannot be read ({_reason(error)})"
            ) from error

    def write(self, name: str, data: bytes) -> None:
        """Create or replace a file, whole or not at all.

        Raises:
            StorageFailure: if the place is read-only, full or out of reach; nothing is left behind.
        """
        put = self._write_local if self.is_local else self._put
        with self._named(name):
            persist(lambda: put(name, io.BytesIO(data)))

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """A stream to a new file, which appears when the block ends and not at all if it fails.

        Raises:
            StorageFailure: as ``write``.
        """
        with self._named(name):
            if self.is_local:
                with self._renamed(name) as stream:
                    yield stream
                return
            # Closing a put half-way would leave half a file: collect, then put.
            with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
                yield cast("BinaryIO", spool)
                persist(lambda: self._put(name, cast("BinaryIO", spool)))

    @contextlib.contextmanager
    def _named(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageFailure(
                f"{self.child(name).uri}: cannot be written ({_reason(error)}); {_advice(error)} choose "
                "another --output, then run the same command again"
            ) from error

    def _write_local(self, name: str, content: BinaryIO) -> None:
        try:
            self._copy_local(name, content)
        except (
            FileNotFoundError
        ):  # another run has removed the folder meanwhile, as it does checkpoints
            self._copy_local(name, content)

    def _copy_local(self, name: str, content: BinaryIO) -> None:
        content.seek(0)
        with self._renamed(name) as stream:
            shutil.copyfileobj(content, stream, _SPOOL_BYTES)

    @contextlib.contextmanager
    def _renamed(self, name: str) -> Iterator[BinaryIO]:
        """A stream to a local file under a temporary name, which is renamed when the block ends."""
        target = f"{self.path}/{name}"
        temporary = f"{target}.tmp-{uuid.uuid4().hex}"
        try:
            self.filesystem.create_dir(os.path.dirname(target), recursive=True)
            with self.filesystem.open_output_stream(temporary) as stream:
                yield stream
            os.replace(temporary, target)
        finally:  # on Ctrl-C too; after the rename there is nothing to delete
            with contextlib.suppress(OSError):
                Path(temporary).unlink()

    def _put(self, name: str, content: BinaryIO) -> None:
        """Put a file in an object store, which shows it when it is whole."""
        target = f"{self.path}/{name}"
        content.seek(0)
        if not self._has_keys:
            self.filesystem.create_dir(os.path.dirname(target), recursive=True)
        try:
            with self.filesystem.open_output_stream(target) as stream:
                shutil.copyfileobj(content, stream, _SPOOL_BYTES)
        except BaseException as error:
            if not isinstance(error, Exception):  # interrupted: closing has shown half a file
                with contextlib.suppress(OSError):
                    self.filesystem.delete_file(target)
            raise

    @property
    def _has_keys(self) -> bool:
        """Whether folders are nothing but parts of names: making one would be a put of its own."""
        return isinstance(self.filesystem, (pafs.S3FileSystem, pafs.GcsFileSystem))

    def sizes(self) -> dict[str, int]:
        """Size in bytes of every file directly in the folder, by name; empty if there is no folder."""
        return {
            i.base_name: i.size
            for i in self._list()
            if i.type == pafs.FileType.File and ".tmp-" not in i.base_name
        }

    def times(self) -> dict[str, float | None]:
        """When every file directly in the folder was written, in seconds since 1970 where it is known."""
        return {
            i.base_name: None if i.mtime_ns is None else i.mtime_ns / 1e9
            for i in self._list()
            if i.type == pafs.FileType.File and ".tmp-" not in i.base_name
        }

    def sweep(self) -> None:
        """Delete the temporary files that processes which were killed left in the folder long ago."""
        if self.is_local:
            for info in self._list():
                written_s = time.time() if info.mtime_ns is None else info.mtime_ns / 1e9
                if ".tmp-" in info.base_name and time.time() - written_s > _STALE_S:
                    self.delete(info.base_name)

    def names(self) -> list[str]:
        """Paths of all files below the folder, relative to it, sorted; empty if there is no folder."""
        start = len(self.path.rstrip("/")) + 1
        infos = self._list(recursive=True)
        return sorted(i.path[start:] for i in infos if i.type == pafs.FileType.File)

    def folders(self) -> list[str]:
        """Names of the folders directly in the folder, sorted; empty if there is no folder."""
        if isinstance(self.filesystem, pafs.GcsFileSystem):  # lists those alone that are files too
            return sorted({name.partition("/")[0] for name in self.names() if "/" in name})
        return sorted(i.base_name for i in self._list() if i.type == pafs.FileType.Directory)

    def _list(self, *, recursive: bool = False) -> list[pafs.FileInfo]:
        selector = pafs.FileSelector(self.path, allow_not_found=True, recursive=recursive)
        try:
            return persist(lambda: self.filesystem.get_file_info(selector))
        except OSError as error:
            raise StorageFailure(f"{self.uri}: cannot be listed ({_reason(error)})") from error

    def delete(self, name: str) -> None:
        """Delete one file, if it exists."""
        try:
            persist(lambda: self.filesystem.delete_file(f"{self.path}/{name}"))
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageFailure(
                f"{self.child(name).uri}: cannot be removed ({_reason(error)})"
            ) from error

    def remove(self) -> None:
        """Delete the folder with everything in it, if it exists."""
        try:
            persist(lambda: self.filesystem.delete_dir(self.path))
        except FileNotFoundError:
            return
        except OSError as error:
            if NO_SUCH_DIRECTORY in str(error):
                return
            raise StorageFailure(f"{self.uri}: cannot be removed ({_reason(error)})") from error


def _resolve(uri: str, is_local: bool) -> tuple[pafs.FileSystem, str]:
    if is_local:
        return pafs.LocalFileSystem(), str(_local_path(uri).expanduser().absolute())
    scheme = urlsplit(uri).scheme
    if scheme in _PYARROW_SCHEMES:
        base, _, query = uri.partition("?")
        if scheme != "s3" and _PATIENCE not in query:
            query = "&".join(filter(None, [query, f"{_PATIENCE}={_PATIENCE_S}"]))
        mark = "?" if query else ""
        filesystem, path = pafs.FileSystem.from_uri(f"{quote(base, safe=':/%@')}{mark}{query}")
        return filesystem, path
    fs, path = fsspec.core.url_to_fs(uri)
    return pafs.PyFileSystem(pafs.FSSpecHandler(fs)), path.rstrip("/")


def _local_path(location: str) -> Path:
    """The path that a local location means; ``ValueError`` where it would be another than was meant."""
    if not location:
        raise ValueError("it is empty")
    if _ONE_SLASH.match(location):
        raise ValueError("one slash behind the scheme; a local folder of that name is ./name:")
    if not location.startswith("file://"):
        return Path(location)
    uri = urlsplit(location)
    if uri.netloc not in ("", "localhost") or not uri.path or uri.query or uri.fragment:
        raise ValueError("file:///folder is absolute and has %23 for # and %3F for ?")
    return Path(unquote(uri.path))


def _advice(error: OSError) -> str:
    """What may be done about a file that cannot be written, besides writing it elsewhere."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free space, or"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "fix the permissions, or"
    if error.errno == errno.ENOTSUP:
        return "such places can only be read:"
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        return "a part of that path is a file:"
    return "free space, fix the permissions, or"


def _reason(error: OSError) -> str:
    """The cause in words, without pyarrow's repetition of the path."""
    if error.errno == errno.ENOTSUP:
        return error.strerror or os.strerror(errno.ENOTSUP)
    if error.errno:
        return os.strerror(error.errno)
    return (str(error).splitlines() or [type(error).__name__])[0][:_LONGEST_REASON]
