"""Duplicates within a set: groups of images that are the same, or nearly.

Two images are linked if their rows are at most a distance apart; a group is a connected component.
Linking is not transitive in distance: a chain of near neighbours is one group. Distance 0 finds
exact duplicates, for which rows of zeros of either sign are equal.

Duplicates in a training set hide copies from tests that compare the nearest training image with the
next one; ``DuplicateGroups.collapse`` keeps one image of each group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from regimes.scores.balls import pairs_inside
from regimes.scores.features import Features, Ids
from regimes.scores.neighbours import Index, first_occurrences
from regimes.scores.products import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateGroups:
    """Which images of a set are the same."""

    ids: Ids
    """(N,) of the images."""
    first: Index
    """(N,) position of the first image of each image's group."""
    distance: float
    """Largest distance of two images that are linked."""

    @property
    def representatives(self) -> Index:
        """Positions of the first image of every group, in order."""
        return np.unique(self.first)

    @property
    def num_repeated(self) -> int:
        """Images that a set without duplicates would not have."""
        return len(self.first) - len(self.representatives)

    def groups(self) -> list[Ids]:
        """Ids of each group of two images or more: largest groups first, then in order."""
        order = np.argsort(self.first, kind="stable")
        _, starts, sizes = np.unique(self.first[order], return_index=True, return_counts=True)
        largest = np.lexsort((starts, -sizes))
        return [self.ids[order[starts[g] : starts[g] + sizes[g]]] for g in largest if sizes[g] > 1]

    def collapse(self, features: Features) -> Features:
        """One row per group: the first. ``features`` are any rows of the same images in order.

        Raises:
            ValueError: if the ids differ.
        """
        if not np.array_equal(features.ids, self.ids):
            raise ValueError("duplicates: expected features of the same images, in the same order")
        return features.take(self.representatives)


def find_duplicates(
    features: Features, *, distance: float = 0.0, device: Device = "cpu"
) -> DuplicateGroups:
    """Groups of images at most ``distance`` apart.

    Args:
        features: (N, D).
        distance: Euclidean, at least 0; a similarity s of unit rows is distance sqrt(2 - 2 s).
        device: where to compute.

    Raises:
        ValueError: if the distance is negative or not a number.

    Cost: O(N D) for distance 0; else O(N^2 D) time, and memory for the links of one tile.
    """
    if not distance >= 0:
        raise ValueError(f"distance: expected a number of at least 0, got {distance}")
    rows = features.values + np.float32(0)  # -0 becomes 0
    first = first_occurrences(rows)
    if distance > 0:
        kept = np.unique(first)  # equal rows need no measuring
        radii = np.full(len(kept), distance**2)
        labels = np.arange(len(kept))
        for i, j in pairs_inside(rows[kept], rows[kept], radii, device=device):
            labels = _linked(labels, i, j)
        first = kept[labels][np.searchsorted(kept, first)]
    return DuplicateGroups(ids=features.ids, first=first, distance=distance)


def _linked(labels: Index, i: Index, j: Index) -> Index:
    """First member of everyone's component, once i and j are linked too."""
    n = len(labels)
    ends = np.concatenate([i, np.arange(n)]), np.concatenate([j, labels])
    graph = coo_array((np.ones(len(ends[0]), np.bool_), ends), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    return first[inverse]
