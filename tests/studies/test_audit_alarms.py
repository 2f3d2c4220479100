"""What should stop a release is raised for planted copies, and not by chance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from audited_sets import RULES, audited, described, planted, smooth_images

from regimes.studies.audit import AuditSets, find_copies
from regimes.studies.audit_alarms import ALARMS, alarms

TRAIN, HELDOUT, NEW = smooth_images(1000, 1), smooth_images(500, 2), smooth_images(1000, 7)


@pytest.fixture(scope="module")
def copies():
    return audited(TRAIN, planted(TRAIN, 1000), HELDOUT)


def noisy(images, seed=0):
    noise = np.random.default_rng(seed).normal(0, 8, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def test_planted_copies_raise_every_alarm(copies):
    found = alarms(copies)
    assert tuple(found) == ALARMS
    assert found["exact"] == "50 generated images equal a training image in every pixel"
    beyond = int(copies.is_beyond.sum())
    assert found["beyond"].startswith(f"{beyond} generated images are more similar to a training")
    assert found["calibrated"].startswith(f"{copies.is_copy.sum()} generated images are above")


def test_a_single_exact_copy_is_an_alarm():
    found = alarms(audited(TRAIN, np.concatenate([TRAIN[:1], NEW[1:]]), HELDOUT))
    assert found == {"exact": "1 generated image equals a training image in every pixel"}


def test_a_few_near_copies_are_an_alarm_though_the_threshold_lets_more_real_images_pass():
    found = alarms(audited(TRAIN, np.concatenate([noisy(TRAIN[:25]), NEW[25:]]), HELDOUT))
    assert tuple(found) == ("beyond",)


def test_real_images_raise_no_alarm_but_once_in_a_hundred_times():
    rows, raised = described(smooth_images(900, 3), "all"), 0
    for seed in range(400):
        order = np.random.default_rng(seed).permutation(900)
        train, made, held = (rows.take(order[i : i + 300]) for i in (0, 300, 600))
        sets = AuditSets(train=train, generated=made, heldout=held)
        raised += bool(
            alarms(find_copies(sets, RULES, np.arange(300), lambda *_: np.zeros(0, bool)))
        )
    assert raised <= 15  # binomial(400, 0.015) is above that once in a thousand times


def test_without_heldout_images_new_ones_raise_no_alarm_either():
    rows, raised = described(smooth_images(600, 3), "all"), 0
    for seed in range(300):
        order = np.random.default_rng(seed).permutation(600)
        train, made = rows.take(order[:40]), rows.take(order[40:])
        sets = AuditSets(train=train, generated=made)
        found = find_copies(sets, RULES, np.arange(40), lambda *_: np.zeros(1, bool))
        raised += "beyond" in alarms(found)
    assert raised <= 9  # binomial(300, 0.01) is above that once in a thousand times


def test_where_the_null_says_nothing_only_equal_pixels_are_an_alarm(copies):
    assert tuple(alarms(dataclasses.replace(copies, is_biased=True))) == ("exact",)
