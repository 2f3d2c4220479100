"""The calibrated threshold is a quantile of real images' similarity, with an honest interval."""

from __future__ import annotations

import numpy as np
import pytest

from regimes.errors import DescriptorMismatch
from regimes.scores import neighbours
from regimes.scores.calibration import calibrate_threshold, nearest_similarity
from regimes.scores.features import Features
from regimes.scores.generalization import generalization_score


def at_cosines(cosines):
    """Unit vectors in the plane whose similarity to (1, 0) is given."""
    cosines = np.asarray(cosines)
    return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)


def test_nearest_similarity_is_the_largest_dot_product(rng, make_features, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 16)
    items = make_features(rng.standard_normal((50, 5)))
    train = make_features(rng.standard_normal((80, 5)))
    table = items.values.astype(float) @ train.values.T.astype(float)
    positions, best = nearest_similarity(items, train)
    np.testing.assert_array_equal(positions, table.argmax(1))
    np.testing.assert_allclose(best, table.max(1), rtol=1e-12)


def test_threshold_is_the_quantile_of_heldout_similarities(rng, make_features):
    cosines = rng.uniform(-0.9, 0.9, 501)
    heldout, train = make_features(at_cosines(cosines)), make_features([[1.0, 0.0]])
    found = calibrate_threshold(heldout, train, quantile=0.9)
    assert found.value == pytest.approx(np.quantile(cosines, 0.9), abs=1e-6)
    assert found.low < found.value < found.high
    assert (found.quantile, found.num_heldout, found.num_train) == (0.9, 501, 1)


@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_interval_covers_the_true_quantile_as_often_as_it_says(rng, make_features, quantile):
    train = make_features([[1.0, 0.0]])
    truth = -0.9 + 1.8 * quantile
    covered = 0
    for _ in range(400):
        heldout = make_features(at_cosines(rng.uniform(-0.9, 0.9, 200)))
        found = calibrate_threshold(heldout, train, quantile=quantile)
        covered += found.low <= truth <= found.high
    assert covered / 400 >= 0.92  # at least 0.95 in theory; 3 standard errors are 0.033
    assert covered / 400 < 1  # an interval of everything would always cover


def test_threshold_makes_heldout_images_copies_at_the_chosen_rate(rng, make_features):
    heldout = make_features(rng.standard_normal((400, 6)))
    train = make_features(rng.standard_normal((300, 6)))
    tau = calibrate_threshold(heldout, train, quantile=0.95).value
    gl = generalization_score(heldout, train, heldout, threshold=tau)
    assert gl.value == pytest.approx(0.95, abs=1 / 400)


def test_threshold_ignores_order(rng, make_features):
    heldout, train = rng.standard_normal((90, 4)), rng.standard_normal((70, 4))
    found = calibrate_threshold(make_features(heldout), make_features(train))
    again = calibrate_threshold(
        make_features(heldout[rng.permutation(90)]), make_features(train[rng.permutation(70)])
    )
    assert (found.value, found.low, found.high) == (again.value, again.low, again.high)


def test_threshold_grows_with_the_training_set(rng, make_features):
    heldout, train = make_features(rng.standard_normal((200, 6))), rng.standard_normal((400, 6))
    values = [calibrate_threshold(heldout, make_features(train[:n])).value for n in (4, 40, 400)]
    assert values == sorted(values)
    assert values[2] > values[0] + 0.05


@pytest.mark.parametrize("quantile", [0.0, 1.0, 95.0])
def test_quantile_outside_0_and_1_is_refused(make_features, quantile):
    with pytest.raises(ValueError, match=rf"quantile: expected .* inside \(0, 1\), got {quantile}"):
        calibrate_threshold(make_features(np.eye(2)), make_features(np.eye(2)), quantile=quantile)


def test_calibration_across_descriptors_is_refused(make_features):
    with pytest.raises(DescriptorMismatch, match="same descriptor"):
        calibrate_threshold(make_features(np.eye(2)), make_features(np.eye(2), descriptor="other"))


def test_a_blank_training_image_hides_no_other():
    train = Features(np.array(["blank", "other"]), np.eye(3, dtype=np.float32)[[0, 1]], "d")
    train.values[0] = 0
    item = np.array([[0, 0.3, np.sqrt(1 - 0.09)]], np.float32)
    positions, best = nearest_similarity(Features(np.array([7]), item, "d"), train)
    assert positions.tolist() == [1]
    assert best == pytest.approx([0.3])
