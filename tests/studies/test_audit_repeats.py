"""Images that are the same count once: neither a collapsed model nor a series of real images is evidence."""

from __future__ import annotations

import numpy as np
from audited_sets import RULES

from regimes.descriptors.pixels import unit_rows
from regimes.scores.features import Features
from regimes.scores.result import wilson_interval
from regimes.studies.audit import AuditSets, find_copies
from regimes.studies.audit_alarms import alarms
from regimes.studies.audit_metrics import copy_scores
from regimes.studies.audit_words import answer, beware


def vectors(train, made, heldout):
    """What is found among random directions."""
    sets = (Features(np.arange(len(x)), unit_rows(x), "directions") for x in (train, made, heldout))
    t, g, h = sets
    sets = AuditSets(train=t, generated=g, heldout=h)
    return sets, find_copies(sets, RULES, np.arange(len(t)), lambda *_: np.zeros(1, bool))


def test_images_that_repeat_one_another_are_no_more_evidence():
    """20 images 50 times each accused 12 of 40 innocent sets; copies that are repeated are found."""
    accused, alarmed = 0, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        few = rng.standard_normal((20, 8)).repeat(50, 0)
        train, held = rng.standard_normal((2, 300, 8))
        sets, copies = vectors(train, few, held)
        accused += "so the generator copies" in " ".join(answer(copies))
        alarmed += bool(alarms(copies))
    assert accused <= 4
    assert alarmed <= 4
    assert "20 of the generated images are different ones: they count for 20 of 1,000" in " ".join(
        answer(copies)
    )
    found = next(s for s in copy_scores(copies, sets) if s.name == "memorized")
    assert (found.low, found.high) == wilson_interval(20 * found.value, 20)
    again = (train[:15] + 0.01 * rng.standard_normal((15, 8))).repeat(20, 0)
    _, copies = vectors(train, np.concatenate([again, few[::50]]), held)
    assert "so the generator copies" in " ".join(answer(copies))
    assert copies.distinct_beyond[0] >= 15
    assert set(alarms(copies)) == {"beyond", "calibrated"}


def test_heldout_images_that_are_the_same_count_once():
    rng = np.random.default_rng(0)
    train, made = rng.standard_normal((2, 200, 8))
    _, copies = vectors(
        train, np.concatenate([made, train[:1]]), rng.standard_normal((40, 8)).repeat(5, 0)
    )
    assert copies.chance(5) == (1, 40)
    assert copies.p_value[-1] == 1 / 41
    np.testing.assert_allclose(copies.p_value * 41, np.round(copies.p_value * 41), atol=1e-9)
    assert beware(copies, [])[0].startswith("40 of 200 held-out images are different ones")
    _, plain = vectors(train, made, rng.standard_normal((200, 8)))
    assert plain.chance(5) == (5, 200)
    assert "different ones" not in " ".join([*beware(plain, []), *answer(plain)])
