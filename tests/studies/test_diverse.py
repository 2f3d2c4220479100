"""Diverse samples: rules against their nulls, and what is said of the counts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from audited_sets import smooth_images
from scipy.stats import binom

from regimes.descriptors.pixels import WhitenedPixels
from regimes.errors import DescriptorMismatch
from regimes.scores.diversity import Gates, calibrated, outside_balls
from regimes.scores.features import Features
from regimes.scores.planes import outside_hull, stability
from regimes.studies.diverse import (
    CONTROL,
    RULES,
    DiverseRules,
    DiverseSets,
    fewest_calibrators,
    find_diverse,
    num_steps,
)
from regimes.studies.diverse_words import NOTHING_NEW, answer, beware, overlap_words, verdict, what

OPEN = Gates(looseness=None, least_realism=None, copy_ratio=None)
FAST = ("calibrated", "knn", "pca-hull")


def draw(rng, n, d=3, shift=0.0):
    values = rng.standard_normal((n, d)) + shift
    return Features(np.arange(n), values.astype(np.float32), "test")


def sets_of(rng, *, heldout=0, shifts=(0.0,), n=60, m=40):
    return DiverseSets(
        real=draw(rng, n),
        generated={f"set-{i}": draw(rng, m, shift=s) for i, s in enumerate(shifts)},
        heldout=draw(rng, heldout) if heldout else None,
    )


@pytest.mark.parametrize("heldout", [0, 50])
def test_exchangeable_samples_exceed_their_null_in_at_most_5_percent_of_cases(heldout):
    """150 times 60 real images and 40 samples of one distribution, by each rule.

    The bound is the 99.9% quantile of binomial(150, 0.05); the mean count is within 4 standard errors
    of its expectation. Principal components are fitted to the real images, which therefore spread more
    on them than samples do: there the expectation is an upper bound.
    """
    rng = np.random.default_rng(0)
    rules = DiverseRules(names=FAST, quantile=0.9, gates=OPEN)
    studies = [find_diverse(sets_of(rng, heldout=heldout), rules) for _ in range(150)]
    for rule in FAST:
        rows = [study.of("set-0", rule) for study in studies]
        assert sum(row.exceeds_null for row in rows) <= binom.ppf(0.999, 150, 0.05), rule
        gaps = np.array([row.count - row.expected for row in rows])
        gap, within = gaps.mean(), 4 * gaps.std() / np.sqrt(150)
        assert gap < within if rule == "pca-hull" else abs(gap) < within, rule


def test_planted_novelty_exceeds_every_null():
    rng = np.random.default_rng(1)
    rules = DiverseRules(names=FAST, gates=dataclasses.replace(OPEN, looseness=20.0))
    study = find_diverse(sets_of(rng, shifts=(0.0, 6.0), n=200), rules)
    for rule in FAST:
        near, far = study.of("set-0", rule), study.of("set-1", rule)
        assert not near.exceeds_null
        assert far.exceeds_null
        assert far.count == 40 or rule == "pca-hull"  # a part of what is new is in the plane
        assert verdict(near) == NOTHING_NEW == "no more than chance: no evidence of anything new"
        assert verdict(far) == "more than chance"


def test_findings_are_those_of_the_scores():
    rng = np.random.default_rng(2)
    sets = sets_of(rng, heldout=30)
    study = find_diverse(sets, DiverseRules(names=FAST, quantile=0.9, neighbours=4))
    real, items = sets.real, sets.generated["set-0"]
    expected = {
        "calibrated": calibrated(items, real, quantile=0.9, heldout=sets.heldout, gates=Gates()),
        "knn": outside_balls(items, real, k=4, heldout=sets.heldout),
        "pca-hull": outside_hull(items, real).score,
    }
    for rule, score in expected.items():
        found = study.of("set-0", rule)
        assert found.score.value == score.value
        assert found.expected == pytest.approx(score.null * 40)
    distances = np.linalg.norm(items.values[:, None] - real.values[None], axis=2)
    positions, nearest = study.nearest["set-0"]
    np.testing.assert_array_equal(positions, distances.argmin(1))
    np.testing.assert_allclose(nearest, distances.min(1), rtol=1e-5)  # float32 rows


def test_held_out_images_are_judged_as_a_control():
    rng = np.random.default_rng(3)
    sets = sets_of(rng, heldout=30)
    study = find_diverse(sets, DiverseRules(names=FAST, quantile=0.9))
    controls = [f for f in study.findings if f.is_control]
    assert [(f.set_name, f.rule) for f in controls] == [(CONTROL, "pca-hull")]
    assert controls[0].count == outside_hull(sets.heldout, sets.real).count
    name = next(iter(sets.generated))  # the others have these images as their null
    assert study.of(name, "knn").score.null == outside_balls(sets.heldout, sets.real).value
    assert study.of(name, "knn").critical > study.of(name, "knn").expected
    assert [f.set_name for f in study.samples] == ["set-0"] * 3


@pytest.fixture(scope="module")
def mapped():
    """t-SNE with two seeds, of features of its own."""
    rng = np.random.default_rng(4)
    sets = sets_of(rng, n=30, m=25)
    planes = sets_of(rng, n=30, m=25)
    steps = []
    rules = DiverseRules(names=("tsne-hull", "calibrated"), quantile=0.9, seeds=2)
    study = find_diverse(sets, rules, planes, lambda: steps.append(1))
    return sets, planes, rules, study, len(steps)


def test_tsne_hull_is_that_of_seed_0_and_says_how_stable_it_is(mapped):
    _, planes, _, study, _ = mapped
    found = study.of("set-0", "tsne-hull")
    items, real = planes.generated["set-0"], planes.real
    np.testing.assert_array_equal(
        found.selected, outside_hull(items, real, rule="tsne-hull").selected
    )
    again = stability(items, real, seeds=range(2))
    assert found.stability.counts == again.counts
    np.testing.assert_array_equal(found.stability.overlap, again.overlap)
    assert found.times_selected.sum() == sum(again.counts)
    assert "Over 2 seeds of t-SNE the counts are" in overlap_words(found)


def test_steps_are_announced(mapped):
    _, _, rules, _, steps = mapped
    assert steps == num_steps(rules, 1, heldout=False) == 4
    assert num_steps(DiverseRules(names=RULES), 2, heldout=True) == 2 * (1 + 3 + 5) + 2


def test_the_answer_holds_every_count_and_its_null(mapped):
    _, _, _, study, _ = mapped
    text = answer(study)
    for finding, sentence in zip(study.samples, text, strict=True):
        assert f"{finding.count} of 25" in sentence
        assert f"{finding.expected:,.1f} would be if they were real images themselves" in sentence
        assert sentence.endswith(f"{verdict(finding)}.")


def test_several_sets_are_summed_up_by_rule():
    rng = np.random.default_rng(5)
    rules = DiverseRules(names=("calibrated", "pca-hull"), gates=OPEN)
    nothing = find_diverse(sets_of(rng, shifts=(0, 0), n=200), rules)
    assert answer(nothing) == [
        f"Rule {rule}: in none of 2 sets more than chance: no evidence of anything new."
        for rule in rules.names
    ]
    some = find_diverse(sets_of(rng, shifts=(0, 9), n=200), rules)
    assert all("in 1 of 2 sets: set-1 (40 of 40" in text for text in answer(some))
    every = find_diverse(sets_of(rng, shifts=(9, 9), n=200), rules)
    assert all("in all of 2 sets" in text for text in answer(every))


def test_cautions_are_those_of_the_rules_and_the_sets(mapped):
    _, _, _, study, _ = mapped
    text = " ".join(beware(study, fitted=True))
    for part in ("broken images", "compatible with no novelty", "depends on its seed", "--heldout"):
        assert part in text
    assert "was fitted to the real images" in text
    assert "was fitted" not in " ".join(beware(study, fitted=False))
    rng = np.random.default_rng(6)
    only = find_diverse(sets_of(rng, heldout=40), DiverseRules(quantile=0.9))
    text = " ".join(beware(only, fitted=True))
    for part in (
        "compatible with no novelty",
        "depends on its seed",
        "--heldout",
        "fitted",
        "rows",
    ):
        assert part not in text


def test_rules_are_described_with_their_settings():
    rng = np.random.default_rng(7)
    gates = Gates(k=4, looseness=3.0, least_realism=0.5, copy_ratio=0.25)
    study = find_diverse(sets_of(rng, heldout=40), DiverseRules(quantile=0.9, gates=gates))
    words = what(study, "calibrated")
    for part in ("90% of held-out images are", "within 3 times", "number 4", "realism 0.5", "0.25"):
        assert part in words
    alone = find_diverse(sets_of(rng), DiverseRules(quantile=0.9, gates=OPEN))
    assert "90% of real images from one another are, and nothing else" in what(alone, "calibrated")


def test_a_descriptor_that_was_fitted_to_the_real_images_selects_too_few_unless_images_are_held_out():
    """What the caution says: 12 draws of 150 real images and 200 more, at 5% expected.

    2,400 samples: the standard error of a rate of 5% is below 1%, with that of the thresholds.
    """
    rates = {False: [], True: []}
    for seed in range(12):
        images = smooth_images(550, seed)
        describe = WhitenedPixels.fit(images[:150])
        rows = [
            Features(np.arange(len(part)), describe(part), "test")
            for part in (images[:150], images[150:350], images[350:])
        ]
        for heldout, found in rates.items():
            sets = DiverseSets(
                real=rows[0], generated={"g": rows[1]}, heldout=rows[2] if heldout else None
            )
            study = find_diverse(sets, DiverseRules(gates=OPEN))
            found.append(study.of("g", "calibrated").score.value)
    assert np.mean(rates[False]) < 0.02
    assert abs(np.mean(rates[True]) - 0.05) < 0.03


def test_only_scikit_learn_is_called_the_published_rule(mapped):
    _, _, rules, study, _ = mapped
    assert what(study, "tsne-hull").endswith("by scikit-learn: the published rule")
    other = dataclasses.replace(study, rules=dataclasses.replace(rules, library="openTSNE"))
    assert what(other, "tsne-hull").endswith("by openTSNE (published: scikit-learn)")


def test_errors_name_the_set_and_the_rule():
    rng = np.random.default_rng(8)
    line = Features(np.arange(9), np.outer(np.arange(9), [1, 1, 1]).astype(np.float32), "test")
    sets = DiverseSets(real=draw(rng, 60), generated={"line": line})
    with pytest.raises(ValueError, match="line, rule pca-hull: convex hull"):
        find_diverse(sets, DiverseRules(names=("pca-hull",)))
    other = Features(line.ids, line.values, "other")
    with pytest.raises(DescriptorMismatch):
        DiverseSets(real=draw(rng, 60), generated={"other": other})


@pytest.mark.parametrize(("quantile", "least"), [(0.95, 19), (0.9, 9), (0.5, 1), (0.99, 99)])
def test_fewest_calibrators_are_those_that_the_score_takes(quantile, least):
    rng = np.random.default_rng(9)
    assert fewest_calibrators(quantile) == least
    items = draw(rng, 5)
    real = draw(rng, 40)
    calibrated(items, real, quantile=quantile, heldout=draw(rng, least))
    if least > 1:
        with pytest.raises(ValueError, match=f"at least {least}"):
            calibrated(items, real, quantile=quantile, heldout=draw(rng, least - 1))


def test_real_images_that_are_there_twice_make_nothing_new():
    """Their distances to one another are 0: by these all 200 of 200 sets were more than chance."""
    rng = np.random.default_rng(0)
    exceeding = dict.fromkeys(("calibrated", "knn"), 0)
    for _ in range(100):
        once = draw(rng, 50, d=8).values
        real = Features(np.arange(100), np.concatenate([once, once]), "test")
        sets = DiverseSets(real=real, generated={"new": draw(rng, 200, d=8)})
        found = find_diverse(sets, DiverseRules(names=("calibrated", "knn")))
        for rule in exceeding:
            exceeding[rule] += found.of("new", rule).exceeds_null
        assert found.nearest["new"][0].max() < 100
    assert max(exceeding.values()) <= binom.ppf(0.999, 100, 0.05)


def test_real_images_that_are_neighbours_of_each_other_share_their_distance():
    """Uniform in the plane, and on a line: 6 to 14% of 200 such sets were more than chance."""
    rules, exceeding = DiverseRules(names=("calibrated", "knn"), quantile=0.8, gates=OPEN), {}
    for d in (1, 2):
        for seed in range(200):
            rng = np.random.default_rng([seed, d])
            real, made = (
                Features(np.arange(n), rng.random((n, d)).astype(np.float32), "test")
                for n in (60, 1000)
            )
            found = find_diverse(DiverseSets(real=real, generated={"new": made}), rules)
            for rule in rules.names:
                exceeding[rule, d] = (
                    exceeding.get((rule, d), 0) + found.of("new", rule).exceeds_null
                )
    assert max(exceeding.values()) <= binom.ppf(0.999, 200, 0.05), exceeding


@pytest.mark.parametrize("collapsed", ["samples", "held-out images"])
def test_equal_samples_and_equal_held_out_images_count_once(collapsed):
    """20 samples 50 times, or 40 held-out images five times: 20 to 38% of such sets were more than chance."""
    rules, exceeding = DiverseRules(names=("calibrated", "knn", "pca-hull")), {}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        real, made, held = (draw(rng, n, d=8) for n in (200, 200, 200))
        if collapsed == "samples":
            made = draw(rng, 20, d=8).values.repeat(50, 0)
            made = Features(np.arange(1000), made, "test")
        else:
            held = Features(np.arange(200), draw(rng, 40, d=8).values.repeat(5, 0), "test")
        sets = DiverseSets(real=real, generated={"new": made}, heldout=held)
        found = find_diverse(sets, rules)
        for rule in rules.names:
            exceeding[rule] = exceeding.get(rule, 0) + found.of("new", rule).exceeds_null
    assert max(exceeding.values()) <= binom.ppf(0.999, 60, 0.05)
    if collapsed == "samples":
        finding = found.of("new", "calibrated")
        assert finding.independent == 20
        assert finding.critical % 50 == 0
        assert "count once (as 20 samples)" in answer(found)[0]
    far = np.concatenate([draw(rng, 5, d=8, shift=9.0).values.repeat(20, 0), real.values[:100]])
    sets = dataclasses.replace(sets, generated={"new": Features(np.arange(200), far, "test")})
    assert find_diverse(sets, rules).of("new", "knn").exceeds_null
