"""Descriptors of float images: the features of stored ones, with a derivative."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from regimes.descriptors.differentiable import feature_map
from regimes.descriptors.network import NetworkConfig, NetworkDescriptor
from regimes.descriptors.pixels import Pixels, WhitenedPixels
from regimes.descriptors.resize import Preprocessing
from regimes.errors import ConfigError
from regimes.images.pixels import to_float

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)


def network(size=8, centre=None, preprocessing=True):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    config = NetworkConfig(
        name="mine", family="python", model="m:f", layer="output", dimension=20, weights_sha256="0",
        preprocessing=Preprocessing(size=size) if preprocessing else None,
    )  # fmt: skip
    return NetworkDescriptor(net.eval().requires_grad_(False), config, centre=centre)


@pytest.mark.parametrize(
    "descriptor",
    [
        Pixels(),
        WhitenedPixels.fit(IMAGES),
        network(),
        network(centre=np.linspace(-0.1, 0.1, 20)),
    ],
)
def test_features_are_those_of_the_stored_images_and_their_gradient_is_the_difference_quotient(
    descriptor,
):
    features = feature_map(descriptor)
    x = to_float(IMAGES)
    np.testing.assert_allclose(features(x).numpy(), descriptor(IMAGES), atol=2e-5)
    x = 0.9 * x[:3].double().requires_grad_()
    weights = torch.linspace(-1, 1, features(x).numel()).reshape(3, -1).double()
    (gradient,) = torch.autograd.grad((features(x) * weights).sum(), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    step = 1e-2 if isinstance(descriptor, NetworkDescriptor) else 1e-5  # networks are float32
    with torch.no_grad():
        ahead, behind = ((features(x + s * direction) * weights).sum() for s in (step, -step))
    expected = float(ahead - behind) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=5e-3, abs=1e-6)


def test_a_network_sees_resized_images_within_the_rounding_of_stored_ones():
    descriptor = network(size=12)
    found = feature_map(descriptor)(to_float(IMAGES)).numpy()
    assert np.abs(found - descriptor(IMAGES)).max() < 5e-3


def test_what_has_no_derivative_is_refused():
    with pytest.raises(ConfigError, match="mine: takes images of whole levels"):
        feature_map(network(preprocessing=False))
    assert torch.isfinite(feature_map(Pixels())(torch.zeros(2, 3, 8, 8))).all()
