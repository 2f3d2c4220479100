"""Images in Parquet files."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pad

from regimes.errors import BadSource
from regimes.images.arrays import ArraySource, checked_images, row_ids
from regimes.images.decode import decode
from regimes.images.fingerprints import hash_files
from regimes.images.labels import checked_labels
from regimes.images.pixels import Images

_ID_COLUMNS = ("id", "seed", "path")


class ParquetSource:
    """Rows of Parquet files, one image each.

    Column ``image`` holds encoded bytes, a Hugging Face image, or a uint8 tensor; the id comes from
    a column ``id``, ``seed`` or ``path``, else it is the row number; the label from ``label``.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        self._files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        try:
            self._table = pad.dataset([str(f) for f in self._files], format="parquet").to_table()
        except (pa.ArrowException, OSError) as error:
            raise BadSource(f"{path}: not readable as Parquet ({error})") from error
        if "image" not in self._table.column_names:
            raise BadSource(
                f"{path}: expected a column 'image', found {', '.join(self._table.column_names)}"
            )
        named = next((c for c in _ID_COLUMNS if c in self._table.column_names), None)
        values = self._table[named].to_pylist() if named else row_ids(len(self._table))
        self.ids = [str(v) for v in values]

    @cached_property
    def labels(self) -> list[int] | None:
        """See ``ImageSource``."""
        if "label" not in self._table.column_names:
            return None
        values = self._table["label"].to_pylist()
        if None in values:
            raise BadSource(
                f"{self.name}: expected a label in each row, found none in row {values.index(None)}"
            )
        return checked_labels(self.name, values, len(self.ids))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the files."""
        return hash_files(self._files)

    def read(self, index: int, *, image_size: int | None = None) -> Images:
        """See ``ImageSource``."""
        name = f"{self.path} row {index}"
        value = self._table["image"][index]
        if isinstance(value.type, pa.FixedShapeTensorType):
            images = checked_images(name, value.to_numpy()[None])
            return ArraySource(name, images).read(0, image_size=image_size)
        plain = value.as_py()
        data = plain.get("bytes") if isinstance(plain, dict) else plain
        if not isinstance(data, bytes):
            raise BadSource(f"{name}: expected encoded bytes or a uint8 tensor, got {value.type}")
        return decode(data, name, image_size=image_size)
