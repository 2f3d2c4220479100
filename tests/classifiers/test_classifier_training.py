"""Training: keyed batches, exact resume, and the options that are said to change something."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from regimes.classifiers.training import ClassifierTrainer, ClassifierTrainingConfig, network_input
from regimes.errors import ConfigError

rng = np.random.default_rng(0)
LABELS = np.arange(20) % 2
IMAGES = (rng.integers(0, 60, (20, 6, 6, 1)) + 150 * LABELS[:, None, None, None]).astype(np.uint8)


def network(seed=0):
    """Small, with the parts that hold a state or draw numbers."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64, 2),
    )


def trainer(listed=None, seed=0, images=IMAGES, **options):
    config = ClassifierTrainingConfig(**{"batch_size": 4, "epochs": 3, **options})
    listed = np.arange(20) if listed is None else listed
    return ClassifierTrainer(network(), images, LABELS, listed, config, seed=seed)


def trained(made, steps):
    losses = [float(made.step()) for _ in range(steps)]
    return losses, made.weights()


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def test_input_is_scaled_as_imagenet_weights_expect_and_gray_is_three_equal_channels():
    gray = np.full((1, 2, 2, 1), 51, np.uint8)  # 0.2
    expected = (0.2 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    for images in (gray, gray.repeat(3, axis=3)):
        torch.testing.assert_close(network_input(images)[0, :, 0, 0], expected)


def test_every_listed_image_is_seen_once_per_epoch_and_one_listed_twice_twice():
    listed = np.array([3, 5, 5, 7, 11, 13])
    made = trainer(listed, epochs=4)
    assert made.steps == 6
    seen = np.concatenate([made.batch(step) for step in range(6)])
    for epoch in range(4):
        assert sorted(seen[6 * epoch : 6 * epoch + 6].tolist()) == listed.tolist()
    assert not np.array_equal(seen[:6], seen[6:12])


def test_batches_depend_on_seed_and_step_alone():
    a, b, c = trainer(), trainer(), trainer(seed=1)
    a.step()
    assert np.array_equal(a.batch(2), b.batch(2))
    assert any(not np.array_equal(b.batch(i), c.batch(i)) for i in range(3))


@pytest.mark.parametrize(
    "options", [{}, {"optimizer": "sgd"}, {"schedule": "cosine"}, {"flip": True}]
)
def test_a_resumed_run_ends_with_the_bytes_of_an_uninterrupted_one(options):
    losses, weights = trained(trainer(**options), 9)
    first = trainer(**options)
    trained(first, 4)
    torch.rand(7)  # what others draw in between changes nothing
    second = trainer(**options)
    second.load_state(first.state())
    rest, resumed = trained(second, 5)
    assert rest == losses[4:]
    assert same(weights, resumed)


def test_torchs_generator_is_left_alone():
    made = trainer()
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    made.step()
    assert torch.equal(torch.rand(2), expected)


OPTIONS = [
    {"optimizer": "sgd"},
    {"learning_rate": 0.1},
    {"weight_decay": 0.5},
    {"schedule": "cosine"},
    {"flip": True},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_changes_what_is_learned(options):
    assert not same(trained(trainer(), 3)[1], trained(trainer(**options), 3)[1])


def test_momentum_matters_to_sgd():
    a, b = (trained(trainer(optimizer="sgd", momentum=m), 3)[1] for m in (0.0, 0.9))
    assert not same(a, b)


def test_mirroring_mirrors_about_half_of_the_images():
    made = trainer(flip=True)
    images = np.arange(400, dtype=np.uint8).reshape(-1, 1, 2, 1).repeat(4, 0)
    flipped = made._mirrored(images)
    share = (flipped[:, 0, 0, 0] == images[:, 0, 1, 0]).mean()
    assert 0.4 < share < 0.6  # 800 draws: five standard errors are 0.09
    kept = flipped[:, 0, 0, 0] == images[:, 0, 0, 0]
    assert np.array_equal(flipped[kept], images[kept])


def test_it_learns_what_can_be_learned():
    made = trainer(epochs=20)
    losses, _ = trained(made, made.steps)
    p = made.probabilities(IMAGES)
    assert losses[-1] < 0.1 < losses[0]
    assert (p.argmax(1) == LABELS).all()
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)


def test_weights_put_back_give_the_predictions_they_gave():
    made = trainer()
    trained(made, 3)
    kept, p = made.weights(), made.probabilities(IMAGES)
    trained(made, 3)
    assert not np.array_equal(made.probabilities(IMAGES), p)
    made.load_weights(kept)
    assert np.array_equal(made.probabilities(IMAGES), p)


def test_the_schedule_falls_to_zero_and_the_last_evaluation_is_the_last_step():
    config = ClassifierTrainingConfig(schedule="cosine", epochs=10, batch_size=8, evaluations=3)
    assert config.num_steps(20) == 25
    assert config.evaluation_steps(20) == [8, 16, 25]
    assert config.rate(0, 25) == config.learning_rate
    assert config.rate(25, 25) == pytest.approx(0)
    assert ClassifierTrainingConfig(evaluations=9, epochs=1, batch_size=4).evaluation_steps(8) == [
        1,
        2,
    ]


def test_images_too_small_for_a_network_are_one_line():
    made = trainer(images=IMAGES[:, :2, :2])
    with pytest.raises(
        ConfigError, match=r"cannot classify images of 2x2 .* pass another --image-size"
    ):
        made.step()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 1}, "batch_size: expected at least 2, got 1"),
        ({"evaluations": 0}, "evaluations: expected at least 1"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number above 0"),
        ({"epochs": float("nan")}, "epochs"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"momentum": 1.0}, "momentum"),
    ],
)
def test_options_that_cannot_train_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        ClassifierTrainingConfig(**options)
