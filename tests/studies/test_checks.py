"""Checks: what passes, what fails, and how both are written."""

from __future__ import annotations

import math

import pytest

from regimes.studies.checks import (
    Lesson,
    at_least,
    at_most,
    fraction_check,
    mean_check,
    near,
    number,
    variance_check,
)


def lesson(*checks):
    return Lesson(name="n", title="t", question="q", seen=[], why=[], checks=checks)


@pytest.mark.parametrize(
    ("check", "passed", "allowed"),
    [
        (near("a", 1.05, 1.0, 0.1), True, "± 0.1"),
        (near("a", 1.2, 1.0, 0.1), False, "± 0.1"),
        (near("a", 0.8, 1.0, 0.1), False, "± 0.1"),
        (at_most("a", 2e-12, 1e-12, exact=0.0), False, "at most 1e-12"),
        (at_most("a", 1e-13, 1e-12, exact=0.0), True, "at most 1e-12"),
        (at_least("a", 0.5, 0.4), True, "at least 0.4"),
        (at_least("a", 0.3, 0.4), False, "at least 0.4"),
        (near("a", math.nan, 1.0, 0.1), False, "± 0.1"),
        (at_most("a", math.nan, 1.0), False, "at most 1"),
    ],
)
def test_check_compares_and_says_so(check, passed, allowed):
    assert check.passed is passed
    assert check.allowed == allowed
    assert check.cells[-1] == ("ok" if passed else "FAIL")


def test_tolerances_are_four_standard_errors():
    assert mean_check("a", 0, 0, 2.0, 400).high == pytest.approx(4 * 2 / 20)
    assert variance_check("a", 3, 3.0, 800).high == pytest.approx(3 + 4 * 3 * math.sqrt(2 / 800))
    assert fraction_check("a", 0.5, 0.5, 100).high == pytest.approx(0.5 + 4 * 0.05 + 0.04)
    assert fraction_check("a", 1.0, 1.0, 100).low == pytest.approx(0.96)


def test_a_lesson_passes_if_all_its_checks_do_and_there_are_some():
    good, bad = near("a", 1, 1.0, 0.1), near("a", 2, 1.0, 0.1)
    assert lesson(good, good).passed
    assert not lesson(good, bad).passed
    assert not lesson().passed


def test_numbers_are_short():
    assert [number(v) for v in (0, 0.123456, 2.0, 1e-15, -3e-7, 12345.6)] == [
        "0", "0.1235", "2", "1.0e-15", "-3.0e-07", "1.235e+04",
    ]  # fmt: skip
