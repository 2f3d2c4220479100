"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, noun: str, many: str | None = None) -> str:
    """``1 run``, ``2 runs``, ``1,024 images``.

    Args:
        number: how many.
        noun: what one is called.
        many: what several are called, unless that is ``noun`` with an s.
    """
    return f"{number:,} {noun if number == 1 else many or f'{noun}s'}"
