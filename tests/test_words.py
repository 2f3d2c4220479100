"""Numbers agree with their nouns."""

from __future__ import annotations

from regimes.words import counted


def test_one_is_singular_and_all_other_numbers_are_plural():
    assert [counted(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
    assert counted(1, "class", "classes") == "1 class"
    assert counted(1234, "class", "classes") == "1,234 classes"
