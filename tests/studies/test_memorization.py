"""The study on planted evidence: memorizers, generalizers and linear models are told apart."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from regimes.denoisers.closed_form import EmpiricalDenoiser, WienerDenoiser
from regimes.descriptors.pixels import WhitenedPixels
from regimes.images.pixels import pixel_vectors, to_float, to_uint8
from regimes.images.sources import load_images, open_source
from regimes.images.split import HALVES, Split, other
from regimes.samplers.edm import SamplerConfig, sample_seeds
from regimes.scores.features import Features
from regimes.scores.result import wilson_interval
from regimes.studies.memorization import Evidence, ImageSet, calibrate, pooled, score_table
from regimes.studies.verdict import RULES, answer, classify

SIZES, WIDTHS, M = (16, 200), (8, 9), 120
PUBLISHED = 0.6


class World:
    """Real digits, split, and what the two closed-form denoisers make of them."""

    def __init__(self):
        _, self.images, _ = load_images(open_source("digits"))
        self.split = Split(num_images=len(self.images), seed=0)
        self.describe = WhitenedPixels.fit(self.images[self.split.indices("A")])
        positions = {half: self.split.indices(half) for half in HALVES}
        self.train = {h: self.real(positions[h][: SIZES[-1]]) for h in HALVES}
        # Half B's first 600 are what models of half A never saw, and the other way round; what
        # lies beyond them is unseen by both and serves as the samples of a perfect generalizer.
        self.heldout = {h: self.real(positions[other(h)][:600]) for h in HALVES}
        self.unseen = self.samples(self.images[positions["A"][600 : 600 + M]])
        self.empirical = {
            (n, h): self.closed(EmpiricalDenoiser, n, h) for n in SIZES for h in HALVES
        }
        self.wiener = {(n, h): self.closed(WienerDenoiser, n, h) for n in SIZES for h in HALVES}

    def image_set(self, ids, images):
        return ImageSet(
            features=Features(ids, self.describe(images), "whitened-pixels"),
            pixels=Features(ids, pixel_vectors(images), "raw"),
        )

    def real(self, positions):
        ids = np.array([f"digit-{p}" for p in positions])
        return self.image_set(ids, self.images[positions])

    def samples(self, images):
        return self.image_set(np.arange(len(images)), images)

    def closed(self, form, n, half):
        y = to_float(self.images[self.split.subset(half, n)])
        config = SamplerConfig(num_steps=12, sigma_min=0.02, sigma_max=20.0)
        return self.samples(to_uint8(sample_seeds(form(y), range(M), (1, 8, 8), config=config)))

    def one_half(self, model, *, mirrored=False):
        """The same without models of half B, and with the flips of the training images."""
        both = self.evidence(model)
        flips = self.train["A"].features.ids, self.images[self.split.subset("A", SIZES[-1])]
        flips = self.image_set(flips[0], flips[1][:, :, ::-1])
        return dataclasses.replace(
            both,
            train={"A": self.train["A"]},
            heldout={"A": self.heldout["A"]},
            models={c: s for c, s in both.models.items() if c[2] == "A"},
            mirrored={"A": flips} if mirrored else None,
        )

    def evidence(self, model):
        """Evidence in which ``model(n, half)`` gives the samples of every model of that cell."""
        return Evidence(
            sizes=SIZES,
            widths=WIDTHS,
            train=self.train,
            heldout=self.heldout,
            models={(w, n, h): model(n, h) for w in WIDTHS for n in SIZES for h in HALVES},
            empirical=self.empirical,
            wiener=self.wiener,
        )


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def tables(world):
    """Threshold and rows of the three planted studies."""
    planted = {
        "memorization": lambda n, half: world.empirical[n, half],
        "generalization": lambda n, half: world.unseen,
        "linear": lambda n, half: world.wiener[n, half],
    }
    found = {}
    for name, model in planted.items():
        evidence = world.evidence(model)
        threshold = calibrate(evidence, 0.95)
        rows = score_table(evidence, threshold, published_threshold=PUBLISHED)
        found[name] = evidence, threshold, rows
    return found


@pytest.mark.parametrize("regime", ["memorization", "generalization", "linear"])
def test_planted_models_are_classified_as_what_they_are(tables, regime):
    rows = tables[regime][2]
    for n in SIZES:
        for width in WIDTHS:
            found = classify(rows, n, width)
            assert (found.name, found.n, found.width) == (regime, n, width), found.because


def test_memorizer_copies_everything_and_agrees_with_itself_only(tables):
    rows = tables["memorization"][2]
    for n in SIZES:
        assert pooled(rows, "gl", n).value < 0.02
        assert pooled(rows, "ratio", n).value > 0.95
        assert pooled(rows, "rp_optimal", n).value == 1.0
        assert pooled(rows, "rp_same_data", n).value == 1.0
        disjoint, null = pooled(rows, "rp_disjoint", n), pooled(rows, "rp_disjoint_null", n)
        assert disjoint.value == null.value < 0.1


def test_unseen_real_images_score_as_heldout_ones_do(tables):
    rows = tables["generalization"][2]
    for n in SIZES:
        gl, ceiling = pooled(rows, "gl", n), pooled(rows, "gl_heldout", n)
        assert gl.low <= ceiling.high
        assert ceiling.low <= gl.high
        assert pooled(rows, "ratio", n).value == pytest.approx(0, abs=0.02)
        assert pooled(rows, "rp_disjoint", n).value == 1.0
    precision = pooled(rows, "precision", SIZES[-1])
    assert precision.value > 0.8
    assert precision.value > pooled(rows, "precision_null", SIZES[-1]).high


def test_linear_models_are_found_by_their_similarity_to_the_linear_denoiser(tables):
    rows = tables["linear"][2]
    assert pooled(rows, "wiener_similarity", 200).value == 1.0
    assert pooled(rows, "precision", 200).value == pooled(rows, "precision_null", 200).value


@pytest.mark.parametrize("suffix", ["", "_published"])
def test_null_of_disjoint_agreement_is_that_of_two_memorizers(tables, suffix):
    evidence, threshold, rows = tables["generalization"]
    tau = PUBLISHED if suffix else threshold.value
    for n in SIZES:
        a, b = (evidence.empirical[n, h].features.values.astype(float) for h in HALVES)
        expected = ((a * b).sum(1) > tau).mean()
        models = [r.score for r in rows if (r.score.name, r.n) == (f"rp_disjoint{suffix}", n)]
        assert len(models) == len(WIDTHS)
        assert {s.null for s in models} == {pooled(rows, f"rp_disjoint{suffix}_null", n).value}
        assert models[0].null == pytest.approx(expected, abs=1e-12)
    wiener = pooled(rows, f"rp_disjoint{suffix}_wiener", 200).value
    assert wiener != models[0].null


def test_threshold_is_that_of_heldout_images_at_the_largest_half_a(tables):
    evidence, threshold, rows = tables["memorization"]
    table = evidence.heldout["A"].features.values.astype(float) @ evidence.train[
        "A"
    ].features.values.T.astype(float)
    assert threshold.value == pytest.approx(np.quantile(table.max(1), 0.95), abs=1e-9)
    (at_a,) = [
        r.score for r in rows if (r.score.name, r.n, r.half) == ("gl_heldout", SIZES[-1], "A")
    ]
    assert at_a.value == pytest.approx(0.95, abs=1 / 600 + 1e-9)


def test_gl_of_a_cell_is_a_direct_count(tables):
    evidence, threshold, rows = tables["generalization"]
    for row in rows:
        if row.score.name not in ("gl", "gl_published"):
            continue
        samples = evidence.models[row.width, row.n, row.half].features.values.astype(float)
        train = evidence.train[row.half].features.values[: row.n].astype(float)
        tau = threshold.value if row.score.name == "gl" else PUBLISHED
        expected = ((samples @ train.T).max(1) <= tau).mean()
        assert row.score.value == pytest.approx(expected, abs=1e-12)
        assert row.score.threshold == tau
        assert row.score.num_train == row.n


def test_table_holds_every_score_once_per_cell(tables):
    rows = tables["memorization"][2]
    keys = [(r.score.name, r.n, r.width, r.half, r.width_other, r.half_other) for r in rows]
    assert len(set(keys)) == len(keys)
    count = {name: sum(k[0] == name for k in keys) for name in {k[0] for k in keys}}
    cells = len(SIZES) * len(WIDTHS) * 2
    per_cell = ("gl", "gl_published", "ratio", "rp_optimal", "wiener_similarity")
    assert {count[name] for name in (*per_cell, "precision", "recall")} == {cells}
    assert {count[name] for name in ("rp_same_data", "rp_disjoint")} == {len(SIZES) * 2}
    assert {count[f"{m}_{k}"] for m in ("precision", "recall") for k in ("heldout", "null")} == {4}


def test_every_row_makes_a_plain_record(tables):
    for row in tables["linear"][2]:
        record = row.record()
        assert record["score"] == row.score.name
        assert record["value"] == row.score.value
        assert record["low"] <= record["value"] <= record["high"]
        assert record["null"] is None or math.isfinite(record["null"])
        assert {type(v) for v in record.values()} <= {str, int, float, bool, type(None)}


def test_pooled_score_is_the_count_over_all_items_with_the_interval_of_one_cell(tables):
    rows = tables["generalization"][2]
    for name, width, num_rows in (("gl", 8, 2), ("gl", None, 4), ("rp_disjoint", 9, 1)):
        chosen = [
            r.score
            for r in rows
            if r.score.name == name and r.n == 200 and (width is None or r.width == width)
        ]
        assert len(chosen) == num_rows
        total = sum(s.num_generated for s in chosen)
        hits = round(sum(s.value * s.num_generated for s in chosen))
        found = pooled(rows, name, 200, width)
        assert found.value == pytest.approx(hits / total)
        assert (found.low, found.high) == pytest.approx(wilson_interval(hits / num_rows, M))
        assert found.num_generated == total == M * num_rows


def test_pooled_score_weighs_cells_of_different_size_by_their_items(tables):
    row = next(r for r in tables["linear"][2] if r.score.name == "gl")
    parts = [
        dataclasses.replace(
            row, score=dataclasses.replace(row.score, value=v, num_generated=n, null=null)
        )
        for v, n, null in ((1.0, 10, 0.5), (0.5, 30, 0.9))
    ]
    found = pooled(parts, "gl", row.n)
    assert found.value == 25 / 40
    assert (found.low, found.high) == wilson_interval(6.25, 10)
    assert found.null == pytest.approx((0.5 * 10 + 0.9 * 30) / 40)


def test_pooled_same_data_score_of_a_width_takes_pairs_that_include_it(tables):
    rows = tables["memorization"][2]
    for width in WIDTHS:
        assert pooled(rows, "rp_same_data", 16, width).num_generated == 2 * M
    assert pooled(rows, "rp_same_data", 16, 77) is None
    assert pooled(rows, "no_such_score", 16) is None


def replaced(rows, name, *, hits):
    """The table with all scores of one name set to a number of hits out of each."""

    def score(s):
        low, high = wilson_interval(hits, s.num_generated)
        return dataclasses.replace(s, value=hits / s.num_generated, low=low, high=high)

    return [
        dataclasses.replace(r, score=score(r.score)) if r.score.name == name else r for r in rows
    ]


def test_models_without_copies_that_do_not_agree_are_in_transition(tables):
    rows = replaced(tables["generalization"][2], "rp_disjoint", hits=10)
    assert classify(rows, 200, 8).name == "transition"


def test_models_that_agree_no_more_than_memorizers_do_not_generalize(tables):
    rows = replaced(tables["generalization"][2], "rp_disjoint_null", hits=M)
    assert classify(rows, 200, 8).name == "transition"


def test_models_that_copy_half_of_the_time_are_in_transition(tables):
    rows = replaced(tables["generalization"][2], "gl", hits=M // 2)
    assert classify(rows, 200, 8).name == "transition"


def test_few_samples_are_not_called_as_free_of_copies_as_real_images(tables):
    """21 of 24 are no copies, 95% of real images: a sixth more may be copies."""

    def few(score):
        low, high = wilson_interval(21, 24)
        return dataclasses.replace(score, value=21 / 24, low=low, high=high, num_generated=24)

    rows = tables["generalization"][2]
    changed = [
        dataclasses.replace(r, score=few(r.score)) if r.score.name == "gl" else r for r in rows
    ]
    found = classify(changed, 200, 8)
    assert found.name == "transition"
    assert found.because.endswith("too few samples to exclude 10% more copies")
    assert "too few" not in classify(rows, 200, 8).because


def test_models_no_better_than_the_linear_denoiser_are_off_the_manifold(tables):
    rows = tables["generalization"][2]
    at_null = round(pooled(rows, "precision_null", 200).value * M)
    assert classify(replaced(rows, "precision", hits=at_null), 200, 8).name == "off-manifold"


def test_rules_are_tried_in_their_order(tables):
    assert list(RULES) == [
        *("memorization", "linear", "off-manifold"),
        *("generalization", "novel", "transition"),
    ]
    rows = tables["generalization"][2]
    for name, hits, regime in (
        ("precision", 0, "off-manifold"),
        ("wiener_similarity", M, "linear"),
        ("gl", 0, "memorization"),
    ):
        rows = replaced(rows, name, hits=hits)  # on top of the rules after it, which hold as well
        assert classify(rows, 200, 8).name == regime


@pytest.mark.parametrize("name", ["gl", "wiener_similarity", "precision", "gl_heldout"])
def test_classification_needs_its_scores(tables, name):
    rows = [r for r in tables["generalization"][2] if r.score.name != name]
    with pytest.raises(ValueError, match=f"the table has no {name} at n=16"):
        classify(rows, 16, 8)


def test_answer_names_the_last_memorizing_and_generalizing_sizes(tables):
    copying, learning = answer(tables["memorization"][2], SIZES, WIDTHS)
    assert copying.startswith("Every model memorizes, up to the largest training set")
    rest = tables["generalization"][2]
    mixed = [r for r in tables["memorization"][2] if r.n == 16] + [r for r in rest if r.n == 200]
    copying, learning = answer(mixed, SIZES, WIDTHS)
    assert copying.startswith("Up to n = 16 training images every model memorizes")
    assert learning.startswith("At n = 200 two models that share no training image")
    copying, learning = answer(tables["memorization"][2], SIZES, WIDTHS)
    assert "No cell generalizes" in learning
    copying, learning = answer(tables["generalization"][2], SIZES, WIDTHS)
    assert "Not even the smallest training set is memorized" in copying
    assert learning.startswith("At n = 200 two models that share no training image")
    assert "in 100% of cases" in learning


def test_answer_about_one_size_gives_its_number_once(tables):
    for regime, start in (
        ("memorization", "Every model memorizes, up to the largest training set: copies are 100%"),
        ("generalization", "Not even the smallest training set is memorized by any model: copies"),
    ):
        copying, _ = answer(tables[regime][2], (200,), WIDTHS)
        assert copying.startswith(start)
        assert copying.count("n = 200") == 1


def test_answer_does_not_deny_that_one_of_two_widths_memorizes(tables):
    narrow, wide = (tables[regime][2] for regime in ("generalization", "memorization"))
    half = [r for r in narrow if r.width in (None, WIDTHS[0])]
    other = [r for r in wide if r.width == WIDTHS[1]]
    copying, _ = answer(half + other, SIZES, WIDTHS)
    assert copying.startswith("Not even the smallest training set is memorized by every model")


def test_models_that_make_noise_or_the_linear_denoiser_s_images_were_not_trained(tables):
    noise = replaced(tables["generalization"][2], "precision", hits=0)
    linear = replaced(noise, "wiener_similarity", hits=M)
    mixed = [r for r in noise if r.n == 16] + [r for r in linear if r.n == 200]
    for rows in (noise, mixed):
        finding, advice = answer(rows, SIZES, WIDTHS)
        assert finding.startswith(
            "No model is trained well enough to judge: at n = 200 precision is 0.00"
        )
        assert "--steps" in advice
    assert "No cell generalizes" in answer(linear, SIZES, WIDTHS)[1]


def test_without_models_of_disjoint_data_novelty_is_not_called_generalization(world):
    evidence = world.one_half(lambda n, half: world.unseen)
    rows = score_table(evidence, calibrate(evidence, 0.95), published_threshold=PUBLISHED)
    assert not [r for r in rows if r.score.name.startswith("rp_disjoint")]
    assert {r.half for r in rows} == {"A"}
    regimes = [classify(rows, n, w) for n in SIZES for w in WIDTHS]
    assert {r.name for r in regimes} == {"novel"}
    assert "agreement with another width 100% (chance: " in regimes[0].because
    copying, learning = answer(rows, SIZES, WIDTHS)
    assert "Not even the smallest training set is memorized" in copying
    assert "were not trained" in learning


def test_one_seed_that_agrees_is_not_more_than_chance(world):
    """Its interval lies above a chance of a thousandth, and yet one of nine such pairs has one."""
    evidence = world.one_half(lambda n, half: world.unseen)
    rows = score_table(evidence, calibrate(evidence, 0.95), published_threshold=PUBLISHED)
    for hits, regime in ((1, "transition"), (4, "novel")):
        some = [
            dataclasses.replace(r, score=dataclasses.replace(r.score, null=0.001))
            if r.score.name == "rp_same_data"
            else r
            for r in replaced(rows, "rp_same_data", hits=hits)
        ]
        assert pooled(some, "rp_same_data", 200, 8).low > 0.001
        assert classify(some, 200, 8).name == regime


def test_without_models_of_disjoint_data_memorizers_are_still_found(world):
    evidence = world.one_half(lambda n, half: world.empirical[n, half])
    rows = score_table(evidence, calibrate(evidence, 0.95), published_threshold=PUBLISHED)
    assert {classify(rows, n, w).name for n in SIZES for w in WIDTHS} == {"memorization"}


def test_samples_that_are_flips_are_copies_where_flips_count_and_both_numbers_are_shown(world):
    def flips(n, half):
        images = world.images[world.split.subset("A", n)][:M, :, ::-1]
        return world.samples(images[np.arange(M) % len(images)])

    evidence = world.one_half(flips, mirrored=True)
    rows = score_table(evidence, calibrate(evidence, 0.95), published_threshold=PUBLISHED)
    for n in SIZES:
        assert pooled(rows, "gl", n).value == 0.0
        assert pooled(rows, "gl_unflipped", n).value > 0.8
        assert pooled(rows, "ratio", n).value == 1.0
        assert pooled(rows, "ratio_unflipped", n).value < 0.2
        assert pooled(rows, "ratio", n).num_train == n
    plain = dataclasses.replace(evidence, mirrored=None)
    assert calibrate(plain, 0.95).low < calibrate(evidence, 0.95).low
    names = {
        r.score.name for r in score_table(plain, calibrate(plain, 0.95), published_threshold=0.6)
    }
    assert not {"gl_unflipped", "ratio_unflipped"} & names
