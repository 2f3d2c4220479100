"""Keyed dropout: the right law, and a function of seed, step and sample alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from regimes.denoisers.unet.build import build_denoiser
from regimes.training.dropout import KeyedDropout

CPU = torch.device("cpu")


def network(dropout=0.3):
    """A network whose output depends on what is dropped: its last layers do not start near 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build_denoiser(
            {
                "preconditioning": "EDMPrecond",
                "model_type": "SongUNet",
                "img_resolution": 8,
                "img_channels": 1,
                "model_channels": 8,
                "channel_mult": [1, 2],
                "num_blocks": 1,
                "dropout": dropout,
            }
        ).network.train()
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if name.endswith(("conv1.weight", "aux_conv.weight", "proj.weight")):
                weight.mul_(1e5)
    return net


@pytest.fixture
def images(torch_rng):
    return torch.randn((40, 1, 8, 8), generator=torch_rng)


def test_kept_features_have_the_published_probability_and_scale():
    dropout = KeyedDropout(nn.Identity(), seed=0)
    ones = torch.ones((64, 8, 16, 16))
    with dropout.samples(0, 0, 64, CPU):
        dropped = dropout.drop(ones, 0.13)
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / 0.87).item()}
    kept = (dropped > 0).double().mean()
    assert abs(kept - 0.87) < 5 * (0.87 * 0.13 / ones.numel()) ** 0.5


def test_successive_layers_get_different_masks():
    dropout = KeyedDropout(nn.Identity(), seed=0)
    ones = torch.ones((2, 4, 8, 8))
    with dropout.samples(0, 0, 2, CPU):
        first, second = dropout.drop(ones, 0.5), dropout.drop(ones, 0.5)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


def test_parts_of_a_batch_are_dropped_as_in_the_whole(images):
    net = network()
    dropout = KeyedDropout(net, seed=3)

    def output(start, stop):
        with torch.no_grad(), dropout.samples(5, start, stop, CPU):
            return net(images[start:stop], torch.zeros(stop - start))

    whole = output(0, 40)
    parts = torch.cat([output(0, 7), output(7, 33), output(33, 40)])
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)
    assert (output(1, 8) - whole[:7]).abs().mean() > 0.05


@pytest.mark.parametrize(("seed", "step"), [(3, 6), (4, 5)])
def test_seed_and_step_change_the_masks(images, seed, step):
    outputs = []
    for s, t in ((3, 5), (seed, step), (3, 5)):
        net = network()
        dropout = KeyedDropout(net, seed=s)
        with torch.no_grad(), dropout.samples(t, 0, 40, CPU):
            outputs.append(net(images, torch.zeros(40)))
    assert torch.equal(outputs[0], outputs[2])
    assert (outputs[0] - outputs[1]).abs().mean() > 0.05


def test_every_block_of_the_network_drops_once(images):
    net = network()
    dropout = KeyedDropout(net, seed=0)
    calls = []
    drop = dropout.drop
    dropout.drop = lambda h, p: (calls.append(p), drop(h, p))[1]
    with torch.no_grad(), dropout.samples(0, 0, 40, CPU):
        net(images, torch.zeros(40))
    blocks = [m for m in net.modules() if type(m).__name__ == "UNetBlock"]
    assert len(blocks) > 6
    assert calls == [0.3] * len(blocks)
    assert all(block.dropout == 0 for block in blocks)


def test_global_generator_is_left_alone(images):
    net = network()
    dropout = KeyedDropout(net, seed=0)
    before = torch.get_rng_state()
    with torch.no_grad(), dropout.samples(0, 0, 40, CPU):
        net(images, torch.zeros(40))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_without_dropout_is_not_touched(images):
    net = network(dropout=0.0)
    before = net(images, torch.zeros(40))
    KeyedDropout(net, seed=0)
    assert torch.equal(net(images, torch.zeros(40)), before)


def test_dropping_for_unknown_samples_is_an_error(images):
    net = network()
    KeyedDropout(net, seed=0)
    with pytest.raises(RuntimeError, match="dropout outside"):
        net(images, torch.zeros(40))
