"""Labels: one class, an integer of at least 0, per image of a source, or none at all.

They come from a file ``dataset.json`` as EDM's datasets have it, or from class folders. Folders that
are no classes are known by their names: the thousands of seeds of generate.py's ``--subdirs``, and
the thousands of images of EDM's own datasets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from regimes.errors import BadSource
from regimes.images.names import parse_seed

DATASET_JSON = "dataset.json"
_EDM_NAME = re.compile(r"[0-9]{5}/img[0-9]{8}\.[a-z]+")


def checked_labels(name: str, values: Sequence[int] | npt.NDArray, num_images: int) -> list[int]:
    """Labels as a list of integers.

    Raises:
        BadSource: if they are not integers of at least 0, one per image.
    """
    labels = np.asarray(values)
    if labels.shape != (num_images,) or not np.issubdtype(labels.dtype, np.integer):
        raise BadSource(
            f"{name}: expected {num_images} integer labels, one per image, got {labels.dtype} "
            f"{labels.shape}; store the class of each as an integer, or no labels"
        )
    if num_images and labels.min() < 0:
        raise BadSource(f"{name}: expected labels of at least 0, got {labels.min()}")
    return labels.tolist()


def labels_of_files(name: str, ids: Sequence[str], dataset_json: bytes | None) -> list[int] | None:
    """Labels of image files.

    Args:
        name: of the source, for errors.
        ids: (N,) paths relative to the source.
        dataset_json: content of the source's ``dataset.json``, if it has one; it decides alone.

    Returns:
        (N,) labels; None if ``dataset.json`` says so, or without it, if the images are not all in
        class folders, of which there must be two or more. A class is the position of its top-level
        folder in sorted order.

    Raises:
        BadSource: if ``dataset.json`` is damaged or lacks an image.
    """
    if dataset_json is None:
        return _labels_of_folders(ids)
    pairs = _read_pairs(f"{name}/{DATASET_JSON}", dataset_json)
    if pairs is None:
        return None
    missing = [image_id for image_id in ids if image_id not in pairs]
    if missing:
        raise BadSource(
            f"{name}/{DATASET_JSON}: expected a label for each image, found none for {missing[0]} "
            f"({len(missing)} lack one); add them, or write null for 'labels'"
        )
    return [pairs[image_id] for image_id in ids]


def _read_pairs(name: str, content: bytes) -> dict[str, int] | None:
    """Label by name, or None for "no labels"."""
    try:
        pairs = json.loads(content)["labels"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise BadSource(
            f'{name}: expected {{"labels": [[name, integer], ...]}} or {{"labels": null}}, got '
            f"something else ({type(error).__name__})"
        ) from error
    if pairs is None:
        return None
    if not isinstance(pairs, list):
        raise BadSource(f"{name}: expected a list of labels or null, got {type(pairs).__name__}")
    labels: dict[str, int] = {}
    for pair in pairs:
        if _is_pair(pair):
            pair = [pair[0].replace("\\", "/"), pair[1]]  # written on Windows
        if not _is_pair(pair) or labels.setdefault(pair[0], pair[1]) != pair[1]:
            raise BadSource(
                f"{name}: expected each label as [name, integer of at least 0], once per name, got "
                f"{str(pair)[:100]!r}"
            )
    return labels


def _is_pair(pair: object) -> bool:
    if not isinstance(pair, list) or len(pair) != 2:
        return False
    return isinstance(pair[0], str) and type(pair[1]) is int and pair[1] >= 0


def _labels_of_folders(ids: Sequence[str]) -> list[int] | None:
    tops = [image_id.split("/", 1)[0] for image_id in ids]
    classes = {top: label for label, top in enumerate(sorted(set(tops)))}
    if len(classes) < 2 or any("/" not in image_id for image_id in ids):
        return None
    if all(_EDM_NAME.fullmatch(i) or parse_seed(i) is not None for i in ids):
        return None
    return [classes[top] for top in tops]
