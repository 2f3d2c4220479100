"""Verdicts of a sweep follow from planted cells, and sentences from verdicts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, t

from regimes.report import render
from regimes.report.guidance import GuidanceReport
from regimes.scores.modes import REJECTED
from regimes.studies.guidance import (
    CellData,
    CellKey,
    Tolerance,
    baseline_key,
    study_guidance,
)
from regimes.studies.guidance_words import answer, beware, holds, title

K, B, G = 5, 5, 60


def key(factor, kernel="rbf", churn=0.0):
    if factor == 0:
        return CellKey(factor=0, s_churn=churn, group_size=B, kernel="none", strength="none")
    return CellKey(factor=factor, s_churn=churn, group_size=B, kernel=kernel, strength="linear")


def independent(rng, p=None):
    return rng.choice(K, (G, B), p=p)


def spread():
    return np.tile(np.arange(K), (G, 1))


def cell(modes, distance=1.0, seconds=1.0, rng=None):
    noise = 0 if rng is None else 0.01 * rng.standard_normal(modes.shape)
    return CellData(modes=modes, quality=np.full(modes.shape, distance) + noise, seconds=seconds)


def study(cells, p=(0.2,) * K, **tolerance):
    names = [str(k) for k in range(K)]
    return study_guidance(cells, p, mode_names=names, tolerance=Tolerance(**tolerance))


def broken(modes, rng, share):
    return np.where(rng.random(modes.shape) < share, REJECTED, modes)


def test_spread_groups_at_equal_quality_are_the_finding(rng):
    found = study(
        {
            key(0): cell(independent(rng), rng=rng),
            key(1): cell(independent(rng), rng=rng),
            key(3): cell(spread(), seconds=2.5, rng=rng),
        }
    )
    assert [f.verdict for f in found.findings] == ["baseline", "no more modes", "more modes"]
    assert found.best is found.findings[2]
    assert found.best.gain.value == pytest.approx(5 - found.findings[0].scores.distinct.value)
    assert found.best.seconds_ratio == 2.5
    words = answer(found)
    assert "more modes at unchanged quality in 1 of 2 cells; most with factor 3, rbf" in words[0]
    assert "5.00 instead of 3." in words[0]
    assert "within three standard errors of those of 5 independent draws" in words[1]
    assert "3.36 on average" in words[1]  # 5 (1 - .8^5)
    assert "no farther from the data" in words[2]


def test_samples_that_break_are_a_price_and_too_few_groups_leave_it_open(rng):
    base = cell(independent(rng), rng=rng)
    worse = study({key(0): base, key(1): cell(broken(spread(), rng, 0.1), rng=rng)})
    assert worse.findings[1].verdict == "more modes, worse samples"
    assert worse.best is None
    assert "but in no cell of 1 is quality known to stay" in answer(worse)[0]
    assert "its quality is worse" in answer(worse)[0]
    few = {k: CellData(modes=c.modes[:4], quality=c.quality[:4], seconds=1) for k, c in
           {key(0): base, key(1): cell(broken(spread(), rng, 0.03), 1.02, rng=rng)}.items()}  # fmt: skip
    assert study(few).findings[1].quality in ("open", "kept")
    farther = study({key(0): base, key(1): cell(spread(), 1.2, rng=rng)})
    assert farther.findings[1].quality == "worse"
    assert study({key(0): base, key(1): cell(spread(), 1.2, rng=rng)}, distance=0.3).best


def test_rounding_beside_a_distance_of_nothing_is_no_loss_of_quality(rng):
    cells = {
        key(0): cell(independent(rng), distance=1e-7),
        key(1): cell(spread(), distance=6e-7),
        key(3): cell(spread(), distance=0.1),
    }
    assert study(cells).findings[1].quality == "worse"
    found = study(cells, least_distance=2 / 255).findings
    assert [f.quality for f in found] == ["kept", "kept", "worse"]


def test_a_change_that_the_groups_cannot_settle_is_open(rng):
    base = cell(spread(), rng=rng)
    some = spread()
    some[:3] = REJECTED  # 5% of samples, in three groups: far more uncertain than in all of them
    assert study({key(0): base, key(1): cell(some, rng=rng)}).findings[1].quality == "open"


def test_chance_among_many_cells_is_no_finding(rng):
    cells = {key(0): cell(independent(rng), rng=rng)}
    cells |= {key(0.1 * (i + 1)): cell(independent(rng), rng=rng) for i in range(30)}
    found = study(cells)
    assert not any(f.diversifies for f in found.guided)
    assert "does not cover more modes in any of 30 cells" in answer(found)[0]
    assert found.z == pytest.approx(t.ppf(1 - 0.025 / 30, G - 1))


def test_two_groups_claim_neither_more_modes_nor_kept_quality():
    """Two groups agree by chance: by normal intervals 9% of such cells gained modes, and 67% kept quality."""
    rng = np.random.default_rng(0)
    gained = kept = 0
    for _ in range(200):
        base, own = (cell(rng.choice(10, (2, 4))) for _ in range(2))
        gained += study({key(0): base, key(1): own}, (0.1,) * 10).findings[1].diversifies
        whole, some = np.zeros((2, 4), int), broken(np.zeros((2, 4), int), rng, 0.05)
        kept += study({key(0): cell(whole), key(1): cell(some)}).findings[1].quality == "kept"
    assert gained <= binom.ppf(0.999, 200, 0.025)
    assert kept == 0
    many = np.zeros((40, 4), int)  # 160 samples without a loss exclude one of 2%
    assert study({key(0): cell(many), key(1): cell(many)}).findings[1].quality == "kept"


def test_fewer_modes_are_no_gain(rng):
    found = study({key(0): cell(spread(), rng=rng), key(1): cell(independent(rng), rng=rng)})
    assert found.findings[1].verdict == "no more modes"
    assert title(found).startswith("Guidance does not cover more modes")


def test_unequal_modes_show_how_far_the_marginal_moved(rng):
    p = (0.6, 0.1, 0.1, 0.1, 0.1)
    found = study({key(0): cell(independent(rng, p), rng=rng), key(1): cell(spread(), rng=rng)}, p)
    assert found.findings[1].scores.total_variation == pytest.approx(0.4)
    assert "moves the shares of modes away from the data: total variation 0.400" in answer(found)[2]
    assert any("not equally frequent" in c for c in beware(found))
    assert not any("not equally frequent" in c for c in beware(study({key(0): cell(spread())})))


def test_baselines_have_the_same_churn_and_must_be_there(rng):
    cells = {key(0): cell(spread()), key(1, churn=3.0): cell(spread())}
    with pytest.raises(ValueError, match="expected a baseline of factor 1, rbf"):
        study(cells)
    assert baseline_key(key(1, churn=3.0)) == key(0, churn=3.0)


def test_a_sweep_without_guidance_says_so(rng):
    found = study({key(0): cell(independent(rng))})
    assert found.best is None
    assert answer(found)[1] == "No cell was guided: pass --factors above 0."


def test_report_has_a_row_per_cell_with_everything_beside_the_count(rng):
    found = study({key(0): cell(independent(rng), rng=rng), key(3): cell(spread(), rng=rng)})
    page = GuidanceReport(
        title="t", answer=answer(found), figures=[("caption", b"png")], study=found,
        about=["Model <b>."], distance="far", groups=G, recipe="{}", command="run",
    )  # fmt: skip
    text = render(page)
    rows = text.split("<tbody>")[1].split("</tbody>")[0]
    assert rows.count("<tr>") == 2
    guided = rows.split("<tr>")[2]
    for part in ("rbf, linear", "5.00 ± 0.00<span>3.36 (sd 0.71)</span>", "100.0%", "more modes"):
        assert part in guided, part
    assert "Model &lt;b&gt;." in text
    assert "60 groups per cell" in text


def test_a_marginal_that_few_samples_cannot_settle_is_not_called_unmoved(rng):
    base, moved = independent(rng)[:4], independent(rng)[:4]
    base[:] = np.tile(np.arange(K), (4, 1))
    moved[:] = [[0, 0, 1, 2, 3]] * 2 + [[0, 1, 2, 3, 4]] * 2
    found = study({key(0): cell(base), key(1): cell(moved)})
    assert "may move (too few samples to tell) the shares of modes" in answer(found)[2]


def test_what_became_of_a_law_that_was_set_is_said_with_its_interval(rng):
    p = (0.7, 0.075, 0.075, 0.075, 0.075)
    cells = {
        key(0): cell(independent(rng, p), rng=rng),
        key(1): cell(spread(), rng=rng),
    }
    found = study_guidance(
        cells, p, mode_names=["left", *"abcd"], tolerance=Tolerance(), law_is_set=True
    )
    words = answer(found)[-1]
    assert words.startswith("Without guidance 0.")
    assert "which holds the set 0.700" in words
    assert (
        "0.200 of accepted samples go left (95% interval 0.200 to 0.200, which does not hold"
        in words
    )
    assert holds(found, found.findings[0])
    assert not holds(found, found.findings[1])
    assert any("half the distance between the two nearest" in c for c in beware(found))
    assert len(answer(study(cells, p))) == 3  # elsewhere nobody set a law


def test_a_model_whose_samples_are_rejected_is_said_to_be_the_limit(rng):
    cells = {key(f): cell(np.full((G, B), REJECTED), rng=rng) for f in (0, 1)}
    found = study_guidance(
        cells, (0.2,) * K, mode_names=list("abcde"), tolerance=Tolerance(), law_is_set=True
    )
    words = answer(found)
    assert "No samples are accepted, so that nothing is known of the shares" in words[2]
    assert words[3].startswith("Without guidance too few samples are accepted to say how many go a")
    assert any("the model, not its guidance, is what limits" in c for c in beware(found))
