"""Hugging Face datasets on disk: the folder that ``Dataset.save_to_disk`` writes, read by pyarrow alone.

state.json          the Arrow files, in order
data-*.arrow        rows in Arrow's stream format, memory-mapped here: only images in use are read
dataset_info.json   the features; not needed, because Arrow knows the types
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from regimes.errors import BadSource
from regimes.images.arrays import row_ids
from regimes.images.decode import decode
from regimes.images.fingerprints import hash_files
from regimes.images.labels import checked_labels
from regimes.images.pixels import Images

STATE, SPLITS = "state.json", "dataset_dict.json"
_IMAGE_COLUMNS, _ID_COLUMNS = ("image", "img"), ("id", "seed")
_LABEL_COLUMNS = ("label", "labels")


def is_huggingface(path: Path) -> bool:
    """Whether a folder was written by ``save_to_disk``, of a dataset or of a dictionary of them."""
    return (path / STATE).is_file() or (path / SPLITS).is_file()


class HuggingFaceSource:
    """Rows of a dataset on disk, one image each.

    Column ``image`` or ``img`` holds encoded bytes, or a struct of ``bytes`` and ``path`` as the type
    Image does; a path without bytes is that of a file. The id comes from a column ``id`` or ``seed``,
    else it is the row number; the label from ``label`` or ``labels``.

    Args:
        path: the folder.

    Raises:
        BadSource: if it is not such a folder, holds several splits, or has no column of images.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        self._files = _arrow_files(path)
        self._table = _read_table(path, self._files)
        columns = self._table.column_names
        self._column = _first(_IMAGE_COLUMNS, columns) or ""
        if not self._column:
            raise BadSource(f"{path}: expected a column 'image', found {', '.join(columns)}")
        named = _first(_ID_COLUMNS, columns)
        values = self._table[named].to_pylist() if named else row_ids(len(self._table))
        self.ids = [str(value) for value in values]

    @cached_property
    def labels(self) -> list[int] | None:
        """See ``ImageSource``."""
        named = _first(_LABEL_COLUMNS, self._table.column_names)
        if named is None:
            return None
        values = self._table[named].to_pylist()
        if None in values:
            raise BadSource(
                f"{self.name}: expected a label in each row, found none in row {values.index(None)}"
            )
        return checked_labels(self.name, values, len(self.ids))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the Arrow files."""
        return hash_files(self._files)

    def read(self, index: int, *, image_size: int | None = None) -> Images:
        """See ``ImageSource``."""
        name = f"{self.path} row {index}"
        value = self._table[self._column][index].as_py()
        if isinstance(value, dict):
            value = value.get("bytes") or self._outside(name, value.get("path"))
        if not isinstance(value, bytes):
            raise BadSource(
                f"{name}: expected encoded images (features.Image), got "
                f"{self._table.schema.field(self._column).type}"
            )
        return decode(value, name, image_size=image_size)

    def _outside(self, name: str, path: Any) -> bytes | None:
        """Content of an image that the dataset only points at."""
        if not isinstance(path, str):
            return None
        try:
            return (self.path / path).read_bytes()
        except OSError as error:
            raise BadSource(f"{name}: {path} cannot be read ({error.strerror})") from error


def _arrow_files(path: Path) -> list[Path]:
    """The files that hold the rows, in order."""
    if (path / SPLITS).is_file():
        splits = sorted(p.parent.name for p in path.glob(f"*/{STATE}"))
        example = "train" if "train" in splits or not splits else splits[0]
        raise BadSource(
            f"{path}: a dataset of {len(splits)} splits ({', '.join(splits)}); name one, as in "
            f"{path / example}"
        )
    try:
        state = json.loads((path / STATE).read_text())
        names = [str(entry["filename"]) for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadSource(f"{path / STATE}: not the state of a dataset on disk ({error})") from error
    if state.get("_indices_data_files"):
        raise BadSource(
            f"{path}: rows are chosen by an index; write the dataset again after flatten_indices()"
        )
    return [path / Path(name).name for name in names]


def _read_table(path: Path, files: list[Path]) -> pa.Table:
    tables = []
    for file in files:
        try:
            tables.append(pa.ipc.open_stream(pa.memory_map(str(file))).read_all())
        except (pa.ArrowInvalid, OSError) as error:
            raise BadSource(f"{file}: not readable as an Arrow stream ({error})") from error
    if not tables:
        raise BadSource(f"{path}: holds no Arrow file")
    return pa.concat_tables(tables)


def _first(wanted: tuple[str, ...], columns: list[str]) -> str | None:
    return next((name for name in wanted if name in columns), None)
