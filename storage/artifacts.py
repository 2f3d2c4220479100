"""Artifacts: folders that are addressed by what made them.

An artifact belongs to a **recipe**, the frozen configuration that determines its content. Its folder
is named by the recipe's hash. Files appear one by one, each whole; ``manifest.json``, with every
file's size, checksum and number of rows, is written last, and its presence means complete. So
asking for an artifact a second time computes nothing, and asking for a partial one computes what is
missing. Nothing here is ever executed: files are JSON, Parquet and safetensors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from regimes.errors import BrokenArtifact
from regimes.storage.filesystem import Location

MANIFEST = "manifest.json"
RECIPE = "recipe.json"


def to_json(value: Any) -> str:
    """Canonical, strict JSON of (nested) dataclasses: equal values give equal text.

    Dataclasses name their type, recipes also their code version; infinities become strings; fields
    that were added later (``regimes.later``) are left out while they have their default.
    """
    return json.dumps(_plain(value), sort_keys=True, indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Recipe):
        head = {"kind": value.kind, "code_version": value.code_version}
        return head | _fields(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__} | _fields(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _fields(value: Any) -> dict[str, Any]:
    return {f.name: _plain(getattr(value, f.name)) for f in _of_address(value)}


def _of_address(value: Any) -> list[dataclasses.Field[Any]]:
    return [
        f
        for f in dataclasses.fields(value)
        if not (f.metadata.get("later") and getattr(value, f.name) == f.default)
    ]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an artifact, as the manifest lists it."""

    name: str
    num_bytes: int
    sha256: str
    num_rows: int

    @classmethod
    def of(cls, name: str, data: bytes, num_rows: int = 0) -> FileEntry:
        """The entry of a file with this content."""
        return cls(name, len(data), hashlib.sha256(data).hexdigest(), num_rows)


class Recipe:
    """Base of recipes: frozen dataclasses of plain values and other recipes.

    ``code_version`` is raised whenever the code of the step changes what it makes.
    """

    kind: ClassVar[str]
    code_version: ClassVar[int]

    @property
    def address(self) -> str:
        """``kind/hash``: the folder of the artifact this recipe makes."""
        return f"{self.kind}/{hashlib.sha256(to_json(self).encode()).hexdigest()[:20]}"


R = TypeVar("R", bound=Recipe)


class Artifact:
    """What a recipe makes, complete or not."""

    def __init__(self, location: Location, recipe: Recipe) -> None:
        self.recipe = recipe
        self.location = location
        self._entries: list[FileEntry] | None = None

    def _load(self) -> list[FileEntry] | None:
        """Entries of the manifest, or None while there is none; remembered once it exists."""
        if self._entries is None:
            try:
                text = self.location.read(MANIFEST)
                self._entries = [FileEntry(**entry) for entry in json.loads(text)["files"]]
            except FileNotFoundError:
                return None
            except (ValueError, KeyError, TypeError) as error:
                raise self._broken(MANIFEST, f"not a manifest ({error})") from error
        return self._entries

    def is_complete(self) -> bool:
        """Whether the manifest exists."""
        return self._load() is not None

    @property
    def files(self) -> list[FileEntry]:
        """The manifest's entries, sorted by name.

        Raises:
            BrokenArtifact: if the artifact is not complete.
        """
        entries = self._load()
        if entries is None:
            raise BrokenArtifact(f"{self.location.uri}: not complete yet; run the job again")
        return entries

    def stored_recipe(self) -> str | None:
        """Text of the recipe that the folder was finished with, or None."""
        try:
            return self.location.read(RECIPE).decode()
        except FileNotFoundError:
            return None

    def present(self) -> set[str]:
        """Names of the files there now, complete or not (manifest and recipe left out)."""
        return set(self.location.sizes()) - {MANIFEST, RECIPE}

    def write(self, name: str, data: bytes, *, num_rows: int = 0) -> FileEntry:
        """Write one file whole; doing it twice is harmless."""
        self.location.write(name, data)
        return FileEntry.of(name, data, num_rows)

    def finish(self, entries: Iterable[FileEntry]) -> None:
        """Declare the artifact complete with exactly these files."""
        self.location.sweep()
        files = [dataclasses.asdict(e) for e in sorted(entries, key=lambda e: e.name)]
        self.location.write(RECIPE, to_json(self.recipe).encode())
        self.location.write(MANIFEST, to_json({"files": files}).encode())
        self._entries = None

    def read(self, name: str) -> bytes:
        """Content of a listed file, checked against the manifest.

        Raises:
            BrokenArtifact: if the file is missing, truncated or altered.
        """
        entry = next((e for e in self.files if e.name == name), None)
        if entry is None:
            raise self._broken(name, "not listed in the manifest")
        try:
            data = self.location.read(name)
        except FileNotFoundError as error:
            raise self._broken(name, "missing") from error
        if len(data) != entry.num_bytes:
            raise self._broken(name, f"{entry.num_bytes} bytes expected, {len(data)} found")
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise self._broken(name, "its checksum differs from the manifest's")
        return data

    def verify(self) -> None:
        """Read every file once; raise ``BrokenArtifact`` at the first that is not as listed."""
        for entry in self.files:
            self.read(entry.name)

    def remove(self) -> None:
        """Delete the artifact."""
        self.location.remove()
        self._entries = None

    def _broken(self, name: str, what: str) -> BrokenArtifact:
        return BrokenArtifact(
            f"{self.location.child(name).uri}: {what}; delete the folder {self.location.uri} and run "
            "the same command again to make it anew"
        )


class Store:
    """All artifacts below one location."""

    def __init__(self, uri: str) -> None:
        self.root = Location(uri)

    def artifact(self, recipe: Recipe) -> Artifact:
        """The artifact of a recipe, complete or not."""
        return Artifact(self.root.child(f"artifacts/{recipe.address}"), recipe)

    def missing(self, recipes: Iterable[R]) -> list[R]:
        """Recipes whose artifacts are not complete."""
        return [r for r in recipes if not self.artifact(r).is_complete()]
