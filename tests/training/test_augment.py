"""The augmentation pipe: exact where it can be, frequent as stated, and told as it is done."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from regimes.training import resampling
from regimes.training.augment import Augmentation, concatenate
from regimes.training.resampling import affine_resample

# The filters are exact to 1e-14 and applied in float32; 4 products of up to 71 terms below 1.2.
ROUNDING = 2e-5


def nothing(num):
    zeros = np.zeros(num)
    return Augmentation(
        xflip=zeros > 0,
        yflip=zeros > 0,
        scale=zeros,
        rotation=zeros,
        stretch_angle=zeros,
        stretch=zeros,
        shift=np.zeros((num, 2)),
    )


def only(num, **values):
    return dataclasses.replace(nothing(num), **values)


@pytest.fixture
def images(torch_rng):
    return torch.rand((6, 3, 16, 16), generator=torch_rng) * 2 - 1


def smooth(num=4, size=32, seed=0):
    """Images without detail below 8 pixels, so that resampling them is easy."""
    coarse = torch.rand((num, 3, 6, 6), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)


def test_probability_0_leaves_every_bit(images, rng):
    drawn = Augmentation.draw(rng, 6, probability=0.0, xflip=False)
    assert torch.equal(drawn.apply(images), images)
    assert not drawn.conditions().any()


def test_images_beside_a_warped_one_keep_every_bit(images):
    scale = np.array([0, 0, 1.3, 0, 0, 0])
    moved = only(6, scale=scale).apply(images)
    kept = [0, 1, 3, 4, 5]
    assert torch.equal(moved[kept], images[kept])
    assert not torch.equal(moved[2], images[2])


def test_with_probability_0_mirroring_remains_and_is_exact(images, rng):
    drawn = Augmentation.draw(rng, 6, probability=0.0, xflip=True)
    assert 0 < drawn.xflip.sum() < 6
    expected = torch.stack([i.flip(2) if f else i for i, f in zip(images, drawn.xflip)])
    assert torch.equal(drawn.apply(images), expected)
    expected_conditions = np.zeros((6, 9))
    expected_conditions[:, 0] = drawn.xflip
    assert np.array_equal(drawn.conditions(), expected_conditions)


def test_both_mirrorings_are_exact(images):
    both = np.array([True, False, True, False, True, False])
    top = np.array([True, True, False, False, True, True])
    moved = only(6, xflip=both, yflip=top).apply(images)
    for image, x, y, found in zip(images, both, top, moved):
        axes = [2] * bool(x) + [1] * bool(y)
        assert torch.equal(found, image.flip(axes) if axes else image)


def test_frequencies_are_the_published_ones():
    num, p = 40_000, 0.12
    drawn = Augmentation.draw(np.random.default_rng(1), num, probability=p, xflip=True)
    found = {
        "xflip": (drawn.xflip.mean(), 0.5),
        "yflip": (drawn.yflip.mean(), p / 2),
        "scale": ((drawn.scale != 0).mean(), p),
        "rotation": ((drawn.rotation != 0).mean(), p),
        "stretch": ((drawn.stretch != 0).mean(), p),
        "shift": ((drawn.shift != 0).all(1).mean(), p),
        "warped": (drawn.is_warped().mean(), 1 - (1 - p) ** 4),
    }
    for name, (frequency, expected) in found.items():
        # Five binomial standard errors.
        assert abs(frequency - expected) < 5 * math.sqrt(expected * (1 - expected) / num), name


def test_parameters_follow_their_laws():
    num = 20_000
    drawn = Augmentation.draw(np.random.default_rng(2), num, probability=1.0, xflip=True)
    for normal in (drawn.scale, drawn.stretch, drawn.shift[:, 0], drawn.shift[:, 1]):
        assert abs(normal.mean()) < 5 / math.sqrt(num)
        assert abs(normal.std() - 1) < 5 / math.sqrt(2 * num)
    turned = drawn.stretch_angle != 0  # half of all stretches; the others are along an axis
    assert abs(turned.mean() - 0.5) < 5 * 0.5 / math.sqrt(num)
    for angle in (drawn.rotation, drawn.stretch_angle[turned]):
        assert abs(angle).max() <= math.pi
        # Uniform on an interval of length 2 pi: deviation pi / sqrt(3).
        assert abs(angle.mean()) < 5 * math.pi / math.sqrt(3 * len(angle))
        assert abs(angle.std() - math.pi / math.sqrt(3)) < 0.05
    pairs = np.corrcoef([drawn.scale, drawn.rotation, drawn.stretch, *drawn.shift.T])
    assert abs(pairs - np.eye(5)).max() < 5 / math.sqrt(num)


def test_options_do_not_change_how_much_is_drawn():
    after = [np.random.default_rng(3) for _ in range(3)]
    for generator, (p, xflip) in zip(after, [(0.0, False), (0.12, True), (1.0, False)]):
        Augmentation.draw(generator, 7, probability=p, xflip=xflip)
    assert len({generator.random() for generator in after}) == 1


def test_conditions_are_in_the_published_order():
    drawn = only(
        1,
        xflip=np.array([True]),
        scale=np.array([0.5]),
        rotation=np.array([math.pi / 3]),
        stretch_angle=np.array([math.pi / 6]),
        stretch=np.array([2.0]),
        shift=np.array([[-0.25, 0.75]]),
    )
    expected = [1, 0, 0.5, -0.5, math.sqrt(0.75), 2 * math.sqrt(0.75), 1, -0.25, 0.75]
    np.testing.assert_allclose(drawn.conditions()[0], expected, rtol=1e-6)


@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, -2), (3, 1), (-4, 4)])
def test_shift_by_whole_pixels_moves_pixels(images, right, down):
    size = images.shape[-1]
    shift = np.tile([[right, down]], (6, 1)) * 8 / size
    moved = only(6, shift=shift).apply(images)
    rows, columns = np.arange(size) - down, np.arange(size) - right
    inside = np.ix_((rows >= 0) & (rows < size), (columns >= 0) & (columns < size))
    expected = images.numpy()[:, :, rows.clip(0, size - 1)][:, :, :, columns.clip(0, size - 1)]
    found = moved.numpy()[:, :, inside[0], inside[1]]
    np.testing.assert_allclose(found, expected[:, :, inside[0], inside[1]], atol=ROUNDING)


def test_what_is_shifted_in_is_the_mirror_image(images):
    moved = only(6, shift=np.tile([[2 * 8 / 16, 0.0]], (6, 1))).apply(images)
    torch.testing.assert_close(moved[..., 1], images[..., 1], atol=ROUNDING, rtol=0)
    torch.testing.assert_close(moved[..., 0], images[..., 2], atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("turns", [1, 2, -1])
def test_quarter_turns_are_those_of_rot90(images, turns):
    angle = np.full(6, turns * math.pi / 2)
    moved = only(6, rotation=angle).apply(images)
    torch.testing.assert_close(moved, images.rot90(turns, (2, 3)), atol=ROUNDING, rtol=0)


def test_stretch_along_an_axis_squeezes_the_other():
    """A Gaussian bump of deviation d becomes one of deviations d s and d / s."""
    at = torch.arange(64.0) - 31.5
    bump = torch.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 5.0**2))[None, None]
    for angle, along in ((0.0, -1), (math.pi / 2, -2)):
        moved = only(1, stretch=np.array([2.0]), stretch_angle=np.array([angle])).apply(bump)[0, 0]
        variance = [(moved.sum(1 - k) * at**2).sum() / moved.sum() for k in (0, 1)]
        s = 2**0.4
        assert math.sqrt(variance[along]) == pytest.approx(5 * s, rel=0.02)
        assert math.sqrt(variance[-3 - along]) == pytest.approx(5 / s, rel=0.02)


def test_transformations_are_applied_in_the_published_order():
    """Scale, then rotate, then stretch, then shift: as one map and as one after the other."""
    y = smooth()
    scale, rotation = only(4, scale=np.full(4, 0.7)), only(4, rotation=np.full(4, 0.6))
    stretch = only(4, stretch=np.full(4, 0.9), stretch_angle=np.full(4, 1.1))
    shift = only(4, shift=np.tile([[0.4, -0.3]], (4, 1)))
    at_once = Augmentation(
        xflip=scale.xflip,
        yflip=scale.yflip,
        scale=scale.scale,
        rotation=rotation.rotation,
        stretch_angle=stretch.stretch_angle,
        stretch=stretch.stretch,
        shift=shift.shift,
    ).apply(y)
    steps = y
    for part in (scale, rotation, stretch, shift):
        steps = part.apply(steps)
    reverse = y
    for part in (shift, stretch, rotation, scale):
        reverse = part.apply(reverse)
    inner = (..., slice(10, 22), slice(10, 22))  # nothing here comes from beyond the border
    error = (steps - at_once)[inner].abs().max()
    assert error < 0.03  # three more interpolations
    assert (reverse - at_once)[inner].abs().max() > 5 * error


def test_mirroring_comes_first():
    y = smooth()
    turn = np.full(4, 0.5)
    both = only(4, xflip=np.ones(4, bool), rotation=turn).apply(y)
    torch.testing.assert_close(both, only(4, rotation=turn).apply(y.flip(3)))


def test_scaling_down_keeps_what_fine_stripes_average_to():
    """Stripes of period 2 pixels are finer than a picture of 0.6 times the size can show."""
    stripes = torch.ones((1, 1, 32, 32))
    stripes[..., ::2] = -1
    smaller = only(1, scale=np.array([math.log2(0.6) / 0.2])).apply(stripes)
    naive = functional.grid_sample(
        stripes,
        functional.affine_grid(torch.eye(2, 3)[None] / 0.6, [1, 1, 32, 32], align_corners=False),
        align_corners=False,
    )
    inner = (0, 0, slice(8, 24), slice(8, 24))
    assert smaller[inner].std() < 0.5 * naive[inner].std()


def test_filters_undo_each_other_exactly():
    up, down = (m.double() for m in resampling._matrices(16, torch.device("cpu")))
    # The enlarged image is read at its own points, and mirrored over four of them at each end.
    n = len(up)
    rows = np.abs(np.arange(-4, n + 4))
    rows = np.where(rows >= n, 2 * (n - 1) - rows, rows)
    torch.testing.assert_close(down @ up[rows], torch.eye(16).double(), atol=1e-6, rtol=0)
    np.testing.assert_allclose(up.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(down.sum(1), 1, atol=1e-6)


def test_result_does_not_depend_on_the_rest_of_the_batch(images, rng):
    drawn = Augmentation.draw(rng, 6, probability=1.0, xflip=True)
    together = drawn.apply(images)
    apart = torch.cat([drawn[i : i + 1].apply(images[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, apart, atol=1e-6, rtol=0)


def test_parts_are_put_together_in_order(rng):
    drawn = Augmentation.draw(rng, 6, probability=0.5, xflip=True)
    again = concatenate([drawn[:2], drawn[2:5], drawn[5:]])
    assert np.array_equal(again.conditions(), drawn.conditions())


@pytest.mark.parametrize("shape", [(1, 1, 8, 9), (1, 1, 3, 3)])
def test_images_that_cannot_be_resampled_are_refused(shape):
    with pytest.raises(ValueError, match="images: expected squares of side 4 or more"):
        affine_resample(torch.zeros(shape), torch.eye(2, 3)[None])
