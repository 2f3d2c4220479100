"""Feature sets: rows that know which item each describes, so that comparisons join on ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regimes.errors import DescriptorMismatch, IdMismatch

Ids = npt.NDArray[np.int64] | npt.NDArray[np.str_]
Index = npt.NDArray[np.int64]


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

    ids: Ids
    values: npt.NDArray[np.float32]
    descriptor: str

    def __post_init__(self) -> None:
        """Check the contract once, so that no score has to."""
        if self.values.ndim != 2:
            raise IdMismatch(f"{len(self.ids)} ids for values of shape {self.values.shape}")
        check_ids(self.ids, self.values.shape)
        if not np.isfinite(self.values).all():
            bad = self.ids[~np.isfinite(self.values).all(1)]
            raise ValueError(f"features are not finite for ids {_listing(bad)}")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Index) -> Features:
        """The rows at these positions."""
        return Features(self.ids[index], self.values[index], self.descriptor)


def check_ids(ids: Ids, shape: tuple[int, ...]) -> None:
    """Raise ``IdMismatch`` unless there is one distinct id for each row of an array of this shape."""
    if len(ids) != shape[0]:
        raise IdMismatch(f"{len(ids)} ids for values of shape {shape}")
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != len(ids):
        raise IdMismatch(f"ids repeat: {_listing(unique[counts > 1])}")


def check_comparable(first: Features, second: Features) -> None:
    """Raise ``DescriptorMismatch`` unless both come from the same descriptor."""
    widths = first.values.shape[1], second.values.shape[1]
    if first.descriptor != second.descriptor or widths[0] != widths[1]:
        raise DescriptorMismatch(
            f"cannot compare features of {first.descriptor} ({widths[0]} wide) with "
            f"{second.descriptor} ({widths[1]} wide); describe both with the same descriptor"
        )


def check_mirrored(train: Features, mirrored: Features) -> None:
    """Raise unless ``mirrored`` describes the flips of the same images in the same order."""
    check_comparable(train, mirrored)
    if not np.array_equal(train.ids, mirrored.ids):
        raise IdMismatch("mirrored: expected the ids of the training images, in their order")


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
    i, j = match_ids(first.ids, second.ids, allow_partial=allow_partial)
    return first.take(i), second.take(j)


def match_ids(first: Ids, second: Ids, *, allow_partial: bool = False) -> tuple[Index, Index]:
    """Where two lists of distinct ids hold the same ones: positions in each, sorted by id.

    Raises:
        IdMismatch: if an id is missing on one side, unless ``allow_partial``; or none is shared.
    """
    shared, i, j = np.intersect1d(first, second, return_indices=True)
    missing = np.setxor1d(first, second)
    if len(shared) == 0 or (len(missing) and not allow_partial):
        raise IdMismatch(
            f"{len(missing)} ids are in one set only ({_listing(missing)}), {len(shared)} in both; "
            "generate the missing ones, or pass allow_partial to compare the shared ones"
        )
    return i, j


def _listing(ids: npt.NDArray[Any], most: int = 5) -> str:
    shown = ", ".join(str(i) for i in ids[:most])
    return shown + (f" and {len(ids) - most} more" if len(ids) > most else "")
