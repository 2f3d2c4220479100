"""Batches depend on seed and step alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import some_images

from regimes.images.pixels import to_float
from regimes.training.batches import BLOCK, BatchStream
from regimes.training.loss import EDMLoss

FIELDS = ("y", "sigma", "noise", "conditions", "class_labels")


def stream(batch_size=80, **options):
    images = options.pop("images", some_images(30))
    options = {"augment": 0.5, "labels": np.arange(len(images)) % 3, "num_classes": 3} | options
    return BatchStream(
        images, batch_size=batch_size, loss=EDMLoss(), seed=options.pop("seed", 4), **options
    )


def equal(first, second):
    return [bool(torch.equal(getattr(first, f), getattr(second, f))) for f in FIELDS]


def test_every_image_occurs_once_per_epoch():
    order = stream().order(0, 300).reshape(10, 30)
    assert all(sorted(epoch) == list(range(30)) for epoch in order.tolist())
    assert len({tuple(epoch) for epoch in order.tolist()}) == 10


def test_order_is_the_same_wherever_one_begins():
    whole = stream().order(0, 500)
    other = stream()
    assert np.array_equal(other.order(317, 444), whole[317:444])
    assert np.array_equal(other.order(5, 9), whole[5:9])


def test_batches_take_images_and_labels_in_order():
    batches = stream(augment=0.0)
    batch = batches.batch(3)
    index = batches.order(240, 320)
    assert torch.equal(batch.y, to_float(some_images(30)[index]))
    assert batch.class_labels.argmax(1).tolist() == (index % 3).tolist()
    assert batch.conditions is None


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (5, 33), (31, 32), (32, 64), (40, 80)])
def test_a_share_is_that_part_of_the_batch(start, stop):
    whole, part = stream().batch(6), stream().batch(6, start, stop)
    assert len(part) == stop - start
    assert equal(part, whole.slice(start, stop)) == [True] * 5


def test_a_batch_begins_like_a_larger_one():
    images = some_images(200)
    small, large = stream(40, images=images), stream(100, images=images)
    assert equal(small.batch(0), large.batch(0).slice(0, 40)) == [True] * 5


def test_seed_and_step_change_everything_drawn():
    first = stream().batch(1)
    for other in (stream().batch(2), stream(seed=5).batch(1)):
        assert equal(first, other) == [False] * 5


def test_no_two_blocks_draw_the_same():
    noise = stream(3 * BLOCK).batch(0).noise.flatten(1)
    similarity = torch.corrcoef(noise).fill_diagonal_(0).abs().max()
    assert similarity < 0.65  # independent vectors of 64 values: 4560 pairs, 1/8 deviation each


def test_noise_is_standard_normal_and_sigma_the_loss_law():
    batch = stream(3200).batch(0)
    num = batch.noise.numel()
    assert abs(batch.noise.mean()) < 5 / num**0.5
    assert abs(batch.noise.std() - 1) < 5 / (2 * num) ** 0.5
    assert abs(batch.sigma.log().mean() + 1.2) < 5 * 1.2 / 3200**0.5
