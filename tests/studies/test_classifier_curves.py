"""Classifier curves: planted differences, their null, and what they may depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from regimes.classifiers.curves import Labelled, draw_nested, labels_by, mean_overlap, shared_share
from regimes.classifiers.two_layer import TwoLayerConfig
from regimes.errors import BadSource, ConfigError
from regimes.figures.classifier_curves import captions, curves_figure, finding
from regimes.figures.style import pdf_bytes, png_bytes
from regimes.studies.classifier_curves import SHUFFLED, classifier_curves
from regimes.studies.classifier_curves_words import answer

MEANS = np.random.default_rng(99).standard_normal((3, 6))
QUICK = TwoLayerConfig(steps=60, hidden=16)


def classes(per_class, seed, noise=1.0):
    """Three Gaussian classes in six dimensions, as floats; more noise teaches less."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), per_class)
    values = MEANS[labels] + noise * rng.standard_normal((len(labels), 6))
    return Labelled(values.astype(np.float32), labels)


def rings(per_class, seed, *, matched):
    """Two classes of one mean and two radii; matched: Gaussians of their means and covariances."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(2), per_class)
    x = rng.standard_normal((len(labels), 4))
    radius = np.array([1.0, 1.6])[labels, None]
    x = x * radius if matched else x / np.linalg.norm(x, axis=1, keepdims=True) * 2 * radius
    return Labelled(x.astype(np.float32), labels)


@pytest.fixture(scope="module")
def found():
    """A noisy source against a clean one."""
    sources = {
        "real": classes(250, 0),
        "noisy": classes(250, 1, noise=4.0),
        "same": classes(250, 2),
    }
    return classifier_curves(
        sources,
        classes(300, 3),
        sizes=[40, 5],
        pairs=[("noisy", "real"), ("same", "real")],
        own_tests={"noisy": classes(100, 4, noise=4.0)},
        training=QUICK,
    )


def test_accuracy_approaches_that_of_the_exact_classifier(found):
    """Equal spherical classes: Bayes' rule calls the nearest mean, which is linear."""
    test = classes(300, 3)
    distances = ((test.values[:, None] - MEANS) ** 2).sum(2)
    bayes = (distances.argmin(1) == test.labels).mean()
    curve = found.of("linear", "real")
    assert [p.size for p in curve] == [5, 40]
    assert curve[0].accuracy.value < curve[1].accuracy.value
    assert curve[1].accuracy.value == pytest.approx(bayes, abs=0.03)


def test_a_planted_difference_is_found_and_an_equal_source_is_not(found):
    for kind in found.classifiers:
        assert found.gap(kind, "noisy", "real").verdict == "worse"
        assert found.gap(kind, "same", "real").verdict == "no measurable difference"
        gap = found.gap(kind, "noisy", "real").by_size[1]
        curves = [found.of(kind, name)[1].accuracy.value for name in ("noisy", "real")]
        assert gap.value == pytest.approx(curves[0] - curves[1])
        assert gap.null == 0


def test_shuffled_labels_teach_nothing_and_chance_is_one_over_k(found):
    for kind in found.classifiers:
        for p in found.of(kind, SHUFFLED):
            assert p.accuracy.null == pytest.approx(1 / 3)
            assert p.accuracy.low < 1 / 3 < p.accuracy.high
        assert found.learned(kind)


def test_own_test_images_are_judged_beside_the_common_ones(found):
    own = found.of("linear", "noisy")[1].own
    assert own is not None
    assert own.value < found.of("linear", "noisy")[1].accuracy.value  # they are harder
    assert found.of("linear", "real")[1].own is None


def test_equal_sources_are_called_different_about_as_often_as_they_may():
    """40 pairs of draws from one distribution, intervals for two sizes together: 5% of them, or fewer."""
    wrong = 0
    for trial in range(40):
        sources = {"a": classes(60, 2 * trial), "b": classes(60, 2 * trial + 1)}
        gaps = classifier_curves(
            sources,
            classes(100, 1000 + trial),
            sizes=[4, 12],
            classifiers=["linear"],
            pairs=[("a", "b")],
        ).gaps
        wrong += gaps[0].verdict != "no measurable difference"
    assert wrong <= 5  # P(more | 5%) = 1.4%


def test_only_two_layers_see_more_than_means_and_covariances():
    """Both classes have mean 0: no linear classifier tells them apart, whatever it is trained on."""
    sources = {"rings": rings(300, 0, matched=False), "mixture": rings(300, 1, matched=True)}
    made = classifier_curves(
        sources,
        rings(300, 2, matched=False),
        sizes=[50],
        pairs=[("mixture", "rings")],
        seeds=(0, 1, 2),
    )
    assert made.gap("two-layer", "mixture", "rings").verdict == "worse"
    assert not made.learned("linear")
    assert "nothing follows" in answer(made)[0]
    assert "mixture images train worse two-layer" in answer(made)[1].lower()


def test_curves_do_not_depend_on_the_order_of_sizes_sources_and_test_images():
    sources = {"real": classes(60, 0), "other": classes(60, 1)}
    test, options = (
        classes(50, 2),
        {"pairs": [("other", "real")], "training": QUICK, "seeds": (0, 1)},
    )
    first = classifier_curves(sources, test, sizes=[3, 9], **options)
    order = np.random.default_rng(0).permutation(150)
    turned = Labelled(test.values[order], test.labels[order])
    again = classifier_curves(sources, turned, sizes=[9, 3], **options)
    assert [r["balanced_accuracy"] for r in again.records()] == pytest.approx(
        [r["balanced_accuracy"] for r in first.records()]
    )
    alone = classifier_curves(
        {"other": sources["other"]}, test, sizes=[3, 9], **options | {"pairs": []}
    )
    assert alone.of("linear", "other")[0].accuracy == first.of("linear", "other")[0].accuracy


def test_sets_are_nested_and_seeds_are_disjoint_while_there_are_enough():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(3), 20))
    small, large = (draw_nested(labels, 3, size=n, largest=5, count=4, name="real") for n in (2, 5))
    assert small.shape == (4, 6)
    assert np.bincount(labels[small[0]]).tolist() == [2, 2, 2]
    assert all(set(a) < set(b) for a, b in zip(small, large))
    assert len(np.unique(large)) == large.size == 60
    assert shared_share(labels, 3, largest=5, count=4) == 0
    assert shared_share(labels, 3, largest=5, count=5) == pytest.approx(10 / 25)
    other = draw_nested(labels, 3, size=5, largest=5, count=4, name="mixture")
    assert not np.array_equal(other, large)


def test_uint8_images_are_floats_on_the_scale_of_one():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 2, 2, 1)).astype(np.uint8)
    labels = np.arange(30) % 3
    floats = Labelled(images.astype(np.float32) / 127.5 - 1, labels)
    np.testing.assert_allclose(Labelled(images, labels).vectors(), floats.vectors(), atol=1e-6)


def test_classes_of_unlabelled_images_are_those_of_a_linear_classifier():
    unknown = classes(100, 5, noise=0.3)
    found = labels_by(classes(50, 6, noise=0.3), unknown.values)
    assert (found == unknown.labels).mean() > 0.97


def test_one_seed_gives_no_verdict():
    made = classifier_curves(
        {"a": classes(20, 0), "b": classes(20, 1)},
        classes(20, 2),
        sizes=[5],
        seeds=[3],
        pairs=[("a", "b")],
        training=QUICK,
    )
    assert made.gaps[0].verdict == "one seed, no verdict"
    assert made.records()[0]["low"] is None
    assert math.isnan(made.gaps[0].together[0][0])
    assert len(png_bytes(curves_figure(made))) > 5000


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"sizes": []}, ConfigError, "sizes: expected distinct numbers from 1"),
        ({"seeds": [1, 1]}, ConfigError, "seeds: expected distinct"),
        (
            {"classifiers": ["cubic"]},
            ConfigError,
            "classifiers: expected some of linear, two-layer",
        ),
        ({"pairs": [("real", "gmm")]}, ConfigError, "sources: expected gmm among them"),
        ({"sizes": [500]}, BadSource, "real: expected at least 500 images of each of 3 classes"),
        (
            {"own_tests": {"real": rings(5, 0, matched=True)}},
            BadSource,
            "expected 6 numbers per image",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(options, error, words):
    with pytest.raises(error, match=words) as caught:
        classifier_curves({"real": classes(20, 0)}, classes(9, 1), **{"sizes": [5]} | options)
    assert len(str(caught.value).splitlines()) == 1


def test_values_and_labels_must_belong_together():
    with pytest.raises(BadSource, match=r"expected \(N, ...\) values and \(N,\) labels"):
        Labelled(np.zeros((3, 2), np.float32), np.zeros(4, np.int64))
    with pytest.raises(BadSource, match="expected uint8 or floats, got int64"):
        Labelled(np.zeros((3, 2), np.int64), np.zeros(3, np.int64))


def test_figure_and_words_say_what_was_found(found):
    title = finding(found)
    assert title.startswith("Noisy against real images: worse for linear (\N{MINUS SIGN}0.")
    assert "gap at n = 40" in title
    assert captions(found)["classifier-curves"].startswith("Balanced accuracy on 900 real test")
    figure = curves_figure(found)
    assert png_bytes(figure) == png_bytes(curves_figure(found))
    assert pdf_bytes(figure).startswith(b"%PDF")
    words = answer(found)
    assert len(words) == 4
    assert words[0].startswith("Noisy images train worse linear classifiers than real ones at n = ")
    assert words[1].startswith("Same and real images train linear classifiers equally well")


def test_seeds_that_share_training_images_are_no_repeats():
    """20 images of each class for five seeds of 20: the seeds agreed, and 40% of equal sources differed."""
    labels = np.arange(3).repeat(20)
    assert mean_overlap(labels, 3, largest=20, count=5) == 1
    assert mean_overlap(labels, 3, largest=4, count=5) == 0
    assert mean_overlap(labels, 3, largest=8, count=5) == pytest.approx(40 / 160)

    def sources(seed, per_class):
        rng, means = np.random.default_rng(seed), np.random.default_rng(99).standard_normal((3, 6))
        for count in (per_class, per_class, 100):
            y = np.arange(3).repeat(count)
            values = means[y] + rng.standard_normal((len(y), 6))
            yield Labelled(values=values.astype(np.float32), labels=y)

    claims = {20: 0, 30: 0}
    for per_class in claims:
        for seed in range(15):
            a, b, test = sources(seed, per_class)
            made = classifier_curves(
                {"a": a, "b": b}, test, sizes=(20,), classifiers=("linear",), pairs=[("a", "b")]
            )
            claims[per_class] += made.gaps[0].verdict in ("better", "worse")
    assert claims[20] == 0
    assert claims[30] <= 3
    a, b, test = sources(0, 20)
    made = classifier_curves(
        {"a": a, "b": b}, test, sizes=(5, 20), classifiers=("linear",), pairs=[("a", "b")]
    )
    assert made.gaps[0].verdict == "the same images in every seed, no verdict"
    assert "trained on the same a or b images" in answer(made)[0]
