"""The figures of an audit show what they say: frames, rules, thresholds, shares."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from drawn import texts
from matplotlib.patches import Rectangle

from regimes.figures.audit import exceedance, similarity_audit
from regimes.figures.gallery import GalleryPair, gallery_sheet
from regimes.figures.style import pdf_bytes, png_bytes
from regimes.scores.calibration import Threshold
from regimes.scores.result import wilson_interval

TAU = Threshold(value=0.8, low=0.78, high=0.83, quantile=0.95, num_heldout=200, num_train=1000)


def pair(rank=1, *, copy=True, rules=("identical", "calibrated"), shape=(8, 8, 1)):
    rng = np.random.default_rng(rank)
    images = rng.integers(0, 256, (2, *shape), np.uint8)
    return GalleryPair(
        rank=rank,
        generated=images[0],
        train=images[1],
        generated_id=f"g{rank}",
        train_id=f"t{rank}",
        similarity=1 - rank / 100,
        rules=tuple(rules) if copy else (),
        is_copy=copy,
    )


def frames(figure):
    return [p for p in figure.axes[0].patches if isinstance(p, Rectangle)]


def test_copies_are_framed_and_their_rules_named():
    pairs = [pair(1), pair(2, rules=("calibrated",)), pair(3, copy=False)]
    figure = gallery_sheet(pairs, "Three pairs", "framed: a copy")
    assert len(frames(figure)) == 2
    shown = [t.get_text() for t in texts(figure)]
    assert {"0.990", "0.980", "0.970", "identical", "calibrated", "no copy"} <= set(shown)
    assert "Three pairs" in shown


def test_many_rules_are_counted_where_they_do_not_fit():
    rules = ("identical", "flip", "beyond all real", "ratio", "calibrated")
    shown = [t.get_text() for t in texts(gallery_sheet([pair(rules=rules)], "t", "n"))]
    assert "identical, flip" in shown
    assert "beyond all real +2" in shown


@pytest.mark.parametrize("shape", [(4, 12, 3), (12, 4, 1), (300, 200, 3)])
def test_images_keep_their_shape(shape):
    figure = gallery_sheet([pair(shape=shape)], "t", "n")
    for image in figure.axes[0].images:
        left, right, bottom, top = image.get_extent()
        assert (right - left) / abs(top - bottom) == pytest.approx(shape[1] / shape[0])


def test_pairs_are_in_rows_and_none_is_refused():
    figure = gallery_sheet([pair(i) for i in range(1, 24)], "t", "n")
    assert len(figure.axes[0].images) == 46
    with pytest.raises(ValueError, match="at least one"):
        gallery_sheet([], "t", "n")


@pytest.fixture
def similarities(rng):
    return np.clip(rng.normal(0.6, 0.1, 900), 0, 1), np.clip(rng.normal(0.5, 0.1, 200), 0, 1)


def test_the_histogram_adds_up_and_shows_the_threshold(similarities):
    figure = similarity_audit(*similarities, TAU, title="t", real_name="held-out images")
    bars = sum(p.get_height() for p in figure.axes[0].containers[0])
    assert bars == pytest.approx(1)
    assert any("0.800 [0.780, 0.830]" in t.get_text() for t in texts(figure))
    assert figure.axes[0].get_yscale() == "log"


def test_the_curve_is_the_share_above_every_threshold(similarities):
    figure = exceedance(*similarities, TAU, (0.5, 0.6), title="t", real_name="held-out images")
    for line, values in zip(figure.axes[0].lines[:2], similarities):
        x, y = line.get_data()
        for i in (20, 100, 150):
            assert np.nan_to_num(y[i]) == (values > x[i]).mean()
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() <= wilson_interval(900, 900)[1]
    shown = {t.get_text() for t in texts(figure)}
    assert {"0.5", "0.6"} <= shown


def test_equal_data_give_equal_files(similarities):
    def draw():
        sheet = gallery_sheet([pair(1), pair(2, copy=False)], "t", "n")
        return [sheet, similarity_audit(*similarities, TAU, title="t", real_name="r")]

    for first, second in zip(draw(), draw()):
        assert png_bytes(first) == png_bytes(second)
        assert pdf_bytes(first) == pdf_bytes(second)


@pytest.mark.parametrize("value", [0.05, 0.5, 0.99])
def test_nothing_is_written_outside_the_picture(similarities, value):
    tau = dataclasses.replace(TAU, value=value, low=value - 0.02, high=min(value + 0.02, 1))
    figure = similarity_audit(
        *similarities, tau, title="A title " * 12, real_name="held-out images"
    )
    png_bytes(figure)  # puts labels in their places
    width, height = figure.get_size_inches() * figure.dpi
    for text in texts(figure):
        box = text.get_window_extent()
        assert box.x0 >= -1
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1
