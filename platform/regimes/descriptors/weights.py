"""Weights of descriptors: found in a cache, or downloaded once and verified.

A file is what its SHA-256 says, wherever it lies. A published file is checked against the full hash
where that is known, and against the first eight digits where its name carries them, as those of
torchvision do (``squeezenet1_1-b8a52dc0.pth``). A file of which nothing is known is downloaded only for
who asks for that. A download appears under its name only once it is complete and has been checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from regimes.errors import BadDescriptor

CACHE_VARIABLE = "REGIMES_CACHE"
TIMEOUT_S = 30  # without a byte
CONSENT = "pass --download-unverified (the hash it has is recorded with every result), or "
_CHUNK_BYTES = 2**20
_SUFFIX = re.compile(r"-([0-9a-f]{8})\.[a-z]+$")
_SCHEMES = ("https", "http")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """A published file of weights."""

    name: str
    """Name in the cache."""
    url: str
    """Where it is published."""
    sha256: str | None = None
    """Full hash, or None where no trustworthy statement of it is known."""
    is_program: bool = False
    """Whether the file runs code, as TorchScript does: another one must be asked for as such."""

    @property
    def prefix(self) -> str | None:
        """What is known of the hash: all of it, the eight digits in the name, or nothing."""
        match = _SUFFIX.search(self.name)
        return self.sha256 or (match[1] if match else None)


@dataclass(frozen=True, slots=True)
class Weights:
    """A file of weights that is there."""

    path: Path
    sha256: str


def cache_folder() -> Path:
    """Where downloads are kept: ``$REGIMES_CACHE``, or ~/.cache/regimes."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/regimes").expanduser()


def obtain(
    file: WeightsFile,
    *,
    download: bool = True,
    unverified: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Weights:
    """A published file: from the cache, or downloaded into it; never a program of which no hash is known.

    Args:
        file: which.
        download: whether the network may be used.
        unverified: also for a file of which no hash is known.
        timeout_s: seconds without a byte after which a download is given up.

    Raises:
        BadDescriptor: if it is absent and cannot be downloaded, or its hash is wrong.

    Cost: one pass over the file, for the hash.
    """
    path = cache_folder() / "weights" / file.name
    if not path.exists():
        if not download:
            raise _absent(file, path, "it is not in the cache")
        if _is_unknown_program(file):
            raise _absent(file, path, "it is a program of which no hash is known")
        if file.prefix is None and not unverified:
            raise _absent(file, path, "no hash is known to check a download by", CONSENT)
        _download(file, path, timeout_s)
    found = read_weights(path)
    if not found.sha256.startswith(file.prefix or ""):
        raise BadDescriptor(
            f"{path}: expected SHA-256 {file.prefix}, found {found.sha256}; delete the file and run "
            "the same command again"
        )
    return found


def read_weights(path: str | Path) -> Weights:
    """A file of the user's, with its hash.

    Raises:
        BadDescriptor: if it cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return Weights(Path(path), hashlib.file_digest(stream, "sha256").hexdigest())
    except OSError as error:
        raise BadDescriptor(f"{path}: cannot be read ({error.strerror})") from error


def _is_unknown_program(file: WeightsFile) -> bool:
    """Whether only the user can say that the file may run."""
    return file.is_program and file.prefix is None


def _absent(file: WeightsFile, path: Path, why: str, also: str = "") -> BadDescriptor:
    other = "--descriptor torchscript:FILE" if _is_unknown_program(file) else "--weights FILE"
    return BadDescriptor(
        f"{file.name}: weights are needed and {why}; {also}download {file.url} and put it at {path}, or "
        f"pass {other}"
    )


def _download(file: WeightsFile, path: Path, timeout_s: float) -> None:
    if urllib.parse.urlsplit(file.url).scheme not in _SCHEMES:
        raise _absent(file, path, f"{file.url} is not a web address")
    temporary = path.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as sink:
            digest = _fetch(file, sink, timeout_s)
        if not digest.startswith(file.prefix or ""):
            raise BadDescriptor(
                f"{file.url}: expected SHA-256 {file.prefix}, the download has {digest}; nothing was "
                "kept: try again, or pass --weights FILE"
            )
        os.replace(temporary, path)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise _absent(
            file, path, f"the download failed ({str(reason) or type(error).__name__})"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _fetch(file: WeightsFile, sink: BinaryIO, timeout_s: float) -> str:
    """Copy the file from the network, with a progress bar; returns its hash."""
    from tqdm import tqdm

    digest = hashlib.sha256()
    with urllib.request.urlopen(file.url, timeout=timeout_s) as stream:
        if file.url.startswith("https:") and not stream.url.startswith("https:"):
            raise OSError(f"{file.url} leads to {stream.url}, which is not encrypted")
        size = stream.headers.get("Content-Length")
        total = int(size) if size else None
        with tqdm(total=total, unit="B", unit_scale=True, desc=file.name, leave=False) as bar:
            while chunk := stream.read(_CHUNK_BYTES):
                sink.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
            if total is not None and bar.n != total:
                raise OSError(f"{bar.n} of {total} bytes arrived")
    return digest.hexdigest()
