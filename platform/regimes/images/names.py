"""Names of samples: the one place where a seed becomes a file name, and a file name a seed.

EDM's generate.py calls the sample of seed 123 ``000123.png``, or with ``--subdirs``
``000000/000123.png`` (one folder per thousand seeds); arrays and tables call it ``123``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_SAMPLE = re.compile(r"(?:(?P<folder>[0-9]{6,})/)?(?P<digits>[0-9]{1,18})(?P<suffix>\.[a-z]+)?")


def sample_name(seed: int, *, subdirs: bool) -> str:
    """The file name of a sample, relative to its folder.

    Args:
        seed: at least 0.
        subdirs: put each thousand seeds into a folder of its own, as ``--subdirs`` does.
    """
    name = f"{seed:06d}.png"
    return f"{seed - seed % 1000:06d}/{name}" if subdirs else name


def seed_ids(ids: Sequence[str]) -> npt.NDArray[np.int64] | None:
    """The seeds that ids stand for, so that comparisons can join on them.

    Args:
        ids: (n,) ids of images, as ``ImageSource.ids``. The row numbers that arrays without seeds
            have as ids are of the form, too: they join by row.

    Returns:
        (n,) int64, or None if an id is not a number (``123``, or ``000123.png`` with any number of
        zeros), alone or in the folder of its thousand (``000000/000123.png``), or if two ids stand
        for one seed.
    """
    seeds = [parse_seed(image_id) for image_id in ids]
    if not seeds or None in seeds or len(set(seeds)) != len(seeds):
        return None
    return np.array(seeds, np.int64)


def parse_seed(image_id: str) -> int | None:
    """The seed that an id stands for, or None if it has another form."""
    match = _SAMPLE.fullmatch(image_id.lower())
    if match is None:
        return None
    seed = int(match["digits"])
    return seed if match["folder"] in (None, f"{seed - seed % 1000:06d}") else None


def is_utf8(name: str) -> bool:
    """Whether a file name was valid UTF-8; Python reads its other bytes as surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
