"""Spectra on a disk: one self-describing .npz each, and the file names of the published scripts.

published name                        holds
NAME_nN_gramian_eigenvalues.npy       eigenvalues of X X^T, uncentred and undivided, descending
NAME_nN_gramian_eigenvectors.npy      (N, 10), the first columns of U
NAME_pP_nN_norms.npy                  (N,) l_P norms
NAME_eigenvalues.npy                  eigenvalues of a covariance, ascending; says neither N nor D
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from regimes.errors import BadSource
from regimes.spectra.matrix import Spectrum
from regimes.spectra.rows import Rows

Floats = npt.NDArray[np.float64]
_PUBLISHED = re.compile(r"(?P<name>.+)_n(?P<n>\d+)_gramian_eigenvalues\.npy")
_FORMAT = "regimes spectrum 1"
_VECTORS = 10
_ERRORS = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error)


def spectrum_bytes(spectrum: Spectrum, **about: object) -> bytes:
    """A spectrum as .npz: ``eigenvalues`` (R,) float64 descending, and ``about``, JSON text.

    Args:
        spectrum: what is saved.
        about: plain values to be kept beside: name of the set, range of values, source, seed.
    """
    fields = {f.name: getattr(spectrum, f.name) for f in dataclasses.fields(spectrum)}
    del fields["values"]
    text = json.dumps({"format": _FORMAT, "spectrum": fields, "about": about}, sort_keys=True)
    buffer = io.BytesIO()
    np.savez(buffer, eigenvalues=spectrum.values, about=np.array(text))
    return buffer.getvalue()


def read_spectrum(path: Path) -> tuple[Spectrum, dict[str, object]]:
    """A spectrum and what is known about it.

    Args:
        path: an .npz of ours, or a ``..._nN_gramian_eigenvalues.npy``.

    Raises:
        BadSource: if it is neither, or its values are no eigenvalues.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                values, text = arrays["eigenvalues"], json.loads(str(arrays["about"]))
            if text["format"] != _FORMAT:
                raise ValueError(f"format {text['format']!r:.40}")
            spectrum = Spectrum(values=values, **text["spectrum"])
            about: dict[str, object] = text["about"]
        else:
            spectrum, about = _published(path, np.load(path, allow_pickle=False))
    except _ERRORS as error:
        raise BadSource(
            f"{path}: expected a spectrum (.npz of this project, or NAME_nN_gramian_eigenvalues.npy), "
            f"got something else ({error})"
        ) from error
    values = spectrum.values
    good = values.ndim == 1 and len(values) > 1 and np.isfinite(values).all()
    if not good or (np.diff(values) > 0).any() or values[-1] < 0:
        raise BadSource(f"{path}: expected finite eigenvalues of at least 0 in descending order")
    return spectrum, about


def _published(path: Path, values: Floats) -> tuple[Spectrum, dict[str, object]]:
    match = _PUBLISHED.fullmatch(path.name)
    if match is None:
        raise ValueError("its name says neither the number of images nor the normalisation")
    count = int(match["n"])
    if len(values) > count:
        raise ValueError(f"{len(values)} eigenvalues of {count} images")
    if values.dtype.kind not in "fiu":
        raise ValueError(f"values of type {values.dtype}")
    is_single = values.dtype == np.float32
    values = np.asarray(values, np.float64)
    squares = float((values**2).sum())
    spectrum = Spectrum(
        values=np.sort(values.clip(0))[::-1],
        num_rows=count,
        # With N values the width is at least N; the name does not say it.
        width=len(values),
        normalisation="raw",
        trace=float(values.sum()),
        frobenius=squares**0.5,
        mean_norm=float("nan"),
        precision="float32" if is_single else "float64",
        num_negative=int((values < 0).sum()),
    )
    return spectrum, {"name": match["name"], "published": True}


def npy_bytes(values: npt.NDArray) -> bytes:
    """An array as .npy."""
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def published_files(name: str, rows: Rows) -> dict[str, bytes]:
    """What the published scripts save of a set, by file name: raw eigenvalues, vectors and norms.

    Args:
        name: of the set.
        rows: (N, D) in the order of the set, which the published scripts shuffle.

    Cost: that of all eigenvectors of the smaller matrix, and N x 10 numbers.
    """
    from regimes.spectra.matrix import smaller_matrix

    count, width = rows.shape
    matrix, _ = smaller_matrix(rows, np.zeros(width))
    values, vectors = np.linalg.eigh(matrix.numpy())
    values, vectors = values[::-1].clip(0), vectors[:, ::-1][:, :_VECTORS]
    if width < count:  # u = X v / sqrt(lambda)
        moved = np.concatenate([block @ vectors for block in rows.blocks()])
        vectors = moved / np.sqrt(np.maximum(values[: moved.shape[1]], 1e-300))
    prefix = f"{name}_n{count}_gramian"
    return {
        f"{prefix}_eigenvalues.npy": npy_bytes(values),
        f"{prefix}_eigenvectors.npy": npy_bytes(np.ascontiguousarray(vectors)),
        f"{name}_p2_n{count}_norms.npy": npy_bytes(rows.norms()),
    }
