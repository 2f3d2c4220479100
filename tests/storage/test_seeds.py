"""Lists of seeds as ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regimes.errors import ConfigError
from regimes.storage.seeds import Seeds


def test_text_and_ranges_are_two_forms_of_the_same_list():
    seeds = Seeds.parse("0-3, 10,7-8")
    assert seeds == Seeds(((0, 3), (10, 10), (7, 8)))
    assert str(seeds) == "0-3,10,7-8"
    assert Seeds.parse(str(seeds)) == seeds
    assert seeds.block(0, 100) == [0, 1, 2, 3, 10, 7, 8]
    assert len(seeds) == 7
    assert Seeds.first(3, 100) == Seeds.parse("100-102")


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.integers(1, 7),
)
def test_blocks_of_any_size_give_the_whole_list_in_order(lengths, size):
    ranges, start = [], 0
    for length in lengths:
        ranges.append((start, start + length - 1))
        start += length + 1  # a gap after every range
    seeds = Seeds(tuple(ranges))
    whole = [s for first, last in ranges for s in range(first, last + 1)]
    blocks = [seeds.block(i, i + size) for i in range(0, len(seeds), size)]
    assert [s for block in blocks for s in block] == whole
    assert all(len(block) == size for block in blocks[:-1])


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "1,,2", "1-2-3", "0-5,5", "1,1", "1.5"])
def test_what_is_not_a_list_of_distinct_seeds_is_refused(text):
    with pytest.raises(ConfigError, match="seed"):
        Seeds.parse(text)
