"""Image files in a folder or in a zip archive."""

from __future__ import annotations

import itertools
import os
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

from regimes.errors import BadImage, BadSource
from regimes.images.decode import SUFFIXES, decode
from regimes.images.fingerprints import hash_files, hash_parts
from regimes.images.labels import DATASET_JSON, labels_of_files
from regimes.images.names import is_utf8
from regimes.images.pixels import Images


def is_image_name(name: str) -> bool:
    """An image by the suffix of its path; not what is hidden, nor macOS's shadows in archives."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts) or "__MACOSX" in path.parts
    return path.suffix.lower() in SUFFIXES and not hidden


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder that are not hidden; linked folders come last, and none is entered twice."""
    seen: set[Path] = set()
    folders, links = [folder], deque[Path]()
    while folders or links:
        here = folders.pop() if folders else links.popleft()
        if (real := here.resolve()) in seen:
            continue
        seen.add(real)
        with os.scandir(here) as entries:
            shown = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        for entry in shown:
            path = Path(entry.path)
            if path.is_dir():
                (links if entry.is_symlink() else folders).append(path)
            elif path.is_file():
                yield path


class FolderSource:
    """All image files below a folder, sorted by relative path; the path is the id.

    Labels are those of a file ``dataset.json``, or those of class folders.

    Raises:
        BadSource: if a name is not UTF-8, or a folder cannot be listed.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        try:
            files = [p.relative_to(path).as_posix() for p in _files(path)]
        except OSError as error:
            raise BadSource(
                f"{error.filename}: cannot be listed ({error.strerror}); fix its permissions, or move it away"
            ) from error
        self.ids = sorted(filter(is_image_name, files))
        for name in self.ids:
            if not is_utf8(name):
                raise BadSource(f"{path}: expected file names in UTF-8, found {name!a}; rename it")

    @cached_property
    def labels(self) -> list[int] | None:
        """See ``ImageSource``."""
        return labels_of_files(self.name, self.ids, self._dataset_json())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all paths and contents, ``dataset.json`` included, if there is one."""
        described = self._dataset_json()
        images = (part for i in self.ids for part in (i.encode(), self._bytes(i)))
        return hash_parts(itertools.chain([] if described is None else [described], images))

    def _dataset_json(self) -> bytes | None:
        path = self.path / DATASET_JSON
        return self._bytes(DATASET_JSON) if path.is_file() else None

    def _bytes(self, image_id: str) -> bytes:
        try:
            return (self.path / image_id).read_bytes()
        except OSError as error:
            raise BadImage(
                f"{self.path / image_id}: cannot be read ({error.strerror}); fix its permissions, "
                "or move it away"
            ) from error

    def read(self, index: int, *, image_size: int | None = None) -> Images:
        """See ``ImageSource``."""
        image_id = self.ids[index]
        return decode(self._bytes(image_id), str(self.path / image_id), image_size=image_size)


class ZipSource:
    """All image files in a zip archive, sorted by name; the name is the id.

    Labels are those of a file ``dataset.json``, or those of class folders.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise BadSource(f"{path}: not a readable zip archive; create it again") from error
        self.ids = sorted(n for n in self._zip.namelist() if is_image_name(n) and n[-1] != "/")

    @cached_property
    def labels(self) -> list[int] | None:
        """See ``ImageSource``."""
        described = DATASET_JSON in self._zip.namelist()
        return labels_of_files(
            self.name, self.ids, self._bytes(DATASET_JSON) if described else None
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the whole file."""
        return hash_files([self.path])

    def _bytes(self, member: str) -> bytes:
        name = f"{self.path}/{member}"
        try:
            return self._zip.read(member)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
            raise BadImage(f"{name}: damaged inside the archive; create it again") from error
        except NotImplementedError as error:
            raise BadImage(f"{name}: {error}; create the archive with deflate or stored") from error
        except RuntimeError as error:  # zipfile's word for an encrypted member
            raise BadImage(f"{name}: {error}; create the archive without a password") from error

    def read(self, index: int, *, image_size: int | None = None) -> Images:
        """See ``ImageSource``."""
        member = self.ids[index]
        return decode(self._bytes(member), f"{self.path}/{member}", image_size=image_size)
