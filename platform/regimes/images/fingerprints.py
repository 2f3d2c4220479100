"""SHA-256 of content, so that an artifact's address changes when any byte of its images does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_BLOCK_BYTES = 2**20


def hash_parts(parts: Iterable[bytes]) -> str:
    """Hexadecimal hash of byte strings; each is preceded by its length."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def hash_files(paths: Iterable[Path]) -> str:
    """``hash_parts`` of the contents of files, with memory for one block."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.stat().st_size.to_bytes(8, "little"))
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()
