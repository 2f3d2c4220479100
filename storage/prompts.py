"""Lists of prompts in the store, addressed by their content: what workers sample text pipelines with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from regimes.errors import BadSource, BrokenArtifact
from regimes.storage.artifacts import Recipe, Store

PROMPTS = "prompts.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptsRecipe(Recipe):
    """A list of prompts."""

    kind: ClassVar[str] = "prompts"
    code_version: ClassVar[int] = 1

    sha256: str
    """Of its JSON."""


def read_prompt_file(path: Path) -> tuple[str, ...]:
    """The prompts of a text file, UTF-8, one per line; empty lines are left out.

    Raises:
        BadSource: if it cannot be read, or has none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise BadSource(f"{path}: prompts: cannot be read ({reason})") from error
    found = tuple(line.strip() for line in lines if line.strip())
    if not found:
        raise BadSource(f"{path}: prompts: expected one per line, found none")
    return found


def keep_prompts(store: Store, prompts: Sequence[str]) -> PromptsRecipe:
    """Bring a list of prompts into the store.

    Returns:
        Its recipe; the artifact is complete.
    """
    data = json.dumps(list(prompts), ensure_ascii=False).encode()
    recipe = PromptsRecipe(sha256=hashlib.sha256(data).hexdigest())
    if store.missing([recipe]):
        artifact = store.artifact(recipe)
        artifact.finish([artifact.write(PROMPTS, data, num_rows=len(prompts))])
    return recipe


def read_prompts(store: Store, sha256: str) -> tuple[str, ...]:
    """The prompts of a complete artifact.

    Raises:
        BrokenArtifact: if it is missing or altered.
    """
    artifact = store.artifact(PromptsRecipe(sha256=sha256))
    data = artifact.read(PROMPTS)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BrokenArtifact(f"{artifact.location.uri}: holds other prompts; delete the folder")
    return tuple(json.loads(data))
