"""Writes archives in CIFAR-10's own format, with images of the test's choice.

    write_cifar_archive(path, images, labels)

Python 2 cannot be run here, so its pickles are written opcode by opcode: protocol 2, text and bytes
alike as (SHORT_)BINSTRING, globals by their old names. The other forms come from Python 3's pickle
and numpy themselves.
"""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np

FOLDER = "cifar-10-batches-py"
FORMS = ("python2", "protocol 2", "protocol 4", "protocol 5")
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))


def write_cifar_archive(path, images, labels, *, per_batch=None, form="python2"):
    """Write ``cifar-10-python.tar.gz``, or its folder if the path has another suffix.

    Args:
        path: where to.
        images: (N, 32, 32, 3) uint8.
        labels: (N,) integers from 0 to 9.
        per_batch: images per training batch, N // 5 if not given; what remains after five batches
            goes into test_batch.
        form: how the pickles are written, one of FORMS.

    Returns:
        The path.
    """
    path, per_batch = Path(path), len(images) // 5 if per_batch is None else per_batch
    starts = {name: i * per_batch for i, name in enumerate((*TRAIN, "test_batch"))}
    ends = {name: start + per_batch for name, start in starts.items()} | {"test_batch": len(images)}
    files = {
        name: batch_bytes(name, images[start : ends[name]], labels[start : ends[name]], form)
        for name, start in starts.items()
    }
    files |= {"batches.meta": meta_bytes(form), "readme.html": b"<html></html>"}
    write_files(path, files)
    return path


def write_files(path, files):
    """The files of a folder, or of a .tar.gz that holds it."""
    if not path.name.endswith((".tar.gz", ".tgz")):
        path.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (path / name).write_bytes(content)
        return
    with tarfile.open(path, "w:gz") as archive:
        folder = tarfile.TarInfo(FOLDER)
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def batch_bytes(name, images, labels, form="python2"):
    """The pickle of one batch."""
    data = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(-1, 3072)
    labels = [int(label) for label in labels]
    names = [f"{name}_{i:06d}.png" for i in range(len(images))]
    if form == "python2":
        return python2_batch(f"batch {name}", data, labels, names)
    batch = {
        b"batch_label": f"batch {name}".encode(),
        b"labels": labels,
        b"data": data,
        b"filenames": [n.encode() for n in names],
    }
    return pickle.dumps(batch, protocol=int(form[-1]))


def meta_bytes(form):
    names = ["airplane", "automobile"]
    return pickle.dumps(
        {b"label_names": [n.encode() for n in names]}, 2 if form == "python2" else 4
    )


def python2_batch(label, data, labels, names):
    """What cPickle of Python 2 wrote, one call of this module's writers per value."""
    items = [
        (string("batch_label"), string(label)),
        (string("labels"), sequence(integer(value) for value in labels)),
        (string("data"), array(data)),
        (string("filenames"), sequence(string(name) for name in names)),
    ]
    body = b"".join(key + value for key, value in items)
    return b"\x80\x02}q\x01(" + body + b"u."


def string(text):
    raw = text if isinstance(text, bytes) else text.encode("latin-1")
    return (
        b"U" + bytes([len(raw)]) + raw
        if len(raw) < 256
        else b"T" + struct.pack("<i", len(raw)) + raw
    )


def integer(value):
    return b"K" + bytes([value]) if value < 256 else b"J" + struct.pack("<i", value)


def sequence(items):
    """A list, in batches of a thousand."""
    items = list(items)
    batches = [items[i : i + 1000] for i in range(0, len(items), 1000)]
    return b"]" + b"".join(b"(" + b"".join(batch) + b"e" for batch in batches)


def array(values):
    """numpy.core.multiarray._reconstruct(ndarray, (0,), 'b') and its state."""
    empty = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + string("b") + b"\x87R"
    )
    dtype = b"cnumpy\ndtype\n" + string(values.dtype.str[1:]) + b"K\x00K\x01\x87R"
    minus = b"J\xff\xff\xff\xff"
    dtype += b"(K\x03" + string("|") + b"NNN" + minus + minus + b"K\x00tb"
    shape = b"".join(integer(size) for size in values.shape) + b"\x86"
    return empty + b"(K\x01" + shape + dtype + b"\x89" + string(values.tobytes()) + b"tb"
