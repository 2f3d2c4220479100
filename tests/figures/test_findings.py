"""Titles follow from the numbers that they stand above."""

from __future__ import annotations

from dataclasses import replace

import pytest
from drawn import pairs
from memorization_tables import SIZES, WIDTHS, score, table

from regimes.figures import curves, findings, sheets


def test_title_names_the_sizes_between_which_copying_stops():
    assert findings.copying(table(), SIZES, WIDTHS) == "Copying stops between n = 64 and n = 850"
    early = table(gl={64: 0.95, 256: 0.95})
    assert findings.copying(early, SIZES, WIDTHS) == "Copying stops between n = 16 and n = 64"


@pytest.mark.parametrize(
    ("gl", "expected"),
    [
        (dict.fromkeys(SIZES, 0.1), "Most samples are copies at every n up to 850"),
        (dict.fromkeys(SIZES, 0.95), "No more copies than among real images at every n up to 850"),
        ({850: 0.7}, "Copying fades after n = 64 but has not stopped at n = 850"),
        ({16: 0.6, 64: 0.7}, "Copying stops by n = 850"),
        (dict.fromkeys(SIZES, 0.7), "Copying has not stopped at n = 850"),
    ],
)
def test_title_of_copies_does_not_claim_a_transition_that_is_not_there(gl, expected):
    assert findings.copying(table(gl=gl), SIZES, WIDTHS) == expected


def test_one_width_that_still_copies_keeps_copying_from_having_stopped():
    rows = table()
    slow = [
        replace(r, score=score("gl", 0.7))
        if (r.score.name, r.n, r.width) == ("gl", 850, 256)
        else r
        for r in rows
    ]
    assert "has not stopped" in findings.copying(slow, SIZES, WIDTHS)


def test_title_of_reproducibility_follows_the_scores_on_disjoint_data():
    title = "Models trained on disjoint data agree on 56% of seeds at n = 850"
    assert findings.agreement(table(), SIZES, WIDTHS) == title
    never = dict.fromkeys(SIZES, 0.01)
    title = "No models trained on disjoint data agree up to n = 850"
    assert findings.agreement(table(disjoint=never), SIZES, WIDTHS) == title
    assert "Only some" in findings.agreement(table(disjoint={16: 0.6, 850: 0}), SIZES, WIDTHS)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({}, "Samples are less precise than real images at n = 850: 0.64 against 0.90"),
        (
            {"precision": {850: 0.9}},
            "Samples are about as precise as real images at n = 850: 0.90 against 0.90",
        ),
        (
            {"precision": {850: 0.1}},
            "Samples are no more precise than the linear denoiser's at n = 850",
        ),
        ({"wiener": {850: 0.9}}, "Most samples are those of the linear denoiser at n = 850"),
    ],
)
def test_title_of_fidelity_follows_precision_and_linearity(scores, expected):
    assert findings.fidelity(table(**scores), SIZES, WIDTHS) == expected


def test_title_of_a_sheet_counts_the_pairs_above_the_threshold():
    blocks = [pairs(16, [0.95, 0.9, 0.1]), pairs(64, [0.1, 0.88, 0.9])]
    figure = sheets.nearest_sheet(blocks, width=128, threshold=0.88)
    title = figure.get_suptitle().replace("\n", " ")
    assert title == "Width 128: 2 of the 3 shown are copies at n = 16, 1 at n = 64"


def test_titles_of_models_that_make_noise_say_what_is_shown_and_claim_nothing():
    untrained = table(gl=dict.fromkeys(SIZES, 1), disjoint=dict.fromkeys(SIZES, 1),
                      precision=dict.fromkeys(SIZES, 0))  # fmt: skip
    note = " (no model is trained well enough to judge)"
    title = f"Fraction of samples that are not copies{note}"
    assert findings.copying(untrained, SIZES, WIDTHS) == title
    assert findings.agreement(untrained, SIZES, WIDTHS) == f"How often models agree{note}"
    expected = "Width 128: similarity of samples to their nearest training image"
    assert findings.nearness(untrained, SIZES, 128) == expected
    assert "no more precise" in findings.fidelity(untrained, SIZES, WIDTHS)
    blocks = [pairs(16, [0.95, 0.9, 0.1])]
    for sheet, words in (
        (sheets.nearest_sheet(blocks, width=8, threshold=0.88, counted=False), "samples above"),
        (
            sheets.memorizer_sheet(blocks, width=8, threshold=0.88, counted=False),
            "memorizer, width",
        ),
        (
            sheets.same_noise_sheet(blocks, blocks, width=8, threshold=0.88, counted=False),
            "disjoint",
        ),
    ):
        title = sheet.get_suptitle().replace("\n", " ")
        assert words in title
        assert "of the" not in title


def test_titles_leave_out_sizes_at_which_models_make_noise():
    rows = table(precision={850: 0})
    title = "Copying fades after n = 64 but has not stopped at n = 256 (not judged: n = 850)"
    assert findings.copying(rows, SIZES, WIDTHS) == title


def test_a_missing_score_is_named():
    rows = [r for r in table() if r.score.name != "gl_heldout"]
    with pytest.raises(ValueError, match="no gl_heldout at n="):
        curves.copies(rows, SIZES, WIDTHS)
