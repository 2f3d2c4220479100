"""What a run was asked, read from its recipe; and what tells two of them apart, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from regimes.words import counted

_ABOUT_THE_RECIPE = {"type", "kind", "code_version"}
_HASHES = {"artifacts", "fingerprint", "fingerprints", "fit_fingerprint", "weights_sha256"}
_NAMES, _IMAGES = {"name", "descriptor"}, {"fit", "also", "centre"}  # of a descriptor
_MOST_TOLD = 4


def asked(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a recipe as it is stored, flat: the descriptor, and those of its experiment."""
    rest = recipe.get("experiment") or {k: v for k, v in recipe.items() if k != "descriptor"}
    return dict([*_descriptor(recipe.get("descriptor")), *_flat(rest)])


def _descriptor(found: Mapping[str, Any] | str | None) -> Iterator[tuple[str, Any]]:
    """Jobs keep its label, its options or its recipe; images that it rests on are told by their job."""
    if isinstance(found, str):
        yield "descriptor", found
    elif found is not None:
        yield "descriptor", found.get("name") or found.get("descriptor")
        yield from _flat(
            {k: v for k, v in found.items() if k not in _NAMES | _IMAGES}, "descriptor."
        )


def _flat(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in found.items():
        if key in _ABOUT_THE_RECIPE | _HASHES:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif not (isinstance(value, list) and any(isinstance(v, dict) for v in value)):
            yield f"{prefix}{key}", value


def in_words(value: Any) -> str:
    """A value as a table or a sentence says it."""
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def apart(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How the recipe of a folder differs from what is asked now: ``steps 18, now 40; seeds ...``.

    Args:
        before: recipe, as it is stored.
        now: recipe, as it would be stored.
    """
    had, wants = asked(before), asked(now)
    names = [n for n in dict.fromkeys([*had, *wants]) if had.get(n) != wants.get(n)]
    told = [f"{n} {in_words(had.get(n))}, now {in_words(wants.get(n))}" for n in names[:_MOST_TOLD]]
    if len(names) > _MOST_TOLD:
        told.append(f"and {counted(len(names) - _MOST_TOLD, 'other')}")
    return "; ".join(told) or "what it rests on has another content or version"
