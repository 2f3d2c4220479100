"""Forces: the gradient of the potential, and what symmetry demands of it."""

from __future__ import annotations

import math

import pytest
import torch

from regimes.errors import ConfigError
from regimes.guidance.config import GuidanceConfig
from regimes.guidance.kernels import bandwidth, dissimilarities, group_forces, overlaps, potential

KERNELS = ("rbf", "iou", "cosine", "angular")
SIGMA = 0.7


def config(kernel="rbf", **options):
    return GuidanceConfig(factor=1.0, kernel=kernel, group_size=5, **options)


def particles(torch_rng, groups=2, size=5, dimension=6):
    return 0.8 * torch.randn(groups, size, dimension, generator=torch_rng, dtype=torch.float64)


def squared(z):
    return torch.cdist(z, z).square() + 0.5 * (z[:, :, None, 0] - z[:, None, :, 0]) ** 2


@pytest.mark.parametrize("rule", ["fixed", "sigma", "median"])
@pytest.mark.parametrize("kernel", [*KERNELS, "custom"])
def test_force_is_the_central_difference_of_the_potential_at_constant_bandwidth(
    kernel, rule, torch_rng
):
    g = config(kernel, bandwidth=rule, average=rule == "fixed")
    custom = squared if kernel == "custom" else None
    z = particles(torch_rng)
    h = bandwidth(dissimilarities(z, g, custom), g, SIGMA)
    force = group_forces(z, g, SIGMA, custom)
    # 1e-6 of a step this small leaves rounding of about 1e-10 (float64).
    step = 1e-6
    for place in [(0, 0, 0), (0, 3, 5), (1, 4, 2), (1, 1, 1)]:
        up, down = z.clone(), z.clone()
        up[place] += step
        down[place] -= step
        difference = potential(up, g, h, custom) - potential(down, g, h, custom)
        slope = float(difference[place[0]]) / (2 * step)
        assert float(force[place]) == pytest.approx(-slope, abs=1e-6)
    assert float(force.abs().max()) > 1e-3


@pytest.mark.parametrize("rule", ["fixed", "sigma", "median"])
def test_forces_of_a_shared_bandwidth_add_up_to_zero(rule, torch_rng):
    force = group_forces(particles(torch_rng), config(bandwidth=rule), SIGMA)
    assert float(force.abs().max()) > 1e-2
    assert float(force.sum(1).abs().max()) < 1e-12


@pytest.mark.parametrize("rule", ["fixed", "median"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_particles_that_coincide_feel_nothing(kernel, rule, torch_rng):
    z = particles(torch_rng)[:, :1].expand(2, 5, 6).contiguous()
    force = group_forces(z, config(kernel, bandwidth=rule), SIGMA)
    # Autograd through iou leaves rounding; the closed forms are exact.
    assert float(force.abs().max()) <= (1e-15 if kernel == "iou" else 0.0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_particles_at_the_origin_or_all_black_give_finite_forces(kernel):
    z = torch.full((1, 3, 4), -1.0 if kernel == "iou" else 0.0, dtype=torch.float64)
    z[0, 2, 0] = 0.5
    force = group_forces(z, GuidanceConfig(kernel=kernel, group_size=3), SIGMA)
    assert bool(force.isfinite().all())


def test_a_pair_that_coincides_does_not_stop_the_others(torch_rng):
    z = particles(torch_rng, size=3)
    z[:, 1] = z[:, 0]
    force = group_forces(z, config(), SIGMA)
    assert torch.equal(force[:, 0], force[:, 1])
    assert float(force[:, 2].norm(dim=1).min()) > 1e-3


def test_median_rule_is_that_of_pairs_with_one_h_per_group(torch_rng):
    g = config(width=2.0)
    z = particles(torch_rng)
    h = bandwidth(dissimilarities(z, g), g, SIGMA)
    for group, found in zip(z, h.flatten(), strict=True):
        pairs = sorted(
            float((group[i] - group[j]).square().sum()) for i in range(5) for j in range(i)
        )
        assert float(found) == pytest.approx(2 * pairs[4] / math.log(5), rel=1e-12)


def test_groups_do_not_see_each_other(torch_rng):
    z = particles(torch_rng)
    together = group_forces(z, config(), SIGMA)
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1], group_forces(z[i : i + 1], config(), SIGMA))


def test_average_divides_by_the_size_of_the_group(torch_rng):
    z = particles(torch_rng)
    whole = group_forces(z, config(), SIGMA)
    torch.testing.assert_close(group_forces(z, config(average=True), SIGMA), whole / 5)


def test_overlap_is_intersection_over_union_of_images():
    z = torch.tensor([[[1.0, 1, -1, -1], [1, -1, 1, -1], [-1, -1, -1, -1]]], dtype=torch.float64)
    expected = torch.tensor([[[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]]], dtype=torch.float64)
    torch.testing.assert_close(overlaps(z), expected)


def test_angular_force_is_tangential_and_is_that_of_the_wrapped_angle():
    angles = torch.tensor([0.1, 6.2], dtype=torch.float64)  # 0.183 apart across the seam
    z = 2 * torch.stack([angles.cos(), angles.sin()], 1)[None]
    g = GuidanceConfig(kernel="angular", bandwidth="fixed", group_size=2)
    force = group_forces(z, g, SIGMA)[0]
    apart = 0.1 + 2 * math.pi - 6.2
    size = 2 * apart * math.exp(-(apart**2)) / 2  # divided by the radius
    tangent = torch.stack([-angles.sin(), angles.cos()], 1)
    expected = torch.stack([size * tangent[0], -size * tangent[1]])
    torch.testing.assert_close(force, expected, rtol=1e-10, atol=1e-12)


def test_custom_kernel_needs_a_dissimilarity_of_pairs(torch_rng):
    with pytest.raises(ValueError, match="expected a dissimilarity, got none"):
        group_forces(particles(torch_rng), config("custom"), SIGMA)
    with pytest.raises(ValueError, match=r"expected shape \(2, 5, 5\), got \(2, 5, 6\)"):
        group_forces(particles(torch_rng), config("custom"), SIGMA, lambda z: z)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": -1.0}, "factor: expected 0 or more, got -1.0"),
        ({"group_size": 0}, "group_size: expected at least 1, got 0"),
        ({"kernel": "l2"}, "kernel: expected one of rbf, iou, cosine, angular, custom, got 'l2'"),
        ({"width": 0.0}, "width: expected a number above 0"),
        ({"cap": 0.0}, "cap: expected a number above 0, or none"),
        ({"lowest": 2.0, "highest": 1.0}, "lowest, highest: expected"),
        ({"eta": 1.5}, r"eta: expected a number in \[0, 1\]"),
        ({"space": "x", "jacobian": "exact"}, "jacobian: exact pulls back through D"),
        ({"space": "x", "kernel": "iou"}, "kernel iou: compares images"),
    ],
)
def test_options_that_could_not_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        GuidanceConfig(**options)
