"""One way to reach files, wherever they are.

A location is a path or a URI. Local paths, s3:// and gs:// are served by pyarrow; every other
scheme by the fsspec package that registers it. A file appears whole or not at all: local files are
written under a temporary name and renamed, object stores receive one put.
"""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import unquote, urlsplit

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs

from regimes.errors import StorageFailure

_PYARROW_SCHEMES = ("s3", "gs", "gcs")
_SPOOL_BYTES = 64 * 2**20


class Location:
    """A folder on some filesystem.

    Args:
        uri: a local path, file:// URI, or any URI that pyarrow or fsspec know.

    Raises:
        StorageFailure: if the scheme is unknown or the place is out of reach.
    """

    def __init__(self, uri: str) -> None:
        stripped = str(uri).rstrip("/") or "/"
        self.uri = str(uri) if stripped.endswith(":") else stripped  # memory:// is a root
        self.is_local = "://" not in self.uri or self.uri.startswith("file://")
        try:
            self.filesystem, self.path = _resolve(self.uri, self.is_local)
            if self.is_local:
                self.uri = self.path  # absolute: workers have working directories of their own
        except (OSError, ValueError, ImportError, pa.ArrowInvalid) as error:
            raise StorageFailure(
                f"{self.uri}: cannot be used as a location ({error}); "
                "expected a local path or a URI such as s3://bucket/folder"
            ) from error

    def child(self, name: str) -> Location:
        """The folder ``name`` below this one."""
        base, mark, query = self.uri.partition("?")
        below = copy.copy(self)
        below.uri = f"{base.rstrip('/')}/{name}{mark}{query}"
        below.path = f"{self.path.rstrip('/')}/{name}" if self.path else name
        return below

    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            FileNotFoundError: if it does not exist.
            StorageFailure: if it cannot be read.
        """
        try:
            with self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
                return bytes(stream.read())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(f"{self.uri}/{name}") from error
        except OSError as error:
            raise StorageFailure(f"{self.uri}/{name}: cannot be read ({_reason(error)})") from error

    def write(self, name: str, data: bytes) -> None:
        """Create or replace a file, whole or not at all.

        Raises:
            StorageFailure: if the place is read-only, full or out of reach; nothing is left behind.
        """
        with self.create(name) as stream:
            stream.write(data)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """A stream to a new file, which appears when the block ends and not at all if it fails.

        Raises:
            StorageFailure: as ``write``.
        """
        target = f"{self.path}/{name}"
        temporary = f"{target}.tmp-{uuid.uuid4().hex}" if self.is_local else target
        try:
            self.filesystem.create_dir(os.path.dirname(target), recursive=True)
            if self.is_local:
                with self.filesystem.open_output_stream(temporary) as stream:
                    yield stream
                os.replace(temporary, target)
            else:  # closing a put half-way would leave half a file: collect, then put
                with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
                    yield cast("BinaryIO", spool)
                    spool.seek(0)
                    with self.filesystem.open_output_stream(target) as stream:
                        shutil.copyfileobj(spool, stream, _SPOOL_BYTES)
        except OSError as error:
            raise StorageFailure(
                f"{self.uri}/{name}: cannot be written ({_reason(error)}); free space, fix the "
                "permissions, or choose another --output, then run the same command again"
            ) from error
        finally:  # on Ctrl-C too; after the rename there is nothing to delete
            if self.is_local:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink()

    def sizes(self) -> dict[str, int]:
        """Size in bytes of every file directly in the folder, by name; empty if there is no folder."""
        selector = pafs.FileSelector(self.path, allow_not_found=True)
        try:
            infos = self.filesystem.get_file_info(selector)
        except OSError as error:
            raise StorageFailure(f"{self.uri}: cannot be listed ({_reason(error)})") from error
        return {
            i.base_name: i.size
            for i in infos
            if i.type == pafs.FileType.File and ".tmp-" not in i.base_name
        }

    def names(self) -> list[str]:
        """Paths of all files below the folder, relative to it, sorted; empty if there is no folder."""
        selector = pafs.FileSelector(self.path, allow_not_found=True, recursive=True)
        try:
            infos = self.filesystem.get_file_info(selector)
        except OSError as error:
            raise StorageFailure(f"{self.uri}: cannot be listed ({_reason(error)})") from error
        start = len(self.path.rstrip("/")) + 1
        return sorted(i.path[start:] for i in infos if i.type == pafs.FileType.File)

    def delete(self, name: str) -> None:
        """Delete one file, if it exists."""
        try:
            self.filesystem.delete_file(f"{self.path}/{name}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageFailure(
                f"{self.uri}/{name}: cannot be removed ({_reason(error)})"
            ) from error

    def remove(self) -> None:
        """Delete the folder with everything in it, if it exists."""
        try:
            self.filesystem.delete_dir(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageFailure(f"{self.uri}: cannot be removed ({_reason(error)})") from error


def _resolve(uri: str, is_local: bool) -> tuple[pafs.FileSystem, str]:
    if is_local:
        path = Path(unquote(urlsplit(uri).path) if uri.startswith("file://") else uri)
        return pafs.LocalFileSystem(), str(path.expanduser().absolute())
    if urlsplit(uri).scheme in _PYARROW_SCHEMES:
        filesystem, path = pafs.FileSystem.from_uri(uri)
        return filesystem, path
    fs, path = fsspec.core.url_to_fs(uri)
    return pafs.PyFileSystem(pafs.FSSpecHandler(fs)), path.rstrip("/")


def _reason(error: OSError) -> str:
    """The cause in words, without pyarrow's repetition of the path."""
    return os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
