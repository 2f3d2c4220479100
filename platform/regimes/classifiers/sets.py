"""The training sets of an experiment on what generated images are worth, all of one size.

An **arm** is a training set made of one part (real, generated or diverse images) or of the real
images and another part. Per class, n images of each part are drawn, and

    added:     one part: its n images, each listed twice       two parts: n + n
    replaced:  one part: its n images                          two parts: n - n // 2 real, n // 2 others

So all arms list equally many images per class and train for equally many steps. "added" asks what
generated images are worth on top of the real ones: the arm "real" is then also the arm "real and
copies of it". "replaced" asks what one is worth in the place of a real one.

Images are drawn without replacement by a shuffle keyed by (seed, part, class), so that arms of one
seed share their real images, and more images contain fewer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from regimes.errors import ConfigError
from regimes.noise import keyed_generator

Labels = npt.NDArray[np.int64]
Part = Literal["real", "generated", "diverse"]
Arm = tuple[Part, ...]
Mixing = Literal["added", "replaced"]


def arms_of(parts: Sequence[Part]) -> list[Arm]:
    """Every part alone, and the real images with each of the others."""
    alone: list[Arm] = [(part,) for part in parts]
    mixed: list[Arm] = [("real", part) for part in parts if part != "real"]
    return alone + mixed


def arm_name(arm: Arm) -> str:
    """Such as real+generated."""
    return "+".join(arm)


def class_counts(
    labels: Mapping[Part, Labels],
    num_classes: int,
    *,
    per_class: int | None = None,
    repeat: bool = False,
) -> tuple[int, ...]:
    """How many images of each class are drawn from every part.

    Args:
        labels: (N,) classes of each part's images.
        num_classes: K.
        per_class: n for every class; None takes as many as the smallest part has of the class.
        repeat: let parts that have fewer than ``per_class`` list images more than once.

    Returns:
        (K,) counts, each at least 1.

    Raises:
        ConfigError: if a part has no image of a class, or fewer than ``per_class`` without ``repeat``.
    """
    found = {part: np.bincount(own, minlength=num_classes) for part, own in labels.items()}
    for part, counts in found.items():
        least = int(counts.argmin())
        have, want = int(counts[least]), per_class or 1
        if have == 0 or (have < want and not repeat):
            remedy = (
                "give it images of every class"
                if have == 0
                else "pass a smaller --per-class, or --repeat to list images more than once"
            )
            raise ConfigError(
                f"the {part} images: expected at least {want} of each class, got {have} of class "
                f"number {least}; {remedy}"
            )
    if per_class is not None:
        return (per_class,) * num_classes
    return tuple(int(n) for n in np.min(list(found.values()), axis=0))


def draw(labels: Labels, counts: Sequence[int], *, part: Part, seed: int) -> list[Labels]:
    """Positions of the images drawn from one part, by class.

    Args:
        labels: (N,) classes of the part's images.
        counts: (K,) how many of each class; images repeat where a class has fewer.
        part: name of the part, of the key.
        seed: of the key.

    Returns:
        K arrays of positions.
    """
    drawn = []
    for label, count in enumerate(counts):
        own = np.flatnonzero(labels == label)
        order = keyed_generator("classifier-set", seed, part, label).permutation(own)
        drawn.append(np.resize(order, count))  # goes round again where there are too few
    return drawn


def compose(
    labels: Mapping[Part, Labels],
    arm: Arm,
    counts: Sequence[int],
    *,
    mixing: Mixing,
    seed: int,
) -> dict[Part, Labels]:
    """Positions that an arm lists, by part; a position may be listed more than once.

    Args:
        labels: classes of the images of the arm's parts.
        arm: its parts.
        counts: (K,) images of each class to draw from every part.
        mixing: how sizes are made equal, see the module.
        seed: of the draw.

    Returns:
        Positions by part; their numbers add up to the same for every arm.
    """
    drawn = {part: draw(labels[part], counts, part=part, seed=seed) for part in arm}
    if mixing == "added":
        times = 2 // len(arm)
        return {part: np.concatenate(own * times) for part, own in drawn.items()}
    if len(arm) == 1:
        return {part: np.concatenate(own) for part, own in drawn.items()}
    first, second = arm
    return {
        first: np.concatenate([own[: len(own) - len(own) // 2] for own in drawn[first]]),
        second: np.concatenate([own[: len(own) // 2] for own in drawn[second]]),
    }


def num_listed(counts: Sequence[int], mixing: Mixing) -> int:
    """Images that every arm lists."""
    return sum(counts) * (2 if mixing == "added" else 1)


def hold_out(
    labels: Labels,
    counts: Sequence[int],
    *,
    name: str,
    seed: int,
    groups: Sequence[str] | None = None,
) -> npt.NDArray[np.bool_]:
    """Choose images to hold out, at least so many of each class.

    Args:
        labels: (N,) classes.
        counts: (K,) least number of each class.
        name: of the split, for its key and for errors.
        seed: of the key.
        groups: (N,) images of one group (a patient) stay on one side; None groups nothing.

    Returns:
        (N,) whether the image is held out.

    Raises:
        ConfigError: if no image of a class would be left.
    """
    _, group_of = np.unique(
        np.arange(len(labels)) if groups is None else groups, return_inverse=True
    )
    chosen = np.zeros(group_of.max() + 1, bool)
    for label, count in enumerate(counts):
        own = group_of[labels == label]
        sizes = np.bincount(own, minlength=len(chosen))
        missing = count - int(sizes[chosen].sum())
        open_groups = np.flatnonzero((sizes > 0) & ~chosen)
        order = keyed_generator("classifier-split", name, seed, label).permutation(open_groups)
        before = np.concatenate([[0], np.cumsum(sizes[order])[:-1]]) if len(order) else order
        chosen[order[before < missing]] = True
    held: npt.NDArray[np.bool_] = chosen[group_of]
    for label, count in enumerate(counts):
        left = int((~held & (labels == label)).sum())
        if left == 0:
            raise ConfigError(
                f"{name}: holding out {count} images of class number {label} leaves none of "
                f"{int((labels == label).sum())} to train on; hold out fewer, or give more images"
            )
    return held
