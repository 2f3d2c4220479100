"""The ensemble network: members are independent, and each is an ordinary network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from regimes.denoisers.residual_mlp import MemberLinear, ResidualMLP

SHAPE = (1, 4, 4)


def ensemble(members=3, width=8, blocks=2, seed=0):
    """An ensemble whose weights are all random, so that no branch is switched off."""
    network = ResidualMLP(SHAPE, width, blocks=blocks, members=members)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.4 * torch.randn(p.shape, generator=generator))
    return network


def member(network, e):
    """A network with one member that has the weights of member e."""
    alone = ResidualMLP(SHAPE, network.width, blocks=len(network.blocks))
    alone.load_state_dict({name: p[e : e + 1] for name, p in network.state_dict().items()})
    return alone


def batch(torch_rng, members=3, size=5):
    x = torch.randn((members, size, *SHAPE), generator=torch_rng)
    return x, torch.randn((members, size), generator=torch_rng)


def reference(network, x, c_noise):
    """The network in float64 numpy, written from the module's docstring, for one member."""
    w = {name: p.detach().double().numpy()[0] for name, p in network.named_parameters()}

    def linear(name, h):
        return h @ w[f"{name}.weight"] + w[f"{name}.bias"]

    def silu(h):
        return h / (1 + np.exp(-h))

    def norm(h):
        return (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)

    frequencies = 2 * np.pi * 2.0 ** np.linspace(-5, 2, 16)
    angles = c_noise.double().numpy()[:, None] * frequencies
    emb = np.concatenate([np.cos(angles), np.sin(angles)], 1)
    emb = silu(linear("embed1", silu(linear("embed0", emb))))
    h = linear("input", x.flatten(1).double().numpy())
    for b in range(len(network.blocks)):
        scale, shift = np.split(linear(f"blocks.{b}.film", emb), 2, axis=1)
        u = linear(f"blocks.{b}.linear0", norm(h) * (1 + scale) + shift)
        h = h + linear(f"blocks.{b}.linear1", silu(u))
    return linear("output", silu(norm(h))).reshape(x.shape)


def test_network_equals_its_formula_in_float64(torch_rng):
    network = ensemble(members=1)
    x, c_noise = batch(torch_rng, members=1)
    found = network(x[0], c_noise[0]).detach().numpy()
    np.testing.assert_allclose(found, reference(network, x[0], c_noise[0]), rtol=2e-4, atol=2e-5)


def test_member_of_an_ensemble_equals_a_network_of_one_member(torch_rng):
    network = ensemble()
    x, c_noise = batch(torch_rng)
    together = network(x, c_noise)
    for e in range(3):
        torch.testing.assert_close(
            member(network, e)(x[e], c_noise[e]), together[e], rtol=1e-6, atol=1e-6
        )


def test_members_do_not_see_each_other(torch_rng):
    network = ensemble()
    x, c_noise = batch(torch_rng)
    x.requires_grad_(True)
    network(x, c_noise)[1].square().sum().backward()
    for tensor in (x, *network.parameters()):
        assert float(tensor.grad[[0, 2]].abs().max()) == 0.0
        assert float(tensor.grad[1].abs().max()) > 0.0


def test_initial_network_is_zero_so_that_the_denoiser_starts_at_its_skip(torch_rng):
    network = ResidualMLP(SHAPE, 8, members=2)
    for e in range(2):
        network.init_member(e, torch.Generator().manual_seed(e))
    x, c_noise = batch(torch_rng, members=2)
    assert float(network(x, c_noise).detach().abs().max()) == 0.0


def test_initial_weights_of_a_member_depend_on_its_generator_only():
    first, second = (ResidualMLP(SHAPE, 8, members=m) for m in (1, 3))
    first.init_member(0, torch.Generator().manual_seed(5))
    for e, seed in enumerate([9, 5, 7]):
        second.init_member(e, torch.Generator().manual_seed(seed))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a[0], b[1])
    assert not torch.equal(second.input.weight[0], second.input.weight[1])


def test_initial_weights_have_variance_gain_squared_over_inputs():
    linear = MemberLinear(1, 300, 400, gain=2.0)
    linear.init_member(0, torch.Generator().manual_seed(0))
    variance = float(linear.weight.detach().var())
    assert variance == pytest.approx(4 / 300, rel=0.02)  # 120,000 draws: 4 standard errors are 1%
    assert float(linear.weight.detach().abs().max()) <= 2 * math.sqrt(3 / 300)
    assert float(linear.bias.detach().abs().max()) == 0.0


def test_default_digits_network_has_about_the_measured_number_of_parameters():
    # 223k parameters at width 128 and 701k at 256 were measured on a prototype whose noise
    # embedding was slightly wider.
    for width, measured in ((128, 223_000), (256, 701_000)):
        network = ResidualMLP((1, 8, 8), width)
        assert sum(p.numel() for p in network.parameters()) == pytest.approx(measured, rel=0.01)


def test_class_labels_are_refused(torch_rng):
    x, c_noise = batch(torch_rng, members=1)
    with pytest.raises(ValueError, match="unconditional: expected class_labels=None"):
        ensemble(members=1)(x, c_noise, torch.eye(5))


def test_wrong_number_of_members_is_refused(torch_rng):
    x, c_noise = batch(torch_rng, members=2)
    with pytest.raises(ValueError, match="x holds 2 members, the ensemble 3"):
        ensemble()(x, c_noise)
