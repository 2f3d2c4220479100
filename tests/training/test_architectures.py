"""Networks by name have the published sizes."""

from __future__ import annotations

import pytest
import torch

from regimes.denoisers.preconditioning import EDM, VE, VP
from regimes.denoisers.unet.build import build_denoiser
from regimes.errors import ConfigError
from regimes.training.architectures import NetworkConfig
from regimes.training.loss import EDMLoss, VELoss, VPLoss


def built(network, **options):
    options = {"img_resolution": 32, "img_channels": 3, "augment_dim": 9} | options
    with torch.device("meta"):
        return build_denoiser(network.build_config(**options))


def num_parameters(denoiser):
    return sum(p.numel() for p in denoiser.network.parameters())


@pytest.mark.parametrize(
    ("network", "size", "expected"),
    [
        (NetworkConfig(width=64), 32, 13_956_931),
        (NetworkConfig(), 32, 55_733_891),
        (NetworkConfig(width=256), 32, 222_747_907),
        (NetworkConfig(arch="ncsnpp"), 32, 56_397_827),
        (NetworkConfig(channel_mult=(1, 2, 2, 2)), 64, 61_805_571),
    ],
)
def test_parameters_are_as_many_as_in_the_published_networks(network, size, expected):
    assert num_parameters(built(network, img_resolution=size)) == expected


def test_adm_is_built_with_its_own_defaults():
    config = built(NetworkConfig(arch="adm"), img_resolution=64).network.config
    assert (config.model_channels, config.channel_mult) == (192, (1, 2, 3, 4))
    assert (config.num_blocks, config.attn_resolutions) == (3, (32, 16, 8))
    assert config.dropout == 0.13


def test_what_is_given_wins_over_the_default():
    network = NetworkConfig(arch="adm", width=64, num_blocks=1, attn_resolutions=(8,), dropout=0.1)
    config = built(network).network.config
    assert (config.model_channels, config.channel_mult) == (64, (1, 2, 3, 4))
    assert (config.num_blocks, config.attn_resolutions, config.dropout) == (1, (8,), 0.1)


@pytest.mark.parametrize(
    ("precond", "preconditioning", "loss"),
    [("edm", EDM, EDMLoss), ("vp", VP, VPLoss), ("ve", VE, VELoss)],
)
def test_preconditioning_and_loss_go_together(precond, preconditioning, loss):
    network = NetworkConfig(width=8, precond=precond)
    assert type(built(network).preconditioning) is preconditioning
    assert type(network.loss) is loss


def test_asking_by_default_and_by_number_is_the_same():
    named = NetworkConfig(width=128, channel_mult=(2, 2, 2), num_blocks=4, attn_resolutions=(16,))
    assert NetworkConfig() != named
    assert NetworkConfig().resolved() == named.resolved() == named


def test_conditional_networks_know_the_classes():
    network = NetworkConfig(width=8, conditional=True)
    assert built(network, num_classes=10).label_dim == 10
    assert built(NetworkConfig(width=8), num_classes=10).label_dim == 0
    with pytest.raises(ConfigError, match="conditional: expected images with class labels"):
        built(network)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "unet"}, "arch: expected one of ddpmpp, ncsnpp, adm, got 'unet'"),
        ({"precond": "iddpm"}, "precond: expected one of edm, vp, ve, got 'iddpm'"),
        ({"dropout": 1.0}, r"dropout: expected a probability in \[0, 1\), got 1.0"),
    ],
)
def test_unknown_values_are_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        NetworkConfig(**options)


def test_images_that_do_not_fit_the_levels_are_refused():
    with pytest.raises(ConfigError, match="img_resolution: expected a multiple of 4"):
        built(NetworkConfig(), img_resolution=30)
