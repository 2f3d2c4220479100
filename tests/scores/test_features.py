"""Features join on ids, never on order, and refuse what cannot be compared."""

from __future__ import annotations

import numpy as np
import pytest

from regimes.errors import DescriptorMismatch, IdMismatch
from regimes.scores.features import Features, check_comparable, join


def test_join_pairs_rows_by_id_whatever_their_order(rng, make_features):
    values = rng.standard_normal((20, 4))
    p, q = rng.permutation(20), rng.permutation(20)
    a, b = join(make_features(values[p], p), make_features(values[q], q))
    np.testing.assert_array_equal(a.ids, np.arange(20))
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.values, b.values)


def test_join_works_on_string_ids(make_features):
    a, b = join(make_features(np.eye(2), ["x", "y"]), make_features(np.eye(2), ["y", "x"]))
    assert a.ids.tolist() == b.ids.tolist() == ["x", "y"]
    np.testing.assert_array_equal(b.values, np.eye(2)[::-1])


def test_join_lists_the_ids_that_are_missing(make_features):
    first, second = make_features(np.eye(4), [1, 2, 3, 4]), make_features(np.eye(4), [2, 3, 4, 9])
    with pytest.raises(IdMismatch, match=r"2 ids are in one set only \(1, 9\), 3 in both"):
        join(first, second)
    a, b = join(first, second, allow_partial=True)
    assert a.ids.tolist() == b.ids.tolist() == [2, 3, 4]
    np.testing.assert_array_equal(a.values, np.eye(4)[1:])
    np.testing.assert_array_equal(b.values, np.eye(4)[:3])


def test_join_shortens_a_long_listing(make_features):
    with pytest.raises(IdMismatch, match=r"\(11, 12, 13, 14, 15 and 3 more\)"):
        join(make_features(np.eye(9), range(10, 19)), make_features(np.eye(9)[:1], [10]))


def test_join_of_nothing_shared_is_refused_even_when_partial(make_features):
    with pytest.raises(IdMismatch, match="0 in both"):
        join(make_features(np.eye(2), [1, 2]), make_features(np.eye(2), [3, 4]), allow_partial=True)


def test_different_descriptors_are_not_comparable(make_features):
    first = make_features(np.eye(3), descriptor="pixels")
    with pytest.raises(DescriptorMismatch, match=r"pixels \(3 wide\) with sscd \(3 wide\)"):
        check_comparable(first, make_features(np.eye(3), descriptor="sscd"))
    with pytest.raises(DescriptorMismatch, match=r"pixels \(3 wide\) with pixels \(4 wide\)"):
        join(first, make_features(np.eye(4), descriptor="pixels"))


def test_repeated_ids_are_listed(make_features):
    with pytest.raises(IdMismatch, match="ids repeat: 2, 7"):
        make_features(np.eye(5), [7, 2, 7, 2, 1])


def test_ids_and_rows_must_match_in_number(make_features):
    with pytest.raises(IdMismatch, match=r"2 ids for values of shape \(3, 3\)"):
        make_features(np.eye(3), [1, 2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_name_their_ids(bad):
    values = np.eye(3, dtype=np.float32)
    values[1, 0] = bad
    with pytest.raises(ValueError, match="not finite for ids 8"):
        Features(np.array([7, 8, 9]), values, "d")


def test_take_keeps_ids_with_their_rows(make_features):
    taken = make_features(np.eye(3), ["a", "b", "c"]).take(np.array([2, 0]))
    assert taken.ids.tolist() == ["c", "a"]
    np.testing.assert_array_equal(taken.values, np.eye(3)[[2, 0]])
    assert len(taken) == 2
