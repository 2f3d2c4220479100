"""Archives with a flipped bit: read, or refused in one line."""

from __future__ import annotations

import zipfile

import numpy as np

from regimes.errors import BadSource
from regimes.images.sources import load_images, open_source
from regimes.images.writing import encode_png


def refusal(path):
    """The message with which an archive is refused, or None."""
    try:
        load_images(open_source(str(path)))
    except BadSource as error:
        return str(error)
    return None


def test_every_damaged_bit_of_a_zip_is_harmless_or_refused_in_one_line(tmp_path, rng):
    good, broken = tmp_path / "good.zip", tmp_path / "broken.zip"
    with zipfile.ZipFile(good, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(2):
            image = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            archive.writestr(f"{i}.png", encode_png(image))
    data = good.read_bytes()
    messages = []
    for _ in range(300):
        changed = bytearray(data)
        changed[rng.integers(len(data))] ^= 1 << rng.integers(8)
        broken.write_bytes(changed)
        messages.append(refusal(broken))
    refused = [m for m in messages if m is not None]
    assert len(refused) > 100
    assert not any("\n" in m for m in refused)
