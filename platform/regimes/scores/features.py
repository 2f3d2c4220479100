"""Feature sets: rows that know which item each describes, so that comparisons join on ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regimes.errors import DescriptorMismatch, IdMismatch


@dataclass(frozen=True, slots=True)
class Features:
    """Rows of one descriptor, each with the id of its image.

    Args:
        ids: (N,) distinct integers (seeds) or strings.
        values: (N, D) float32, finite.
        descriptor: what made them; only equal descriptors can be compared.

    Raises:
        IdMismatch: if ids repeat or do not match the rows in number.
        ValueError: if a value is not finite.
    """

    ids: npt.NDArray[np.int64] | npt.NDArray[np.str_]
    values: npt.NDArray[np.float32]
    descriptor: str

    def __post_init__(self) -> None:
        """Check the contract once, so that no score has to."""
        if self.values.ndim != 2 or len(self.ids) != len(self.values):
            raise IdMismatch(f"{len(self.ids)} ids for values of shape {self.values.shape}")
        unique, counts = np.unique(self.ids, return_counts=True)
        if len(unique) != len(self.ids):
            raise IdMismatch(f"ids repeat: {_listing(unique[counts > 1])}")
        if not np.isfinite(self.values).all():
            bad = self.ids[~np.isfinite(self.values).all(1)]
            raise ValueError(f"features are not finite for ids {_listing(bad)}")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: npt.NDArray[np.int64]) -> Features:
        """The rows at these positions."""
        return Features(self.ids[index], self.values[index], self.descriptor)


def check_comparable(first: Features, second: Features) -> None:
    """Raise ``DescriptorMismatch`` unless both come from the same descriptor."""
    widths = first.values.shape[1], second.values.shape[1]
    if first.descriptor != second.descriptor or widths[0] != widths[1]:
        raise DescriptorMismatch(
            f"cannot compare features of {first.descriptor} ({widths[0]} wide) with "
            f"{second.descriptor} ({widths[1]} wide); describe both with the same descriptor"
        )


def join(
    first: Features, second: Features, *, allow_partial: bool = False
) -> tuple[Features, Features]:
    """Bring two feature sets into the same order of the same ids.

    Args:
        first: (N, D).
        second: (M, D).
        allow_partial: keep only shared ids instead of raising when some are missing.

    Returns:
        Both sets, sorted by id, of equal length (read it off: ``len``).

    Raises:
        IdMismatch: if an id is missing on one side, unless ``allow_partial``; or none is shared.
        DescriptorMismatch: if the descriptors differ.
    """
    check_comparable(first, second)
    shared, i, j = np.intersect1d(first.ids, second.ids, return_indices=True)
    missing = np.setxor1d(first.ids, second.ids)
    if len(shared) == 0 or (len(missing) and not allow_partial):
        raise IdMismatch(
            f"{len(missing)} ids are in one set only ({_listing(missing)}), {len(shared)} in both; "
            "generate the missing ones, or pass allow_partial to compare the shared ones"
        )
    return first.take(i), second.take(j)


def _listing(ids: npt.NDArray[Any], most: int = 5) -> str:
    shown = ", ".join(str(i) for i in ids[:most])
    return shown + (f" and {len(ids) - most} more" if len(ids) > most else "")
