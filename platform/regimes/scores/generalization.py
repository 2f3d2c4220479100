"""Copies: which generated images are training images?

Two measures, because they fail differently. ``generalization_score`` compares descriptors with a
threshold; ``ratio_test`` compares a sample's nearest training image with its second nearest, needs
no threshold of similarity, and finds near-exact copies only.
"""

from __future__ import annotations

import numpy as np

from regimes.scores.calibration import nearest_similarity
from regimes.scores.features import Features, check_comparable, check_mirrored
from regimes.scores.neighbours import Index, Rows, first_occurrences, nearest_two_groups
from regimes.scores.result import Score, proportion


def generalization_score(
    generated: Features,
    train: Features,
    heldout: Features,
    *,
    threshold: float,
    name: str = "gl",
    mirrored: Features | None = None,
) -> Score:
    """GL score: the fraction of samples whose most similar training image is *not* above a threshold.

        GL = 1 - P[ max_j <f(x), f(y_j)> > threshold ]           (Zhang et al. 2024)

    1 says that nothing was copied. It does not say that samples are good: noise scores 1 too, so
    read it beside precision.

    Args:
        generated: (M, D) unit rows.
        train: (N, D), the images that the model was trained on.
        heldout: (H, D), real images that it was not trained on.
        threshold: similarity in [-1, 1]; strictly greater counts as a copy. See ``calibration``.
        name: name of the result.
        mirrored: (N, D), the left-right flips of ``train`` in the same order: a copy of one is a
            copy. For models that were trained with flips. None counts unflipped copies only.

    Returns:
        The score. Null: the score of the held-out images, the ceiling for a model whose samples
        are as good as real ones. ``per_item``: id, similarity, and nearest training id.

    Raises:
        DescriptorMismatch: if the sets come from different descriptors.

    Cost: O((M + H) N D) time, O(BLOCK N) memory.
    """
    _, heldout_best = nearest_similarity(heldout, train, mirrored)
    positions, best = nearest_similarity(generated, train, mirrored)
    return proportion(
        name,
        ~(best > threshold),
        null=float((~(heldout_best > threshold)).mean()),
        threshold=threshold,
        num_train=len(train),
        descriptor=generated.descriptor,
        higher_is_better=True,
        per_item={"id": generated.ids, "similarity": best, "nearest_id": train.ids[positions]},
    )


def ratio_test(
    generated: Features,
    train: Features,
    heldout: Features,
    *,
    threshold: float = 1 / 3,
    name: str = "ratio",
    mirrored: Features | None = None,
) -> Score:
    """Ratio test: the fraction of samples much nearer to one training image than to any other.

        d1 / d2 < threshold,   d1 <= d2 distances to the two nearest *distinct* training images

    Exact duplicates in the training set are collapsed first; otherwise d1 = d2 for a copy of a
    duplicated image, and the copies that matter most would be missed.

    Args:
        generated: (M, D), usually pixels (``pixel_vectors``), not necessarily unit rows.
        train: (N, D).
        heldout: (H, D), real images that the model was not trained on.
        threshold: ratio in (0, 1); strictly smaller counts as a copy.
        name: name of the result.
        mirrored: (N, D), the left-right flips of ``train`` in the same order. An image and its flip
            count as one training image, at the smaller of their distances.

    Returns:
        The score. Null: the same fraction of held-out images. Lower is better. ``per_item``: id,
        d1, d2, ratio, and nearest training id.

    Raises:
        ValueError: if fewer than two distinct training images are left.

    Source: Yoon et al. 2023 (threshold 1/3). Cost: O((M + H) N D) time, O(BLOCK N) memory.
    """
    check_comparable(generated, train)
    check_comparable(heldout, train)
    references, groups = _distinct(train, mirrored)
    if len(np.unique(groups)) < 2:
        raise ValueError("ratio test: expected 2 distinct training images, got 1")
    positions, squared = nearest_two_groups(generated.values, references, groups)
    _, squared_heldout = nearest_two_groups(heldout.values, references, groups)
    (d1, d2), (h1, h2) = np.sqrt(squared).T, np.sqrt(squared_heldout).T
    return proportion(
        name,
        d1 < threshold * d2,
        null=float((h1 < threshold * h2).mean()),
        threshold=threshold,
        num_train=len(np.unique(groups)),
        descriptor=generated.descriptor,
        higher_is_better=False,
        per_item={
            "id": generated.ids,
            "d1": d1,
            "d2": d2,
            "ratio": d1 / d2,
            "nearest_id": train.ids[groups[positions[:, 0]]],
        },
    )


def _distinct(train: Features, mirrored: Features | None) -> tuple[Rows, Index]:
    """Rows without duplicates, and for each the position of the training image it stands for.

    A training image that is the flip of an earlier one stands for that one, so that both, and both
    their flips, are one image.
    """
    if mirrored is None:
        kept = np.unique(first_occurrences(train.values))
        return train.values[kept], kept
    check_mirrored(train, mirrored)
    n = len(train)
    rows = np.concatenate([train.values, mirrored.values])
    first = first_occurrences(rows)  # the flip of image i is row n + i
    same = np.minimum(first[:n], first[n:] % n)  # what image i, or its flip, was first seen as
    kept = np.unique(first)
    return rows[kept], same[kept % n]
